"""How inputs become batches: windows of a stream, and exact-length groups within a budget of tokens.

Padding is work thrown away: real text padded to the longest of its batch costs two to nine times its tokens. So a
batch holds inputs of one length only, and a batch is capped by tokens, not by rows: a CPU gains nothing from more
rows than keep its matrix products busy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sized
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["FLUSH", "MAX_WINDOW", "MAX_WINDOW_WEIGHT", "Flush", "plan", "windows"]

T = TypeVar("T")

MAX_WINDOW = 1024
"""Most inputs looked at together: enough for full batches of most lengths."""
MAX_WINDOW_WEIGHT = 100_000
"""Most characters looked at together: it bounds what per-token results hold in memory."""
GROWTH = 4
"""How fast the windows of a stream grow, so that the first result does not wait for a thousand inputs."""


class Flush(Enum):
    """The type of `FLUSH`."""

    FLUSH = "flush"


FLUSH: Final = Flush.FLUSH
"""In a stream of inputs: answer what there is before waiting for more."""


def plan(lengths: Sequence[int], *, budget: int) -> list[list[int]]:
    """Group inputs of equal length into batches.

    Args:
        lengths: tokens of each input.
        budget: most tokens in a batch; an input longer than that is a batch of its own.

    Returns:
        Batches of indices into `lengths`, longest first, so that the memory of the first serves the rest; every
        index occurs once.
    """
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for index, length in enumerate(lengths):
        groups[length].append(index)
    batches: list[list[int]] = []
    for length in sorted(groups, reverse=True):
        rows = max(1, budget // max(1, length))
        group = groups[length]
        batches.extend(group[start : start + rows] for start in range(0, len(group), rows))
    return batches


def windows(items: Iterable[T | Flush], *, weight: Callable[[T], int]) -> Iterator[list[T]]:
    """Cut a stream into lists of at most `MAX_WINDOW` items and about `MAX_WINDOW_WEIGHT` of weight.

    A collection of known size is cut into full windows. Of an iterator the first window is one item, the next four,
    and so on, so that the first answer comes early; and where the source knows that more may be long in coming, it
    says so with `FLUSH`, which ends a window.
    """
    size = MAX_WINDOW if isinstance(items, Sized) else 1
    window: list[T] = []
    held = 0
    for item in items:
        if not isinstance(item, Flush):
            window.append(item)
            held += weight(item)
        full = len(window) >= size or held >= MAX_WINDOW_WEIGHT
        if window and (full or isinstance(item, Flush)):
            yield window
            window, held = [], 0
            size = min(MAX_WINDOW, size * GROWTH) if full else size
    if window:
        yield window
