"""Outlier suppression: the graph computes what it did, and what is rounded afterwards is nearer to fp32."""

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bertport.quantize.calibration import outlier_suppression
from bertport.quantize.calibration.outlier_suppression import (
    SUPPRESSED,
    ShiftAndScale,
    choose_shifts_and_scales,
    suppress_outliers,
    suppressed,
)
from bertport.quantize.calibration.ranges import Calibration
from bertport.quantize.calibration.statistics import collect
from bertport.quantize.calibrator import Calibrator
from bertport.quantize.graph.fusion import load_plain
from bertport.quantize.graph.layer_inputs import changeable
from bertport.quantize.graph.rewrite import Linear, linears
from bertport.quantize.recipes.source import GraphSource
from bertport.quantize.recipes.table import RECIPES
from bertport.quantize.texts import read_evaluation
from bertport.quantize.weights.cache import WeightCache
from tests.quantize.conftest import OUTPUTS, STATIC, feeds, gathered, session, silent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outlying(tiny):
    """The tiny graph with a wide channel, and another far from 0, behind every LayerNorm of the encoder."""
    model = load_plain(tiny.file(tiny.manifest.variants["fp32"].file))
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name.endswith("output.LayerNorm.weight"):
            values[3] *= 20
        elif tensor.name.endswith("output.LayerNorm.bias"):
            values[7] -= 30
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


def chosen_for(tiny, model, held_out):
    layers = changeable(model, linears(model))
    samples = read_evaluation(tiny, held_out, sample="calibration", positions=100, pairs=10).samples
    statistics = collect(model, [layer.source for layer in layers], samples, progress=silent)
    return layers, choose_shifts_and_scales(layers, statistics)


def test_a_suppressed_graph_computes_what_it_did(tiny, outlying, held_out):
    layers, chosen = chosen_for(tiny, outlying, held_out)
    changed = suppress_outliers(outlying, layers, chosen)
    onnx.checker.check_model(changed)
    assert {layer.source for layer in linears(changed) if layer.source.endswith(SUPPRESSED)} == {
        f"{name}{SUPPRESSED}" for name in chosen
    }
    for one, two in zip(*(session(model).run(OUTPUTS, feeds()) for model in (outlying, changed)), strict=True):
        # Single precision with channels 20 times the others; measured 2e-5.
        np.testing.assert_allclose(one, two, atol=1e-3 * np.abs(one).max())


def test_wide_channels_are_divided_and_far_ones_shifted(tiny, outlying, held_out):
    layers, chosen = chosen_for(tiny, outlying, held_out)
    behind_norms = {layer.source for layer in layers if "intermediate" in layer.name}
    assert behind_norms <= set(chosen)
    for name in behind_norms:
        assert chosen[name].scale.argmax() == 3
        assert np.abs(chosen[name].shift).argmax() == 7


def test_what_is_known_of_a_suppressed_activation_is_what_would_be_gathered():
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((400, 6)) * [1, 30, 1, 1, 2, 1] + [0, 0, 50, 0, 0, 0]).astype(np.float32)
    by = ShiftAndScale(shift=np.array([0, 1, 50, 0, 0, 0], np.float32), scale=np.array([1, 30, 1, 1, 2, 1], np.float32))
    known, expected = suppressed(gathered(rows), by), gathered((rows - by.shift) / by.scale)
    for name in ("mean", "lowest", "highest", "rows"):
        np.testing.assert_allclose(getattr(known, name), getattr(expected, name), atol=1e-4)
    # The shifted channel's square of 2,500 a token is taken out of a float32 sum.
    np.testing.assert_allclose(known.gram, expected.gram, atol=0.5)


def test_an_activation_whose_channels_are_alike_is_left_as_it_is(outlying):
    layer = next(layer for layer in linears(outlying) if "intermediate" in layer.name)
    rows = np.random.default_rng(0).uniform(-1, 1, (600, len(layer.weights))).astype(np.float32)
    assert not choose_shifts_and_scales([layer], {layer.source: gathered(rows)})


