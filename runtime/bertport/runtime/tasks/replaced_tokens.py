"""replaced-tokens: for each token, whether it stands in place of another; rows as transformers' pipeline gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertport.runtime.heads import RTD
from bertport.runtime.tasks.inputs import one_text
from bertport.runtime.tasks.labels import labelled, probabilities
from bertport.runtime.tasks.token_classification import ignored, token_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import numpy as np
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
    left_out = ignored(options.ignore_labels, labels)

    def rows(logits: NDArray[np.float32], encoded: Encoded) -> list[TokenLabel]:
        made = token_labels(probabilities(logits), encoded, labels, lambda index: tokens.token(int(encoded.ids[index])))
        return [tag for tag in made if tag["entity"] not in left_out]

    return rows
