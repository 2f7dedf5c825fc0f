"""The examples on which variants differ most, in words."""

from __future__ import annotations

import numpy as np
import pytest

from bertport.compare.evaluate.differing import differing_examples
from bertport.measure.labelled.data import Example
from tests.measure.labelled.judged import data_of, predicted

KINDS = {
    "retrieval": ((200_000, 3), np.array([12_345, 7]), np.array([7, 12_345]), "200000 3", "12345 7"),
    "ranking": ((0.0, 2.5), np.array([1, 0]), np.array([0, 1]), "0 2.5", "1 0"),
    "choice": (12_345, 12_345, 0, "12345", "12345"),
    "tags": (("O", "B-X"), ("B-X", "O"), ("O", "O"), "O B-X", "B-X O"),
    "regression": (1.0, 0.123456, 0.5, "1", "0.1235"),
    "spans": (("a b", "c", "a b"), "a b", "c", "a b | c", "a b"),
}
"""By kind of data: a truth, what fp32 predicts, what a variant does, and the first two in words."""


@pytest.mark.parametrize("kind", KINDS)
def test_truths_and_predictions_are_said_in_full(kind, monkeypatch):
    truth, reference, other, said, answered = KINDS[kind]
    data = data_of(kind, [truth])
    monkeypatch.setattr(type(data), "examples", lambda _: iter([Example(inputs="a", truth=truth)]))
    arrays = kind in {"choice", "regression"}
    sides = {
        name: predicted(data, np.array([value]) if arrays else [value])
        for name, value in (("fp32", reference), ("int8", other))
    }
    [example] = differing_examples(sides, "fp32", data, 3)
    assert (example.truth, example.predictions["fp32"]) == (said, answered)
