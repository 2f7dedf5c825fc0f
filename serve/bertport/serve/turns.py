"""Sessions take turns on a device.

Each session has a thread for every core. Two that run at once have twice as many threads as cores, and each waits for
its slowest; one after the other, batch by batch, each runs at full speed.
"""

from __future__ import annotations

import threading
from collections import deque

__all__ = ["Turns"]


class Turns:
    """A lock that is given in the order in which it was asked for, so that no session is passed over."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False

    def __enter__(self) -> None:
        """Wait for the turn."""
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()  # released by the one before

    def __exit__(self, *_: object) -> None:
        """Hand the turn to the next."""
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False
