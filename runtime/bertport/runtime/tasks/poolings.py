"""The table of poolings: how the vectors of a text's tokens become one. Help texts need it, and no numpy with it."""

from __future__ import annotations

from dataclasses import dataclass

from bertport.runtime.heads import POOLER

__all__ = ["CLS_CHANGED", "POOLINGS", "Pooling", "meanings"]

CLS_CHANGED = (
    "pooling 'cls' gives the state of the first token, as sentence-transformers does; in bertport 0.1 it gave "
    "the pooler's output, for which write pooling 'pooler' now"
)
"""The note on `cls` in release 0.2, whose vector is another than that of 0.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """One row."""

    name: str
    """Word that users write."""
    meaning: str
    """Description of the vector it returns, for help texts."""
    head: str | None = None
    """The head whose output it is; None where it is made of the hidden states."""
    note: str | None = None
    """A note for callers that choose it; None where there is none."""


POOLINGS: dict[str, Pooling] = {
    pooling.name: pooling
    for pooling in (
        Pooling(name="none", meaning="a vector per token"),
        Pooling(name="cls", meaning="the state of the first token", note=CLS_CHANGED),
        Pooling(name="mean", meaning="the mean over the tokens"),
        Pooling(name="pooler", meaning="the pooler's output", head=POOLER),
    )
}
"""The poolings by name."""


def meanings() -> str:
    """Return what each pooling gives, in one sentence."""
    return "; ".join(f"{pooling.name}: {pooling.meaning}" for pooling in POOLINGS.values())
