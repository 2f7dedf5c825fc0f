"""Export progress: its events, apart from how they are shown."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Event", "Stages"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event of an export."""

    kind: Literal["begin", "step", "end", "note"]
    """A stage begins, gets on, or ends; or a note that the user should read."""
    text: str
    """Name of the stage, of the step, or the note's sentence."""
    seconds: float = 0.0
    """Duration of a stage that ended."""


class Stages:
    """Times the stages of an export and tells a listener.

    Args:
        listener: called with every event.
    """

    def __init__(self, listener: Callable[[Event], None]) -> None:
        self._listener = listener

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Emit the events of a stage's start and end; a stage that fails has no end."""
        self._listener(Event(kind="begin", text=name))
        start = time.perf_counter()
        yield
        self._listener(Event(kind="end", text=name, seconds=time.perf_counter() - start))

    def step(self, name: str) -> None:
        """Emit what a stage is working on."""
        self._listener(Event(kind="step", text=name))

    def note(self, sentence: str) -> None:
        """Emit a sentence for the user that is not an error."""
        self._listener(Event(kind="note", text=sentence))
