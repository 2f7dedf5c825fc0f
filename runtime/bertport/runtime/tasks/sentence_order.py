"""sentence-order: whether A and B stand in the order in which they were written, with both probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.runtime.heads import SOP
from bertport.runtime.tasks.inputs import two_texts
from bertport.runtime.tasks.labels import verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from bertport.runtime.bundle.manifest import Manifest
    from bertport.runtime.text.encoder import Encoded
    from bertport.runtime.text.tokenizer import Tokens

__all__ = ["Options", "finish", "read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Parameters of sentence-order."""

    truncation: bool = False
    """Cut the longer text of a pair that is too long instead of refusing it."""


def read(value: object) -> tuple[str, str]:
    """Return the pair of an input: two texts in a list, or an object with `text` and `text_pair`."""
    return two_texts("sentence-order", value)


def finish(
    options: Options,  # noqa: ARG001 — every task's `finish` takes its options
    tokens: Tokens,  # noqa: ARG001 — and the tokenizer
    manifest: Manifest,
) -> Callable[[NDArray[np.float32], Encoded], dict[str, Any]]:
    """Return the function that turns two logits into both probabilities, by the labels the bundle records."""
    return verdict(SOP, "in_order", manifest)
