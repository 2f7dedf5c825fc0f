"""Graph pass: make initialisers of the inputs that stand for a model's weights."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from bertport.export.graph.passes.name_weights import modules_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import onnx_ir as ir
    import torch

__all__ = ["fill_weights"]


def fill_weights(
    model: ir.Model,
    inputs: Collection[str],
    tensors: Mapping[str, torch.Tensor],
    folded: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> tuple[ir.Model, bool]:
    """Put values in a graph that was traced without any, as views of the model's own tensors wherever they are that.

    The exporter gives a weight the name of its parameter. One that it turned when it folded constants has none: a
    MatMul reads it, whose path says whose weight it is. Further readers have an Identity before them. Of what it
    computed in any other way, of a bias that it reshaped or of matrices that it joined, its own value is taken.

    Matches inputs beside the model's own. Declines as a whole where it does not know what one of them holds.

    Args:
        model: the graph.
        inputs: names of the inputs that stay.
        tensors: parameters and buffers by name.
        folded: the exporter's own values, by the names of inputs.
    """
    import onnx_ir as ir
    from onnx_ir.tensor_adapters import TorchTensor

    waiting = [value for value in model.graph.inputs if value.name not in inputs]
    held = [tensor for value in waiting if (tensor := _held(value, tensors, folded)) is not None]
    if not waiting or len(held) < len(waiting):
        return model, False
    for value, tensor in zip(waiting, held, strict=True):
        model.graph.inputs.remove(value)
        value.const_value = TorchTensor(tensor, name=value.name)
        value.shape = ir.Shape(value.const_value.shape.numpy())
        model.graph.initializers.add(value)
    return model, True


def _held(
    value: ir.Value, tensors: Mapping[str, torch.Tensor], folded: Mapping[str, torch.Tensor]
) -> torch.Tensor | None:
    """Return the tensor that an input stands for; None where that cannot be told."""
    tensor = tensors.get(value.name or "")
    if tensor is None and {node.op_type for node in value.consumers()} - {"Identity"} == {"MatMul"}:
        weights = [tensors.get(f"{module}.weight") for module in sorted(modules_of(value))]
        tensor = next((weight.t() for weight in weights if weight is not None and weight.ndim == 2), None)  # noqa: PLR2004 — a matrix
    tensor = folded.get(value.name or "") if tensor is None else tensor
    if tensor is None or value.shape is None or list(tensor.shape) != list(value.shape):
        return None
    return tensor.detach()
