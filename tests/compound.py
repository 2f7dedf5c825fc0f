"""A task whose inputs may be several rows of a batch: rows in the tables of the runtime and of the server."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from bertport.runtime.tasks import features
from bertport.runtime.tasks.inputs import Parts
from bertport.runtime.tasks.table import TASKS, Windowing
from bertport.runtime.text.windows import Windows
from bertport.serve.api import questions
from bertport.serve.api import tasks as served

if TYPE_CHECKING:
    from collections.abc import Callable

    from bertport.runtime.text.encoder import Text
    from bertport.runtime.text.tokenizer import Tokens

BEADS, LINKS = "beads", "links"


def read(value: object) -> Text | Parts:
    """A text, or an object with a list of texts and pairs: the vectors of all, on a string."""
    match value:
        case {"beads": [*texts]}:
            return Parts(texts=tuple(map(features.read, texts)), combine=partial(tuple))
    return features.read(value)


def windowing(options: Any, tokens: Tokens) -> Windowing:  # noqa: ARG001 — what every row takes
    """Windows of 16 tokens, of which there are as many as the answer says."""
    return Windowing(windows=Windows(length=16, stride=4), merge=len)


def add_task(setitem: Callable[[dict[Any, Any], str, Any], None]) -> None:
    """Add the task, and one that counts the windows of a text: a row of each in each of two tables."""
    row = replace(TASKS["features"], name=BEADS, read=lambda *_: read, sample=lambda text: {"beads": [text, text]})
    for each in (row, replace(row, name=LINKS, windows=windowing)):
        setitem(TASKS, each.name, each)
        wire = replace(
            served.WIRE_TASKS["features"],
            name=each.name,
            runtime=each.name,
            ask=questions.plain(each.name),
            example={"inputs": "a"},
        )
        setitem(served.WIRE_TASKS, each.name, wire)
