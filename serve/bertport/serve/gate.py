"""Who is let in: so many requests, and so many bytes of bodies, at once."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from bertport.serve.problems import Loading, Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bertport.serve.settings import Limits

__all__ = ["Gate", "Hold"]


class Hold:
    """The bytes that one request holds."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._bytes = 0

    def grow(self, size: int) -> None:
        """Hold so many bytes more.

        Raises:
            Overloaded: when the server would hold too many.
        """
        if self._gate.held + size > self._gate.limits.max_body_bytes_held:
            message = "the server holds as many bytes of requests as it may: try again later"
            raise Overloaded(message, retry_after=1)
        self._gate.held += size
        self._bytes += size

    def release(self) -> None:
        """Hold none."""
        self._gate.held -= self._bytes
        self._bytes = 0


class Gate:
    """Counts what is inside; used from the event loop only.

    Args:
        limits: of the server.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.active = 0
        self.held = 0
        self.draining = False

    @contextmanager
    def enter(self) -> Iterator[Hold]:
        """Let one request in, while there is room.

        Raises:
            Overloaded: when there are as many as there may be.
        """
        if self.active >= self.limits.max_concurrent_requests:
            message = f"the server answers {self.active} requests already: try again later"
            raise Overloaded(message, retry_after=1)
        self.active += 1
        hold = Hold(self)
        try:
            yield hold
        finally:
            hold.release()
            self.active -= 1

    def stopping(self) -> Loading:
        """Give the answer for who asks whether a stopping server is ready."""
        message = "the server is stopping"
        return Loading(message, estimated_time=5)
