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

__all__ = ["FLUSH", "MAX_WINDOW", "MAX_WINDOW_WEIGHT", "Flush", "buckets", "plan", "windows"]

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


def plan(lengths: Sequence[int], *, budget: int, padding: float = 0.0, most_rows: int = MAX_WINDOW) -> list[list[int]]:
    """Group inputs of equal, or nearly equal, length into batches.

    Batches of equal length are made first. Then those that leave room are joined with the next shorter ones, as far
    as the share of padding that this brings is allowed: a few tokens of padding cost less than another run.

    Args:
        lengths: tokens of each input.
        budget: most tokens in a batch, padding included; an input longer than that is a batch of its own.
        padding: largest share of a batch's tokens that may be padding; 0 for none.
        most_rows: most inputs in a batch.

    Returns:
        Batches of indices into `lengths`, longest first, so that the memory of the first serves the rest; every
        index occurs once, and the first of a batch is its longest.
    """
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for index, length in enumerate(lengths):
        groups[length].append(index)
    batches: list[list[int]] = []
    open_batch: list[int] = []
    width = held = 0
    for length in sorted(groups, reverse=True):
        rows = max(1, min(most_rows, budget // max(1, length)))
        group = groups[length]
        while open_batch and group:
            # Each further row is `width` wide; take as many as keep the padding within its share, and the budget.
            room = min(most_rows, budget // max(1, width)) - len(open_batch)
            taken = min(room, len(group))
            while taken > 0 and width * (len(open_batch) + taken) * (1 - padding) > held + taken * length:
                taken -= 1
            if taken <= 0:
                break
            open_batch += group[:taken]
            held += taken * length
            group = group[taken:]
        if group and open_batch:
            batches.append(open_batch)
            open_batch = []
        full = len(group) - len(group) % rows
        batches.extend(group[start : start + rows] for start in range(0, full, rows))
        if len(group) > full:
            open_batch, width, held = group[full:], length, length * (len(group) - full)
            if padding <= 0:
                batches.append(open_batch)
                open_batch = []
    if open_batch:
        batches.append(open_batch)
    return batches


def buckets(max_length: int) -> tuple[int, ...]:
    """Give the lengths that shapes are prepared for where each shape costs: powers of two from 16, and the longest."""
    lengths = []
    length = 16
    while length < max_length:
        lengths.append(length)
        length *= 2
    return (*lengths, max_length)


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
