import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from bertport.quantize.graph.rewrite import linears, rewrite
from bertport.quantize.recipes.blocks import quantize_blocks
from bertport.quantize.recipes.weight_only import WeightOnlyEmitter
from tests.quantize.conftest import OUTPUTS, feeds, session

matrices = arrays(
    np.float32, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.floats(-1e3, 1e3, width=32)
)


@given(matrices, st.sampled_from([4, 8]), st.sampled_from([16, 32]))
def test_every_weight_is_within_a_step(matrix, bits, block):
    made = quantize_blocks(matrix, bits=bits, block=block)
    steps = np.repeat(np.abs(made.scales), block, axis=1)[:, : len(matrix)].T
    # Half a step, but for 4 bits at the short end of the range: the largest weight sits on -8, its opposite gets 7.
    allowed = (0.5 if bits == 8 else 1) + 1e-4
    assert np.all(np.abs(made.dequantize() - matrix) <= steps * allowed)


@pytest.fixture(scope="module", params=[(8, 32), (4, 32), (8, 64)], ids=str)
def candidate(request, fused):
    bits, block = request.param
    return bits, session(rewrite(fused, WeightOnlyEmitter(bits=bits, block=block)))


def test_every_output_is_near_fp32(reference, candidate):
    bits, graph = candidate
    given = feeds()
    for name, before, after in zip(OUTPUTS, reference.run(OUTPUTS, given), graph.run(OUTPUTS, given), strict=True):
        one, two = (output.reshape(-1, output.shape[-1]) for output in (before, after))
        cosine = (one * two).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(two, axis=-1)
        # 4 bits of random weights of width 32 give 0.96 at worst.
        assert cosine.min() > (0.999 if bits == 8 else 0.94), name


def test_a_text_does_not_change_with_its_batch_mates(candidate):
    _, graph = candidate
    given = feeds(masked=(4,))
    alone = {name: values[:1] for name, values in given.items()} | {"masked_positions": given["masked_positions"]}
    for one, two in zip(graph.run(OUTPUTS, alone), graph.run(OUTPUTS, given), strict=True):
        np.testing.assert_allclose(one[:1], two[:1], atol=2e-6)


@pytest.mark.parametrize(("bits", "block"), [(8, 64), (8, 32), (4, 32)])
def test_a_tied_decoder_in_higher_precision_multiplies_its_table_in_float32(fused, bits, block):
    """The table has 8 bits in either recipe, and stays stored once."""
    from onnx import helper, numpy_helper

    [decoder] = [linear for linear in linears(fused) if linear.table]
    plain = rewrite(fused, WeightOnlyEmitter(bits=bits, block=block))
    named = frozenset({decoder.name})
    higher = rewrite(fused, WeightOnlyEmitter(bits=bits, block=block, high_precision_layers=named))
    products, large = (
        [[node.op_type for node in model.graph.node].count("MatMulNBits") for model in (plain, higher)],
        [
            [len(each.raw_data) for each in model.graph.initializer if len(each.raw_data) > 64]
            for model in (plain, higher)
        ],
    )
    assert products[1] == products[0] - 1
    assert sorted(large[1]) == sorted(large[0])
    higher.graph.output.append(helper.make_empty_tensor_value_info(decoder.source))
    states, logits = session(higher).run([decoder.source, "logits"], feeds())
    table = quantize_blocks(decoder.table.rows.T, bits=8, block=block).dequantize()
    [bias] = [numpy_helper.to_array(each) for each in fused.graph.initializer if each.name == decoder.bias]
    np.testing.assert_allclose(logits, states @ table + bias, atol=1e-5)


def test_the_kernel_multiplies_what_we_packed():
    """ONNX Runtime's own idea of the layout, against ours, with weights whose places can be told apart."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).standard_normal((48, 5)).astype(np.float32)
    for bits in (4, 8):
        made = quantize_blocks(weights, bits=bits, block=32)
        node = helper.make_node(
            "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=48, N=5, bits=bits, block_size=32
        )
        graph = helper.make_graph(
            [node],
            "one",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 48])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 5])],
            [numpy_helper.from_array(made.packed, "w"), numpy_helper.from_array(made.scales, "s")],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        running = session(helper.make_model(graph, opset_imports=opsets, ir_version=8))
        unit = np.eye(48, dtype=np.float32)
        np.testing.assert_allclose(running.run(None, {"x": unit})[0], made.dequantize(), atol=1e-5)
