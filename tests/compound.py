"""A task whose inputs may be several rows of a batch: rows in the tables of the runtime and of the server."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from bertport.runtime.tasks import features
from bertport.runtime.tasks.inputs import Parts
from bertport.runtime.tasks.table import TASKS
from bertport.serve.api import questions
from bertport.serve.api import tasks as served

if TYPE_CHECKING:
    from collections.abc import Callable

    from bertport.runtime.text.encoder import Text

BEADS = "beads"


def read(value: object) -> Text | Parts:
    """A text, or an object with a list of texts and pairs: the vectors of all, on a string."""
    match value:
        case {"beads": [*texts]}:
            return Parts(texts=tuple(map(features.read, texts)), combine=partial(tuple))
    return features.read(value)


def add_task(setitem: Callable[[dict[Any, Any], str, Any], None]) -> None:
    """Add the task: one row in each of two tables."""
    row = replace(TASKS["features"], name=BEADS, read=lambda *_: read, sample=lambda text: {"beads": [text, text]})
    setitem(TASKS, BEADS, row)
    wire = replace(
        served.WIRE_TASKS["features"], name=BEADS, runtime=BEADS, ask=questions.plain(BEADS), example={"inputs": "a"}
    )
    setitem(served.WIRE_TASKS, BEADS, wire)
