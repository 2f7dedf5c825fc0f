"""Requirements of a graph on a provider, read from an ONNX model; this needs the onnx package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertport.runtime.bundle.manifest import OPSET, Requires

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

__all__ = ["requires_of"]

NAMES = {"FLOAT": "float32", "DOUBLE": "float64"}
"""Names of element types, where ONNX calls them otherwise than NumPy does."""
FOR_SHAPES = frozenset({"int64", "int32", "bool", "undefined", "string"})
"""Element types of ids, positions, shapes, conditions, and of sums of 8-bit products: every provider has them."""
COMPUTED = {"DynamicQuantizeLinear": "uint8", "DynamicQuantizeMatMul": "uint8"}
"""Element types that an operator computes in and no tensor of the graph states."""


def requires_of(model: onnx.ModelProto, *, precision: str, isa: str | None = None) -> Requires:
    """Return what a graph requires of a provider.

    Args:
        model: the graph; its weights need not be loaded.
        precision: how products are computed, as manifests call it.
        isa: the CPU instruction set it was made for; None where any will do.
    """
    return Requires(
        operator_domains={operators.domain or OPSET: operators.version for operators in model.opset_import},
        ir_version=model.ir_version,
        dtypes=tuple(sorted(set(_dtypes(model.graph)) - FOR_SHAPES)),
        precision=precision,
        isa=isa,
    )


def _dtypes(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the element types of what is stored, handed over or cast to, those of inner graphs included."""
    from onnx import AttributeProto, TensorProto

    def name(number: int) -> str:
        known: str = TensorProto.DataType.Name(number)
        return NAMES.get(known, known.lower())

    for tensor in graph.initializer:
        yield name(tensor.data_type)
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield name(value.type.tensor_type.elem_type)
    for node in graph.node:
        if node.op_type in COMPUTED:
            yield COMPUTED[node.op_type]
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield name(attribute.t.data_type)
            elif attribute.type == AttributeProto.GRAPH:
                yield from _dtypes(attribute.g)
            elif node.op_type == "Cast" and attribute.name == "to":
                yield name(attribute.i)
