"""The pretraining objective of BERT: pairs of spans for NSP, and tokens masked for MLM.

Source: the "Training procedure" section of the bert-base-uncased model card and
Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers", appendix A.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .errors import RecipeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .corpus import Corpus
    from .device import DeviceBatch

MASKED_SHARE = 0.15
REPLACED_BY_MASK = 0.8
REPLACED_BY_RANDOM = 0.1
SHORT_SHARE = 0.1
"""Share of batches of a random shorter length, as in BERT's own data (`short_seq_prob`): prompts are short."""
SHORTEST = 12
IS_NEXT, IS_RANDOM = 0, 1
"""NSP labels with BERT's polarity: 0 means that B follows A."""
MOST_DRAWS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialTokens:
    """The ids that the objective needs to know."""

    cls: int
    sep: int
    mask: int
    vocab_size: int
    """Number of entries in the vocabulary."""
    ordinary: NDArray[np.int64]
    """Ids a random replacement is drawn from: neither special nor unused entries. Shape: (ordinary,)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One batch without padding: every row has the same length."""

    input_ids: NDArray[np.int64]
    """Token ids after masking. Shape: (rows, length)"""
    token_type_ids: NDArray[np.int64]
    """0 for [CLS] A [SEP], 1 for B [SEP]. Shape: (rows, length)"""
    masked_positions: NDArray[np.int64]
    """Flat indices, into rows x length, of the tokens to predict. Shape: (masked,)"""
    masked_labels: NDArray[np.int64]
    """The original ids at those positions. Shape: (masked,)"""
    next_sentence_labels: NDArray[np.int64]
    """0 where B follows A, 1 where it is from another place. Shape: (rows,)"""
    sections: NDArray[np.int64]
    """The corpus sections that A and B are from. Shape: (rows, 2)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two spans of a corpus, as ranges of its tokens."""

    a: slice
    """Range of A in the corpus's tokens."""
    b: slice
    """Range of B in the corpus's tokens."""
    label: int
    """`IS_NEXT` or `IS_RANDOM`."""
    sections: tuple[int, int]
    """The sections that A and B are from."""


