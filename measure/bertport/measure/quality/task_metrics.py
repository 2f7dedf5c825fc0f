"""The arithmetic of fidelity for heads that are trained for a task: rows of metrics, and what is kept of the outputs.

What figures are drawn from more than sums over inputs, such as the order of a query's documents, is kept of each input
until all are measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bertport.measure.quality.entities import entities
from bertport.measure.quality.metrics import kl_divergence, log_softmax

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Logits = NDArray[np.floating]

__all__ = [
    "CLASS_COLUMNS",
    "LONGEST_ANSWER",
    "SPAN_COLUMNS",
    "TOKEN_LABEL_COLUMNS",
    "best_span",
    "compare_classes",
    "compare_entities",
    "compare_spans",
    "given_labels",
    "nearest",
    "rank_correlation",
    "ranks",
    "token_f1",
]

CLASS_COLUMNS = ("same", "kl", "change", "lead")
"""Columns that `compare_classes` returns, per input."""
TOKEN_LABEL_COLUMNS = (*CLASS_COLUMNS, "common", "found")
"""Columns per token: those of `compare_classes`, and in a text's first row those that `compare_entities` returns."""
SPAN_COLUMNS = ("same", "overlap", "kl_start", "kl_end", "unanswered")
"""Columns that `compare_spans` returns, per question."""
LONGEST_ANSWER = 15
"""Tokens of the longest answer, as transformers' pipeline has it by default."""


def compare_classes(reference: Logits, candidate: Logits, *, several: bool = False) -> Floats:
    """Compare two models that give labels.

    Args:
        reference: Logits. Shape: (inputs, labels)
        candidate: Logits of the other model. Shape: (inputs, labels)
        several: Whether an input may have several labels, or none: those of a probability above one half.

    Returns:
        Per input (`CLASS_COLUMNS`): whether the label, or the set of labels, is the same; KL divergence in nats; the
        largest absolute difference of a label's probability; by how much the reference's answer leads. Shape:
        (inputs, 4)
    """
    if several:
        log_reference, log_candidate = _log_sigmoid(reference), _log_sigmoid(candidate)
        divergence = kl_divergence(log_reference, log_candidate).sum(axis=-1)
        one, two = np.exp(log_reference[..., 0]), np.exp(log_candidate[..., 0])
        same = ((reference > 0) == (candidate > 0)).all(axis=-1)  # where probabilities are above one half
        lead = np.abs(2 * one - 1).min(axis=-1)
    else:
        log_reference, log_candidate = log_softmax(reference), log_softmax(candidate)
        divergence = kl_divergence(log_reference, log_candidate)
        one, two = np.exp(log_reference), np.exp(log_candidate)
        same = reference.argmax(axis=-1) == candidate.argmax(axis=-1)
        best = np.sort(one, axis=-1)[:, -2:]
        lead = best[:, -1] - best[:, 0]
    return np.stack([same, divergence, np.abs(one - two).max(axis=-1), lead], axis=1).astype(np.float64)


def _log_sigmoid(logits: Logits) -> Floats:
    """Return the log-probabilities of each label and of its absence. Shape: (..., labels, 2)."""
    wide = logits.astype(np.float64)
    return -np.stack([np.logaddexp(0, -wide), np.logaddexp(0, wide)], axis=-1)


def given_labels(reference: Logits, candidate: Logits, *, several: bool = False) -> Floats:
    """Return the labels that the reference gives, and for each whether the candidate gives it too.

    Args:
        reference: Logits. Shape: (inputs, labels)
        candidate: Logits of the other model. Shape: (inputs, labels)
        several: As in `compare_classes`.

    Returns:
        The number of the label, and 1 where both give it. Shape: (given, 2)
    """
    if several:
        inputs, labels = np.nonzero(reference > 0)
        both = candidate[inputs, labels] > 0
    else:
        labels = reference.argmax(axis=-1)
        both = labels == candidate.argmax(axis=-1)
    return np.stack([labels, both], axis=1).astype(np.float64)


