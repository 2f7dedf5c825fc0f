"""Labels: from the logits of a head that classifies to probabilities under the labels that the bundle records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bertport.runtime.errors import MissingHeadError
from bertport.runtime.heads import HEADS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bertport.runtime.bundle.manifest import HeadEntry, Manifest

__all__ = ["labelled", "probabilities"]


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
    shares: NDArray[np.float32] = weights / weights.sum(axis=-1, keepdims=True)
    return shares
