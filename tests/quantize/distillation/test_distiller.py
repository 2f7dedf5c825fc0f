"""Training against fp32: nearer to it, the same by seed, and kept only where held-out text says so."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto

from bertport.measure.budget import Budget
from bertport.measure.quality.heads import HEADS
from bertport.measure.quality.model import open_onnx
from bertport.measure.statistics import Difference, Estimate
from bertport.quantize import render
from bertport.quantize.calibrator import Calibrator
from bertport.quantize.cli import quantize as command
from bertport.quantize.distillation import distiller
from bertport.quantize.distillation.distances import DISTANCES, Distances
from bertport.quantize.distillation.distiller import helps
from bertport.quantize.distillation.training import TEXTS, batches, train_vectors
from bertport.quantize.graph.vectors import read_vectors, replace_vectors
from bertport.quantize.job import Options
from bertport.quantize.quantizer import quantize
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import UsageError
from tests.quantize.conftest import manifest_of, session

RECIPE = "int8-static-cpu"


def moved(low, high):
    """A difference with this interval."""
    size = Estimate(value=(low + high) / 2, low=low, high=high, count=9, clusters=9)
    return Difference(difference=size, p_value=0.5, test="bootstrap")


def test_training_helps_where_one_distance_falls_and_none_rises():
    assert helps([moved(-2, -1), moved(-1, 1)])
    assert not helps([moved(-1, 1)])
    assert not helps([moved(0, 0)])
    assert not helps([moved(-2, -1), moved(0.1, 1)])


def test_batches_are_of_one_kind_and_take_every_sample_once(trained_on):
    taken = []
    for batch in batches(trained_on, 3):
        assert len({sample.kind for sample in batch}) == 1
        assert len(batch) <= TEXTS
        taken += map(id, batch)
        if len(taken) == len(trained_on):
            break
    assert sorted(taken) == sorted(map(id, trained_on))


def disturbed(vectors):
    """LayerNormalization weights of which each is wrong by some hundredths, by name."""
    rng = np.random.default_rng(0)
    weights = {name: value for name, value in vectors.items() if name.endswith("LayerNorm.weight")}
    return {name: value * (1 + rng.normal(0, 0.05, value.shape)).astype(np.float32) for name, value in weights.items()}


@pytest.fixture(scope="module")
def trained(tiny, tiny_source, static_graphs, trained_on):
    """Vectors of some steps, twice by one seed and once by another, of a graph that was disturbed; and the graph."""
    reference = open_onnx(tiny_source.path, threads=1)
    distances = Distances(tiny.manifest.heads, reference.outputs)
    model = onnx.ModelProto.FromString(static_graphs[RECIPE].SerializeToString())
    replace_vectors(model, disturbed(read_vectors(model)))
    told = []

    def train(seed, steps):
        return train_vectors(
            model,
            reference,
            trained_on[:48],
            distances,
            steps=steps,
            seed=seed,
            rate=1e-2,
            progress=lambda *step: told.append(step),
        )

    return model, train(0, 12), train(0, 3), train(0, 3), train(1, 3), told


def test_training_takes_away_what_was_disturbed(trained, static_graphs, tiny_source):
    model, vectors, *_, told = trained
    right = read_vectors(static_graphs[RECIPE])
    assert {name: value.shape for name, value in vectors.items()} == {
        name: value.shape for name, value in right.items()
    }
    fixed = replace_vectors(onnx.ModelProto.FromString(model.SerializeToString()), vectors)
    hidden = [
        session(graph, as_defined=True).run(["last_hidden_state"], tiny_source.feeds)[0] for graph in (model, fixed)
    ]
    fp32 = tiny_source.expected[tiny_source.outputs.index("last_hidden_state")]
    before, after = (np.square(values - fp32).mean() for values in hidden)
    assert after < 0.5 * before
    assert told[:12] == [("training biases and LayerNorm against fp32", step, 12) for step in range(1, 13)]


def test_the_same_seed_trains_the_same_vectors(trained):
    _, _, one, same, other, _ = trained
    assert all((one[name] == same[name]).all() for name in one)
    assert any((one[name] != other[name]).any() for name in one)


def options(held_out, **changed):
    """Quick settings, with which no speed or accuracy refuses a variant."""
    budget = Budget.parse("top1=0.1")
    return Options(text=held_out, budget=budget, positions=80, pairs=20, force=True, isa="avx2", **changed)


@pytest.mark.slow
def test_what_helps_is_kept_and_what_does_not_is_not(bundle_copy, held_out, monkeypatch):
    """Of two variants that were disturbed, one is trained, and the other's vectors are moved at random."""
    real, apply, right = distiller.train_vectors, Calibrator.apply, {}

    def train(model, *given, **named):
        vectors = real(model, *given, **named, rate=1e-2)
        if any(tensor.data_type == TensorProto.UINT8 for tensor in model.graph.initializer):  # int8-static-cpu
            return vectors
        rng = np.random.default_rng(0)
        return {name: value + rng.normal(0, 0.3, value.shape) for name, value in vectors.items()}

    def calibrate(self, source, recipe):
        source = apply(self, source, recipe)
        right[recipe.name] = disturbed(read_vectors(source.plain))
        return dataclasses.replace(source, vectors=right[recipe.name])

    monkeypatch.setattr(distiller, "train_vectors", train)
    monkeypatch.setattr(Calibrator, "apply", calibrate)
    kept, refused = quantize(bundle_copy, [RECIPE, "int8-static"], options=options(held_out, distill=12))
    records = [outcome.variant.fidelity["distillation"] for outcome in (kept, refused)]
    assert [record["kept"] for record in records] == [True, False]
    for record in records:
        assert record["steps"] == 12
        assert record["text"]["sha256"] != record["judged_on"]["sha256"]
    assert records[0]["distances"]["mlm"]["difference"]["high"] < 0
    assert records[1]["distances"]["mlm"]["difference"]["low"] > 0
    for outcome, record, side in zip((kept, refused), records, ("after", "before"), strict=True):
        for head in ("mlm", "nsp"):  # what was recorded is what is measured of the variant that was written
            measured = outcome.measured.accuracy.heads[head].kl.value
            assert record["distances"][head][side] == pytest.approx(measured, rel=1e-3)
    bundle = Bundle.open(bundle_copy)
    written = [read_vectors(onnx.load(bundle.file(outcome.variant.file))) for outcome in (kept, refused)]
    assert all((written[1][name] == value).all() for name, value in right["int8-static"].items())
    assert all((written[0][name] != value).any() for name, value in right[RECIPE].items())
    assert "kept: nearer to fp32 on held-out.txt" in render.distillation(records[0])
    assert "not kept, the variant is as it was" in render.distillation(records[1])


