"""How far a long run is, and how long it will still take."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Progress", "duration"]


def duration(seconds: float) -> str:
    """Write a duration for people."""
    minute, hour = 60, 3600
    if seconds < minute:
        return f"{max(1, round(seconds))} s"
    if seconds < hour:
        return f"{seconds / minute:.0f} min"
    return f"{seconds / hour:.1f} h"


class Progress:
    """Shows the step that runs: one line that is rewritten on a terminal, a line per step elsewhere.

    The time left follows from the time taken so far and the expected share of each step, so it settles as it goes.

    Args:
        stream: Where to write; None to stay silent.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._live = bool(stream and stream.isatty())
        self._weights: dict[str, float] = {}
        self._done = 0.0
        self._step, self._label, self._width = "", "", 0
        self._began = time.monotonic()

    def plan(self, weights: Mapping[str, float]) -> None:
        """Set the steps that are still to be done, in expected seconds up to a common factor."""
        self._weights = dict(weights)
        self._done, self._began = 0.0, time.monotonic()

    def begin(self, step: str, label: str) -> None:
        """Begin a step."""
        self._step, self._label = step, label
        if not self._live:
            self.say(f"{label} … {self._left(0.0)}".rstrip())
        self.update(0, 0)

    def update(self, done: int, count: int) -> None:
        """Show how far the step is."""
        if not self._live or not self._stream:
            return
        share = done / count if count else 0.0
        part = f": {done:,} of {count:,}" if count else " …"
        text = f"[{self._percent(share):3.0f}%] {self._label}{part} {self._left(share)}".rstrip()
        self._stream.write(f"\r{text:<{self._width}}")
        self._stream.flush()
        self._width = len(text)

    def finish(self) -> None:
        """End the step."""
        self._done += self._weights.get(self._step, 0.0)
        self._step = ""

    def say(self, text: str) -> None:
        """Write a line of its own."""
        if not self._stream:
            return
        if self._live and self._width:
            self._stream.write(f"\r{'':<{self._width}}\r")
            self._width = 0
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        """End the line."""
        if self._live and self._width and self._stream:
            self._stream.write("\n")
            self._width = 0

    def _percent(self, share: float) -> float:
        total = sum(self._weights.values())
        return 100 * (self._done + share * self._weights.get(self._step, 0.0)) / total if total else 0.0

    def _left(self, share: float) -> str:
        done = self._percent(share)
        elapsed = time.monotonic() - self._began
        enough, few = 1.0, 3.0  # percent and seconds: before that, the figure would be a guess
        if done < enough or elapsed < few:
            return ""
        return f"(about {duration(elapsed * (100 - done) / done)} left)"
