"""Weights calibrated on text: the graph with outlier channels and calibrated weights is nearer to fp32."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bertport.quantize.calibration import statistics
from bertport.quantize.calibration.statistics import ROWS, collect, together
from bertport.quantize.graph.builder import GraphBuilder
from bertport.quantize.graph.rewrite import Linear, linears, rewrite
from bertport.quantize.recipes.dynamic import DynamicEmitter
from bertport.quantize.texts import read_evaluation
from bertport.quantize.weights.activation_range import SYMMETRIC, round_activations
from bertport.quantize.weights.cache import WeightCache
from bertport.quantize.weights.calibrated import CalibratedWeights, calibrate_weights
from bertport.quantize.weights.rounding import saturates
from tests.quantize.conftest import feeds, gathered, manifest_of, session, silent

OUTPUTS = ["logits", "seq_relationship_logits", "last_hidden_state"]


@pytest.fixture(scope="module")
def outlying(fused):
    """The tiny graph with one channel in which every LayerNorm of the encoder gives large values."""
    model = onnx.ModelProto()
    model.CopyFrom(fused)
    for tensor in model.graph.initializer:
        if tensor.name.endswith("output.LayerNorm.weight"):
            values = numpy_helper.to_array(tensor).copy()
            values[3] *= 20
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


@pytest.fixture(scope="module")
def calibrated(tiny, outlying, held_out):
    return calibrate_weights(tiny, outlying, held_out, saturating=True, progress=silent)


def differences(outlying, weights, higher=frozenset()):
    graph = rewrite(outlying, DynamicEmitter(weights=weights, high_precision_layers=higher))
    given = feeds(rows=8, seed=5)
    pairs = zip(session(outlying).run(OUTPUTS, given), session(graph).run(OUTPUTS, given), strict=True)
    return [float(np.square(one - two).mean()) for one, two in pairs]


def test_calibrated_weights_are_nearer_to_fp32(outlying, calibrated):
    nearest = differences(outlying, WeightCache(saturating=True))
    for before, after in zip(nearest, differences(outlying, calibrated), strict=True):
        assert after < 0.5 * before


def test_outlier_channels_are_divided(outlying, calibrated):
    plans = {layer.name: calibrated.plan(layer) for layer in linears(outlying)}
    divided = {name: plan for name, plan in plans.items() if plan is not None and plan.multiplies}
    assert divided
    assert all(plan.factors.argmin() == 3 for name, plan in divided.items() if "intermediate" in name)


def test_activations_of_16_bits_are_nearer_to_fp32(outlying, calibrated):
    names = frozenset(layer.name for layer in linears(outlying))
    for eight, sixteen in zip(differences(outlying, calibrated), differences(outlying, calibrated, names), strict=True):
        assert sixteen < eight


@pytest.mark.parametrize("opset", [17, 18])
def test_what_is_kept_in_float_is_multiplied_in_float32(opset):
    """A layer alone, with channels kept in float: the graph's answer is that of the formula."""
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(2, 150, 128)).astype(np.float32)
    rows[..., [7, 90]] *= 60
    weights = rng.normal(size=(128, 32)).astype(np.float32)
    layer = Linear(name="one", source="x", output="y", weights=weights, bias="b", gelu=False, table=None)
    known = gathered(rows.reshape(-1, 128))
    calibrated = CalibratedWeights(saturating=True, layers=[layer], activations={"x": known}, text={})
    plan = calibrated.plan(layer)
    assert {7, 90} <= set(plan.kept_in_float)
    assert not calibrated.linear(layer).values[plan.kept_in_float].any()
    plain = calibrated.linear(layer, decomposed=False)
    assert plain.values[plan.kept_in_float].any()
    assert not saturates(plain.values)

    bias = rng.normal(size=32).astype(np.float32)
    builder = GraphBuilder(opset)
    builder.constant("b", bias)
    DynamicEmitter(weights=calibrated).linear(builder, layer)
    given, output = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", [2, 150, 128]), ("y", [2, 150, 32]))
    )
    model = builder.model(onnx.helper.make_model(onnx.helper.make_graph([], "one", [given], [output]), ir_version=8))
    answer = session(model).run(["y"], {"x": rows})[0]
    scaled = round_activations(rows * plan.factors, SYMMETRIC) @ calibrated.linear(layer).dequantize()
    in_float = rows[..., plan.kept_in_float] @ weights[plan.kept_in_float]
    np.testing.assert_allclose(answer, scaled + in_float + bias, rtol=2e-3, atol=2e-3 * np.abs(answer).max())
    error = np.square(answer - (rows @ weights + bias)).mean()
    nearest = round_activations(rows, SYMMETRIC) @ WeightCache(saturating=True).linear(layer).dequantize() + bias
    assert error < 0.05 * np.square(nearest - (rows @ weights + bias)).mean()


