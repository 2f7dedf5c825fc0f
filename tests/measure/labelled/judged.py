"""Predictions beside truths that are given, without a file or a model."""

import numpy as np

from bertport.measure.labelled.data import LabelledData
from bertport.measure.labelled.metrics import Judged
from bertport.measure.labelled.predictions import Predictions
from bertport.measure.labelled.records import RecordFile

TASKS = {
    "classification": "text-classification",
    "multi-label": "text-classification",
    "regression": "text-classification",
    "tags": "token-classification",
    "spans": "question-answering",
    "choice": "multiple-choice",
    "ranking": "text-ranking",
    "similarity": "sentence-similarity",
    "retrieval": "sentence-similarity",
}


def data_of(kind, truths, labels=None):
    """Return labelled data with the truths given; it has no inputs."""
    return LabelledData(
        task=TASKS[kind],
        kind=kind,
        name="data.jsonl",
        fingerprint="sha256:0",
        labels=labels,
        label_form="names" if labels else None,
        columns={},
        truths=truths,
        notes=(),
        file=RecordFile(path="data.jsonl", format="json", compression=""),
        numbers=range(1, len(truths) + 1),
        stamp=(0, 0),
    )


def predicted(data, values, scores=None):
    """Return predictions of data."""
    return Predictions(
        task=data.task, kind=data.kind, variant="fp32", fingerprint=data.fingerprint, values=values, scores=scores
    )


def judged(kind, truths, values, *, labels=None, scores=None, positive=None):  # noqa: PLR0913 — what is judged
    """Return predictions beside truths."""
    data = data_of(kind, truths, labels)
    return Judged(data, predicted(data, values, scores), positive)


def classified(rng, count, labels, accuracy=0.7):
    """Return random truths and predictions of labels, and probabilities that lead to the predictions."""
    truth = rng.integers(labels, size=count)
    values = np.where(rng.random(count) < accuracy, truth, rng.integers(labels, size=count))
    scores = rng.random((count, labels)).astype(np.float32)
    scores[np.arange(count), values] += 1
    return truth, values, scores / scores.sum(axis=1, keepdims=True)
