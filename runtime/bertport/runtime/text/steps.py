"""Long work in steps: a generator yields between them, so that its caller can do something else meanwhile."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

__all__ = ["Steps", "drained"]

T = TypeVar("T")

Steps = Generator[None, None, T]
"""Work in steps of some milliseconds, which returns a T."""


def drained(steps: Steps[T]) -> T:
    """Return the result of steps, all done at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
