"""Labels: from the logits of a head that classifies to probabilities under the labels that the bundle records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.runtime.errors import MissingHeadError
from bertport.runtime.heads import HEADS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from bertport.runtime.bundle.manifest import HeadEntry, Manifest
    from bertport.runtime.text.encoder import Encoded

__all__ = ["labelled", "probabilities", "verdict"]


def labelled(head: str, manifest: Manifest) -> tuple[HeadEntry, tuple[str, ...]]:
    """Return a bundle's entry of a head, and its label per column.

    Raises:
        MissingHeadError: for a bundle that does not record the labels.
    """
    entry = manifest.heads.get(head)
    labels = entry.labels if entry else None
    if entry is None or labels is None:
        raise MissingHeadError(
            f"{manifest.name} does not record what its {HEADS[head].title} labels mean: export it again"
        )
    return entry, labels


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the softmax over the last axis; shapes are equal."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    found: NDArray[np.float32] = weights / weights.sum(axis=-1, keepdims=True)
    return found


def verdict(head: str, field: str, manifest: Manifest) -> Callable[[NDArray[np.float32], Encoded], dict[str, Any]]:
    """Return the function that turns the logits of a head that says yes or no, `[labels]`, into an answer.

    Args:
        head: name of the head.
        field: the answer's field that is True where the likelier label is the one that means yes.
        manifest: records the labels, and which of them means yes.

    Raises:
        MissingHeadError: for a bundle that does not record them.
    """
    entry, labels = labelled(head, manifest)

    def answer(logits: NDArray[np.float32], _: Encoded) -> dict[str, Any]:
        shares = probabilities(logits)
        best = int(shares.argmax())
        return {
            "label": labels[best],
            "score": float(shares[best]),
            field: best == entry.positive,
            "probabilities": dict(zip(labels, shares.tolist(), strict=True)),
        }

    return answer
