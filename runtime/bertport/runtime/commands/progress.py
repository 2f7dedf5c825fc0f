"""Progress of a long command, as every command shows it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self, TextIO

from bertport.runtime.commands.terminal import columns, cut, is_live, width

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

__all__ = ["Progress", "bar", "duration"]

EVERY = 0.1
"""Seconds between two updates of a line that changes faster than that."""
WIDTH = 24
"""Columns of a bar."""
ENOUGH_PERCENT, ENOUGH_SECONDS = 1.0, 3.0
"""Least progress, in percent and in seconds, before the time left is more than a guess."""


class Progress:
    """The status line of a long command; a context manager.

    On a terminal one line is rewritten; elsewhere each step is a line of its own. Three ways lead to it: `show` for a
    text, `stage` for named stages that follow from the work, and `plan` with `begin`, `update` and `finish` for steps
    known beforehand, whose time left is estimated.

    Args:
        stream: where to write; None to stay silent.
        erase: whether the line is erased at the end of the block, in place of staying on the terminal.
    """

    def __init__(self, stream: TextIO | None, *, erase: bool = False) -> None:
        self._stream = stream
        self._erase = erase
        self.live = is_live(stream)
        """Whether there is a line that is rewritten."""
        self._width = 0
        self._last = 0.0
        self._step, self._label = "", ""
        self._weights: dict[str, float] = {}
        self._done, self._began = 0.0, time.monotonic()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the line, also when the block was interrupted."""
        if self._erase:
            self.clear()
        else:
            self.close()

    def due(self) -> bool:
        """Return whether a terminal shows the line and it has not been rewritten for a while."""
        return self.live and time.monotonic() - self._last >= EVERY

    def show(self, text: str) -> None:
        """Rewrite the line; elsewhere than on a terminal nothing is written."""
        if self.live:
            text = _printable(text)
            # A line that reaches the end of the terminal goes on in the next one, which no carriage return takes back.
            text = cut(text, columns(self._stream) - 1)
            # Spaces and no escape sequence, which not every terminal knows.
            self._write(f"\r{text}{' ' * (self._width - width(text))}")
            self._width, self._last = width(text), time.monotonic()

    def say(self, text: str) -> None:
        """Write a line of its own, in the place of the one that is rewritten."""
        self.clear()
        self._write(f"{_printable(text)}\n")

    def note(self, text: str) -> None:
        """Write a line on what is odd about what was given, before anything long runs."""
        self.say(f"note: {text}")

    def clear(self) -> None:
        """Erase the line, before anything else is written."""
        if self._width:
            self._write(f"\r{'':<{self._width}}\r")
            self._width, self._last = 0, 0.0

    def close(self) -> None:
        """End the line, which stays where it is."""
        if self._width:
            self._write("\n")
            self._width = 0

    def stage(self, name: str, done: int = 0, count: int = 0) -> None:
        """Show a stage and how far it is; on a terminal the line of the stage before stays above it."""
        if name != self._label:
            self.close()
            if not self.live:
                self.say(f"{name} …")
        self._label = name
        self.show(f"{name}: {done:,} of {count:,}" if count else f"{name} …")

    def plan(self, weights: Mapping[str, float]) -> None:
        """Set the steps that are still to be done, in expected seconds up to a common factor.

        The time left follows from the time taken so far and the expected share of each step, so it settles as it goes.
        """
        self._weights = dict(weights)
        self._done, self._began = 0.0, time.monotonic()

    def begin(self, step: str, label: str) -> None:
        """Begin a step of the plan."""
        self._step, self._label = step, label
        if not self.live:
            self.say(f"{label} … {self._left(0.0)}".rstrip())
        self.update(0, 0)

    def update(self, done: int, count: int) -> None:
        """Show how far the step is."""
        if self.live:
            share = done / count if count else 0.0
            part = f": {done:,} of {count:,}" if count else " …"
            self.show(f"[{self._percent(share):3.0f}%] {self._label}{part} {self._left(share)}".rstrip())

    def finish(self) -> None:
        """End the step."""
        self._done += self._weights.get(self._step, 0.0)
        self._step = ""

    def _write(self, text: str) -> None:
        if self._stream:
            self._stream.write(text)
            self._stream.flush()

    def _percent(self, share: float) -> float:
        total = sum(self._weights.values())
        return 100 * (self._done + share * self._weights.get(self._step, 0.0)) / total if total else 0.0

    def _left(self, share: float) -> str:
        done = self._percent(share)
        elapsed = time.monotonic() - self._began
        if done < ENOUGH_PERCENT or elapsed < ENOUGH_SECONDS:
            return ""
        return f"(about {duration(elapsed * (100 - done) / done)} left)"


def _printable(text: str) -> str:
    """Return a text in which no name of a file or bundle moves the cursor."""
    from bertport.runtime.commands.render import printable  # not above: `--help` imports this module

    return printable(text)


def bar(share: float) -> str:
    """Return a bar that is filled up to a share of 1, with the percentage.

    >>> bar(0.25)
    '[######..................]  25%'
    """
    full = int(share * WIDTH)
    return f"[{'#' * full}{'.' * (WIDTH - full)}] {share:4.0%}"


def duration(seconds: float) -> str:
    """Return a duration for people.

    >>> [duration(each) for each in (0.2, 59, 60, 3599, 7200)]
    ['1 s', '59 s', '1 min', '60 min', '2.0 h']
    """
    minute, hour = 60, 3600
    if seconds < minute:
        return f"{max(1, round(seconds))} s"
    if seconds < hour:
        return f"{seconds / minute:.0f} min"
    return f"{seconds / hour:.1f} h"
