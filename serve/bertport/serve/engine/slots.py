"""Batches take turns on a device.

On a CPU there are as many places as streams, and as many batches run at once, in a session that has no thread for
every core beside its callers'. A session that has one takes all the places, since with two such at once there would be
twice as many threads as cores, and each would wait for its slowest. Elsewhere there is one place.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DeviceSlots"]


class DeviceSlots:
    """A lock of several places, given in the order in which they were asked for, so that no session is passed over.

    Args:
        places: how many may have their turn at once.
    """

    def __init__(self, places: int = 1) -> None:
        self._guard = threading.Lock()
        self._gathering = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._places = places
        self._free = places

    def __enter__(self) -> None:
        """Wait for a place."""
        with self._guard:
            if self._free:
                self._free -= 1
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()  # released by one that is done

    def __exit__(self, *_: object) -> None:
        """Hand the place to the next."""
        self._give_back(1)

    @property
    def taken(self) -> int:
        """How many have their turn now."""
        return self._places - self._free

    @contextmanager
    def all(self) -> Iterator[None]:
        """Wait for every place; for who has none."""
        with self._gathering:  # two that each held a part and waited for the rest would wait for ever
            for _ in range(self._places):
                self.__enter__()
            try:
                yield
            finally:
                self._give_back(self._places)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Take the other places too, if all are free, and say whether; for who has a place."""
        others = self._places - 1
        with self._guard:
            taken = self._free == others
            if taken:
                self._free = 0
        try:
            yield taken
        finally:
            if taken:
                self._give_back(others)

    def _give_back(self, places: int) -> None:
        with self._guard:
            for _ in range(places):
                if self._waiting:
                    self._waiting.popleft().release()
                else:
                    self._free += 1
