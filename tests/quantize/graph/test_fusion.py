"""Fusing by ONNX Runtime's optimizer: what the graph computes stays the same, whatever its masks and its layers are."""

import numpy as np
import pytest

from bertport.quantize.graph.fusion import fuse, load_plain
from bertport.quantize.graph.rewrite import linears
from bertport.quantize.recipes.source import GraphSource
from bertport.quantize.recipes.table import RECIPES
from bertport.quantize.weights.cache import WeightCache
from tests.quantize.conftest import OUTPUTS, feeds, rewritten_in_float, session

SHARED = """
<ir_version: 8, opset_import: ["": 17]>
shared (float[rows, length, 32] x) => (float[rows, length, 32] y)
{
  one = MatMul(x, matrix)
  normed = LayerNormalization(one, scale, shift)
  two = MatMul(normed, matrix)
  y = Add(two, normed)
}
"""


def filled(text):
    """A graph written as text, with seeded weights."""
    import onnx

    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, shape in {"matrix": (32, 32), "scale": (32,), "shift": (32,)}.items():
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model


@pytest.mark.parametrize("order", ["the end", "the beginning", "holes"])
def test_masks_count_token_by_token_where_the_embeddings_are_not_fused(tiny, order):
    """The optimizer's attention takes the number of tokens by default, which is wrong but for padding at the end."""
    plain = load_plain(tiny.file(tiny.manifest.variants["fp32"].file))
    for node in list(plain.graph.node):  # positions that are computed: no pattern of the optimizer's
        if node.op_type == "Gather" and "position_embeddings" in node.input[0]:
            moved = f"{node.input[1]}.again"
            added = type(node)(op_type="Add", input=[node.input[1], "zero.positions"], output=[moved], name="again")
            node.input[1] = moved
            plain.graph.node.insert(list(plain.graph.node).index(node), added)
    import onnx

    plain.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, dtype=np.int64), "zero.positions"))
    reference = session(plain)
    given = feeds(rows=2, length=12, masked=(5,))
    given["attention_mask"][0, {"the end": slice(8, 12), "the beginning": slice(0, 4), "holes": [1, 6, 7]}[order]] = 0
    fused = fuse(plain, tiny.manifest.architecture)
    operators = [node.op_type for node in fused.graph.node]
    assert "EmbedLayerNormalization" not in operators
    assert "Attention" in operators
    real = given["attention_mask"] == 1
    [expected] = reference.run(OUTPUTS[2:3], given)
    [hidden] = session(rewritten_in_float(fused)).run(OUTPUTS[2:3], given)
    np.testing.assert_allclose(hidden[real], expected[real], atol=1e-5)


def test_a_sum_that_later_layers_take_too_is_kept(tiny):
    """A layer behind its LayerNormalization adds to the sum before it: the optimizer gives both from one operator."""
    model = filled(
        """
        <ir_version: 8, opset_import: ["": 17]>
        before (float[rows, length, 32] x, float[rows, length, 32] z) => (float[rows, length, 32] y)
        {
          sum = Add(x, z)
          normed = LayerNormalization <epsilon = 0.00001> (sum, scale, shift)
          product = MatMul(normed, matrix)
          y = Add(product, sum)
        }
        """
    )
    rng = np.random.default_rng(1)
    given = {name: rng.standard_normal((2, 5, 32)).astype(np.float32) for name in "xz"}
    [expected] = session(model).run(None, given)
    fused = fuse(model, tiny.manifest.architecture)
    assert "SkipLayerNormalization" not in [node.op_type for node in fused.graph.node]
    np.testing.assert_allclose(session(fused).run(None, given)[0], expected, atol=1e-5)


def test_products_with_one_matrix_have_one_name_and_one_stored_matrix():
    model = filled(SHARED)
    layers = linears(model)
    assert [layer.name for layer in layers] == ["matrix", "matrix"]
    assert [layer.source for layer in layers] == ["x", "normed"]
    source = GraphSource(plain=model, fused=model, instruction_set=None, weights=WeightCache(saturating=True))
    given = {"x": np.random.default_rng(2).standard_normal((2, 5, 32)).astype(np.float32)}
    [expected] = session(model).run(None, given)
    for name in ("int8-dynamic", "int8-weight-only"):
        made = RECIPES[name].make(source)
        stored = [tensor for tensor in made.graph.initializer if np.prod(tensor.dims) >= 32 * 32]
        assert len(stored) == 1, name
        assert np.abs(session(made).run(None, given)[0] - expected).max() < 0.5


def test_attention_is_left_as_it_is_where_layers_share_their_matrices(tiny):
    """Queries, keys and values put together would be stored anew for each layer."""
    plain = load_plain(tiny.file(tiny.manifest.variants["fp32"].file))
    for node in plain.graph.node:
        for index, name in enumerate(node.input):
            if name.startswith("bert.encoder.layer.1.") and name.endswith("weight") and "LayerNorm" not in name:
                node.input[index] = name.replace("layer.1.", "layer.0.")
    reference = session(plain)
    given = feeds(rows=2, length=9, masked=(5,))
    expected = reference.run(OUTPUTS[2:3], given)[0]
    fused = fuse(plain, tiny.manifest.architecture)
    assert not {"Attention", "MultiHeadAttention"} & {node.op_type for node in fused.graph.node}
    layers = linears(fused)
    assert len({layer.name for layer in layers}) == len(layers) - 6
    np.testing.assert_allclose(session(fused).run(OUTPUTS[2:3], given)[0], expected, atol=1e-4)


def test_attention_with_a_scale_of_its_own_is_left_as_it_is(tiny):
    """The optimizer's attention divides by the root of a head's width, whatever the graph divides by."""
    from onnx import numpy_helper

    plain = load_plain(tiny.file(tiny.manifest.variants["fp32"].file))
    scales = {node.input[1] for node in plain.graph.node if node.op_type in {"Div", "Mul"} and "/self/" in node.name}
    changed = 0
    for node in plain.graph.node:
        if node.op_type == "Constant" and node.output[0] in scales:
            [value] = node.attribute
            halved = numpy_helper.to_array(value.t) / np.float32(2)
            value.t.CopyFrom(numpy_helper.from_array(halved))
            changed += 1
    assert changed == tiny.manifest.architecture.layers
    given = feeds(rows=2, length=9, masked=(5,))
    [expected] = session(plain).run(OUTPUTS[2:3], given)
    fused = fuse(plain, tiny.manifest.architecture)
    np.testing.assert_allclose(session(rewritten_in_float(fused)).run(OUTPUTS[2:3], given)[0], expected, atol=1e-4)


def test_attention_with_a_bias_of_its_scores_is_left_as_it_is():
    """The optimizer's attention takes one where the graph adds something to the scores before they are masked."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(3)
    shapes = {"x": (1, 5, 32), "scores": (1, 2, 5, 5), "weights": (32, 96), "bias": (96,)}
    values = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    inputs = ["x", "weights", "bias", "", "", "scores"]
    graph = helper.make_graph(
        [helper.make_node("Attention", inputs, ["y"], domain="com.microsoft", num_heads=2)],
        "biased",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in ("x", "scores")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shapes["x"])],
        [numpy_helper.from_array(values[name], name) for name in ("weights", "bias")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    given = {name: values[name] for name in ("x", "scores")}
    [expected] = session(model).run(None, given)
    np.testing.assert_allclose(session(rewritten_in_float(model)).run(None, given)[0], expected, atol=1e-5)
