"""Kinds of labelled data: the columns that a task's data has, and how a record becomes an input and its truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.measure.labelled.labels import DECIMAL
from bertport.runtime import heads
from bertport.runtime.errors import MissingHeadError, UnknownNameError, UsageError
from bertport.runtime.tasks.inputs import MOST_ROWS
from bertport.runtime.tasks.labels import labelled
from bertport.runtime.tasks.table import TASKS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from bertport.measure.labelled.cells import Cells
    from bertport.runtime.bundle.manifest import Manifest

__all__ = [
    "CHOICE",
    "CLASSIFICATION",
    "COLUMNS",
    "KINDS",
    "MULTI_LABEL",
    "RANKING",
    "REGRESSION",
    "RETRIEVAL",
    "SIMILARITY",
    "SPANS",
    "TAGS",
    "TASK_KINDS",
    "Kind",
    "kind_of",
    "labels_of",
]

CLASSIFICATION = "classification"
"""One label of several; the truth is the label's column."""
MULTI_LABEL = "multi-label"
"""Any number of labels; the truth is their columns."""
REGRESSION = "regression"
"""A number; the truth is a number."""
TAGS = "tags"
"""A label for each word; the truth is the words' tags."""
SPANS = "spans"
"""A part of a context; the truth is the texts of the answers that count as right."""
CHOICE = "choice"
"""Choice of one of several texts; the truth is its number, counted from 0."""
RANKING = "ranking"
"""Documents in order; the truth is the relevance of each."""
SIMILARITY = "similarity"
"""Similarity of two texts; the truth is a number."""
RETRIEVAL = "retrieval"
"""A query's texts out of all of the data's; the truth is the numbers of those texts, in order of their occurrence."""
COLUMNS = {
    "text": ("text",),
    "text_pair": ("text_pair",),
    "label": ("label",),
    "score": ("score", "label"),
    "tokens": ("tokens",),
    "tags": ("tags",),
    "question": ("question",),
    "context": ("context",),
    "answers": ("answers",),
    "prompt": ("prompt",),
    "choices": ("choices",),
    "query": ("query",),
    "documents": ("documents",),
    "relevance": ("relevance",),
    "positives": ("positives",),
}
"""Default columns, in order of preference, of each value that tasks need, by the value's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One row: a kind of labelled data."""

    name: str
    """Name of the kind."""
    needs: tuple[str, ...]
    """Names of `COLUMNS` that its data must have."""
    may: tuple[str, ...] = ()
    """Names of `COLUMNS` that its data may have."""
    read: Callable[[Cells], tuple[Any, Any]]
    """Returns a record's input, as `Model.predict` takes it, and its truth: of a kind with labels a tuple of whatever
    stands in their place, not yet read; of choices what the label is as a text and as a number, None where it is none,
    which the whole file decides."""
    labelled: bool = False
    """Whether its truth is made of a head's labels."""


def _text(cells: Cells) -> object:
    """Return a text, or a text with another; an empty second text is none, as the task has it."""
    text = cells.text("text")
    if "text_pair" not in cells:
        return text
    return {"text": text, "text_pair": cells.text("text_pair")}


def _label(cells: Cells, name: str, value: object) -> str | int:
    """Return what stands for a label: its name, its number, or a truth value."""
    if not isinstance(value, str | int):
        cells.wrong(name, "the name or the number of a label")
    return value


def _one_label(cells: Cells) -> tuple[Any, Any]:
    return _text(cells), (_label(cells, "label", cells.value("label")),)


def _some_labels(cells: Cells) -> tuple[Any, Any]:
    return _text(cells), tuple(_label(cells, "label", value) for value in cells.values("label"))


def _tags(cells: Cells) -> tuple[Any, Any]:
    words = cells.texts("tokens")
    tags = tuple(_label(cells, "tags", value) for value in cells.values("tags"))
    if len(words) != len(tags):
        cells.wrong("tags", f"a list of {len(words):,} tags, one for each token")
    return {"words": words}, tags


def _span(cells: Cells) -> tuple[Any, Any]:
    return {"question": cells.text("question"), "context": cells.text("context")}, _answers(cells)


def _answers(cells: Cells) -> tuple[str, ...]:
    """Return the answers that count as right: a text, a list of texts, or SQuAD's `{"text": […]}` or list of those."""
    value = cells.value("answers")
    if not cells.file.typed and value.lstrip()[:1] in {"[", "{"}:
        value = cells.parsed("answers")
    match value:
        case str(text):
            texts: list[object] = [text]
        case {"text": [*given]} | [*given] if all(isinstance(text, str) for text in given):
            texts = given
        case [*given] if all(isinstance(answer, dict) and isinstance(answer.get("text"), str) for answer in given):
            texts = [answer["text"] for answer in given]
        case _:
            texts = []
    if not any(str(text).strip() for text in texts):  # a blank one nothing can answer
        cells.wrong("answers", 'a text, a list of texts, or {"text": [TEXT, …]}, of one answer at least')
    return tuple(str(text) for text in texts)


