"""What the command line says of a bundle."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.commands import render
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION
from tests.runtime.tasks.heads import stating


@pytest.mark.parametrize(
    ("count", "end"),
    [(1, "0: LABEL_0"), (100, ", 99: LABEL_99"), (101, ", 99: LABEL_99 and 1 more"), (10**6, " and 999,900 more")],
)
def test_of_many_labels_the_first_are_listed(tiny_bundle, count, end):
    labels = tuple(f"LABEL_{column}" for column in range(count))
    bundle = replace(Bundle.open(tiny_bundle), manifest=stating(tiny_bundle, SEQUENCE_CLASSIFICATION, labels=labels))
    line = next(line for line in render.manifest(bundle).splitlines() if "labels" in line)
    assert line.split()[:3] == ["sequence-classification", "labels", "0:"]
    assert line.endswith(end)
    assert len(line) < 2000
