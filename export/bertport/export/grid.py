"""The batches on which graphs are compared: every combination of batch size, length, padding and segments."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["Case", "Vocabulary", "grid"]

BATCHES = (1, 3)
LENGTHS = (2, 16, 128)
SEED = 20260101


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The ids that inputs are made of."""

    ordinary: Sequence[int]
    """Every id but those of special tokens."""
    cls: int
    """Begins an input."""
    sep: int
    """Ends a segment."""
    pad: int
    """Fills up a batch."""
    mask: int
    """Stands for a masked token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One batch to compare."""

    name: str
    """Its place in the grid, for messages."""
    inputs: dict[str, NDArray[np.int64]]
    """`input_ids`, `attention_mask` and `token_type_ids`, [batch, sequence]."""
    positions: tuple[NDArray[np.int64], ...]
    """Values of `masked_positions` to try on a graph that has it: flat indices, [n]."""


def grid(vocabulary: Vocabulary, *, max_length: int, segments: int) -> Iterator[Case]:
    """Give batches of every combination of batch size, length, padding and number of segments.

    Args:
        vocabulary: the ids to draw from.
        max_length: the longest input; it is one of the lengths.
        segments: rows of the token type embedding; with one, there are no pairs.
    """
    random = np.random.default_rng(SEED)
    lengths = sorted({min(length, max_length) for length in (*LENGTHS, max_length)})
    for batch, length, padded, pairs in itertools.product(BATCHES, lengths, (False, True), (False, True)):
        if pairs and segments == 1:
            continue
        ids = random.choice(np.asarray(vocabulary.ordinary, dtype=np.int64), size=(batch, length))
        mask = np.ones_like(ids)
        types = np.zeros_like(ids)
        ids[random.random(ids.shape) < 0.15] = vocabulary.mask  # noqa: PLR2004 — the share that BERT was trained with
        for row in range(batch):
            real = length - int(random.integers(1, max(2, length // 2 + 1))) if padded else length
            ids[row, 0] = vocabulary.cls
            ids[row, real - 1 :] = vocabulary.sep if real > 1 else vocabulary.cls
            ids[row, real:] = vocabulary.pad
            mask[row, real:] = 0
            if pairs:
                middle = real // 2
                ids[row, middle] = vocabulary.sep
                types[row, middle + (real > 2) : real] = 1  # noqa: PLR2004 — in [CLS][SEP] the second is segment 1
        asked = np.sort(random.permutation(batch * length)[: max(1, batch * length // 7)]).astype(np.int64)
        positions = (asked, asked[:0]) if length == lengths[min(1, len(lengths) - 1)] else (asked,)
        name = (
            f"batch {batch}, length {length}, {'padded' if padded else 'full'}, {1 + pairs} segment{'s'[: int(pairs)]}"
        )
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        yield Case(name=name, inputs=inputs, positions=positions)
