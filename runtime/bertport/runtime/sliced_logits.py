"""Logits too large to hold at once, decoded slice by slice."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SlicedLogits"]


class SlicedLogits:
    """Logits `[positions, classes]` of which one slice is in memory at a time: the others are decoded as they are read.

    Args:
        first: the first slice.
        decode: returns the slice that starts at a position.
        count: how many positions there are.
        step: how many are in a slice.
    """

    def __init__(
        self, first: NDArray[np.float32], decode: Callable[[int], NDArray[np.float32]], count: int, step: int
    ) -> None:
        self._at, self._slice = 0, first
        self._decode, self._count, self._step = decode, count, step

    def __len__(self) -> int:
        """Return the number of positions."""
        return self._count

    def __getitem__(self, rows: slice) -> Iterator[NDArray[np.float32]]:
        """Return the logits of some positions, one after the other; read in order, each slice is decoded once."""
        return (self._row(number) for number in range(*rows.indices(self._count)))

    def _row(self, number: int) -> NDArray[np.float32]:
        start = number - number % self._step
        if start != self._at:
            self._at, self._slice = -1, self._slice[:0].copy()  # let go before the next takes as much
            self._at, self._slice = start, self._decode(start)
        row: NDArray[np.float32] = self._slice[number - start].copy()  # a view would keep the slice
        return row

    def whole(self) -> NDArray[np.float32]:
        """Return all of them as one array."""
        import numpy as np

        values = np.empty((self._count, self._slice.shape[1]), dtype=np.float32)
        for number, row in enumerate(self[:]):
            values[number] = row
        return values
