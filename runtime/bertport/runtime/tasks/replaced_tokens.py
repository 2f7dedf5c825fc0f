"""replaced-tokens: for each token, whether it stands in place of another; rows as transformers' pipeline gives them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bertport.runtime.errors import UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import RTD
from bertport.runtime.tasks.inputs import one_text
from bertport.runtime.tasks.labels import labelled, probabilities

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from bertport.runtime.bundle.manifest import Manifest
    from bertport.runtime.tasks.answers import TokenLabel
    from bertport.runtime.text.encoder import Encoded
    from bertport.runtime.text.tokenizer import Tokens

__all__ = ["Options", "finish", "read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Parameters of replaced-tokens."""

    ignore_labels: Collection[str] = ()
    """Tokens with these labels are left out."""
    truncation: bool = False
    """Cut a text that is too long instead of refusing it."""


def read(value: object) -> str:
    """Return the text of an input: a text, or an object with the one field `text`."""
    return one_text("replaced-tokens", value)


def finish(
    options: Options, tokens: Tokens, manifest: Manifest
) -> Callable[[NDArray[np.float32], Encoded], list[TokenLabel]]:
    """Return the function that turns logits `[tokens, labels]` into a row for each token that is not special."""
    _, labels = labelled(RTD, manifest)
    ignored = _ignored(options.ignore_labels, labels)

    def rows(logits: NDArray[np.float32], encoded: Encoded) -> list[TokenLabel]:
        shares = probabilities(logits)
        best = shares.argmax(axis=-1)
        return [
            {
                "entity": labels[best[index]],
                "score": float(shares[index, best[index]]),
                "index": int(index),
                "word": tokens.token(int(encoded.ids[index])),
                "start": int(encoded.spans[index, 0]),
                "end": int(encoded.spans[index, 1]),
            }
            for index in np.flatnonzero(encoded.spans[:, 0] >= 0)
            if labels[best[index]] not in ignored
        ]

    return rows


def _ignored(names: object, labels: tuple[str, ...]) -> frozenset[str]:
    """Return the labels to leave out; UsageError for what is no list of labels."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise UsageError(f"ignore_labels is a list of labels ({', '.join(labels)}), not {excerpt(names)}")
    listed = list(names)
    for name in listed:
        if not isinstance(name, str):
            raise UsageError(f"ignore_labels is a list of labels ({', '.join(labels)}), and holds {excerpt(name)}")
    return frozenset(listed)
