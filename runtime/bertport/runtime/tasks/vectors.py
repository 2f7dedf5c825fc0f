"""Vectors of texts: their length, and the functions by which two of them are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

__all__ = ["SIMILARITY_FUNCTIONS", "unit"]

SMALLEST_NORM = 1e-12
"""Least divisor of a vector that is normalized, as in torch.nn.functional.normalize: zeros stay zeros."""


def unit(vector: Vectors) -> Vectors:
    """Return a vector `[dimension]` divided by its Euclidean length."""
    return vector / max(float(np.linalg.norm(vector)), SMALLEST_NORM)


def _cosine(a: Vectors, b: Vectors) -> Vectors:
    return _dot(_units(a), _units(b))


def _dot(a: Vectors, b: Vectors) -> Vectors:
    return a @ b.T


def _euclidean(a: Vectors, b: Vectors) -> Vectors:
    return _by_rows(a, b, lambda differences: -np.linalg.norm(differences, axis=-1))


def _manhattan(a: Vectors, b: Vectors) -> Vectors:
    return _by_rows(a, b, lambda differences: -np.abs(differences).sum(axis=-1))


SIMILARITY_FUNCTIONS: dict[str, Callable[[Vectors, Vectors], Vectors]] = {
    "cosine": _cosine,
    "dot": _dot,
    "euclidean": _euclidean,
    "manhattan": _manhattan,
}
"""Similarity functions by the names that a manifest may state: from vectors `[n, dimension]` and `[m, dimension]` to
float32 `[n, m]`; the larger, the more alike."""


def _units(vectors: Vectors) -> Vectors:
    """Return vectors `[n, dimension]`, each divided by its length."""
    divisors: Vectors = np.linalg.norm(vectors, axis=-1, keepdims=True).clip(min=SMALLEST_NORM)
    return vectors / divisors


def _by_rows(a: Vectors, b: Vectors, measure: Callable[[Vectors], Vectors]) -> Vectors:
    """Return what is measured of the differences of all pairs, those of one vector of `a` in memory at a time."""
    measured = np.empty((len(a), len(b)), np.float32)
    for row, vector in zip(measured, a, strict=True):
        row[:] = measure(vector - b)
    return measured
