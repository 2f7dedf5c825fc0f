"""text-classification: the labels of a text or a pair, as transformers' pipeline gives them, in numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from bertport.runtime.errors import UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION
from bertport.runtime.tasks.inputs import text_or_pair
from bertport.runtime.tasks.labels import activation_named, activation_of, columns, labelled
from bertport.runtime.tasks.parameters import is_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from bertport.runtime.bundle.manifest import Manifest
    from bertport.runtime.tasks.answers import ScoredLabel
    from bertport.runtime.text.encoder import Encoded, Text
    from bertport.runtime.text.tokenizer import Tokens

__all__ = ["BEST", "Options", "finish", "read"]

BEST: Literal["best"] = "best"
"""The `top_k` of the best label alone, which is not in a list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Parameters of text-classification."""

    top_k: int | Literal["best"] | None = BEST
    """`best`: the best label; a number: a list of so many labels, best first; None: a list of all, best first."""
    function_to_apply: str | None = None
    """Activation that turns logits into scores: `softmax`, `sigmoid` or `none`; None for that of the head's problem
    type."""
    truncation: bool = False
    """Cut a text that is too long, of a pair the longer one, instead of refusing it."""


def read(value: object) -> Text:
    """Return the text or pair of an input: one text, two in a list, or an object with `text`, perhaps `text_pair`.

    An empty second text is none, as in the pipeline.
    """
    text = text_or_pair("text-classification", value)
    return text if isinstance(text, str) or text[1] else text[0]


def finish(
    options: Options,
    tokens: Tokens,  # noqa: ARG001 — every task's `finish` takes the tokenizer
    manifest: Manifest,
) -> Callable[[NDArray[np.float32], Encoded], ScoredLabel | list[ScoredLabel]]:
    """Return the function that turns logits `[labels]` into the best label, or a list of labels, best first.

    Raises:
        MissingHeadError: for a bundle that does not record the labels.
        UnknownNameError, UsageError: for a parameter out of range.
    """
    entry, labels = labelled(SEQUENCE_CLASSIFICATION, manifest)
    named, top_k = options.function_to_apply, options.top_k
    activation = activation_named(activation_of(entry, len(labels)) if named is None else named)
    numeric = is_whole(top_k) and top_k >= 1
    if not (numeric or top_k is None or top_k == BEST):
        raise UsageError(f"top_k is a number from 1 up, None for all labels, or {BEST!r}, not {excerpt(top_k)}")
    count = len(labels) if top_k is None else 1 if isinstance(top_k, str) else top_k

    def answer(logits: NDArray[np.float32], _: Encoded) -> ScoredLabel | list[ScoredLabel]:
        scores = activation(columns(logits, labels, manifest))
        ranked: list[ScoredLabel] = [
            {"label": labels[column], "score": float(scores[column])}
            for column in np.argsort(-scores, kind="stable")[:count].tolist()
        ]
        return ranked[0] if isinstance(top_k, str) else ranked

    return answer
