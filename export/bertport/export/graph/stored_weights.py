"""A graph's weights read back, by the names and in the layout of a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

__all__ = ["stored_weights"]

VECTORS = {
    "Add": {0: "bias", 1: "bias"},
    "Gemm": {2: "bias"},
    "LayerNormalization": {1: "weight", 2: "bias"},
}
"""Names of parameters in the module that an operator computes, by operator and index of the input."""
HALF = ".float16"
"""The suffix that the pass which stores matrices in 16 bits gives to their names."""


def stored_weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """Return the floating-point initialisers of a graph as float32, by the checkpoint's names.

    A matrix that a MatMul multiplies by is the transpose of the checkpoint's tensor of its name, and is turned back.

    Args:
        path: a graph of this package's passes, with the files of its weights beside it.
    """
    import onnx
    import onnx_ir as ir

    # Not onnx.load, which takes a file's name for its format.
    model = ir.from_proto(onnx.load_from_string(path.read_bytes()))
    turned = {_name(node.inputs[1]) for node in model.graph if _multiplies_by_transpose(node)}
    arrays: dict[str, NDArray[np.float32]] = {}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.dtype not in {ir.DataType.FLOAT, ir.DataType.FLOAT16}:
            continue
        if isinstance(tensor, ir.ExternalTensor):
            # By its whole path: below a base directory, links are refused, and in the Hub's cache every file is one.
            # What a bundle's graph may open is checked by `Bundle.opening`, within which this is called.
            place = path.parent / tensor.location
            tensor = ir.ExternalTensor(
                place, tensor.offset, tensor.length, tensor.dtype, shape=tensor.shape, name=tensor.name
            )
        array = tensor.numpy().astype("float32", copy=False)
        for name in _names(value):
            arrays[name] = array.T if name in turned else array
    return arrays | {name: arrays[given] for name, given in _by_module(model) if name not in arrays and given in arrays}


def _by_module(model: ir.Model) -> Iterator[tuple[str, str]]:
    """Yield the names that vectors have by the modules that read them, with those under which they are stored.

    Where equal ones are stored once, a module may read another's.
    """
    for node in model.graph:
        module = (node.name or "").strip("/").rpartition("/")[0].replace("/", ".")
        roles = VECTORS.get(node.op_type, {})
        yield from (
            (f"{module}.{role}", _name(value))
            for index, value in enumerate(node.inputs)
            if (role := roles.get(index)) and value is not None and value.is_initializer()
        )


def _names(value: ir.Value) -> list[str]:
    """Return the names of an initialiser, also those under which its Cast to 32 bits and its copies are read.

    Equal tensors (biases of 0 in a model that was never trained) are stored once and handed on by an Identity.
    """
    names = [_name(value).removesuffix(HALF)]
    return names + [_name(node.outputs[0]) for node in value.consumers() if node.op_type == "Identity"]


def _name(value: ir.Value | None) -> str:
    return (value.name if value is not None else None) or ""


def _multiplies_by_transpose(node: ir.Node) -> bool:
    """Return whether a node multiplies by its second input as it is stored: PyTorch's linear layers turn it first."""
    return node.op_type == "MatMul" or (node.op_type == "Gemm" and not node.attributes.get_int("transB", 0))
