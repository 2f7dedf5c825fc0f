"""Validation batches: every combination of batch size, length, padding and segments."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["SEEDS", "Attention", "Case", "Vocabulary", "cases", "grid"]

BATCHES = (1, 3)
LENGTHS = (2, 16, 128)
MOST_SCORES = 2**26
"""Attention scores of a layer on one batch, 256 MiB: PyTorch holds several such arrays at once. The longest batch of a
BERT-large has a fifth of them."""
SEEDS = (20260101, 20260102, 20260103, 20260104)
"""Seeds of the random ids and lengths: every shape is filled from the first, a few from each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The ids that inputs are made of."""

    ordinary: Sequence[int]
    """Every id but those of special tokens."""
    cls: int
    """Id of the token that begins an input."""
    sep: int
    """Id of the token that ends a segment."""
    pad: int
    """Id of the padding token."""
    mask: int
    """Id of the mask token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Attention settings that the lengths of inputs depend on, beside the longest input."""

    heads: int = 1
    """Attention heads per layer."""
    window: int = 0
    """Width of local attention, in tokens; 0 where every token sees all others."""

    def longest(self, max_length: int) -> int:
        """Return the longest input that is compared, in tokens: that of the model, or one that memory is enough for."""
        return min(max_length, math.isqrt(MOST_SCORES // self.heads))

    def lengths(self, max_length: int) -> list[int]:
        """Return the lengths of inputs, in ascending order; one of them is wider than the window."""
        longest = self.longest(max_length)
        return sorted(
            {min(length, longest) for length in (*LENGTHS, *([2 * self.window] if self.window else []), longest)}
        )

    def fits(self, batch: int, length: int) -> bool:
        """Return whether a batch is compared that is as large as this."""
        return batch == 1 or batch * self.heads * length**2 <= MOST_SCORES


ANY = Attention()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One batch to compare."""

    name: str
    """Its place in the grid, for messages."""
    seed: int
    """Seed that its ids and lengths were drawn with."""
    inputs: dict[str, NDArray[np.int64]]
    """`input_ids`, `attention_mask` and `token_type_ids`, [batch, sequence]."""
    positions: tuple[NDArray[np.int64], ...]
    """Values of `masked_positions` to try on a graph that has it: flat indices, [n]."""


def cases(vocabulary: Vocabulary, *, max_length: int, segments: int, attention: Attention = ANY) -> Iterator[Case]:
    """Return the batches of an export: the whole grid from the first seed, and padded batches from the others.

    Another seed brings other tokens, whose rows of the word embedding a fault may be in; the shapes are all there.

    Args:
        vocabulary: the ids to draw from.
        max_length: the longest input.
        segments: rows of the token type embedding.
        attention: the model's.
    """
    first, *others = SEEDS
    yield from grid(vocabulary, max_length=max_length, segments=segments, attention=attention, seed=first)
    shortest, longest = (min(length, max_length) for length in LENGTHS[1:])
    for seed in others:
        for case in grid(vocabulary, max_length=max_length, segments=segments, seed=seed):
            rows, length = case.inputs["attention_mask"].shape
            full = bool(case.inputs["attention_mask"].all())
            if rows == BATCHES[-1] and shortest <= length <= longest and full == (length == 1):
                yield case


def grid(
    vocabulary: Vocabulary, *, max_length: int, segments: int, attention: Attention = ANY, seed: int = SEEDS[0]
) -> Iterator[Case]:
    """Return batches of every combination of batch size, length, padding and number of segments.

    Args:
        vocabulary: the ids to draw from.
        max_length: the longest input; it is one of the lengths, unless its attention takes too much memory.
        segments: rows of the token type embedding; with one, there are no pairs.
        attention: the model's.
        seed: what ids and lengths are drawn with.
    """
    random = np.random.default_rng(seed)
    lengths = attention.lengths(max_length)
    further = itertools.cycle(range(1, segments))
    for batch, length, padded, pairs in itertools.product(BATCHES, lengths, (False, True), (False, True)):
        # An input of one token has none to spare for padding.
        if (pairs and segments == 1) or (padded and length == 1) or not attention.fits(batch, length):
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
                start = middle + (real > 2)  # noqa: PLR2004 — in [CLS][SEP] the second is segment 1
                # Where there are more than two, each token has the next: no row of the embedding is left out.
                types[row, start:real] = list(itertools.islice(further, real - start))
        asked = np.sort(random.permutation(batch * length)[: max(1, batch * length // 7)]).astype(np.int64)
        positions = (asked, asked[:0]) if length == lengths[min(1, len(lengths) - 1)] else (asked,)
        kinds = f"{segments} segments" if pairs else "1 segment"
        name = f"batch {batch}, length {length}, {'padded' if padded else 'full'}, {kinds}"
        name += f", seed {seed}" if seed != SEEDS[0] else ""
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        yield Case(name=name, seed=seed, inputs=inputs, positions=positions)
