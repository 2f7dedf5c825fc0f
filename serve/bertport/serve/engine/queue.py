"""Fair batch queue: fair between requests, in batches of nearly one length.

Each item waits with a start tag, as in fair queueing: the virtual time at which its request came, plus the tokens of
the same request that are ahead of it. Virtual time goes on by the tokens that run, divided by the requests that wait.
The lowest tag runs first, and takes along what waits with nearly the same length, as far as the budget goes. So a
request with many texts does not hold up one with a single text that comes later, and nothing starves however many come.

How near is near follows from the same reckoning as in `bertport.runtime.batching`: a run costs some tokens beside its
own, so much padding is worth one run less. Of the stretches of lengths around the first one's, the one that costs least
for each token of work is taken. With no such cost only equal lengths share a batch.
"""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

__all__ = ["FairBatchQueue", "Item"]

FARTHEST = 32
"""Most lengths looked at on each side of the first one's: it bounds the time of a choice to a fraction of a
millisecond where runs cost so much that any padding pays."""


class Item(Protocol):
    """Item that can wait in the queue."""

    @property
    def length(self) -> int | None:
        """Tokens of its row; None for what runs alone."""

    @property
    def cost(self) -> int:
        """Its cost."""


T = TypeVar("T", bound=Item)


class _Request:
    """Counter of a request's items that wait."""

    __slots__ = ("waiting",)

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting


class FairBatchQueue(Generic[T]):
    """Items that wait. Not safe for several threads at once.

    Args:
        gone: tells whether an item need not run any more; such items are dropped when their turn comes.
        overhead: what a run costs beside its tokens, in tokens.
        most_rows: most items in a batch; None for as many as the budget takes.
    """

    def __init__(self, gone: Callable[[T], bool], *, overhead: int = 0, most_rows: int | None = None) -> None:
        self._gone = gone
        self._overhead = overhead
        self._most_rows = most_rows
        # By length, or by a number of its own: tag, number (so that items are never compared), item, its request.
        self._buckets: dict[Hashable, list[tuple[float, int, T, _Request]]] = {}
        self._numbers = itertools.count()
        self._virtual = 0.0
        self._requests = 0

    def add(self, items: Sequence[T]) -> None:
        """Enqueue one request's items, in their order."""
        request = _Request(len(items))
        self._requests += bool(items)
        tag = self._virtual
        for item in items:
            number = next(self._numbers)
            bucket = ("alone", number) if item.length is None else item.length
            heapq.heappush(self._buckets.setdefault(bucket, []), (tag, number, item, request))
            tag += item.cost

    def take(self, budget: int) -> list[T]:
        """Return the next batch: its rows as wide as its longest, within the budget or a single item; else empty."""
        for bucket in list(self._buckets):
            self._shed(bucket)
        if not self._buckets:
            return []
        first = self._first(self._buckets)
        self._virtual = max(self._virtual, self._buckets[first][0][0])
        waiting = self._requests
        stretch, rows = self._stretch(first, budget) if isinstance(first, int) else ([first], 1)
        batch = [self._pop(first)]
        while len(batch) < rows and (left := [bucket for bucket in stretch if bucket in self._buckets]):
            batch.append(self._pop(self._first(left)))
        self._virtual += sum(item.cost for item in batch) / waiting
        return batch

    @property
    def requests(self) -> int:
        """Number of requests with items that wait."""
        return self._requests

    def clear(self) -> list[T]:
        """Return every item that waits, and let none wait any more."""
        left = [item for heap in self._buckets.values() for _, _, item, _ in heap]
        self._buckets.clear()
        self._requests = 0
        return left

    def __bool__(self) -> bool:
        """Return whether anything waits, items of ended jobs included."""
        return bool(self._buckets)

    def _stretch(self, first: int, budget: int) -> tuple[Sequence[Hashable], int]:
        """Choose the lengths that run with the first one's, and how many rows fit: what costs least for its work."""
        lengths = sorted(length for length in self._buckets if isinstance(length, int))
        at = lengths.index(first)
        # Beyond that a row's own padding costs more than a run for it alone.
        widest = min(bisect_right(lengths, first + self._overhead), at + 1 + FARTHEST)
        best: tuple[Sequence[Hashable], int] = ([first], 1)
        cheapest = float("inf")
        for end in range(at, widest):
            width = lengths[end]
            most = min(budget // width, self._most_rows or budget)
            narrowest = max(bisect_left(lengths, width - self._overhead), at - FARTHEST, 0)
            rows = work = 0
            for start in range(end, narrowest - 1, -1):
                rows += len(self._buckets[lengths[start]])
                work += lengths[start] * len(self._buckets[lengths[start]])
                taken = min(rows, most)
                if start <= at and taken > 0:
                    cost = (self._overhead + taken * width) * rows / (work * taken)
                    if cost < cheapest:
                        best, cheapest = (lengths[start : end + 1], taken), cost
                if rows >= most:
                    break
        return best

    def _first(self, buckets: Iterable[Hashable]) -> Hashable:
        return min(buckets, key=lambda bucket: self._buckets[bucket][0])

    def _shed(self, bucket: Hashable) -> None:
        """Drop items that are gone from a bucket's head, and the bucket with the last of them."""
        heap = self._buckets[bucket]
        while heap and self._gone(heap[0][2]):
            self._drop(heap)
        if not heap:
            del self._buckets[bucket]

    def _pop(self, bucket: Hashable) -> T:
        """Pop a bucket's first item."""
        item = self._drop(self._buckets[bucket])
        self._shed(bucket)
        return item

    def _drop(self, heap: list[tuple[float, int, T, _Request]]) -> T:
        _, _, item, request = heapq.heappop(heap)
        request.waiting -= 1
        self._requests -= not request.waiting
        return item
