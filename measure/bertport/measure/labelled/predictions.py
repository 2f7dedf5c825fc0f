"""Predictions of a model on labelled data, by the runtime's own batches and in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.measure.labelled.kinds import CLASSIFICATION, MULTI_LABEL, REGRESSION
from bertport.runtime.errors import BertportError
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION
from bertport.runtime.tasks.labels import activation_named, activation_of, columns, labelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bertport.measure.labelled.data import LabelledData
    from bertport.runtime.model import Model
    from bertport.runtime.tasks.table import Call

__all__ = ["TRUE", "Predictions", "predict_labelled"]

TRUE = 0.5
"""Probability from which on one of several labels that may all be true is taken for true."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What a variant answers to labelled data: of each example only what metrics need."""

    task: str
    """The task."""
    kind: str
    """The kind of data."""
    variant: str
    """The bundle's variant."""
    fingerprint: str
    """That of the data."""
    values: Any
    """What is taken for right, to be compared with the truth: of classification the labels' columns `[examples]`
    (int64), of several labels truth values `[examples, labels]`, of numbers the numbers `[examples]` (float64)."""
    scores: Any = None
    """The numbers behind it: of classification and of several labels probabilities `[examples, labels]` (float32); None
    where there are none beside `values`."""

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asking:
    """How a kind of data is asked for, and what is kept of the answers."""

    call: Callable[[Model, bool], Call]
    """Returns the task as it is asked, with or without cutting long texts."""
    keep: Callable[[list[Any], LabelledData], tuple[Any, Any]]
    """Returns `Predictions.values` and `Predictions.scores` of the answers, one per example."""


def predict_labelled(
    model: Model,
    data: LabelledData,
    *,
    truncation: bool = False,
    advance: Callable[[], None] | None = None,
) -> Predictions:
    """Predict every example of the data; what is predicted is what `Model.predict` gives.

    Inputs are read as they are needed: memory holds the texts of two windows of the runtime, and of each example what
    metrics need.

    Args:
        model: The model.
        data: The data.
        truncation: Cut texts that are too long instead of refusing them.
        advance: Called after each example.

    Raises:
        UsageError: for a kind of data that cannot be predicted, and a text that is too long; the sentence names the
            line.
        OutputError: for an example that the model gives no finite numbers for.
        PathError: where the file has changed since it was checked.
    """
    asking = ASKING[data.kind]
    answers = list(_answers(model, asking.call(model, truncation), data, advance))
    values, scores = asking.keep(answers, data)
    return Predictions(
        task=data.task,
        kind=data.kind,
        variant=model.variant,
        fingerprint=data.fingerprint,
        values=values,
        scores=scores,
    )


@dataclass(frozen=True, slots=True)
class _Inputs:
    """The data's inputs, read as they are needed: of known number, so that the runtime takes full windows of them."""

    data: LabelledData

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Any]:
        return (example.inputs for example in self.data.examples())


def _answers(model: Model, call: Call, data: LabelledData, advance: Callable[[], None] | None) -> Iterator[Any]:
    """Yield an answer for each example."""
    for index, answer in enumerate(model.outcomes(call, _Inputs(data))):
        if isinstance(answer, BertportError):
            raise type(answer)(f"{data.where(index)}: {answer.message}")
        yield answer
        if advance is not None:
            advance()


def _classify(model: Model, truncation: bool) -> Call:  # noqa: FBT001 — a field of a table
    """Return text-classification, whose answers are the scores of all labels `[labels]`."""
    call = model.resolve("text-classification", top_k=None, truncation=truncation)
    manifest = model.bundle.manifest
    entry, labels = labelled(SEQUENCE_CLASSIFICATION, manifest)
    activation = activation_named(activation_of(entry, len(labels)))
    return replace(call, finish=lambda logits, _: activation(columns(logits, labels, manifest)))


def _best(answers: list[Any], _: LabelledData) -> tuple[Any, Any]:
    scores = np.stack(answers)
    return scores.argmax(axis=1), scores


def _true(answers: list[Any], _: LabelledData) -> tuple[Any, Any]:
    scores = np.stack(answers)
    return scores >= TRUE, scores


def _number(answers: list[Any], _: LabelledData) -> tuple[Any, Any]:
    return np.concatenate(answers).astype(np.float64), None


ASKING = {
    CLASSIFICATION: _Asking(call=_classify, keep=_best),
    MULTI_LABEL: _Asking(call=_classify, keep=_true),
    REGRESSION: _Asking(call=_classify, keep=_number),
}
"""How each kind of data is asked for."""
