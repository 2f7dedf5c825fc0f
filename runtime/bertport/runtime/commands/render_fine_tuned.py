"""Rendering of what fine-tuned models answer: labels with bars, and spans marked in their text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertport.runtime.commands.render import percent, printable, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bertport.runtime.tasks.answers import Answer, RankedText, ScoredLabel

__all__ = ["answers", "entities", "labels", "ranking"]

BAR = 24
"""Columns of the bar of a label that is certain."""
LONGEST = 80
"""Characters shown of a document."""
AROUND = 30
"""Characters shown of a context before an answer, and behind it."""


def labels(text: str, rows: Sequence[ScoredLabel], *, probable: bool) -> str:
    """Return a text and its labels, best first, with bars where their scores are probabilities."""
    if probable:
        cells = [(answer["label"], percent(answer["score"]), "#" * round(answer["score"] * BAR)) for answer in rows]
    else:
        cells = [(answer["label"], f"{answer['score']:.4f}", "") for answer in rows]
    return f"{printable(text)}\n{table(cells, right={1})}"


def entities(text: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a text with its entities, or tokens that have a label, in brackets, and a line for each of them."""
    if not rows:
        return f"{printable(text)}\n  no entities"
    spans = [(entity["start"], entity["end"], entity.get("entity_group", entity.get("entity"))) for entity in rows]
    cells = [
        (kind, text[start:end], percent(entity["score"]), f"{start}-{end}")
        for entity, (start, end, kind) in zip(rows, spans, strict=True)
    ]
    return f"{printable(marked(text, spans))}\n{table(cells, right={2})}"


def marked(text: str, spans: Iterable[tuple[int, int, str]]) -> str:
    """Return a text with spans in brackets, each with its label; one that begins inside another is not marked."""
    parts, reached = [], 0
    for start, end, label in spans:
        if start >= reached:
            parts += [text[reached:start], f"[{text[start:end]} {label}]"]
            reached = end
    return "".join([*parts, text[reached:]])


def answers(question: str, context: str, rows: Sequence[Answer]) -> str:
    """Return a question and its answers, best first, each in brackets where the context has it."""
    cells = [
        (
            " ".join(answer["answer"].split()) or "no answer",
            percent(answer["score"]),
            _around(context, answer["start"], answer["end"]) if answer["answer"] else "",
        )
        for answer in rows
    ]
    return f"{printable(question)}\n{table(cells, right={1})}"


def _around(context: str, start: int, end: int) -> str:
    """Return a span in brackets, with some characters of what stands around it."""
    first, last = max(0, start - AROUND), end + AROUND
    before, behind = "..." if first else "", "..." if last < len(context) else ""
    shown = f"{before}{context[first:start]}[{context[start:end]}]{context[end:last]}{behind}"
    return " ".join(shown.split())


def ranking(query: str, rows: Sequence[RankedText]) -> str:
    """Return a query and its documents, best first: place, score, the document's number in the list, its beginning."""
    cells = [
        (f"{place}.", f"{document['score']:.4f}", f"[{document['corpus_id']}]", shortened(document["text"], LONGEST))
        for place, document in enumerate(rows, 1)
    ]
    return f"{printable(query)}\n{table(cells, right={0, 1, 2})}"


def shortened(text: str, length: int) -> str:
    """Return the beginning of a text on one line, `...` in place of what is left out."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 3].rstrip()}..."
