"""How many samples a verdict takes: a second look only where it would decide."""

import dataclasses

import numpy as np
import pytest

from bertport.compare.quality import Samples, further
from bertport.compare.runner import Comparison
from bertport.measure.quality.samples import PAIRS, TEXTS, Sample
from bertport.measure.statistics import share


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
