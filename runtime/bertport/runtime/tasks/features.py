"""features: the encoder's hidden states, per token or pooled to one vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertport.runtime.errors import UnknownNameError, UsageError
from bertport.runtime.tasks.inputs import text_or_pair
from bertport.runtime.tasks.parameters import boolean
from bertport.runtime.tasks.poolings import POOLINGS
from bertport.runtime.tasks.vectors import unit

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from bertport.runtime.bundle.manifest import Manifest
    from bertport.runtime.text.encoder import Encoded, Text
    from bertport.runtime.text.tokenizer import Tokens

__all__ = ["Options", "finish", "head", "note", "read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Parameters of features."""

    pooling: str = "none"
    """`none`: one vector per token; `cls`: the state of the first token; `mean`: the mean over the text's tokens;
    `pooler`: the pooler's output."""
    normalize: bool = False
    """Scale a pooled vector to length 1."""
    truncation: bool = False
    """Cut a text that is too long instead of refusing it."""


def read(value: object) -> Text:
    """Return the text or pair of an input: one text, two in a list, or an object with `text`, perhaps `text_pair`."""
    return text_or_pair("features", value)


def head(options: Options) -> str | None:
    """Return the head that the pooling needs; None where it needs the hidden states alone."""
    if not isinstance(options.pooling, str) or options.pooling not in POOLINGS:
        raise UnknownNameError("pooling", options.pooling, POOLINGS)
    return POOLINGS[options.pooling].head


def note(options: Options) -> str | None:
    """Return a note for the caller on the options; None where there is none."""
    return POOLINGS[options.pooling].note


def finish(
    options: Options,
    tokens: Tokens,  # noqa: ARG001 — every task's `finish` takes the tokenizer
    manifest: Manifest,  # noqa: ARG001 — and the manifest
) -> Callable[[NDArray[np.float32], Encoded], NDArray[np.float32]]:
    """Return the function that turns hidden states `[tokens, hidden]`, or the pooler's `[hidden]`, into the answer."""
    normalize = boolean("normalize", options.normalize)
    if normalize and options.pooling == "none":
        *others, last = (repr(name) for name in POOLINGS if name != "none")
        raise UsageError(f"normalize=True needs one vector per text: choose pooling {', '.join(others)} or {last}")

    def vector(values: NDArray[np.float32], _: Encoded) -> NDArray[np.float32]:
        if options.pooling == "mean":
            values = values.mean(axis=0)
        elif options.pooling == "cls":
            values = values[0].copy()  # a view would keep the states of the whole batch
        elif options.pooling == "pooler":
            values = values.copy()  # the same
        if normalize:
            values = unit(values)
        return values

    return vector
