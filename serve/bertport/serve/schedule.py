"""Which work runs next: fair between requests, in batches of one length.

Each item waits with a start tag, as in fair queueing: the virtual time at which its request came, plus the tokens of
the same request that are ahead of it. Virtual time goes on by the tokens that run, divided by the requests that wait.
The lowest tag runs first, and takes along whatever waits with the same length, as far as the budget goes. So a request
with many texts does not hold up one with a single text that comes later, nothing starves however many come, and
batches need no padding.
"""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

__all__ = ["Backlog", "Item"]


class Item(Protocol):
    """What can wait."""

    @property
    def bucket(self) -> Hashable:
        """Only items of one bucket run together."""

    @property
    def tokens(self) -> int:
        """What it costs."""


T = TypeVar("T", bound=Item)


class _Request:
    """How many items of a request wait."""

    __slots__ = ("waiting",)

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting


class Backlog(Generic[T]):
    """Items that wait. Not safe for several threads at once.

    Args:
        gone: tells whether an item need not run any more; such items are dropped when their turn comes.
    """

    def __init__(self, gone: Callable[[T], bool]) -> None:
        self._gone = gone
        # By bucket: tag, number (so that items are never compared), item, its request.
        self._buckets: dict[Hashable, list[tuple[float, int, T, _Request]]] = {}
        self._numbers = itertools.count()
        self._virtual = 0.0
        self._requests = 0

    def add(self, items: Sequence[T]) -> None:
        """Let one request's items wait, in their order."""
        request = _Request(len(items))
        self._requests += bool(items)
        tag = self._virtual
        for item in items:
            heapq.heappush(self._buckets.setdefault(item.bucket, []), (tag, next(self._numbers), item, request))
            tag += item.tokens

    def take(self, budget: int) -> list[T]:
        """Give the next batch: of one bucket, within the budget or a single item; empty when nothing waits."""
        for bucket in list(self._buckets):
            self._shed(bucket)
        if not self._buckets:
            return []
        bucket = min(self._buckets, key=lambda each: self._buckets[each][0])
        self._virtual = max(self._virtual, self._buckets[bucket][0][0])
        waiting = self._requests
        batch: list[T] = []
        room = budget
        while bucket in self._buckets:
            item = self._buckets[bucket][0][2]
            if batch and item.tokens > room:
                break
            self._pop(self._buckets[bucket])
            batch.append(item)
            room -= item.tokens
            self._shed(bucket)
        self._virtual += (budget - room) / waiting
        return batch

    def __bool__(self) -> bool:
        """Tell whether anything waits, items that are gone included."""
        return bool(self._buckets)

    def _shed(self, bucket: Hashable) -> None:
        """Drop items that are gone from a bucket's head, and the bucket with the last of them."""
        heap = self._buckets[bucket]
        while heap and self._gone(heap[0][2]):
            self._pop(heap)
        if not heap:
            del self._buckets[bucket]

    def _pop(self, heap: list[tuple[float, int, T, _Request]]) -> None:
        _, _, _, request = heapq.heappop(heap)
        request.waiting -= 1
        self._requests -= not request.waiting
