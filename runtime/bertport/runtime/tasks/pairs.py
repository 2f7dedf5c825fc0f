"""next-sentence and sentence-order: which of two labels fits a pair of texts, with the probabilities of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.runtime.tasks.labels import labelled, probabilities

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from bertport.runtime.bundle.manifest import Manifest
    from bertport.runtime.text.encoder import Encoded

__all__ = ["Options", "verdict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Parameters of a task that judges a pair of texts."""

    truncation: bool = False
    """Cut the longer text of a pair that is too long instead of refusing it."""


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
