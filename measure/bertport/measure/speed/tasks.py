"""The tasks that are timed, a row each: what is asked of a text, how it is answered elsewhere, and the best answer.

A bundle is timed by the first row whose head it has: a table of heads tells what an output means, this one what people
ask for it. The last row, features, every encoder answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.runtime.heads import (
    DEFAULT_TOP_K,
    EMBEDDING,
    HEADS,
    MLM,
    MULTIPLE_CHOICE,
    QUESTION_ANSWERING,
    REGRESSION,
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from bertport.runtime.bundle.manifest import HeadEntry

    Text = str | tuple[str, str]

__all__ = ["FEATURES", "FILL_MASK", "TIMED", "Drawn", "TimedTask", "decodes", "timed_task"]

FILL_MASK, FEATURES = "fill-mask", "features"
QUESTION_WORDS = 8
"""Words of a text that its question is made of: about as many as in a question that people ask."""
DOCUMENTS = 4
"""Documents that a query is ranked with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A text that was drawn to be timed."""

    text: str
    """The text, as long as a model takes it."""
    words: Sequence[tuple[int, int]]
    """Character range of each of its words of letters, end exclusive."""
    word: int
    """The number of one of them, drawn."""
    mask: str | None
    """The mask token of every bundle; None where they have none, or not the same."""
    others: Sequence[str] = ()
    """Other texts, cut as this one is."""


def _any(_: HeadEntry | None) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedTask:
    """One row: a task and what of it is timed."""

    name: str
    """A task of the runtime."""
    head: str | None
    """The head that answers it; None for the encoder."""
    applies: Callable[[HeadEntry | None], bool] = _any
    """Whether a bundle whose head is such a one is timed by it."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Its parameters where it is timed."""
    best_parameters: Mapping[str, Any] = field(default_factory=dict)
    """Further parameters where best answers are compared."""
    ask: Callable[[Drawn], Any]
    """Returns the input that is timed, for a drawn text."""
    texts: Callable[[Any], tuple[Text, ...]] = lambda asked: (asked,)
    """Returns the texts, or pairs of texts, that the model reads for such an input."""
    room: float = 1.0
    """Share of what a model takes that the text may take; less than all where more is read with it."""
    others: int = 0
    """Other texts that an input is made of."""
    decoded: int = 0
    """Positions of each text that are decoded."""
    best: Callable[[Sequence[Any]], list[str]] | None = None
    """Returns the best answer to each input, from the answers to all inputs; None where there is nothing to compare
    by."""
    compared: str = ""
    """Name of what `best` takes of an answer; empty without it."""


def _filled(drawn: Drawn) -> str:
    begin, end = drawn.words[drawn.word]
    return f"{drawn.text[:begin]}{drawn.mask}{drawn.text[end:]}"


def _whole(drawn: Drawn) -> str:
    return drawn.text


def _pair(asked: str | Mapping[str, str]) -> tuple[Text, ...]:
    """Return the one text, or pair of texts, that a classifier reads."""
    return (asked if isinstance(asked, str) else (asked["text"], asked["text_pair"]),)


def _question(drawn: Drawn) -> dict[str, str]:
    """Ask the first words of a text about all of it: as long as real questions, in whatever language."""
    end = drawn.words[min(QUESTION_WORDS, len(drawn.words)) - 1][1]
    return {"question": f"{drawn.text[:end]}?", "context": drawn.text}