@pytest.mark.parametrize(("channels", "most"), [(128, 0), (256, 4), (1100, 32)])
def test_channels_that_shift_and_scale_leave_outlying_are_kept_in_float(channels, most):
    """A channel that is mostly far out takes steps from all others, however it is divided; few channels have none."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((160, channels)).astype(np.float32)
    rows[:, 5] *= 300
    layer = Linear(
        name="one",
        source="x",
        output="y",
        weights=rng.standard_normal((channels, 24)).astype(np.float32),
        bias=None,
        gelu=False,
        table=None,
    )
    by = choose_shifts_and_scales([layer], {"x": gathered(rows)})["x"]
    assert (5 in by.kept_in_float) == bool(most)
    assert len(by.kept_in_float) <= most
    flat = dataclasses.replace(layer, flat=True)
    assert not len(choose_shifts_and_scales([flat], {"x": gathered(rows)})["x"].kept_in_float)


@pytest.mark.parametrize("name", STATIC)
@pytest.mark.parametrize("part", ["suppress_outliers", "gptq"])
def test_each_remedy_brings_the_answers_nearer(tiny, outlying, held_out, name, part):
    # With 16 bits for the activations, what is left is the error of the weights, which fitting is about.
    higher = frozenset(layer.name for layer in linears(outlying)) if part == "gptq" else frozenset()
    source = GraphSource(plain=outlying, fused=outlying, instruction_set=None, weights=WeightCache(saturating=True))
    exact = session(outlying).run(OUTPUTS[2:3], feeds(rows=8))[0]
    errors = []
    for given in (False, True):
        how = Calibration(samples=24, **{"suppress_outliers": True, "gptq": True, part: given})
        made = Calibrator(tiny, outlying, how, text=held_out, progress=silent).apply(source, RECIPES[name])
        made = dataclasses.replace(made, high_precision_layers=higher)
        answer = session(RECIPES[name].make(made)).run(OUTPUTS[2:3], feeds(rows=8))[0]
        # In each channel's own measure: a wide one would hide all others.
        errors.append(np.square((answer - exact) / exact.std(axis=(0, 1))).mean())
    assert errors[1] < (0.3 if part == "suppress_outliers" else 0.9) * errors[0]


@pytest.mark.parametrize("name", STATIC)
def test_a_graph_with_channels_kept_in_float_is_as_near(tiny, outlying, held_out, name, monkeypatch):
    monkeypatch.setattr(outlier_suppression, "LARGEST_SHARE", 0.2)  # of 32 channels, 3% would be none
    source = GraphSource(plain=outlying, fused=outlying, instruction_set=None, weights=WeightCache(saturating=True))
    exact = session(outlying).run(OUTPUTS[2:3], feeds(rows=8))[0]
    errors, kept = [], []
    for keeps in (False, True):
        how = Calibration(samples=24, keep_in_float=keeps)
        calibrator = Calibrator(tiny, outlying, how, text=held_out, progress=silent)
        made = calibrator.apply(source, RECIPES[name])
        # TensorRT's weights have the full range, which only some CPUs' own products hold.
        answer = session(RECIPES[name].make(made), as_defined=name == "int8-static").run(OUTPUTS[2:3], feeds(rows=8))[0]
        errors.append(np.square((answer - exact) / exact.std(axis=(0, 1))).mean())
        kept.append(calibrator.record(made)["kept_in_float"])
    assert kept[0] == 0 < kept[1]
    # Of 32 channels a few hardly count; without their product, or with it twice, the answers would be others.
    assert errors[1] < 1.5 * errors[0]


def test_a_bias_that_two_layers_share_is_not_shifted(outlying):
    layers = linears(outlying)
    free = changeable(outlying, layers)
    assert {layer.source for layer in layers if layer.table} & {layer.source for layer in free} == set()
    shared = onnx.ModelProto()
    shared.CopyFrom(outlying)
    biases = [
        name for node in shared.graph.node if node.op_type == "Add" for name in node.input if "query.bias" in name
    ]
    for node in shared.graph.node:
        node.input[:] = [biases[0] if name == biases[1] else name for name in node.input]
    sources = {layer.source for layer in layers if layer.name.endswith("query")}
    assert not sources & {layer.source for layer in changeable(shared, linears(shared))}