def test_no_calibrated_weight_overflows_on_avx2(outlying, calibrated):
    for layer in linears(outlying):
        assert not saturates(calibrated.linear(layer).values), layer.name


def test_a_layer_left_in_float_takes_the_weights_as_they_were(outlying, calibrated):
    names = frozenset(layer.name for layer in linears(outlying) if not layer.table)
    graph = rewrite(outlying, DynamicEmitter(weights=calibrated, high_precision_layers=names, float_fallback=True))
    given = feeds()
    one, two = (session(candidate).run(["last_hidden_state"], given)[0] for candidate in (outlying, graph))
    assert np.abs(one - two).max() < 0.05 * np.abs(one).max()  # the embeddings stay in 8 bits


def test_a_layer_without_activations_is_rounded_to_the_nearest(outlying):
    weights = CalibratedWeights(saturating=True, layers=linears(outlying), activations={}, text={})
    plain = WeightCache(saturating=True)
    for layer in linears(outlying):
        assert np.array_equal(weights.linear(layer).values, plain.linear(layer).values)


@pytest.mark.parametrize("block", [12, statistics.BLOCK])
def test_what_is_gathered_is_all_tokens_of_all_texts(tiny, fused, held_out, block, monkeypatch):
    monkeypatch.setattr(statistics, "BLOCK", block)
    samples = read_evaluation(tiny, held_out, sample="calibration", positions=60, pairs=5).samples
    name = linears(fused)[1].source
    known = collect(fused, [name], samples, progress=silent)[name]
    rows = []
    graph = onnx.ModelProto()
    graph.CopyFrom(fused)
    graph.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    running = session(graph)
    for sample in samples:
        given = {
            "input_ids": sample.input_ids[None],
            "token_type_ids": sample.token_type_ids[None],
            "attention_mask": np.ones((1, len(sample.input_ids)), dtype=np.int64),
            "masked_positions": sample.positions,
        }
        rows.append(running.run([name], {key: np.asarray(array, np.int64) for key, array in given.items()})[0][0])
    every = np.concatenate(rows)
    assert known.count == len(every)
    np.testing.assert_allclose(known.gram, every.T @ every, rtol=1e-4, atol=1e-3)
    assert np.array_equal(known.gram, known.gram.T)
    np.testing.assert_allclose(known.largest, np.abs(every).max(axis=0), rtol=1e-5)
    assert len(known.rows) <= ROWS + len(samples)
    assert all((np.abs(every - token).max(axis=1) < 1e-5).any() for token in known.rows[:20])


def test_the_manifest_says_what_the_weights_were_calibrated_on(quantized):
    recorded = manifest_of(quantized[0].path)["variants"]["int8-dynamic"]["fidelity"]["weights_fitted_to"]
    assert recorded["name"] == "calibration.txt"
    assert len(recorded["sha256"]) == 64
    assert recorded["masked_positions"] > 0


def test_a_shared_matrix_is_calibrated_on_what_goes_into_all_its_products():
    """Each product counts alike, however many tokens go into it, and one plan and one rounding serve them all."""
    rng = np.random.default_rng(6)
    parts = {
        name: gathered(rng.standard_normal((tokens, 32)) * scale)
        for name, tokens, scale in (("x", 200, 1), ("y", 50, 3))
    }
    known = together(list(parts.values()))
    expected = sum(part.gram / part.count for part in parts.values())
    np.testing.assert_allclose(known.gram / 200, expected, rtol=1e-5)
    np.testing.assert_allclose(known.mean, np.mean([part.mean for part in parts.values()], axis=0))
    assert np.array_equal(known.highest, np.maximum(parts["x"].highest, parts["y"].highest))
    weights = rng.standard_normal((32, 20)).astype(np.float32)
    layers = [
        Linear(name="both", source=name, output=f"{name}.out", weights=weights, bias=None, gelu=False, table=None)
        for name in parts
    ]
    calibrated = CalibratedWeights(saturating=False, layers=layers, activations=parts, text={})
    progress = []
    calibrated.prepare(layers, lambda *step: progress.append(step))
    assert progress == [("calibrating the weights", 1, 1)]
    assert calibrated.linear(layers[0]) is calibrated.linear(layers[1])
    assert calibrated.plan(layers[0]) is calibrated.plan(layers[1])

    def error(weights):
        rounded = weights.linear(layers[0], decomposed=False).dequantize() - layers[0].weights
        return float(((known.gram @ rounded) * rounded).sum())

    alone = CalibratedWeights(saturating=False, layers=layers[:1], activations=parts, text={})
    assert error(calibrated) < min(error(alone), error(WeightCache(saturating=False)))
