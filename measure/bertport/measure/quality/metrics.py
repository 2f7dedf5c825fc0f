"""The arithmetic of fidelity: two models' outputs for the same input in, one row of metrics per position out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = [
    "COSINE_COLUMNS",
    "PAIR_COLUMNS",
    "TOKEN_COLUMNS",
    "compare_pairs",
    "compare_tokens",
    "cosines",
    "kl_divergence",
    "log_softmax",
]

TOP = 5
TOKEN_COLUMNS = (
    *("top1", "top5", "kl", "nll_reference", "nll_candidate"),
    *("right_reference", "right_candidate", "among5_reference", "among5_candidate"),
)
"""Columns that `compare_tokens` returns, per masked position."""
PAIR_COLUMNS = ("flip", "change", "kl", "right_reference", "right_candidate", "gained", "lost")
"""Columns that `compare_pairs` returns, per pair, or per token that is judged."""
COSINE_COLUMNS = ("cosine",)
"""Column that `cosines` returns, per token."""


def log_softmax(logits: NDArray[np.floating]) -> Floats:
    """Return log-probabilities (nats) over the last axis, in float64: float32 loses the KL of close distributions."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return wide


def kl_divergence(reference: Floats, candidate: Floats) -> Floats:
    """Return KL(reference || candidate) in nats from log-probabilities. Shape: (rows,)."""
    divergence: Floats = (np.exp(reference) * (reference - candidate)).sum(axis=-1)
    return np.maximum(divergence, 0.0)  # rounding can leave -1e-17


def compare_tokens(
    reference: NDArray[np.floating], candidate: NDArray[np.floating], labels: NDArray[np.int64]
) -> Floats:
    """Compare two models at masked positions.

    Args:
        reference: Logits. Shape: (masked, vocabulary)
        candidate: Logits of the other model. Shape: (masked, vocabulary)
        labels: The original ids. Shape: (masked,)

    Returns:
        Per position (`TOKEN_COLUMNS`): whether the best token is the same; the share of the five best that both
        have; KL divergence in nats; -log p of the label, in nats, for each; whether each has the label as its best,
        and whether among its five best. Shape: (masked, 9)
    """
    best_reference, best_candidate = reference.argmax(axis=-1), candidate.argmax(axis=-1)
    log_reference, log_candidate = log_softmax(reference), log_softmax(candidate)
    top = min(TOP, reference.shape[-1])
    top_reference, top_candidate = _best(reference, top), _best(candidate, top)
    common = (top_reference[:, :, None] == top_candidate[:, None, :]).any(axis=-1).sum(axis=-1)
    rows = np.arange(len(labels))
    return np.stack(
        [
            best_reference == best_candidate,
            common / top,
            kl_divergence(log_reference, log_candidate),
            -log_reference[rows, labels],
            -log_candidate[rows, labels],
            best_reference == labels,
            best_candidate == labels,
            (top_reference == labels[:, None]).any(axis=-1),
            (top_candidate == labels[:, None]).any(axis=-1),
        ],
        axis=1,
    ).astype(np.float64)


def compare_pairs(
    reference: NDArray[np.floating], candidate: NDArray[np.floating], labels: NDArray[np.int64], *, positive: int = 0
) -> Floats:
    """Compare two models that answer yes or no: whether B follows A, whether two texts are in order, and the like.

    Args:
        reference: Logits. Shape: (pairs, 2)
        candidate: Logits of the other model. Shape: (pairs, 2)
        labels: 0 where yes is right, 1 where it is not. Shape: (pairs,)
        positive: The column of the logits that says yes.

    Returns:
        Per pair (`PAIR_COLUMNS`): whether the answer differs; by how much the probability of yes differs, absolute; KL
        divergence in nats; whether each is right; whether only the candidate is, and whether only the reference.
        Shape: (pairs, 7)
    """
    log_reference, log_candidate = log_softmax(reference), log_softmax(candidate)
    says_reference, says_candidate = reference.argmax(axis=-1), candidate.argmax(axis=-1)
    right = np.where(labels == 0, positive, 1 - positive)
    right_reference, right_candidate = says_reference == right, says_candidate == right
    return np.stack(
        [
            says_reference != says_candidate,
            np.abs(np.exp(log_reference[:, positive]) - np.exp(log_candidate[:, positive])),
            kl_divergence(log_reference, log_candidate),
            right_reference,
            right_candidate,
            right_candidate & ~right_reference,
            right_reference & ~right_candidate,
        ],
        axis=1,
    ).astype(np.float64)


def cosines(reference: NDArray[np.floating], candidate: NDArray[np.floating]) -> Floats:
    """Return the cosine of each token's two hidden states; 1 where both are zero. Shape: (tokens,)."""
    one, two = reference.astype(np.float64), candidate.astype(np.float64)
    norms = np.linalg.norm(one, axis=-1) * np.linalg.norm(two, axis=-1)
    same = np.linalg.norm(one - two, axis=-1) == 0
    products = (one * two).sum(axis=-1)
    ratios: Floats = np.where(same, 1.0, products / np.where(norms > 0, norms, 1.0))
    return np.clip(ratios, -1.0, 1.0)


def _best(logits: NDArray[np.floating], top: int) -> NDArray[np.int64]:
    indices: NDArray[np.int64] = np.argpartition(logits, -top, axis=-1)[:, -top:]
    return indices
