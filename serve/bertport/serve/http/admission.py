"""Admission control: caps concurrent requests, buffered body bytes, and bytes of answers that clients have not read."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from bertport.serve.errors import Loading, Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bertport.serve.settings import Limits

__all__ = ["Admission", "Reservation", "Store"]

LEAST_OF_METRICS = 1 << 20
"""Bytes of /metrics that may be held at least: one of a server with many bundles has some hundred thousand."""


class Store:
    """Bytes that all requests together hold of one kind; used from the event loop only.

    Args:
        most: how many there may be.
        kind: what they are, for the sentence that refuses more.
    """

    def __init__(self, most: int, kind: str) -> None:
        self.most = most
        self.held = 0
        self._kind = kind

    def take(self, size: int) -> None:
        """Hold `size` bytes more, or less where it is negative.

        Raises:
            Overloaded: when there would be too many.
        """
        if size > 0 and self.held + size > self.most:
            raise Overloaded(
                f"the server holds as many bytes of {self._kind} as it may: try again later", retry_after=1
            )
        self.held += size


class Reservation:
    """The bytes that one request holds of one kind.

    Args:
        store: where they are counted.
    """

    __slots__ = ("_store", "size")

    def __init__(self, store: Store) -> None:
        self._store = store
        self.size = 0

    def grow(self, size: int) -> None:
        """Hold `size` bytes more.

        Raises:
            Overloaded: when the server would hold too many.
        """
        self._store.take(size)
        self.size += size

    def settle(self, size: int) -> None:
        """Hold exactly `size` bytes from now on.

        Raises:
            Overloaded: when that is more, and the server would hold too many.
        """
        self.grow(size - self.size)

    def release(self) -> None:
        """Hold none."""
        self.settle(0)


class Admission:
    """Counts of the requests and bytes in the server, with their limits.

    Args:
        limits: of the server.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.active = 0
        """Requests that hold a place."""
        self.waiting = 0
        """Requests whose bodies have not arrived, which hold none."""
        self.bodies = Store(limits.max_body_bytes_held, "requests")
        self.answers = Store(limits.max_answer_bytes_held, "answers that clients have not read")
        # A probe must not fail, and the process be ended, because of what others have not read.
        self.probes = Store(limits.max_answer_bytes_held, "answers to probes")
        # /metrics is needed most then; clients that do not read it can hold a part of what others may.
        self.metrics = Store(max(limits.max_answer_bytes_held // 4, LEAST_OF_METRICS), "metrics")
        self.draining = False

    @property
    def inside(self) -> int:
        """Requests in the server."""
        return self.active + self.waiting

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Admit one request, while there is room; from the event loop only.

        Raises:
            Overloaded: when there are as many as there may be.
        """
        self._check(self.active)
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1

    @contextmanager
    def body(self) -> Iterator[None]:
        """Let others have an admitted request's place while its body arrives, however slowly its client sends it.

        Raises:
            Overloaded: when all places are taken by the end.
        """
        self.active -= 1
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1
            self.active += 1  # `enter` takes it away, in any case
        self._check(self.active - 1)

    def _check(self, others: int) -> None:
        """Raise Overloaded where so many others leave no place."""
        if others >= self.limits.max_concurrent_requests:
            raise Overloaded(f"the server answers {others} requests already: try again later", retry_after=1)

    def stopping(self) -> Loading:
        """Return the answer to `/ready` while the server stops."""
        return Loading("the server is stopping", estimated_time=5)
