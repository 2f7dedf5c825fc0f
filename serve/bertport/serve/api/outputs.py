"""Outputs of tasks in the Open Inference Protocol: numbers, beside the answers as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.runtime.heads import EMBEDDING as EMBEDDING_HEAD
from bertport.runtime.heads import NSP, SEQUENCE_CLASSIFICATION, SOP
from bertport.serve.errors import Unprocessable

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from bertport.runtime.bundle.manifest import Manifest
    from bertport.serve.api.questions import Question

__all__ = ["EMBEDDING", "LABEL_SCORES", "ORDER_PROBABILITIES", "PROBABILITIES", "Tensor", "label_count"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An output of a task in the Open Inference Protocol, FP32, beside its answers as JSON."""

    name: str
    """Name of the output."""
    task: str
    """The task that answers where a request asks for this output and names no task."""
    columns: Callable[[Manifest], int | None]
    """Its width in a bundle; None where the bundle cannot give it."""
    make: Callable[[list[Any], Manifest], NDArray[Any]]
    """From a task's answers, and the bundle's manifest, to the array `[answers, columns]`; raises Problem."""
    given: Callable[[Question], bool] = lambda _: True
    """Whether a question's answers have it."""


def _dimension(manifest: Manifest) -> int:
    """Return the numbers of a text's vector."""
    entry = manifest.heads.get(EMBEDDING_HEAD)
    return entry.embedding.size if entry and entry.embedding else manifest.architecture.hidden_size


def _is_vector(question: Question) -> bool:
    """Return whether each answer of a question is one vector."""
    return question.task == "embeddings" or (
        question.task == "features" and question.parameters.get("pooling", "none") != "none"
    )


EMBEDDING = Tensor(
    name="embedding",
    task="feature-extraction",
    columns=_dimension,
    make=lambda answers, _: np.stack(answers),
    given=_is_vector,
)


def label_count(head: str) -> Callable[[Manifest], int | None]:
    """Return the width of a head's scores: its number of labels, or None where a bundle has no such head."""

    def count(manifest: Manifest) -> int | None:
        entry = manifest.heads.get(head)
        return len(entry.labels) if entry and entry.labels else None

    return count


def _probabilities(answers: list[Any], _: Manifest) -> NDArray[Any]:
    """Return the probability of each label `[answers, labels]`."""
    return np.array([list(answer["probabilities"].values()) for answer in answers], dtype=np.float32)


def _label_scores(answers: list[Any], manifest: Manifest) -> NDArray[Any]:
    """Return the score of each label `[answers, labels]`, in the order of the bundle's labels."""
    labels = manifest.heads[SEQUENCE_CLASSIFICATION].labels or ()
    columns = {label: column for column, label in enumerate(labels)}
    if len(columns) < len(labels):
        raise Unprocessable("two labels of the bundle have one name: ask for the answer as JSON, or send input_ids")
    scores = np.empty((len(answers), len(labels)), dtype=np.float32)
    for row, answer in enumerate(answers):
        for ranked in answer:
            scores[row, columns[ranked["label"]]] = ranked["score"]
    return scores


PROBABILITIES = Tensor(
    name="probabilities",
    task="next-sentence",
    columns=label_count(NSP),
    make=_probabilities,
    given=lambda question: question.task != "text-classification",
)
LABEL_SCORES = Tensor(
    name="label_scores",
    task="text-classification",
    columns=label_count(SEQUENCE_CLASSIFICATION),
    make=_label_scores,
    given=lambda question: question.task == "text-classification" and question.parameters["top_k"] is None,
)
ORDER_PROBABILITIES = Tensor(
    name="order_probabilities", task="sentence-order", columns=label_count(SOP), make=_probabilities
)
