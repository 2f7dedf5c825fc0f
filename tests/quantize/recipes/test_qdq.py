"""int8-static: the graph of standard operators, its arithmetic, and what it is calibrated on."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

from bertport.measure.quality.model import make_batch
from bertport.quantize.calibration import observe
from bertport.quantize.calibration.observe import read_calibration
from bertport.quantize.calibration.ranges import SCHEMES, Calibration, Range
from bertport.quantize.calibrator import Calibrator
from bertport.quantize.graph.builder import GraphBuilder
from bertport.quantize.graph.fusion import load_plain
from bertport.quantize.graph.rewrite import Linear, linears
from bertport.quantize.graph.tensorrt_rules import broken_rules
from bertport.quantize.recipes.qdq import QdqEmitter
from bertport.quantize.recipes.source import GraphSource
from bertport.quantize.recipes.table import RECIPES
from bertport.quantize.weights.cache import WeightCache
from bertport.quantize.weights.calibrated import CalibratedWeights
from bertport.quantize.weights.rounding import saturates
from bertport.runtime.errors import InputTextError
from tests.quantize.conftest import OUTPUTS, STATIC, cosine, feeds, session, silent


@pytest.fixture(scope="module")
def source_for(tiny, held_out):
    """Return the graph source of a recipe, calibrated."""
    plain = load_plain(tiny.file(tiny.manifest.variants["fp32"].file))
    # An unknown CPU is taken for one that overflows.
    source = GraphSource(plain=plain, fused=plain, instruction_set=None, weights=WeightCache(saturating=True))
    calibrator = Calibrator(tiny, plain, Calibration(samples=24), text=held_out, progress=silent)
    return lambda name: calibrator.apply(source, RECIPES[name])


def optimized(model, path):
    """The operators that are left once ONNX Runtime's CPU provider has optimized a graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("name", STATIC)
def test_every_output_is_near_fp32(source_for, reference, name):
    model = RECIPES[name].make(source_for(name))
    given = feeds()
    # TensorRT's weights have the full range, which only some CPUs' own products hold.
    answers = session(model, as_defined=name == "int8-static").run(OUTPUTS, given)
    for one, two in zip(reference.run(OUTPUTS, given), answers, strict=True):
        assert cosine(one, two).min() > 0.99


@pytest.mark.parametrize("name", STATIC)
def test_only_standard_operators_are_used(source_for, name):
    model = RECIPES[name].make(source_for(name))
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert {opset.domain for opset in model.opset_import} <= {"", "ai.onnx"}


@pytest.mark.parametrize("name", STATIC)
def test_every_matrix_is_in_8_bits_and_stored_once(source_for, tiny, name):
    model = RECIPES[name].make(source_for(name))
    large = {
        tensor.name: tensor for tensor in model.graph.initializer if len(tensor.dims) == 2 and min(tensor.dims) > 8
    }
    assert {tensor.data_type for tensor in large.values()} == {onnx.TensorProto.INT8}
    shape = tiny.manifest.architecture
    # Six in a layer, pooler, transform; the word and position tables, the first of them the decoder's matrix too.
    assert len(large) == 6 * shape.layers + 2 + 2
    assert sum(shape.vocab_size in tensor.dims for tensor in large.values()) == 1


@pytest.mark.parametrize("fallback", [False, True])
@pytest.mark.parametrize("higher", [False, True])
def test_tensorrts_rules_are_kept(source_for, higher, fallback):
    source = source_for("int8-static")
    layers = frozenset(layer.name for layer in linears(source.plain)) if higher else frozenset()
    source = dataclasses.replace(source, high_precision_layers=layers, float_fallback=fallback)
    assert broken_rules(RECIPES["int8-static"].make(source)) == []


def test_a_graph_for_cpus_breaks_them(source_for):
    broken = broken_rules(RECIPES["int8-static-cpu"].make(source_for("int8-static-cpu")))
    assert any("zero point" in line for line in broken)


def test_the_cpu_provider_computes_every_product_in_8_bits(source_for, tiny, tmp_path):
    operators = optimized(RECIPES["int8-static-cpu"].make(source_for("int8-static-cpu")), tmp_path / "o.onnx")
    assert operators.count("MatMulIntegerToFloat") == 6 * tiny.manifest.architecture.layers + 3
    assert "DequantizeLinear" not in operators
    assert operators.count("Gemm") + operators.count("FusedGemm") == 1  # the NSP head, of two columns


