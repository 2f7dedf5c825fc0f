"""The graph of int8-dynamic: near fp32, the same for a text whatever is in its batch, each table stored once."""

import numpy as np
import pytest

from bertport.quantize.graph.rewrite import rewrite
from bertport.quantize.recipes.dynamic import DynamicEmitter
from bertport.quantize.weights.cache import WeightCache
from tests.quantize.conftest import HOLDS_FULL_RANGE, OUTPUTS, InFloat, cosine, feeds, session

full_range = pytest.mark.skipif(
    not HOLDS_FULL_RANGE, reason="sums of weights of the full range saturate on this CPU: test_overflow.py shows it"
)


@pytest.fixture(scope="module", params=[False, True], ids=["full-range", "pair-safe"])
def saturating(request):
    return request.param


@pytest.fixture(scope="module")
def graph(saturating, fused):
    return rewrite(fused, DynamicEmitter(weights=WeightCache(saturating=saturating)))


@pytest.fixture(scope="module")
def candidate(saturating, graph):
    if not (saturating or HOLDS_FULL_RANGE):
        pytest.skip(full_range.kwargs["reason"])
    return session(graph)


def test_every_output_is_near_fp32(reference, candidate):
    given = feeds()
    for name, one, two in zip(OUTPUTS, reference.run(OUTPUTS, given), candidate.run(OUTPUTS, given), strict=True):
        assert one.shape == two.shape, name
        # Random weights of width 32 are harder than a trained BERT's; a wrong zero point gives 0.6, a lost scale 0.
        assert cosine(one, two).min() > 0.995, name


def test_attention_is_fused_and_skip_connections_are_not(fused):
    operators = [node.op_type for node in fused.graph.node]
    assert "MultiHeadAttention" in operators or "Attention" in operators
    assert "SkipLayerNormalization" not in operators  # slower than its parts on CPUs
    assert operators.count("LayerNormalization") >= 4


def test_masks_count_token_by_token(reference, candidate):
    """ONNX Runtime's fused attention knows only the length of a row; ours takes holes and padding on the left."""
    given = feeds(rows=2, length=12, masked=(3,))
    given["attention_mask"][0, :4] = 0
    given["attention_mask"][1, [2, 5, 11]] = 0
    for one, two in zip(reference.run(["pooler_output"], given), candidate.run(["pooler_output"], given), strict=True):
        assert cosine(one, two).min() > 0.995
    open_mask = given | {"attention_mask": np.ones_like(given["attention_mask"])}
    assert (
        np.abs(candidate.run(["pooler_output"], given)[0] - candidate.run(["pooler_output"], open_mask)[0]).max() > 0.01
    )


def test_a_channel_of_the_keys_masks_them_once_for_all_layers(graph, tiny):
    attention = [node for node in graph.graph.node if node.op_type == "MultiHeadAttention"]
    assert [len(node.input) for node in attention] == [4] * tiny.manifest.architecture.layers  # no mask among them
    [masking] = [node for node in graph.graph.node if node.op_type == "Where"]
    keys = {node.input[1] for node in attention}
    assert keys == {node.output[0] for node in graph.graph.node if masking.output[0] in node.input}


