"""Device slots: how many batches run on a device at once.

A CPU has as many slots as the model has streams: that many batches run at once, each in a session with no intra-op
threads beside its caller's. A session with a thread for every core takes all slots, since with two such at once there
would be twice as many threads as cores, and each would wait for its slowest. Other devices have one slot.
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
    """A fair counting lock: slots are granted in the order in which they were asked for.

    Args:
        count: number of slots.
    """

    def __init__(self, count: int = 1) -> None:
        self._guard = threading.Lock()
        self._gathering = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._count = count
        self._free = count

    def __enter__(self) -> None:
        """Acquire a slot."""
        with self._guard:
            if self._free:
                self._free -= 1
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()  # released by a thread that gives its slot back

    def __exit__(self, *_: object) -> None:
        """Release the slot to the next waiter."""
        self._give_back(1)

    @property
    def taken(self) -> int:
        """Slots in use now."""
        return self._count - self._free

    @property
    def waiting(self) -> int:
        """Threads that wait for a slot now."""
        return len(self._waiting)

    @contextmanager
    def all(self) -> Iterator[None]:
        """Acquire all slots. The caller must hold none, or it deadlocks."""
        with self._gathering:  # two that each held a part and waited for the rest would wait for ever
            for _ in range(self._count):
                self.__enter__()
            try:
                yield
            finally:
                self._give_back(self._count)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Acquire the other slots too if all are free; yield whether. The caller must hold one."""
        others = self._count - 1
        with self._guard:
            taken = self._free == others
            if taken:
                self._free = 0
        try:
            yield taken
        finally:
            if taken:
                self._give_back(others)

    def _give_back(self, count: int) -> None:
        with self._guard:
            for _ in range(count):
                if self._waiting:
                    self._waiting.popleft().release()
                else:
                    self._free += 1
