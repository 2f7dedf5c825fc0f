"""Long CPU work of many requests, done by one thread in pieces, so that none of it holds up the event loop or another.

A request's work is a generator that yields between pieces of a few milliseconds. Which piece runs next is fair
queueing, as in `bertport.serve.engine.queue`: each request waits with a tag, the virtual time at which it came, its
size, and the time that it has had; virtual time goes on by what is run, divided by the requests that wait. So a batch
of sentences does not wait behind megabytes of text that came before it, and megabytes do not wait for ever. One thread,
because the cores belong to the model.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from bertport.runtime.errors import panicked
from bertport.serve.errors import Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["Pieces", "settle", "whole"]

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

BYTES_PER_SECOND = 2e6
"""At which bytes weigh as much as time: about the speed of tokenizing."""


def whole(function: Callable[..., T], *arguments: object) -> Generator[None, None, T]:
    """Return work of one piece: a call that is bounded by itself."""
    return function(*arguments)
    yield  # what makes it a generator


class Pieces:
    """A thread that runs work in pieces, the smallest and least served first.

    Args:
        died: told the reason, from the thread, when it ends otherwise than by `close`; nothing can be prepared then.
    """

    def __init__(self, died: Callable[[str], None]) -> None:
        self.failure: str | None = None
        self._died = died
        self._changed = threading.Condition()
        self._waiting: list[tuple[float, int, Generator[None, None, Any], asyncio.Future[Any]]] = []
        self._running: list[asyncio.Future[Any]] = []
        self._virtual = 0.0
        self._numbers = itertools.count()
        self._closing = False
        self._thread = threading.Thread(target=self._owned, name="pieces", daemon=True)
        self._thread.start()

    async def run(self, work: Generator[None, None, T], size: int) -> T:
        """Run work to its end, and return what it returns or raise what it raises.

        Args:
            work: yields between its pieces.
            size: bytes or characters that it works on.

        Raises:
            Failed: when the thread has ended.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._changed:
            if self.failure is not None or self._closing:
                raise Failed(self.failure or "the server is stopping")
            tag = self._virtual + size / BYTES_PER_SECOND
            heapq.heappush(self._waiting, (tag, next(self._numbers), work, future))
            self._changed.notify()
        try:
            return await future
        except asyncio.CancelledError:  # its client left, or its time is over: what it holds is let go of at once
            with self._changed:
                self._waiting = [entry for entry in self._waiting if entry[3] is not future]
                heapq.heapify(self._waiting)
            raise

    def close(self) -> None:
        """End the thread when nothing waits any more; not from the event loop's thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _owned(self) -> None:
        try:
            self._loop()
        except BaseException as error:  # noqa: BLE001 — whatever it is, the requests that wait are told
            reason = f"the thread that tokenizes ended ({type(error).__name__})"
            _LOG.critical("%s", reason, exc_info=error)
            with self._changed:
                self.failure = reason
                left = [future for _, _, _, future in self._waiting]
                self._waiting.clear()
            for future in (*self._running, *left):
                settle(future, Failed(reason))
            self._died(reason)

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closing:
                        return
                    self._changed.wait()
                tag, _, work, future = heapq.heappop(self._waiting)
                among = len(self._waiting) + 1
            self._running = [future]
            began = time.perf_counter()
            done = self._step(work, future)
            took = time.perf_counter() - began
            self._running = []
            with self._changed:
                self._virtual += took / among
                if not done and not future.cancelled():
                    heapq.heappush(self._waiting, (tag + took, next(self._numbers), work, future))
            del work, future  # or they would be held until the next comes

    @staticmethod
    def _step(work: Generator[None, None, Any], future: asyncio.Future[Any]) -> bool:
        """Run one piece, and say whether it was the last."""
        if future.cancelled():  # its client left, or its time is over
            work.close()
            return True
        try:
            next(work)
        except StopIteration as end:
            settle(future, end.value)
        except BaseException as error:
            if not isinstance(error, Exception) and not panicked(error):
                raise
            settle(future, error if isinstance(error, Exception) else RuntimeError(str(error)))
        else:
            return False
        return True


def settle(future: asyncio.Future[Any], outcome: object) -> None:
    """Set a future's outcome from another thread, if its event loop still runs and the future is pending."""

    def end() -> None:
        if not future.done():
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    with suppress(RuntimeError):  # the loop is closed: the process is ending, and nothing waits
        future.get_loop().call_soon_threadsafe(end)