@pytest.mark.parametrize("padding", [1, 5, 40])
def test_a_text_does_not_change_with_its_padding(candidate, padding):
    given = feeds(rows=2, length=9, masked=(4, 12))
    padded = {name: np.pad(values, ((0, 0), (0, padding))) for name, values in given.items() if values.ndim == 2}
    padded["masked_positions"] = np.array([4, 12 + padding])
    for name, one, two in zip(OUTPUTS, candidate.run(OUTPUTS, given), candidate.run(OUTPUTS, padded), strict=True):
        real = two[:, :9] if name == "last_hidden_state" else two
        np.testing.assert_allclose(one, real, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("rows", [2, 5])
def test_a_text_does_not_change_with_its_batch_mates(candidate, rows):
    given = feeds(rows=rows, masked=(4,))
    alone = {name: values[:1] for name, values in given.items()} | {"masked_positions": given["masked_positions"]}
    for one, two in zip(candidate.run(OUTPUTS, alone), candidate.run(OUTPUTS, given), strict=True):
        # Not 0: the order in which float32 attention is summed may depend on the shape.
        np.testing.assert_allclose(one[:1], two[:1], atol=2e-6)


def test_no_position_may_be_asked_for(candidate):
    logits, nsp = candidate.run(OUTPUTS[:2], feeds(masked=()))
    assert logits.shape[0] == 0
    assert np.isfinite(nsp).all()


def test_tokens_are_rounded_by_one_operator_and_share_their_zero_points(graph, tiny):
    rounding = [node for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    by_token = [node for node in rounding if any(attribute.name == "block_size" for attribute in node.attribute)]
    assert len(by_token) == 4 * tiny.manifest.architecture.layers  # the heads' few rows are divided first
    assert sorted({node.input[2] for node in by_token}) == ["tokens.zeros.128", "tokens.zeros.16"]
    assert [node.op_type for node in graph.graph.node].count("Div") == len(rounding) - len(by_token)
    assert {entry.domain: entry.version for entry in graph.opset_import} == {"": 21, "com.microsoft": 1}


def test_gelu_is_computed_by_tanh_within_what_rounding_leaves(fused, graph):
    """In float32 the other GELU changes the hidden states by less than a twentieth of what 8 bits do."""
    assert "BiasGelu" in [node.op_type for node in fused.graph.node]
    assert {node.op_type for node in graph.graph.node} & {"BiasGelu", "FastGelu"} == {"FastGelu"}

    class ByTanh(InFloat):
        tanh_gelu = True

    given = feeds()
    by_erf, by_tanh, rounded = (
        session(rewrite(fused, emitter)).run(OUTPUTS[2:3], given)[0]
        for emitter in (InFloat(), ByTanh(), DynamicEmitter(weights=WeightCache(saturating=False)))
    )
    assert 0 < np.abs(by_tanh - by_erf).mean() < 0.05 * np.abs(rounded - by_erf).mean()


@full_range
def test_where_a_node_needs_an_older_opset_tokens_are_divided_first(fused, reference):
    import onnx
    from onnx import helper

    older = onnx.ModelProto()
    older.CopyFrom(fused)
    [ids] = [node.input[0] for node in fused.graph.node if node.op_type == "EmbedLayerNormalization"]
    older.graph.node.append(helper.make_node("Cast", [ids], ["ids.float"], to=onnx.TensorProto.FLOAT))
    older.graph.node.append(helper.make_node("ReduceMean", ["ids.float"], ["ids.mean"], axes=[-1]))
    made = rewrite(older, DynamicEmitter(weights=WeightCache(saturating=False)))
    assert made.opset_import[0].version == 17
    assert not [node for node in made.graph.node for attribute in node.attribute if attribute.name == "block_size"]
    given = feeds()
    for one, two in zip(reference.run(OUTPUTS, given), session(made).run(OUTPUTS, given), strict=True):
        assert cosine(one, two).min() > 0.995


@full_range
@pytest.mark.parametrize("by_token", [True, False])
def test_a_token_of_zeros_is_0_behind_its_layer(by_token):
    """0/0 becomes some integer, which is multiplied by the token's scale, 0."""
    from onnx import TensorProto, helper

    from bertport.quantize.graph.builder import GraphBuilder
    from bertport.quantize.graph.rewrite import Linear

    rng = np.random.default_rng(2)
    weights = rng.standard_normal((32, 16)).astype(np.float32)
    given = rng.standard_normal((2, 5, 32)).astype(np.float32)
    given[0, 1] = given[1, 4] = 0
    given[1, 2] = np.finfo(np.float32).smallest_subnormal
    builder = GraphBuilder(DynamicEmitter.opset)
    layer = Linear(
        name="layer", source="x", output="y", weights=weights, bias=None, gelu=False, table=None, by_token=by_token
    )
    DynamicEmitter(weights=WeightCache(saturating=False)).linear(builder, layer)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None, None]) for name in "xy"]
    frame = helper.make_model(helper.make_graph([], "one", ends[:1], ends[1:]), ir_version=8)
    [answer] = session(builder.model(frame)).run(None, {"x": given})
    assert (answer[0, 1] == 0).all()
    assert (answer[1, 4] == 0).all()
    np.testing.assert_allclose(answer, given @ weights, atol=0.25)


def test_a_token_of_zeros_gives_numbers(fused):
    """A maximum of 0 would divide 0 by 0."""
    import onnx

    emptied = onnx.ModelProto()
    emptied.CopyFrom(fused)
    for tensor in emptied.graph.initializer:
        if "LayerNorm" in tensor.name:
            tensor.raw_data = bytes(len(tensor.raw_data))
    outputs = session(rewrite(emptied, DynamicEmitter(weights=WeightCache(saturating=True)))).run(OUTPUTS, feeds())
    assert all(np.isfinite(output).all() for output in outputs)


