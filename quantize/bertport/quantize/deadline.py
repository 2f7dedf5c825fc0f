"""A limit on the time that quantization takes, counted from its start."""

from __future__ import annotations

import math
import re
import time
from typing import TYPE_CHECKING

from bertport.runtime.errors import UsageError
from bertport.runtime.excerpts import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable

    Progress = Callable[[str, int, int], None]
    """Told of a stage by its name, of what is done of it, and of how much there is."""

__all__ = ["Deadline", "TimeUpError", "format_duration", "parse_duration"]

_NUMBER = r"(\d{1,9}(?:\.\d{1,9})?)"
_DURATION = re.compile(rf"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s?)?", re.ASCII)
"""Hours, minutes and seconds, each with its letter; seconds may go without."""
_SECONDS = (3600.0, 60.0, 1.0)


class TimeUpError(Exception):
    """The time limit has passed; never shown to users, who get what was reached by then."""


class Deadline:
    """Ends what runs when its time is up, at the next step of its progress.

    Args:
        limit: Seconds; None for no limit.
        started: When they began to count, by `time.monotonic`; None for now.
    """

    def __init__(self, limit: float | None = None, started: float | None = None) -> None:
        self.limit = limit
        self.armed = True
        self._end = math.inf if limit is None else (time.monotonic() if started is None else started) + limit

    @property
    def remaining(self) -> float:
        """Seconds until the time is up; infinity where there is no limit."""
        return self._end - time.monotonic()

    def check(self) -> None:
        """End what runs when the time is up, unless its result only has to be written.

        Raises:
            TimeUpError: when it is.
        """
        if self.armed and time.monotonic() > self._end:
            raise TimeUpError

    def watching(self, progress: Progress) -> Progress:
        """Return progress that checks the time at each step."""

        def told(stage: str, done: int, count: int) -> None:
            progress(stage, done, count)
            self.check()

        return told


def parse_duration(text: str) -> float:
    """Read a duration such as `10m`, `90s`, `1h30m`, or plain seconds.

    Raises:
        UsageError: for what is none, or is not above 0.
    """
    match = _DURATION.fullmatch(text.strip())
    parts = [float(part or 0) for part in match.groups()] if match else [0.0, 0.0, 0.0]
    seconds = sum(part * unit for part, unit in zip(parts, _SECONDS, strict=True))
    if not seconds > 0:
        raise UsageError(f"{excerpt(text)} is not a duration above 0: write it as 10m, 90s, 1h30m, or as seconds")
    return seconds


def format_duration(seconds: float) -> str:
    """Return a duration as `parse_duration` reads it: `45s`, `12m`, `1h30m`."""
    whole = max(1, round(seconds))
    if whole < 120:  # noqa: PLR2004 — two minutes: below, minutes are too coarse
        return f"{whole}s"
    hours, minutes = divmod(round(whole / 60), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes or not hours else "")
