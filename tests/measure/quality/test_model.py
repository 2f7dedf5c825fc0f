"""The whole way on a real bundle: text, tokenizer, masks, graphs, figures."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from bertport.measure.quality.fidelity import measure
from bertport.measure.quality.model import (
    conventions,
    graph_of,
    make_batch,
    open_onnx,
    read_sample_tokenizer,
    read_tokenizer,
    size_of,
)
from bertport.measure.quality.samples import Sample, masked_samples, pair_samples
from bertport.measure.statistics import Settings
from bertport.measure.text import Text
from bertport.runtime import load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import ProviderError

SENTENCES = [
    "The man went to the store.",
    "He bought milk and bread.",
    "She has a house in the city.",
    "There are seven ships on the river!",
    "How many years must the queen work?",
    "London is the capital of England.",
]


@pytest.fixture(scope="module")
def bundle(tiny_bundle):
    return Bundle.open(tiny_bundle)


@pytest.fixture(scope="module")
def samples(bundle):
    rng = np.random.default_rng(0)
    texts = [Text(text=" ".join(rng.choice(SENTENCES, size=3)), document=number // 5) for number in range(20)]
    tokenizer = read_sample_tokenizer(bundle)
    return [*masked_samples(texts, tokenizer), *pair_samples(texts, tokenizer)]


def serving(bundle):
    return next(name for name, variant in bundle.manifest.variants.items() if variant.kind == "serving")


def test_the_portable_and_the_serving_graph_agree(bundle, samples):
    portable, gathered = (
        graph_of(load(bundle.path, variant=name, threads=1)) for name in ("portable", serving(bundle))
    )
    fidelity = measure(
        portable, gathered, samples, settings=Settings(resamples=100), conventions=conventions(bundle), stability=5
    )
    assert fidelity.heads["mlm"].top1_agreement.value == 1
    assert fidelity.heads["mlm"].kl.value < 1e-8  # fp32 sums in another order: about 1e-6 in a logit, its square in KL
    assert fidelity.heads["nsp"].largest_change < 1e-5
    assert fidelity.heads["hidden"].worst > 0.99999
    assert fidelity.stability.batch_mates["kl"].value < 1e-8
    assert fidelity.stability.padding["kl"].value < 1e-8


def test_the_logits_are_those_that_fill_mask_answers_with(bundle):
    model = load(bundle.path, threads=1)
    text = "The man went to the [MASK]."
    [best, *_] = model.fill_mask(text)
    tokenizer = read_tokenizer(bundle)
    ids = np.array(tokenizer.encode(text).ids)
    sample = Sample(
        text=0,
        input_ids=ids,
        token_type_ids=np.zeros_like(ids),
        positions=np.flatnonzero(ids == tokenizer.token_to_id("[MASK]")),
        labels=np.array([best["token"]]),
    )
    logits = graph_of(model).run(make_batch([sample]), ["logits"])["logits"]
    probabilities = np.exp(logits[0] - logits[0].max())
    assert logits[0].argmax() == best["token"]
    assert probabilities.max() / probabilities.sum() == pytest.approx(best["score"], rel=1e-4)


def test_a_graph_that_needs_a_position_is_given_one(bundle, samples):
    """Some providers take no empty tensor, and ReduceMax of INT8 graphs takes none up to ONNX Runtime 1.31."""
    model = load(bundle.path, variant=serving(bundle), threads=1)
    provider = dataclasses.replace(model.graph.provider, least_positions=1)
    graph = graph_of(model.with_graph(dataclasses.replace(model.graph, provider=provider)))
    counts, session = [], graph.session

    class Noting:
        def run(self, outputs, feeds):
            counts.append(len(feeds["masked_positions"]))
            return session.run(outputs, feeds)

    graph.session = Noting()
    batch = make_batch([sample for sample in samples if sample.is_pair][:1])
    names = ["logits", "seq_relationship_logits"]
    answers, wanted = graph.run(batch, names), graph_of(model).run(batch, names)
    assert counts == [1]
    assert answers["logits"].shape == wanted["logits"].shape == (0, bundle.manifest.architecture.vocab_size)
    np.testing.assert_allclose(answers["seq_relationship_logits"], wanted["seq_relationship_logits"], atol=1e-6)


@pytest.mark.parametrize(("version", "least"), [("1.31.1", 1), ("1.32.0", 0)])
def test_a_graph_outside_a_bundle_is_asked_what_it_needs(bundle, monkeypatch, version, least):
    placed = {"CPUExecutionProvider": {"MatMul": 3, "ReduceMax": 1}}
    monkeypatch.setattr("bertport.measure.quality.model.placement_of", lambda _: placed)
    monkeypatch.setattr("onnxruntime.__version__", version)
    with bundle.opening(serving(bundle)) as path:
        assert open_onnx(path).least_positions == least


def test_a_run_that_fails_is_one_sentence(bundle):
    """So that a comparison goes on with its other rows."""
    graph, ids = graph_of(load(bundle.path, threads=1)), np.full(5, 10**6)
    batch = make_batch([Sample(text=0, input_ids=ids, token_type_ids=np.zeros_like(ids), labels=ids[:0])])
    said = r"^ONNX Runtime fails on 1 x 5 tokens \(.+\): choose another variant or provider$"
    with pytest.raises(ProviderError, match=said):
        graph.run(batch, graph.outputs[:1])


def test_conventions_come_from_the_bundle(bundle):
    known = conventions(bundle)
    assert (known.max_length, known.pad, known.heads) == (bundle.manifest.max_length, 0, bundle.manifest.heads)


def test_a_variant_that_points_into_another_needs_both_files(bundle):
    name = serving(bundle)
    entry = bundle.manifest.variants[name]
    files = {entry.file, *entry.external_data}
    assert size_of(bundle, name) == sum((bundle.path / file).stat().st_size for file in files)
    assert size_of(bundle, name) > size_of(bundle, "portable")


def test_opening_a_bundle_leaves_the_arithmetic_of_the_program_alone(bundle):
    """With `session.set_denormal_as_zero`, the first session of a process flushes denormals in its thread for good."""
    script = "import sys, numpy; from bertport.runtime import load; load(sys.argv[1]); print(numpy.float32(1e-40) * 1)"
    done = subprocess.run([sys.executable, "-c", script, bundle.path], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 0