def test_weights_for_cpus_that_overflow_are_pair_safe(source_for):
    made = {}
    for name in STATIC:
        model = RECIPES[name].make(source_for(name))
        arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        made[name] = [array for weights, array in arrays.items() if weights.endswith("dense.int8")]
    assert made["int8-static"]
    assert any(saturates(array) for array in made["int8-static"])
    assert not any(saturates(array) for array in made["int8-static-cpu"])


def test_a_layer_left_in_float_has_no_rounding_around_it(source_for):
    for name in STATIC:
        higher = frozenset({"encoder.layer.0.output.dense", "cls.predictions.transform.dense"})
        plain = RECIPES[name].make(source_for(name))
        mixed = RECIPES[name].make(
            dataclasses.replace(source_for(name), high_precision_layers=higher, float_fallback=True)
        )
        count = [sum(node.op_type == "QuantizeLinear" for node in graph.graph.node) for graph in (plain, mixed)]
        assert count[1] == count[0] - 2
        assert all(np.isfinite(output).all() for output in session(mixed).run(OUTPUTS, feeds()))


@pytest.mark.parametrize("name", STATIC)
def test_a_layer_with_16_bit_activations_is_nearer_and_still_of_8_bit_products(source_for, reference, tmp_path, name):
    every = frozenset(layer.name for layer in linears(source_for(name).plain))
    exact, errors = reference.run(OUTPUTS[2:3], feeds(rows=8))[0], []
    for higher in (frozenset(), every):
        model = RECIPES[name].make(dataclasses.replace(source_for(name), high_precision_layers=higher))
        onnx.checker.check_model(model, full_check=True)
        assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
        hidden = session(model).run(OUTPUTS[2:3], feeds(rows=8))[0]
        errors.append(np.square(exact - hidden).mean())
    # What is left is the weights' error.
    assert errors[1] < 0.9 * errors[0]
    if name == "int8-static-cpu":
        operators = optimized(model, tmp_path / "o.onnx")
        # Both parts of a head's few rows are rows of one product: pooler, transform and decoder.
        assert operators.count("MatMulIntegerToFloat") == 2 * (len(every) - 3) + 3


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
@pytest.mark.parametrize("flat", [False, True], ids=["batch", "flat"])
def test_one_layer_computes_what_onnx_defines(scheme, flat):
    """Against QuantizeLinear and DequantizeLinear written out in numpy; the sum is of integers, so nearly exact."""
    from onnx import TensorProto, helper

    rng = np.random.default_rng(4)
    weights = rng.standard_normal((48, 20)).astype(np.float32)
    given = (rng.standard_normal((7, 48) if flat else (2, 7, 48)) * 2).astype(np.float32)
    limits = Range(low=-3.0, high=3.0) if scheme.symmetric else Range(low=-2.5, high=4.0)
    cache = WeightCache(saturating=True)
    layer = Linear(name="layer", source="x", output="y", weights=weights, bias=None, gelu=False, table=None, flat=flat)
    builder = GraphBuilder(17)
    QdqEmitter(weights=cache, ranges={"x": limits}, scheme=scheme).linear(builder, layer)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * given.ndim) for name in "xy"]
    frame = helper.make_model(helper.make_graph([], "one", ends[:1], ends[1:]), ir_version=8)
    answer = session(builder.model(frame)).run(None, {"x": given})[0]
    scale, zero = scheme.parameters(limits)
    info = np.iinfo(scheme.dtype)
    integers = np.clip(np.rint(given / scale) + int(zero), info.min, info.max) - int(zero)
    expected = integers * np.float64(scale) @ cache.linear(layer).dequantize().astype(np.float64)
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
@pytest.mark.parametrize("sixteen", [False, True], ids=["8 bits", "16 bits"])
def test_channels_kept_in_float_are_multiplied_apart(scheme, sixteen):
    """Two channels far beyond the range: what they give is exact, and none of it comes by way of the 8-bit weights."""
    from onnx import TensorProto, helper

    rng = np.random.default_rng(4)
    weights = rng.standard_normal((48, 20)).astype(np.float32)
    given = (rng.standard_normal((2, 7, 48)) * 0.5).astype(np.float32)
    given[..., [3, 40]] *= 100
    limits = Range(low=-2.0, high=2.0)
    layers = [
        Linear(name=f"layer{number}", source="x", output=f"y{number}", weights=part, bias=None, gelu=False, table=None)
        for number, part in enumerate(np.split(weights, 2, axis=1))
    ]
    cache = CalibratedWeights(
        saturating=True, layers=layers, activations={}, text={}, decomposes=False, settled={"x": np.array([3, 40])}
    )
    emitter = QdqEmitter(
        weights=cache,
        ranges={"x": limits},
        scheme=scheme,
        high_precision_layers=frozenset(layer.name for layer in layers) if sixteen else frozenset(),
    )
    builder = GraphBuilder(17)
    for layer in layers:
        emitter.linear(builder, layer)
        assert not cache.linear(layer).values[[3, 40]].any()
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 3) for name in ("x", "y0", "y1")]
    model = builder.model(helper.make_model(helper.make_graph([], "one", ends[:1], ends[1:]), ir_version=8))
    # Products of one activation share what is picked of it.
    assert sum(node.op_type == "Gather" for node in model.graph.node) == 1
    answer = np.concatenate(session(model).run(None, {"x": given}), axis=-1)
    error = answer - given @ weights
    # Half a step of each of the other channels, and of the weights; the two have products of up to 300.
    assert np.abs(error).max() < 0.3