def _choice(drawn: Drawn) -> dict[str, Any]:
    """Let one half of a text be the choice that follows the other, beside a choice in which they are swapped."""
    middle = drawn.words[len(drawn.words) // 2][0]
    first, second = drawn.text[:middle].strip(), drawn.text[middle:].strip()
    return {"text": first or second, "choices": [second, first or second]}


def _ranks(head: HeadEntry | None) -> bool:
    """Return whether a classifier's one label says how well a document fits a query."""
    return bool(head and head.labels and len(head.labels) == 1 and head.problem_type != REGRESSION)


def _query(drawn: Drawn) -> dict[str, Any]:
    """Let the first words of a text be a query, and the text itself the first of its documents."""
    end = drawn.words[min(QUESTION_WORDS, len(drawn.words)) - 1][1]
    return {"query": drawn.text[:end], "documents": [drawn.text, *drawn.others]}


def _first(answer: Any) -> Any:  # noqa: ANN401 — an answer of a task
    """Return the best of an answer that may be a list of them, the best first."""
    return answer[0] if isinstance(answer, list) else answer


def _labels(answers: Sequence[Any]) -> list[str]:
    return [str(_first(answer)["label"]) for answer in answers]


def _spans(answers: Sequence[Any]) -> list[str]:
    return [f"{best['start']}-{best['end']}" for best in map(_first, answers)]


def _entities(answers: Sequence[Any]) -> list[str]:
    return [
        "; ".join(f"{entity['entity']} {entity['start']}-{entity['end']}" for entity in answer) for answer in answers
    ]


def _choices(answers: Sequence[Any]) -> list[str]:
    return [str(answer["label"]) for answer in answers]


def _documents(answers: Sequence[Any]) -> list[str]:
    return [str(answer[0]["corpus_id"]) for answer in answers]


def _neighbours(answers: Sequence[Any]) -> list[str]:
    """Return for each text the number of the other text whose vector is nearest by cosine; 0 for a single text."""
    vectors = np.asarray(answers, dtype=np.float64)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    return [str(number) for number in cosines.argmax(axis=1).tolist()]


TIMED: dict[str, TimedTask] = {
    row.name: row
    for row in (
        TimedTask(
            name=FILL_MASK,
            head=MLM,
            parameters={"top_k": DEFAULT_TOP_K},
            best_parameters={"top_k": 1},
            ask=_filled,
            decoded=1,
            best=lambda answers: [str(_first(answer)["token"]) for answer in answers],
            compared="best word",
        ),
        TimedTask(
            name="text-ranking",
            head=SEQUENCE_CLASSIFICATION,
            applies=_ranks,
            ask=_query,
            texts=lambda asked: tuple((asked["query"], document) for document in asked["documents"]),
            room=0.75,
            others=DOCUMENTS - 1,
            best=_documents,
            compared="best document",
        ),
        TimedTask(
            name="text-classification",
            head=SEQUENCE_CLASSIFICATION,
            ask=_whole,
            texts=_pair,
            best=_labels,
            compared="best label",
        ),
        TimedTask(
            name="token-classification",
            head=TOKEN_CLASSIFICATION,
            ask=_whole,
            best=_entities,
            compared="list of entities",
        ),
        TimedTask(
            name="question-answering",
            head=QUESTION_ANSWERING,
            ask=_question,
            texts=lambda asked: ((asked["question"], asked["context"]),),
            room=0.75,
            best=_spans,
            compared="best span",
        ),
        TimedTask(
            name="multiple-choice",
            head=MULTIPLE_CHOICE,
            ask=_choice,
            texts=lambda asked: tuple((asked["text"], choice) for choice in asked["choices"]),
            room=0.75,
            best=_choices,
            compared="choice",
        ),
        TimedTask(
            name="embeddings",
            head=EMBEDDING,
            ask=_whole,
            best=_neighbours,
            compared="nearest other text",
        ),
        TimedTask(name=FEATURES, head=None, parameters={"pooling": "mean"}, ask=_whole),
    )
}
"""Timed tasks by name; the first that every bundle can do is timed."""


def decodes(heads: Collection[str]) -> bool:
    """Return whether a bundle with some heads decodes positions."""
    return any(HEADS[name].decoded for name in heads if name in HEADS)


def timed_task(heads: Sequence[Mapping[str, HeadEntry | None]], mask: str | None) -> TimedTask:
    """Return the task by which bundles are timed: the first whose head all have, and by which such a head is timed.

    Args:
        heads: The heads of each bundle, by name.
        mask: The mask token of every bundle; None where they have none, or not the same.
    """
    return next(
        row
        for row in TIMED.values()
        if row.head is None
        or (
            all(row.head in own and row.applies(own[row.head]) for own in heads)
            and (row.head != MLM or mask is not None)
        )
    )
