"""The examples on which variants differ most: found in the predictions, their texts read anew from the file."""

from __future__ import annotations

import heapq
import json
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from bertport.compare.evaluate.document import DifferingExample
from bertport.measure.labelled.kinds import CLASSIFICATION, MULTI_LABEL, SPANS
from bertport.runtime.excerpts import as_unicode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from bertport.measure.labelled.data import LabelledData
    from bertport.measure.labelled.predictions import Predictions

__all__ = ["differing_examples"]

Prediction: TypeAlias = "str | float | np.number | NDArray[np.generic] | Sequence[str | float]"
"""A truth or a prediction of an example, whatever the kind of data."""
LONGEST = 2000
"""Characters of an input, at most."""


def differing_examples(
    predictions: Mapping[str, Predictions], reference: str, data: LabelledData, count: int
) -> tuple[DifferingExample, ...]:
    """Return the examples on which variants differ most, the largest difference first.

    Those that a variant answers otherwise come before those whose scores alone moved.

    Args:
        predictions: By name of the variant.
        reference: The variant that the others are compared with.
        data: What was predicted; read once more.
        count: Most examples.
    """
    others = [predicted for name, predicted in predictions.items() if name != reference]
    if not others:
        return ()
    flips = np.mean([_differ(other.values, predictions[reference].values) for other in others], axis=0)
    moved = np.max([_moved(other, predictions[reference]) for other in others], axis=0)
    far = [index for index in range(len(data)) if flips[index] or moved[index]]
    places = heapq.nsmallest(count, far, key=lambda index: (-float(flips[index] > 0), -moved[index], index))
    inputs = _inputs(data, places)
    return tuple(
        DifferingExample(
            line=data.numbers[place],
            inputs=inputs[place],
            truth=_text(data.truths[place], data),
            predictions={name: _predicted(predicted, place, data) for name, predicted in predictions.items()},
            difference=float(moved[place]),
        )
        for place in places
    )


def _inputs(data: LabelledData, places: Sequence[int]) -> dict[int, str]:
    """Return the inputs of some examples as JSON, by their place."""
    wanted, inputs = set(places), {}
    for place, example in enumerate(islice(data.examples(), max(places, default=-1) + 1)):
        if place in wanted:
            text = json.dumps(example.inputs, ensure_ascii=False)
            inputs[place] = as_unicode(text if len(text) <= LONGEST else f"{text[:LONGEST]}...")
    return inputs


def _differ(values: NDArray[np.generic] | Sequence[object], reference: object) -> NDArray[np.bool_]:
    """Return for each example whether two variants predict otherwise; shape (examples,)."""
    if isinstance(values, np.ndarray):
        return np.asarray((values != np.asarray(reference)).reshape(len(values), -1).any(axis=1))
    others = cast("Sequence[object]", reference)
    return np.array([not _same(one, other) for one, other in zip(values, others, strict=True)])


def _same(one: object, other: object) -> bool:
    return bool(np.array_equal(one, np.asarray(other))) if isinstance(one, np.ndarray) else bool(one == other)


def _moved(candidate: Predictions, reference: Predictions) -> NDArray[np.float64]:
    """Return how far apart two variants' numbers are on each example; shape (examples,).

    For probabilities and scores it is the largest absolute difference; for answers without numbers 1 where they differ.
    """
    scored = candidate.scores is not None and reference.scores is not None
    one, other = (side.scores if scored else side.values for side in (candidate, reference))
    if isinstance(one, np.ndarray) and np.issubdtype(one.dtype, np.floating):
        return np.asarray(np.abs(one - other).reshape(len(one), -1).max(axis=1), dtype=np.float64)
    return np.array([_distance(first, second) for first, second in zip(one, other, strict=True)])


def _distance(one: object, other: object) -> float:
    """Return how far apart two predictions for an example are."""
    first, second = np.asarray(one), np.asarray(other)
    if first.shape == second.shape and first.size and np.issubdtype(first.dtype, np.floating):
        return float(np.abs(first - second).max())
    return float(not _same(one, other))


def _predicted(predicted: Predictions, place: int, data: LabelledData) -> str:
    """Return what a variant predicts for an example, with its probability where it is one of several labels."""
    text = _text(predicted.values[place], data)
    if data.kind == CLASSIFICATION and predicted.scores is not None:
        return f"{text} ({float(predicted.scores[place].max()):.3f})"
    return text


def _item(value: str | float | np.generic) -> str:
    """Return a text, the number of a document or of a choice, or a measured number with four digits, for people."""
    return str(value) if isinstance(value, str | int | np.integer) else f"{float(cast('float', value)):.4g}"


def _text(value: Prediction, data: LabelledData) -> str:
    """Return a truth or a prediction for people."""
    labels = data.labels or ()
    if data.kind == CLASSIFICATION:
        return as_unicode(labels[int(cast("int", value))])
    if data.kind == MULTI_LABEL:
        columns = np.flatnonzero(value) if isinstance(value, np.ndarray) else cast("Sequence[int]", value)
        return as_unicode(", ".join(labels[int(column)] for column in columns)) or "none"
    if isinstance(value, str | int | float | np.number):
        text = _item(value)
    elif data.kind == SPANS:  # the answers that count as right: several words each, and often the same again
        text = " | ".join(dict.fromkeys(map(_item, value)))
    else:
        text = " ".join(map(_item, value))
    return as_unicode(text if len(text) <= LONGEST else f"{text[:LONGEST]}...")