def _choice(cells: Cells) -> tuple[Any, Any]:
    """Return a text with its choices, and the right one's number as the label's text says it, and as a number does."""
    choices = cells.texts("choices")
    label = cells.value("label")
    by_text = choices.index(label) if isinstance(label, str) and choices.count(label) == 1 else None
    by_number = label if isinstance(label, int) and not isinstance(label, bool) else None
    if isinstance(label, str) and not cells.file.typed and DECIMAL.fullmatch(label.strip()):
        by_number = int(label)
    if by_number is not None and not 0 <= by_number < len(choices):
        by_number = None
    if by_text is None and by_number is None:
        cells.wrong("label", f"the right choice's number (0 to {len(choices) - 1:,}) or its text")
    return {"prompt": cells.text("prompt"), "choices": choices}, (by_text, by_number)


def _relevance(cells: Cells, documents: list[str]) -> tuple[float, ...]:
    relevance = tuple(cells.numbers("relevance"))
    if len(relevance) != len(documents) or min(relevance, default=-1) < 0:
        cells.wrong("relevance", f"a list of {len(documents):,} numbers from 0 up, one for each document")
    return relevance


def _ranking(cells: Cells) -> tuple[Any, Any]:
    documents = cells.texts("documents")
    if len(documents) >= MOST_ROWS:
        cells.wrong("documents", f"a list of {MOST_ROWS - 1:,} texts at most")
    return {"query": cells.text("query"), "documents": documents}, _relevance(cells, documents)


def _retrieval(cells: Cells) -> tuple[Any, Any]:
    positives = cells.texts("positives")
    return cells.text("query"), tuple(positives)


KINDS = {
    row.name: row
    for row in (
        Kind(name=CLASSIFICATION, needs=("text", "label"), may=("text_pair",), read=_one_label, labelled=True),
        Kind(name=MULTI_LABEL, needs=("text", "label"), may=("text_pair",), read=_some_labels, labelled=True),
        Kind(
            name=REGRESSION,
            needs=("text", "label"),
            may=("text_pair",),
            read=lambda cells: (_text(cells), cells.number("label")),
        ),
        Kind(name=TAGS, needs=("tokens", "tags"), read=_tags, labelled=True),
        Kind(name=SPANS, needs=("question", "context", "answers"), read=_span),
        Kind(name=CHOICE, needs=("prompt", "choices", "label"), read=_choice),
        Kind(name=RANKING, needs=("query", "documents", "relevance"), read=_ranking),
        Kind(
            name=SIMILARITY,
            needs=("text", "text_pair", "score"),
            read=lambda cells: ((cells.text("text"), cells.text("text_pair")), cells.number("score")),
        ),
        Kind(name=RETRIEVAL, needs=("query", "positives"), read=_retrieval),
    )
}
"""The kinds by name."""
TASK_KINDS: dict[str, tuple[str, ...]] = {
    "text-classification": (CLASSIFICATION, MULTI_LABEL, REGRESSION),
    "token-classification": (TAGS,),
    "question-answering": (SPANS,),
    "multiple-choice": (CHOICE,),
    "text-ranking": (RANKING,),
    "sentence-similarity": (SIMILARITY, RANKING, RETRIEVAL),
}
"""The tasks that can be measured on labelled data, each with the kinds of data that it takes."""


def kind_of(task: str, manifest: Manifest, named: Collection[str]) -> Kind:
    """Return the kind of a task's data, by the bundle's head and by the columns that there are.

    Args:
        task: a key of `TASK_KINDS`.
        manifest: the bundle's.
        named: the names of `COLUMNS` that the data has columns for.

    Raises:
        UnknownNameError: for a task that has no labelled data.
        MissingHeadError: for a bundle that cannot do the task.
        UsageError: for a head that no metric is for.
    """
    if task not in TASK_KINDS:
        raise UnknownNameError("task with labelled data", task, TASK_KINDS)
    _require(task, manifest)
    if task == "text-classification":
        return KINDS[_classifier_kind(manifest)]
    kinds = [KINDS[name] for name in TASK_KINDS[task]]
    return next((kind for kind in kinds if set(kind.needs) <= set(named)), kinds[0])


def labels_of(task: str, manifest: Manifest) -> tuple[str, ...] | None:
    """Return the labels of a task's head, one per column; None for a task whose data has none of them.

    Raises:
        MissingHeadError: for a bundle that does not record the labels.
    """
    if not any(KINDS[name].labelled for name in TASK_KINDS[task]):
        return None
    return labelled(str(TASKS[task].usual_head), manifest)[1]


def _require(task: str, manifest: Manifest) -> None:
    """Raise MissingHeadError where a bundle lacks what the task needs."""
    row, head = TASKS[task], TASKS[task].usual_head
    if head not in manifest.heads:
        raise MissingHeadError(
            f"{task} needs the head {head!r}, which the checkpoint of {manifest.name} does not hold "
            f"(heads: {', '.join(manifest.heads) or 'none'}): {row.instead}"
        )
    needs = row.lacking(manifest)
    if needs is not None:
        raise MissingHeadError(f"{task} needs {needs}: use a bundle that has one")


def _classifier_kind(manifest: Manifest) -> str:
    entry, labels = labelled(heads.SEQUENCE_CLASSIFICATION, manifest)
    if entry.problem_type == heads.MULTI_LABEL:
        return MULTI_LABEL
    if entry.problem_type == heads.REGRESSION and len(labels) > 1:
        raise UsageError(
            f"the classifier of {manifest.name} is a regression of {len(labels):,} numbers, and metrics are for one: "
            "use a bundle with one"
        )
    return REGRESSION if entry.problem_type == heads.REGRESSION or len(labels) == 1 else CLASSIFICATION