def test_ranges_leave_out_what_is_kept_in_float(tiny, held_out):
    plain = load_plain(tiny.file(tiny.manifest.variants["fp32"].file))
    name, text = linears(plain)[0].source, read_calibration(tiny, held_out, samples=8)
    left_out = np.array([1, 4])
    [whole, part] = (
        observe.histograms(plain, [name], text, silent, without=without)[name] for without in (None, {name: left_out})
    )
    channels = len(linears(plain)[0].weights)
    assert part.total * channels == whole.total * (channels - len(left_out))


def test_a_graph_too_large_for_memory_alone_is_observed_from_a_file(tiny, held_out, monkeypatch):
    """As XLM-R large is: protobuf writes no message of 2 GB."""
    plain = load_plain(tiny.file(tiny.manifest.variants["fp32"].file))
    name, text = linears(plain)[0].source, read_calibration(tiny, held_out, samples=8)
    before = plain.SerializeToString(deterministic=True)
    expected = observe.histograms(plain, [name], text, silent)[name]
    monkeypatch.setattr(observe, "LARGEST", 1000)
    found = observe.histograms(plain, [name], text, silent)[name]
    assert found.total == expected.total
    np.testing.assert_array_equal(found.counts, expected.counts)
    assert onnx.ModelProto.FromString(before) == plain  # with its weights and outputs


def test_calibration_sees_no_padding_and_both_heads(tiny, held_out, monkeypatch):
    """The ranges are those of the texts alone: batches have one row and no 0 in their masks."""
    seen = []

    def kept(samples):
        seen.append(make_batch(samples))
        return seen[-1]

    monkeypatch.setattr(observe, "make_batch", kept)
    plain = load_plain(tiny.file(tiny.manifest.variants["fp32"].file))
    how = Calibration(samples=20)
    calibrator = Calibrator(tiny, plain, how, text=held_out, progress=silent)
    source = GraphSource(plain=plain, fused=plain, instruction_set=None, weights=WeightCache(saturating=True))
    made = calibrator.apply(source, RECIPES["int8-static"])
    # What is rotated is gathered in a pass of its own.
    passes = 2 if calibrator.record(made)["rotated"] else 1
    assert len(seen) == 20 + passes * len(calibrator.fitting.samples)
    assert all(batch.attention_mask.all() and len(batch.input_ids) == 1 for batch in seen)
    assert any(batch.token_type_ids.any() for batch in seen)
    assert sum(len(batch.masked_positions) for batch in seen)


def test_the_record_tells_what_the_ranges_came_from(tiny, held_out):
    plain = load_plain(tiny.file(tiny.manifest.variants["fp32"].file))
    source = GraphSource(plain=plain, fused=plain, instruction_set=None, weights=WeightCache(saturating=True))
    records = []
    for method in ("minmax", "mse", "minmax"):
        calibrator = Calibrator(tiny, plain, Calibration(samples=16, method=method), text=held_out, progress=silent)
        records.append(calibrator.record(calibrator.apply(source, RECIPES["int8-static"])))
    assert records[0] == records[2]
    assert records[0]["text"] == records[1]["text"]
    assert records[0]["ranges_sha256"] != records[1]["ranges_sha256"]
    assert records[0]["samples"] == 16
    assert records[0]["method"] == "minmax"


def test_few_texts_are_enough_and_none_are_not(tiny, tmp_path, held_out):
    assert len(read_calibration(tiny, held_out, samples=4).samples) == 4
    assert len(read_calibration(tiny, held_out, samples=10_000).samples) < 10_000
    path = tmp_path / "text.txt"
    path.write_text("\n".join(["!"] * 3 + [" "] * 20) + "\n", encoding="utf-8")
    with pytest.raises(InputTextError, match="too short"):
        read_calibration(tiny, path)
