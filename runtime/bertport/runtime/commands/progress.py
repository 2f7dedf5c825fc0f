"""A line on a terminal that says how far a long command is."""

from __future__ import annotations

import os
import stat
import sys
import time
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Progress", "describe", "size_of"]

EVERY = 0.1
"""Seconds between two updates."""
WIDTH = 24
"""Columns of the bar."""
CLEAR = "\r\033[K"
"""To the beginning of the line, and erase it."""


class Progress:
    """How many lines are answered, how fast, and of a file how much is left; a context manager.

    Shown on standard error where that is a terminal and standard output, where the answers go, is not.

    Args:
        total: bytes to be read; None where that is not known.
        shown: whether to show it; None to find out.
    """

    def __init__(self, total: int | None, *, shown: bool | None = None) -> None:
        self.total = total
        self.shown = sys.stderr.isatty() and not sys.stdout.isatty() if shown is None else shown
        self._began = time.monotonic()
        self._last = 0.0

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Erase the line, also when the block was interrupted."""
        self.clear()

    def update(self, lines: int, read: int) -> None:
        """Say how many lines are answered and how many bytes they were; most calls do nothing."""
        now = time.monotonic()
        if not self.shown or now - self._last < EVERY:
            return
        self._last = now
        sys.stderr.write(f"{CLEAR}{describe(lines, read, self.total, now - self._began)}")
        sys.stderr.flush()

    def clear(self) -> None:
        """Erase the line, before anything else is written."""
        if self.shown:
            sys.stderr.write(CLEAR)
            sys.stderr.flush()
            self._last = 0.0


def describe(lines: int, read: int, total: int | None, seconds: float) -> str:
    """Return the text of the line."""
    said = f"{lines:,} lines, {lines / max(seconds, 1e-9):,.0f} a second"
    if not total:
        return said
    share = min(1.0, read / total)
    full = int(share * WIDTH)
    left = seconds / share * (1 - share) if share else 0.0
    return f"[{'#' * full}{'.' * (WIDTH - full)}] {share:4.0%}  {said}, {left:.0f} s left"


def size_of(stream: IO[bytes]) -> int | None:
    """Return the bytes that are left of a file; None for a pipe or a terminal."""
    try:
        found = os.fstat(stream.fileno())
        return max(0, found.st_size - stream.tell()) if stat.S_ISREG(found.st_mode) else None
    except (OSError, ValueError):  # not a file of the operating system, as under click's test runner
        return None