def sample_pair(corpus: Corpus, anchor: int, length: int, rng: np.random.Generator) -> Pair:
    """Draw spans A and B that fill `length` tokens together with [CLS] A [SEP] B [SEP].

    A begins at sentence `anchor` and consists of whole sentences up to a drawn length (cut at its front
    when one sentence is longer than that); B begins at a sentence and is cut at its end.
    With probability 0.5, B comes from another section. Where A's section ends before B could, A is drawn anew.

    Raises:
        RecipeError: when the corpus has no sections long enough for such a pair.
    """
    room = length - 3
    starts = corpus.sentence_starts
    sentences = len(starts) - 1
    follows = bool(rng.random() < 0.5)  # noqa: PLR2004 — half the pairs
    for _ in range(MOST_DRAWS):
        wanted = int(rng.integers(max(1, room // 8), room - max(1, room // 8) + 1))
        section = corpus.section_of(anchor)
        last = int(corpus.section_starts[section + 1])
        after = int(np.searchsorted(starts, starts[anchor] + wanted, side="right")) - 1
        after = min(max(after, anchor + 1), last)
        middle, end = int(starts[after]), int(starts[last])
        a = slice(max(int(starts[anchor]), middle - wanted), middle)
        needed = room - (a.stop - a.start)
        if not follows:
            break
        if end - middle >= needed:
            return Pair(a=a, b=slice(middle, middle + needed), label=IS_NEXT, sections=(section, section))
        # The section ends too soon for B: begin elsewhere rather than change the label, so that both stay even.
        anchor = int(rng.integers(sentences))
    for _ in range(MOST_DRAWS):
        other = int(rng.integers(sentences))
        other_section = corpus.section_of(other)
        begin, end = int(starts[other]), int(starts[corpus.section_starts[other_section + 1]])
        if other_section != section and end - begin >= needed:
            return Pair(a=a, b=slice(begin, begin + needed), label=IS_RANDOM, sections=(section, other_section))
    raise no_pair(length)


def no_pair(length: int) -> RecipeError:
    """Return the error for a corpus in which no pair of spans was found."""
    return RecipeError(
        f"no pair of spans of {length} tokens found in {MOST_DRAWS} draws: the corpus's sections are too short"
    )


def require_length(corpus: Corpus, length: int, *, positions: int) -> None:
    """See that pairs of a length can be drawn and read at all, before training comes to them.

    Args:
        corpus: The training text.
        length: Tokens of a pair.
        positions: Tokens that the encoder has positions for.

    Raises:
        RecipeError: for an encoder with fewer positions, and for a corpus without two sections, one of them as long.
    """
    if positions < length:
        raise RecipeError(
            f"the encoder has {positions} positions, and the last tenth of the steps takes {length} tokens: take one "
            "with as many"
        )
    longest = int(np.diff(corpus.sentence_starts[corpus.section_starts]).max())
    if len(corpus.names) < 2 or longest < length - 3:  # noqa: PLR2004 — the second span of every other pair
        raise RecipeError(
            f"the last tenth of the steps takes pairs of {length} tokens, and the corpus has {len(corpus.names)} "
            f"sections of {longest} tokens at most: give it longer sections, and two at least"
        )


def mask_row(
    row: NDArray[np.int64], special: SpecialTokens, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Mask 15% of a row's tokens in place: 80% become [MASK], 10% another random token, 10% stay.

    Returns:
        The chosen positions, ascending, and the original ids there. Shapes: (masked,), (masked,)
    """
    candidates = np.flatnonzero((row != special.cls) & (row != special.sep))
    count = max(1, round(MASKED_SHARE * len(candidates)))
    positions = np.sort(rng.choice(candidates, size=count, replace=False))
    labels = row[positions].copy()
    draw = rng.random(count)
    random_ids = special.ordinary[rng.integers(len(special.ordinary) - 1, size=count)]
    # "A random different token": an id that equals the label becomes the one entry that was left out of the draw.
    random_ids = np.where(random_ids == labels, special.ordinary[-1], random_ids)
    replaced = np.where(draw < REPLACED_BY_MASK, special.mask, labels)
    is_random = (draw >= REPLACED_BY_MASK) & (draw < REPLACED_BY_MASK + REPLACED_BY_RANDOM)
    row[positions] = np.where(is_random, random_ids, replaced)
    return positions, labels


def make_batch(
    corpus: Corpus, special: SpecialTokens, anchors: NDArray[np.int64], length: int, rng: np.random.Generator
) -> Batch:
    """Build one batch of `len(anchors)` rows of exactly `length` tokens."""
    input_ids = np.empty((len(anchors), length), dtype=np.int64)
    token_type_ids = np.zeros_like(input_ids)
    next_sentence_labels = np.empty(len(anchors), dtype=np.int64)
    sections = np.empty((len(anchors), 2), dtype=np.int64)
    positions: list[NDArray[np.int64]] = []
    labels: list[NDArray[np.int64]] = []
    for index, anchor in enumerate(anchors):
        pair = sample_pair(corpus, int(anchor), length, rng)
        a, b = corpus.tokens[pair.a], corpus.tokens[pair.b]
        row = input_ids[index]
        row[:] = np.concatenate([[special.cls], a, [special.sep], b, [special.sep]])
        token_type_ids[index, len(a) + 2 :] = 1
        next_sentence_labels[index] = pair.label
        sections[index] = pair.sections
        row_positions, row_labels = mask_row(row, special, rng)
        positions.append(row_positions + index * length)
        labels.append(row_labels)
    return Batch(
        input_ids=input_ids,
        token_type_ids=token_type_ids,
        masked_positions=np.concatenate(positions),
        masked_labels=np.concatenate(labels),
        next_sentence_labels=next_sentence_labels,
        sections=sections,
    )


class BatchSource:
    """Batches numbered from 0, each a function of the seed and its number alone: that is what makes resuming exact.

    Within an epoch every sentence is the beginning of A once, in a drawn order; masks and pairs are drawn anew.
    """

    def __init__(self, corpus: Corpus, special: SpecialTokens, *, tokens_per_batch: int, seed: int) -> None:
        self.corpus = corpus
        self.special = special
        self.tokens_per_batch = tokens_per_batch
        self.seed = seed
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def batch(self, step: int, first_anchor: int, length: int) -> tuple[Batch | DeviceBatch, int]:
        """Build the batch of a step.

        Returns:
            The batch, and the number of anchors used up to its end (the next call's `first_anchor`).
        """
        rng = np.random.default_rng([self.seed, step])
        if rng.random() < SHORT_SHARE:
            length = int(rng.integers(SHORTEST, min(length, 128)))
        rows = max(1, self.tokens_per_batch // length)
        anchors = np.array([self._anchor(first_anchor + index) for index in range(rows)])
        return self._make(anchors, length, rng), first_anchor + rows

    def _make(self, anchors: NDArray[np.int64], length: int, rng: np.random.Generator) -> Batch | DeviceBatch:
        return make_batch(self.corpus, self.special, anchors, length, rng)

    def _anchor(self, number: int) -> int:
        sentences = len(self.corpus.sentence_starts) - 1
        epoch, index = divmod(number, sentences)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng([self.seed, 2**32 + epoch]).permutation(sentences)
        return int(self._order[index])