def test_every_measured_head_has_a_distance_that_is_0_for_equal_outputs():
    rng = np.random.default_rng(0)
    shapes = {"token-classification": (2, 5, 3), "question-answering": (2, 5, 2), "rtd": (2, 5, 1), "hidden": (2, 5, 8)}
    real = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]).bool()
    for name in DISTANCES:
        assert name in HEADS
        one, two = (torch.from_numpy(rng.normal(size=shapes.get(name, (2, 3)))) for _ in range(2))
        assert DISTANCES[name](one, one, real).abs().max() < 1e-12
        assert (DISTANCES[name](one, two, real) > 0).all()
        if name in shapes:  # padding does not count
            padded = torch.where(real[..., None], one, 7.0)
            assert torch.allclose(DISTANCES[name](one, two, real), DISTANCES[name](padded, two, real))


def test_what_cannot_be_trained_is_refused_before_anything_is_done(tiny_bundle, bundle_copy, held_out):
    refused = CliRunner().invoke(command, [str(tiny_bundle), "--recipe", "int8-dynamic", "--distill", "5"])
    assert isinstance(refused.exception, UsageError)
    assert "ask for one that is (int8-static, int8-static-cpu)" in str(refused.exception)
    refused = CliRunner().invoke(command, [str(tiny_bundle), "--recipe", RECIPE, "--distill", "5", "--explain"])
    assert "--explain makes none" in str(refused.exception)
    refused = CliRunner().invoke(command, [str(tiny_bundle), "--recipe", RECIPE, "--distill", "0"])
    assert "0 is not in the range x>=1" in refused.output
    before = manifest_of(bundle_copy)
    with pytest.raises(UsageError, match="is the text that decides whether it helped as well"):
        quantize(bundle_copy, [RECIPE], options=options(held_out, distill=5, calibration=held_out))
    assert manifest_of(bundle_copy) == before
