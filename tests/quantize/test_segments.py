"""Pairs are measured and calibrated with as they are served."""

from __future__ import annotations

import pytest

from bertport.compare.options import Options as CompareOptions
from bertport.compare.runner import Comparison
from bertport.quantize.calibration.observe import read_calibration
from bertport.quantize.texts import read_evaluation
from bertport.runtime.bundle.directory import Bundle
from tests.broken import copied


def without_segments(manifest):
    manifest["inputs"]["token_type_ids"]["constant"] = 0


def of_one_segment(manifest):
    """As bertport 0.1.0 exported some: with a next-sentence head that can be given no pair."""
    manifest["architecture"]["type_vocab_size"] = 1


@pytest.mark.parametrize(("change", "segments"), [(None, {1}), (without_segments, {0}), (of_one_segment, set())])
def test_pairs_have_the_segments_that_they_are_served_with(tiny_bundle, held_out, change, segments, tmp_path):
    bundle = Bundle.open(copied(tiny_bundle, tmp_path / "bundle", manifest=change))
    samples = [
        *read_evaluation(bundle, held_out, sample="evaluation", positions=60, pairs=8).samples,
        *read_calibration(bundle, held_out, samples=12).samples,
    ]
    options = CompareOptions(bundles=(bundle.path,), text=held_out, output=tmp_path / "report")
    for texts in Comparison(options).samples.values():
        samples += [*texts.first, *texts.masked, *texts.pairs]
    assert {int(sample.token_type_ids.max()) for sample in samples if sample.is_pair} == segments
