"""How many samples a verdict takes: a second look only where it would decide."""

import dataclasses

import numpy as np
import pytest

from bertport.compare.entries import open_bundles
from bertport.compare.quality import Samples, further, samples_for
from bertport.compare.runner import Comparison
from bertport.measure.budget import judge_all
from bertport.measure.quality.samples import CHOICES, PAIRS, PLAIN, QUESTIONS, TEXTS, Sample
from bertport.measure.statistics import share
from bertport.measure.text import read_texts
from bertport.runtime.heads import MULTIPLE_CHOICE, QUESTION_ANSWERING, SEQUENCE_CLASSIFICATION
from tests.compare.conftest import TINY_PRESET


def samples(positions=0, pairs=0):
    def one(masked, label):
        ids = np.zeros(12, dtype=np.int64)
        kind = TEXTS if label is None else PAIRS
        return Sample(
            text=0,
            kind=kind,
            input_ids=ids,
            token_type_ids=ids,
            positions=ids[:masked],
            labels=ids[:masked],
            label=label,
        )

    return Samples(first=(one(2, None),), masked=(one(10, None),) * (positions // 10), pairs=(one(0, 1),) * pairs)


def accuracy(hits, count, agreement=1.0):
    top1 = share([10 * agreement] * 300, [10] * 300)
    flips = share([1] * hits + [0] * (count - hits), [1] * count)
    return {"mlm": {"top1_agreement": dataclasses.asdict(top1)}, "nsp": {"flips": dataclasses.asdict(flips)}}


@pytest.mark.parametrize(
    ("bounds", "figures", "left", "pairs", "masked"),
    [
        ({"nsp": 0.005}, accuracy(0, 60), 2000, True, False),  # more pairs would tell
        ({"nsp": 0.005}, accuracy(0, 60), 100, False, False),  # not so few
        ({"nsp": 0.005}, accuracy(1, 200), 2000, False, False),  # no number would
        ({"nsp": 0.005}, accuracy(30, 60), 2000, False, False),  # beyond doubt
        ({"nsp": 0.005}, accuracy(5, 60), 2000, True, False),  # at 95%, and a look before the last needs more
        ({"top1": 0.98}, accuracy(0, 60), 2000, False, True),  # the same of 300 texts without a change
        ({"top1": 0.9}, accuracy(0, 60), 2000, False, False),
        ({"top1": 0.98, "nsp": 0.005}, accuracy(0, 60, 0.5), 2000, True, False),
        ({}, accuracy(0, 60), 2000, False, False),
        ({"kl": 0.1}, accuracy(0, 60), 2000, False, False),  # not measured
    ],
)
def test_more_samples_are_taken_only_where_they_would_decide(bounds, figures, left, pairs, masked):
    more = further(samples(positions=left, pairs=left), figures, bounds)
    assert any(sample.is_pair for sample in more) is pairs
    assert any(len(sample.positions) for sample in more) is masked


def test_two_looks_are_taken_of_a_variant_that_is_near_its_bound(make_options, tmp_path, monkeypatch):
    """On a real bundle: `noisy` on eight pairs, then on all there are."""
    monkeypatch.setattr("bertport.compare.quality.further", lambda samples, *_: samples.pairs)
    options = make_options(tmp_path / "out", variants=("noisy",), budget="nsp=0.1")
    comparison = Comparison(dataclasses.replace(options, effort=dataclasses.replace(options.sizes, pairs=8)))
    [compared] = comparison.bundles
    [step] = [planned for planned in comparison._quality_steps() if planned.key == "quality/noisy"]
    measured = step.run()
    assert measured.looks == 2
    assert measured.fidelity.head("nsp").flips.count > 8
    assert measured.fidelity.stability
    labels = [sample.label for sample in comparison.samples[compared.label].first if sample.is_pair]
    assert sorted(labels) == [0] * 4 + [1] * 4


def taken(samples, kind):
    return [sample for sample in samples if sample.kind == kind]


@pytest.mark.parametrize("whole", [False, True])
def test_a_bundle_trained_for_tasks_gets_samples_of_each_kind(tiny_bundle, held_out, whole):
    """Sentences as many as have so many masked words, whole groups of choices, and the rest for a second look."""
    compared = with_heads(tiny_bundle, SEQUENCE_CLASSIFICATION, QUESTION_ANSWERING, MULTIPLE_CHOICE)
    preset = dataclasses.replace(TINY_PRESET, most_positions=240, pairs=10, most_pairs=40)
    made = samples_for(compared, read_texts(held_out), preset, 0, whole=whole)
    most = 40 if whole else 60  # texts that there are, and a quarter of the most positions
    assert (len(taken(made.first, PLAIN)), len(taken(made.tasks, PLAIN))) == (20, most - 20)
    assert len(taken(made.first, QUESTIONS)) == 10
    assert len(taken(made.tasks, QUESTIONS)) == 30
    groups = [{sample.group for sample in taken(side, CHOICES)} for side in (made.first, made.tasks)]
    assert [len(taken(side, CHOICES)) for side in (made.first, made.tasks)] == [12, 28]
    assert [len(group) for group in groups] == [3, 7]
    assert not groups[0] & groups[1]
    lengths = [len(sample.input_ids) for sample in taken(made.first, PLAIN)]
    assert bool(np.mean(lengths) > 25) is whole  # a text has three sentences


def test_so_many_more_choices_are_taken_as_decide_a_question(tiny_bundle, held_out):
    compared = with_heads(tiny_bundle, MULTIPLE_CHOICE)
    made = samples_for(compared, read_texts(held_out), dataclasses.replace(TINY_PRESET, pairs=8, most_pairs=200), 0)
    left = len(taken(made.tasks, CHOICES))
    agreement = dataclasses.asdict(share([1] * 100, [1] * 100))
    bounds = {"choice": 0.985}
    [judged] = judge_all(bounds, {MULTIPLE_CHOICE: {"agreement": agreement}}).values()
    assert left / 4 < judged.more < left  # enough texts, and too few questions
    assert not further(made, {MULTIPLE_CHOICE: {"agreement": agreement}}, bounds)


def with_heads(path, *heads):
    """A bundle as if it had other heads: samples are made of a manifest and a tokenizer alone."""
    [compared] = open_bundles([path])
    manifest = compared.bundle.manifest
    entry = dataclasses.replace(manifest.heads["nsp"], labels=("a", "b"), positive=None)
    changed = dataclasses.replace(manifest, heads=dict.fromkeys(heads, entry))
    return dataclasses.replace(compared, bundle=dataclasses.replace(compared.bundle, manifest=changed))