def compare_entities(reference: Sequence[str], candidate: Sequence[str]) -> tuple[float, float]:
    """Compare the entities of a text, from the labels of its words.

    Returns:
        How many both have, and half of how many each has: their ratio is the F1.
    """
    one, two = set(entities(reference)), set(entities(candidate))
    return float(len(one & two)), (len(one) + len(two)) / 2


def compare_spans(reference: Logits, candidate: Logits, context: NDArray[np.bool_]) -> Floats:
    """Compare two models' answers to a question.

    Args:
        reference: Logits of start and end. Shape: (tokens, 2)
        candidate: Logits of the other model. Shape: (tokens, 2)
        context: Which tokens the answer may be of; the first token of all stands for no answer. Shape: (tokens,)

    Returns:
        One row (`SPAN_COLUMNS`): whether the best span is the same, or both answer with none; F1 of their tokens; KL of
        the start and of the end, in nats; whether the reference answers with none. Shape: (1, 5)
    """
    asked = context.copy()
    asked[0] = True
    logs = [log_softmax(logits[asked].T) for logits in (reference, candidate)]
    one, two = (best_span(log) for log in logs)
    divergences = kl_divergence(*logs)
    return np.array([[one == two, token_f1(one, two), *divergences, one is None]], dtype=np.float64)


def best_span(logs: Floats) -> tuple[int, int] | None:
    """Return the likeliest span, first and last token, of at most `LONGEST_ANSWER` tokens; None for no answer.

    Args:
        logs: Log-probabilities of start and end at each token; the first token stands for no answer. Shape: (2, tokens)
    """
    start, end = logs[:, 1:]
    if not start.size:
        return None
    first, last = np.arange(start.size)[:, None], np.arange(start.size)[None]
    allowed = (last >= first) & (last < first + LONGEST_ANSWER)
    scores = np.where(allowed, start[:, None] + end[None], -np.inf)
    best = int(scores.argmax())
    if logs[:, 0].sum() > scores.flat[best]:
        return None
    return best // start.size, best % start.size


def token_f1(one: tuple[int, int] | None, two: tuple[int, int] | None) -> float:
    """Return F1 of the tokens of two spans; 1 where both are none, and 0 where one is."""
    if one is None or two is None:
        return float(one is two)
    common = min(one[1], two[1]) - max(one[0], two[0]) + 1
    lengths = one[1] - one[0] + two[1] - two[0] + 2
    return 2 * max(0, common) / lengths


def ranks(values: NDArray[np.floating]) -> Floats:
    """Return the rank of each value, from 0, equal values at their mean. Shape: (values,)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: Floats = np.cumsum(counts) - (counts + 1) / 2
    return means[inverse]


def rank_correlation(one: NDArray[np.floating], two: NDArray[np.floating]) -> float:
    """Return Spearman's rank correlation; 1 for the same ranks, NaN where only one side has no order at all.

    Args:
        one: Values. Shape: (values,)
        two: Values of the same things. Shape: (values,)
    """
    first, second = (side - side.mean() for side in (ranks(one), ranks(two)))
    if np.array_equal(first, second):
        return 1.0
    below = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / below if below else float("nan")


def nearest(vectors: NDArray[np.floating], count: int, *, block: int = 512) -> NDArray[np.int64]:
    """Return the nearest neighbours of each vector by cosine, without itself, in no order. Shape: (vectors, count)."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(norms > 0, norms, 1)
    neighbours = np.empty((len(unit), count), dtype=np.int64)
    for begin in range(0, len(unit), block):  # the products of all with all would not fit
        products = unit[begin : begin + block] @ unit.T
        products[np.arange(len(products)), np.arange(begin, begin + len(products))] = -np.inf
        neighbours[begin : begin + block] = np.argpartition(products, -count, axis=1)[:, -count:]
    return neighbours
