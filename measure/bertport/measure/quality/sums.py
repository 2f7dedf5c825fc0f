"""Sums per text of what two models' outputs were compared by, and what is kept of outputs that sums do not tell of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["HeadSums"]


class HeadSums:
    """Sums per text of one head's metrics, and the smallest and largest value of each.

    Args:
        columns: Names of the metrics.
        labels: Names of the head's labels, where it has some.
    """

    def __init__(self, columns: Sequence[str], labels: Sequence[str] = ()) -> None:
        self.labels = tuple(labels)
        self._columns = tuple(columns)
        self._kept: list[tuple[int, NDArray[np.floating]]] = []
        self._sums: dict[int, Floats] = {}
        self._lowest = np.full(len(self._columns), np.inf)
        self._highest = np.full(len(self._columns), -np.inf)

    def __bool__(self) -> bool:
        """Return whether anything was added."""
        return bool(self._sums)

    def add(self, text: int, rows: Floats) -> None:
        """Add the metrics of one sample of a text.

        Args:
            text: Number of the text.
            rows: Shape: (positions, columns)
        """
        added = np.append(rows.sum(axis=0), len(rows))
        self._sums[text] = self._sums[text] + added if text in self._sums else added
        if len(rows):
            self._lowest = np.minimum(self._lowest, rows.min(axis=0))
            self._highest = np.maximum(self._highest, rows.max(axis=0))

    def keep(self, text: int, values: NDArray[np.floating]) -> None:
        """Keep what figures need of one sample of a text besides its sums. Shape: (rows, …)."""
        self._kept.append((text, values))

    @property
    def kept(self) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
        """Kept values, in the order of the samples: the number of each row's text, and the rows.

        Shapes: (rows,) and (rows, …)
        """
        texts = [np.full(len(values), text) for text, values in self._kept]
        return np.concatenate(texts), np.concatenate([values for _, values in self._kept])

    def sums(self, column: str) -> Floats:
        """Return the sum of a metric in each text, in the order of their numbers. Shape: (texts,)."""
        return self._table()[:, self._columns.index(column)]

    @property
    def counts(self) -> Floats:
        """Number of rows of each text, in the order of their numbers. Shape: (texts,)."""
        return self._table()[:, -1]

    def lowest(self, column: str) -> float:
        """Return the smallest value of a metric in any row."""
        return float(self._lowest[self._columns.index(column)])

    def highest(self, column: str) -> float:
        """Return the largest value of a metric in any row."""
        return float(self._highest[self._columns.index(column)])

    def per_text(self, *, without: Collection[str] = ()) -> list[dict[str, float]]:
        """Return the sums of each text as JSON values: `text`, the metrics, and `count`, the number of rows.

        Args:
            without: Metrics to leave out.
        """
        names = (*self._columns, "count")
        return [
            {
                "text": text,
                **{
                    name: float(f"{value:.6g}")
                    for name, value in zip(names, self._sums[text], strict=True)
                    if name not in without
                },
            }
            for text in sorted(self._sums)
        ]

    def _table(self) -> Floats:
        return np.stack([self._sums[text] for text in sorted(self._sums)])  # the resamples must not depend on the order
