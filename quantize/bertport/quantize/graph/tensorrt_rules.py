"""TensorRT's published rules for explicit quantization, checked on a graph without TensorRT.

Where each is said, as read in November 2026: pages of docs.nvidia.com/deeplearning/tensorrt, the reference text of
IDequantizeLayer (TensorRT for RTX's), and a copy of the source of the ONNX parser whose version is not known:

- Integers are signed and the zero point is 0, since quantization is symmetric: "Working with Quantized Types", and
  IDequantizeLayer. The ONNX parser reads an unsigned zero point as a signed one, with a warning, so that the graph
  would load and compute something else: here it is refused.
- A scale is a build-time constant and greater than 0: the operators' page "Dequantize", and the parser.
- Activations have one scale. The parser says so in a comment and would take more; more of them is refused here.
- A vector of scales has as many entries as the axis that it is along: IDequantizeLayer. That weights have theirs along
  the outputs of the product is the form of which the parser speaks; a product by others is not known to run in 8 bits.
- Stored integers need a DequantizeLinear between them and the product: "Explicit Quantization", on quantized weights.

Two more are this module's own, and no page that says them was found (the one on where to place Q and DQ was not): that
integers go from a QuantizeLinear to DequantizeLinear alone, and that a product with rounded weights has rounded
activations. Of a graph that keeps them all it is still to be seen in TensorRT itself how fast it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx
    import onnx_ir as ir

__all__ = ["broken_rules"]

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
INTEGERS = frozenset({"INT8", "UINT8"})


def broken_rules(model: onnx.ModelProto) -> list[str]:
    """Return what in a graph breaks a rule, a phrase each; nothing where TensorRT should take it.

    Args:
        model: The graph, its weights in memory.
    """
    from onnx_ir import serde

    graph = serde.deserialize_model(model).graph
    broken: list[str] = []
    for node in graph:
        if node.op_type in (QUANTIZE, DEQUANTIZE):
            broken += _of_rounding(node)
        else:
            broken += _of_others(node)
    return broken


def _of_rounding(node: ir.Node) -> Iterator[str]:
    """Yield what is wrong with a QuantizeLinear or DequantizeLinear."""
    name, [values, scale, *zero] = node.name, node.inputs
    scales = _constant(scale)
    if scales is None or not (np.isfinite(scales) & (scales > 0)).all():
        yield f"{name} has no constant, positive scale"
        return
    if zero and zero[0] is not None and ((points := _constant(zero[0])) is None or points.any() or _unsigned(zero[0])):
        yield f"{name} has a zero point that is not a signed 0"
    stored = _constant(values)
    if scales.size > 1 and (node.op_type == QUANTIZE or stored is None):
        yield f"{name} has more than one scale for activations"
    if node.op_type == QUANTIZE and any(user.op_type != DEQUANTIZE for user, _ in node.outputs[0].uses()):
        yield f"the integers of {name} go elsewhere than to a DequantizeLinear"
    if node.op_type == DEQUANTIZE and _unsigned(values):
        yield f"{name} takes unsigned integers"
    if node.op_type == DEQUANTIZE and scales.size > 1 and not _by_output(node):
        yield f"{name} has scales along another axis than the outputs of its product"


def _of_others(node: ir.Node) -> Iterator[str]:
    """Yield what is wrong with another operator: integers that go in, and products of which one side is rounded."""
    for value in node.inputs:
        if value is not None and value.is_initializer() and value.dtype is not None and value.dtype.name in INTEGERS:
            yield f"{node.name} takes integers that no DequantizeLinear has read"
    if node.op_type == "MatMul" and _dequantized(node.inputs[1]) and not _dequantized(node.inputs[0]):
        yield f"{node.name} multiplies weights of 8 bits by activations that were not rounded"


def _by_output(node: ir.Node) -> bool:
    """Return whether dequantized weights have their scales along the outputs of the products that take them."""
    axis = node.attributes.get_int("axis", 1)
    for user, _ in node.outputs[0].uses():
        if user.op_type == "MatMul" and axis != 1:
            return False
        if user.op_type == "Transpose" and axis != 0:
            return False
        if user.op_type == "Gather" and axis != user.attributes.get_int("axis", 0):
            return False
    return True


def _dequantized(value: ir.Value | None) -> bool:
    """Return whether a value comes out of a DequantizeLinear, transposed or not."""
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == "Transpose":
        return _dequantized(producer.inputs[0])
    return producer is not None and producer.op_type == DEQUANTIZE


def _unsigned(value: ir.Value | None) -> bool:
    return value is not None and value.dtype is not None and value.dtype.name == "UINT8"


def _constant(value: ir.Value | None) -> np.ndarray | None:
    """Return the numbers of an initialiser; None for any other value."""
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    return value.const_value.numpy()
