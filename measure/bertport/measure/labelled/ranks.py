"""Ranked documents: how good an order is, of the first ten."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["CUT", "best_first", "ndcg", "recall", "reciprocal_rank"]

CUT = 10
"""Documents of an order that count."""


def best_first(scores: NDArray[np.floating], relevance: ArrayLike) -> NDArray[np.int64]:
    """Return the numbers of documents by falling score, of those with the same score the least relevant first.

    In the order of the file, in which relevant ones often stand first, a model would gain by telling nothing apart.

    Args:
        scores: Score of each document, `[documents]`.
        relevance: Relevance of each, `[documents]`.
    """
    order: NDArray[np.int64] = np.lexsort((np.asarray(relevance), -scores))
    return order


def ndcg(gains: NDArray[np.float64], ideal: NDArray[np.float64]) -> float:
    """Return the normalized discounted cumulative gain: gains divided by log2(rank + 1), over those of the best order.

    Jaervelin and Kekaelaeinen 2002, with the relevance itself for a gain, as trec_eval has it.

    Args:
        gains: relevance of the documents in the order predicted, `[documents]`.
        ideal: relevance of all documents, `[documents]`, of which some is above 0.
    """
    return _dcg(gains) / _dcg(np.sort(ideal)[::-1])


def reciprocal_rank(gains: NDArray[np.float64]) -> float:
    """Return 1 over the rank of the first document with a gain; 0 where none is among the first ten."""
    relevant = np.flatnonzero(gains[:CUT] > 0)
    return 1 / (int(relevant[0]) + 1) if len(relevant) else 0.0


def recall(gains: NDArray[np.float64], ideal: NDArray[np.float64]) -> float:
    """Return the share of all relevant documents that are among the first ten."""
    return int(np.count_nonzero(gains[:CUT] > 0)) / int(np.count_nonzero(ideal > 0))


def _dcg(gains: NDArray[np.float64]) -> float:
    first = gains[:CUT]
    return float((first / np.log2(np.arange(2, len(first) + 2))).sum())