def test_the_tied_table_is_stored_once(graph, tiny):
    vocabulary = tiny.manifest.architecture.vocab_size
    tables = [tensor for tensor in graph.graph.initializer if vocabulary in tensor.dims and len(tensor.dims) == 2]
    assert [tensor.data_type for tensor in tables] == [3]  # int8, once


def test_all_linear_layers_compute_in_8_bits(graph, tiny):
    operators = [node.op_type for node in graph.graph.node]
    # Four in each layer (queries, keys and values are one), the pooler, the MLM transform and decoder.
    assert operators.count("MatMulIntegerToFloat") == 4 * tiny.manifest.architecture.layers + 3
    assert "MatMul" not in operators
    assert operators.count("Gemm") == 1  # the NSP head, of two columns


@pytest.mark.parametrize(("in_float", "share"), [(True, 0.3), (False, 0.9)], ids=["float32", "16-bit activations"])
def test_a_layer_in_higher_precision_is_nearer(fused, reference, in_float, share):
    def error(higher):
        emitter = DynamicEmitter(
            weights=WeightCache(saturating=True), high_precision_layers=frozenset(higher), float_fallback=in_float
        )
        given = feeds()
        hidden = session(rewrite(fused, emitter)).run(OUTPUTS[2:3], given)[0]
        return np.abs(hidden - reference.run(OUTPUTS[2:3], given)[0]).mean()

    kinds = ("attention.qkv", "attention.output.dense", "intermediate.dense", "output.dense")
    everything = [f"encoder.layer.{layer}.{kind}" for layer in range(2) for kind in kinds]
    # What is left is the embeddings' error, and with 16-bit activations that of the weights.
    assert error(everything) < share * error([])


@full_range
@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize(
    ("gelu", "flat", "products"),
    [(False, False, 2), (True, False, 2), (False, True, 1), (True, True, 2)],
    ids=["encoder", "after GELU", "head", "head after GELU"],
)
def test_two_products_hold_16_bits_of_the_activations(gelu, flat, products, opset):
    """Weights that 8 bits hold exactly leave only the activations' error: 254 times smaller than in one product.

    The few rows of a head go through one product, which reads the weights once.
    """
    from onnx import TensorProto, helper

    from bertport.quantize.graph.builder import GraphBuilder
    from bertport.quantize.graph.rewrite import Linear

    rng = np.random.default_rng(1)
    weights = rng.integers(-127, 128, size=(64, 8)).astype(np.float32)
    weights[0] = 127
    given = rng.standard_normal((9, 64)).astype(np.float32)
    values = np.maximum(given, -0.17) if gelu else given
    errors = []
    for higher in (frozenset(), frozenset({"layer"})):
        builder = GraphBuilder(opset)
        layer = Linear(
            name="layer", source="x", output="y", weights=weights, bias=None, gelu=gelu, table=None, flat=flat
        )
        DynamicEmitter(weights=WeightCache(saturating=False), high_precision_layers=higher).linear(builder, layer)
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in "xy"]
        frame = helper.make_model(helper.make_graph([], "one", ends[:1], ends[1:]), ir_version=8)
        answer = session(builder.model(frame)).run(None, {"x": values})[0]
        errors.append(np.abs(answer - values @ weights).max())
        assert session(builder.model(frame)).run(None, {"x": values[:0]})[0].shape == (0, 8)
    assert [node.op_type for node in builder.nodes].count("MatMulIntegerToFloat") == products
    assert errors[1] < errors[0] / 100


def test_the_fused_graph_is_not_changed(fused):
    before = fused.SerializeToString()
    rewrite(fused, DynamicEmitter(weights=WeightCache(saturating=False)))
    assert fused.SerializeToString() == before


@full_range
def test_weights_stored_in_16_bits_are_quantized_alike(tiny_checkpoint, tmp_path, reference, fused):
    from bertport.export import export
    from bertport.quantize.graph.fusion import fuse, load_plain

    bundle = export(tiny_checkpoint, tmp_path / "half", weights="float16")
    plain = load_plain(bundle.file(bundle.manifest.variants["fp32"].file))
    made = rewrite(fuse(plain, bundle.manifest.architecture), DynamicEmitter(weights=WeightCache(saturating=False)))
    expected = rewrite(fused, DynamicEmitter(weights=WeightCache(saturating=False)))
    assert sorted(node.op_type for node in made.graph.node) == sorted(node.op_type for node in expected.graph.node)
    given = feeds()
    for one, two in zip(reference.run(OUTPUTS, given), session(made).run(OUTPUTS, given), strict=True):
        assert cosine(one, two).min() > 0.995
