"""next-sentence: whether B follows A, with both probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.runtime.errors import InputTextError, MissingHeadError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import NSP

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from bertport.runtime.bundle.manifest import Manifest
    from bertport.runtime.text.encoder import Encoded
    from bertport.runtime.text.tokenizer import Tokens

__all__ = ["Options", "finish", "read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Parameters of next-sentence."""

    truncation: bool = False
    """Cut the longer text of a pair that is too long instead of refusing it."""


def read(value: object) -> tuple[str, str]:
    """Return the pair of an input: two texts in a list, or an object with `text` and `text_pair`."""
    match value:
        case {"text": str(a), "text_pair": str(b), **other} if not other:
            return a, b
        case [str(a), str(b)]:
            return a, b
    raise InputTextError(
        f'next-sentence takes two texts, ["A", "B"] or {{"text": "A", "text_pair": "B"}}, not {excerpt(value)}'
    )


def finish(
    options: Options,  # noqa: ARG001 — every task's `finish` takes its options
    tokens: Tokens,  # noqa: ARG001 — and the tokenizer
    manifest: Manifest,
) -> Callable[[NDArray[np.float32], Encoded], dict[str, Any]]:
    """Return the function that turns two logits into both probabilities, by the labels the bundle records."""
    head = manifest.heads.get(NSP)
    labels = head.labels if head else None
    if head is None or labels is None:
        raise MissingHeadError(f"{manifest.name} does not record what its next-sentence labels mean: export it again")

    def answer(logits: NDArray[np.float32], _: Encoded) -> dict[str, Any]:
        weights = np.exp(logits - logits.max())
        probabilities = weights / weights.sum()
        best = int(probabilities.argmax())
        return {
            "label": labels[best],
            "score": float(probabilities[best]),
            "follows": best == head.positive,
            "probabilities": dict(zip(labels, probabilities.tolist(), strict=True)),
        }

    return answer
