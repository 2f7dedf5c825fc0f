"""TensorRT's rules for explicit quantization: what is checked of a graph, and that each break is told."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bertport.quantize.graph.tensorrt_rules import broken_rules


def graph_with(  # noqa: PLR0913 — a way to break a rule each
    *, signed=True, zero=0, scale=0.1, axis=1, activation_scales=1, through=None, rounded=True, straight=False
):
    """A product of rounded activations and weights, broken in one way at a time."""
    dtype = np.int8 if signed else np.uint8
    arrays = {
        "step": np.full(activation_scales, scale, np.float32) if activation_scales > 1 else np.float32(scale),
        "zero": np.full(activation_scales, zero, dtype) if activation_scales > 1 else dtype(zero),
        "weights": np.ones((4, 4), np.int8),
        "scales": np.full(4, 0.01, np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["q"], name="quantize"),
        *([helper.make_node(through, ["q"], ["moved"], name="mover")] if through else []),
        helper.make_node("DequantizeLinear", ["moved" if through else "q", "step", "zero"], ["d"], name="dequantize"),
        helper.make_node("DequantizeLinear", ["weights", "scales"], ["w"], name="matrix", axis=axis),
        helper.make_node("MatMul", ["d" if rounded else "x", "w"], ["y"], name="product"),
        *([helper.make_node("Cast", ["weights"], ["z"], name="cast", to=TensorProto.FLOAT)] if straight else []),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4]) for name in "xy"]
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    return helper.make_model(helper.make_graph(nodes, "one", ends[:1], ends[1:], stored))


def test_a_graph_that_keeps_the_rules_breaks_none():
    assert broken_rules(graph_with()) == []


@pytest.mark.parametrize(
    ("how", "phrase"),
    [
        ({"signed": False}, "not a signed 0"),
        ({"zero": 3}, "not a signed 0"),
        ({"scale": 0.0}, "no constant, positive scale"),
        ({"axis": 0}, "another axis"),
        ({"activation_scales": 4}, "more than one scale for activations"),
        ({"through": "Identity"}, "go elsewhere"),
        ({"rounded": False}, "were not rounded"),
        ({"straight": True}, "no DequantizeLinear has read"),
    ],
)
def test_each_break_is_told(how, phrase):
    assert any(phrase in line for line in broken_rules(graph_with(**how)))
