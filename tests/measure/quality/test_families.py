"""Sentence order and replaced tokens, measured on real graphs of encoders that have these heads."""

from __future__ import annotations

import numpy as np
import pytest

from bertport.compare.entries import open_bundles
from bertport.compare.presets import PRESETS
from bertport.compare.quality import samples_for
from bertport.compare.workloads import make_inputs
from bertport.measure.quality.fidelity import measure
from bertport.measure.quality.heads import HEADS, kinds_of
from bertport.measure.quality.model import OnnxGraph, conventions, graph_of, read_sample_tokenizer
from bertport.measure.quality.samples import ORDERED, REPLACED, masked_samples, pair_samples, replaced_samples
from bertport.measure.statistics import Settings
from bertport.measure.text import Text
from bertport.runtime import load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.heads import NSP, RTD, SOP
from tests.conftest import WORDS
from tests.family_bundles import family_bundle

SETTINGS = Settings(resamples=100)


@pytest.fixture(scope="module")
def texts():
    random = np.random.default_rng(4)

    def sentence():
        return " ".join(random.choice(WORDS, size=7)).capitalize() + "."

    return [Text(text=" ".join(sentence() for _ in range(3)), document=number // 4) for number in range(16)]


class Noisy:
    """A graph whose logits are moved a little: another model, as quantization makes one."""

    def __init__(self, graph: OnnxGraph) -> None:
        self.graph, self.outputs = graph, graph.outputs

    def run(self, batch, outputs):
        random = np.random.default_rng(int(batch.input_ids.sum()))
        answers = self.graph.run(batch, outputs)
        return {name: values + random.normal(scale=2, size=values.shape) for name, values in answers.items()}


def opened(factory, family, model_class=None):
    checkpoint, path = family_bundle(factory, family, model_class)
    return checkpoint, Bundle.open(path), graph_of(load(path, variant="fp32", threads=1, provider="cpu"))


def says(network, sample, output):
    """Return the output of transformers' class for a sample."""
    import torch

    inputs = {"input_ids": sample.input_ids, "token_type_ids": sample.token_type_ids}
    with torch.no_grad():
        return network(**{name: torch.from_numpy(ids)[None] for name, ids in inputs.items()})[output][0].numpy()


def test_sentence_order_is_measured(tmp_path_factory, texts):
    from transformers import AlbertForPreTraining

    checkpoint, bundle, graph = opened(tmp_path_factory, "albert")
    tokenizer = read_sample_tokenizer(bundle)
    pairs = list(pair_samples(texts, tokenizer, kind=ORDERED))
    samples = [*masked_samples(texts, tokenizer), *pairs]
    fidelity = measure(graph, Noisy(graph), samples, settings=SETTINGS, conventions=conventions(bundle), stability=4)
    figures = fidelity.heads[SOP]
    assert figures.flips.count == len(pairs)
    assert fidelity.heads[NSP] is None
    assert 0 < figures.flips.value < 1
    assert 0 < figures.mean_change.value <= figures.largest_change < 1
    assert figures.accuracy_difference.test == "mcnemar"
    network = AlbertForPreTraining.from_pretrained(checkpoint).eval()
    right = [says(network, pair, "sop_logits").argmax() == pair.label for pair in pairs]
    assert figures.accuracy_reference.value == pytest.approx(np.mean(right))
    assert fidelity.stability.padding["sop_flips"].value == 0


def test_replaced_tokens_are_measured(tmp_path_factory, texts):
    from transformers import ElectraForPreTraining

    checkpoint, bundle, graph = opened(tmp_path_factory, "electra", "ElectraForPreTraining")
    tokenizer = read_sample_tokenizer(bundle)
    samples = list(replaced_samples(texts, tokenizer))
    fidelity = measure(graph, Noisy(graph), samples, settings=SETTINGS, conventions=conventions(bundle), stability=4)
    figures = fidelity.heads[RTD]
    assert figures.flips.count == sum(len(sample.positions) for sample in samples)
    assert 0 < figures.flips.value < 1
    network = ElectraForPreTraining.from_pretrained(checkpoint).eval()
    right = [(says(network, sample, "logits")[sample.positions] > 0) == (sample.labels == 1) for sample in samples]
    assert figures.accuracy_reference.value == pytest.approx(np.concatenate(right).mean())
    assert figures.accuracy_difference.test != "mcnemar"  # tokens of a text are not independent
    itself = measure(graph, graph, samples[:4], settings=SETTINGS, conventions=conventions(bundle), stability=0)
    assert itself.heads[RTD].flips.value == itself.heads[RTD].kl.value == 0


def test_a_bundle_gets_the_samples_that_its_heads_are_measured_on(tmp_path_factory, texts):
    for family, model_class, kinds in (
        ("roberta", None, {"texts"}),
        ("albert", None, {"texts", ORDERED}),
        ("electra", "ElectraForPreTraining", {"texts", REPLACED}),
    ):
        [compared] = open_bundles((family_bundle(tmp_path_factory, family, model_class)[1],))
        made = samples_for(compared, texts, PRESETS["quick"], 0)
        assert {sample.kind for sample in made.first} == kinds
        assert kinds_of(compared.bundle.manifest.heads) <= kinds
        assert max(len(sample.input_ids) for sample in made.first) <= compared.bundle.manifest.max_length
    assert kinds_of(["unheard of"]) == set()
    assert all(head.samples for head in HEADS.values())


def test_bundles_without_a_common_mask_are_asked_for_features(tmp_path_factory, tiny_bundle, texts):
    roberta, albert = (family_bundle(tmp_path_factory, family)[1] for family in ("roberta", "albert"))
    alike = make_inputs(open_bundles((tiny_bundle, albert)), texts, 4, 0)
    assert alike.task == "fill-mask"
    assert all(text.count("[MASK]") == 1 for text in alike.texts)
    alone = make_inputs(open_bundles((roberta,)), texts, 4, 0)
    assert all(text.count("<mask>") == 1 for text in alone.texts)
    mixed = make_inputs(open_bundles((tiny_bundle, roberta)), texts, 4, 0)
    assert mixed.task == "features"
    assert not any("mask>" in text or "[MASK" in text for text in mixed.texts)
