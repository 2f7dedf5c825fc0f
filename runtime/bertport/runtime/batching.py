"""Batching: windows of a stream, and batches of nearly equal length within a budget of tokens.

Padding is work thrown away: real text padded to the longest of its batch costs two to nine times its tokens. But a run
costs something beside its tokens: every weight is read from memory once, whatever the number of tokens. Its time is
about `a + b * tokens`, so padding pays as long as it is less than a / b tokens for each run that it saves. That number
hardly depends on the size of a model, because both a and b grow with its weights: it is the machine's arithmetic
against its memory. A batch is capped by tokens, not by rows: a CPU gains nothing from more rows than keep its matrix
products busy.
"""

from __future__ import annotations

from collections.abc import Sized
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["FLUSH", "MAX_WINDOW", "MAX_WINDOW_WEIGHT", "Flush", "buckets", "plan", "windows"]

T = TypeVar("T")

MAX_WINDOW = 1024
"""Most inputs in a window: enough for full batches of most lengths."""
MAX_WINDOW_WEIGHT = 100_000
"""Most characters in a window: they bound the memory of per-token results."""
GROWTH = 4
"""Factor by which the windows of a stream grow, so that the first result does not wait for a thousand inputs."""


class Flush(Enum):
    """The type of `FLUSH`."""

    FLUSH = "flush"


FLUSH: Final = Flush.FLUSH
"""Marker in a stream of inputs: those before it are answered before more are waited for."""


def plan(lengths: Sequence[int], *, budget: int, overhead: int = 0, most_rows: int = MAX_WINDOW) -> list[list[int]]:
    """Group inputs into the batches that cost least, where a batch costs its tokens, padding included, and `overhead`.

    The same lengths always give the same batches: nothing is measured here.

    Args:
        lengths: tokens of each input.
        budget: most tokens in a batch, padding included; an input longer than that is a batch of its own.
        overhead: what a batch costs beside its tokens, in tokens: so much padding is worth one batch less. With 0
            only inputs of equal length share a batch.
        most_rows: most inputs in a batch.

    Returns:
        Batches of indices into `lengths`, longest first, so that the memory of the first serves the rest; every
        index occurs once, and the first of a batch is its longest.
    """
    import numpy as np  # not above: the commands' `--help` reads this module and needs none

    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    count = len(order)
    # Least cost of the first so many inputs, and where the last of their batches starts. In sorted order a batch is a
    # stretch: each is as wide as its first. Costs are whole numbers, and among equal ones fewer batches are taken (the
    # 1 beside the tokens scaled up), so that the choice is never one of rounding.
    least = np.full(count + 1, np.iinfo(np.int64).max)
    least[0] = 0
    starts = np.zeros(count + 1, dtype=np.int64)
    numbers = np.arange(1, count + 1)
    for start, index in enumerate(order):
        width = lengths[index]
        rows = min(count - start, max(1, min(most_rows, budget // max(1, width))))
        costs = least[start] + (overhead + numbers[:rows] * width) * (count + 1) + 1
        ends = slice(start + 1, start + 1 + rows)
        better = costs < least[ends]
        least[ends] = np.where(better, costs, least[ends])
        starts[ends] = np.where(better, start, starts[ends])
    batches = []
    end = count
    while end > 0:
        start = int(starts[end])
        batches.append(order[start:end])
        end = start
    return batches[::-1]


def buckets(max_length: int) -> tuple[int, ...]:
    """Return the lengths to prepare where each shape costs: powers of two from 16, then the longest."""
    lengths = []
    length = 16
    while length < max_length:
        lengths.append(length)
        length *= 2
    return (*lengths, max_length)


def windows(
    items: Iterable[T | Flush],
    *,
    weight: Callable[[T], int],
    most_weight: int = MAX_WINDOW_WEIGHT,
    sized: bool | None = None,
) -> Iterator[list[T]]:
    """Cut a stream into lists of at most `MAX_WINDOW` items and about `most_weight` of weight.

    A collection of known size is cut into full windows. Of an iterator the first window is one item, the next four,
    and so on, so that the first answer comes early; and where the source knows that more may be long in coming, it
    says so with `FLUSH`, which ends a window.

    Args:
        items: what is cut.
        weight: the weight of an item.
        most_weight: about the most weight in a window.
        sized: whether the items come from a collection of known size; None where `items` itself tells.
    """
    size = MAX_WINDOW if (isinstance(items, Sized) if sized is None else sized) else 1
    window: list[T] = []
    held = 0
    for item in items:
        if not isinstance(item, Flush):
            window.append(item)
            held += weight(item)
        full = len(window) >= size or held >= most_weight
        if window and (full or isinstance(item, Flush)):
            yield window
            window, held = [], 0
            size = min(MAX_WINDOW, size * GROWTH) if full else size
    if window:
        yield window
