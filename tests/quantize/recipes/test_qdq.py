"""int8-static: the graph of standard operators, its arithmetic, and SmoothQuant's exact rescaling."""

from __future__ import annotations

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
from bertport.quantize.recipes.qdq import QdqEmitter
from bertport.quantize.recipes.source import GraphSource
from bertport.quantize.recipes.table import RECIPES
from bertport.quantize.weights.cache import WeightCache
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
    for one, two in zip(reference.run(OUTPUTS, given), session(model).run(OUTPUTS, given), strict=True):
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


def test_tensorrt_gets_symmetric_activations_and_integers_only_behind_a_dequantization(source_for):
    """Its parser takes INT8 constants nowhere else, and no zero points but 0."""
    model = RECIPES["int8-static"].make(source_for("int8-static"))
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            assert stored[node.input[2]].dtype == np.int8
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert len(node.input) < 3 or not stored[node.input[2]].any()
        else:
            assert all(stored[operand].dtype != np.int8 for operand in node.input if operand in stored)


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
    import dataclasses

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
    import dataclasses

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
    calibrator.apply(source, RECIPES["int8-static"])
    assert len(seen) == 20 + len(calibrator.fitting.samples)
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
