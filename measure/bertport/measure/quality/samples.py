"""Samples to measure on: texts with seeded masks or replaced tokens, and pairs of sentences, for whatever tokenizer.

Source: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers", section 3.1 and appendix A.2.
`models/pretraining/objective.py` does the same for training, where spans must fill a batch exactly. Sentence order: Lan
et al. 2020, "ALBERT: A Lite BERT for Self-supervised Learning of Language Representations", section 3.1. Replaced
tokens: Clark et al. 2020, "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators", whose
generator is here a draw from the vocabulary.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from bertport.runtime.errors import InputTextError
from bertport.runtime.text.reader import Rules, encoding_of_part
from bertport.runtime.text.special_tokens import SpecialTokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from bertport.measure.text import Text

__all__ = [
    "CANDIDATES",
    "CHOICES",
    "GIVEN_PAIRS",
    "IN_ORDER",
    "IS_NEXT",
    "KINDS",
    "NOT_NEXT",
    "OF_TWO",
    "ORDERED",
    "PAIRED",
    "PAIRS",
    "PLAIN",
    "QUESTIONS",
    "REPLACED",
    "SWAPPED",
    "TASK_KINDS",
    "TEXTS",
    "Sample",
    "SampleTokenizer",
    "Vocabulary",
    "cut_at",
    "cuts_of",
    "mask_ids",
    "masked_samples",
    "pair_samples",
    "refuse_unread",
    "replaced_samples",
    "sentences_of",
    "sources_of",
    "split_share",
    "stranger_to",
    "token_counts",
    "unread_share",
]

MASKED_SHARE = 0.15
REPLACED_BY_MASK = 0.8
REPLACED_BY_RANDOM = 0.1
"""Shares in BERT's masking: of tokens that are masked, and of these, those that become the mask or a random token."""
IS_NEXT, NOT_NEXT = 0, 1
"""Labels of a pair: B follows A, or is from another place."""
IN_ORDER, SWAPPED = 0, 1
"""Labels of two neighbours: A before B, or B before A."""
TEXTS, REPLACED, PAIRS, ORDERED = "texts", "replaced", "pairs", "ordered"
"""The kinds of samples: masked texts; texts of which some tokens are replaced; pairs of which B follows A or is a
stranger; and pairs that follow each other, in order or swapped."""
PAIRED = (PAIRS, ORDERED)
"""The kinds that are pairs of texts."""
PLAIN, GIVEN_PAIRS, QUESTIONS, CHOICES, CANDIDATES = "plain", "given_pairs", "questions", "choices", "candidates"
"""Further kinds, of heads that are trained for a task (`task_samples`): texts as they are written; pairs as a user's
file has them; questions with a context; and texts with one of several that may follow it, of which one is chosen, or
all are ranked."""
TASK_KINDS = (PLAIN, GIVEN_PAIRS, QUESTIONS, CHOICES, CANDIDATES)
"""The kinds of samples for heads that are trained for a task."""
KINDS = (TEXTS, REPLACED, *PAIRED, *TASK_KINDS)
"""All kinds."""
OF_TWO = frozenset({*PAIRED, QUESTIONS, CHOICES, CANDIDATES})
"""The kinds whose samples are made of two texts, one behind the other; given pairs count as texts, not as these."""
SHORTEST = 8
"""Tokens below which the end of a text that was cut is left out: it has no context to speak of."""
UNREAD = 0.05
"""Share of unknown tokens from which a text says nothing of a model: what it would be judged by is holes."""
SPLIT = 0.25
"""Share of tokens that are bytes of a character from which a text says nothing: a curly apostrophe is two of them in a
RoBERTa, so that 6% of an English text may be."""
MONOTONOUS = 0.5
"""Share of its most frequent token from which a text says nothing either: "the" is 6% of English."""
READ_AT_MOST = 1000
"""Texts, drawn, that the shares are counted on."""
# A sentence ends at . ! or ? with closing quotes, before a capital, digit or opening quote. An abbreviation is a
# false end ("Mr. Smith"), which only puts the cut between A and B inside a sentence: BERT's spans allow that.
_SENTENCE_END = re.compile("[.!?]+[\"'\u201d\u2019)\\]]*\\s+(?=[\"'\u201c\u2018(\\[]?[A-Z0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The ids that masking must know."""

    mask: int
    special: frozenset[int]
    """Ids that are never chosen: the mask, the unknown token, and every other special entry."""
    ordinary: NDArray[np.int64]
    """Ids that a random replacement is drawn from, ascending. Shape: (ordinary,)"""

    @classmethod
    def of(cls, tokenizer: Tokenizer, mask: str | None) -> Vocabulary:
        """Read a tokenizer's special and ordinary entries ([unused7] and its like are not ordinary).

        Args:
            tokenizer: The model's.
            mask: Its mask token.

        Raises:
            InputTextError: when it has none.
        """
        entries = tokenizer.get_vocab(with_added_tokens=True)
        if mask is None or mask not in entries:
            named = "" if mask is None else f" {mask!r}"
            raise InputTextError(
                f"the tokenizer has no mask token{named}, so no masked text can be made: "
                "use a bundle whose tokenizer has one"
            )
        added = {index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        bracketed = {index for entry, index in entries.items() if re.fullmatch(r"\[[A-Za-z0-9_ ]+\]", entry)}
        special = added | bracketed | {entries[mask]}
        return cls(
            mask=entries[mask],
            special=frozenset(special),
            ordinary=np.array(sorted(set(entries.values()) - special), dtype=np.int64),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTokenizer:
    """A model's tokenizer with what samples are made by."""

    tokenizer: Tokenizer
    """Without truncation or padding."""
    rules: Rules
    """Its rules, by which no more of a text is tokenized than a sample has room for."""
    vocabulary: Vocabulary
    """Its special and ordinary ids."""
    single: SpecialTokens
    """Special tokens that it puts around a single text."""
    pair: SpecialTokens
    """Special tokens that it puts around a pair of texts."""
    segments: int | None
    """The segment of every token, where the model takes one for all; None where the tokenizer gives them."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, mask: str | None, segments: int | None = None) -> SampleTokenizer:
        """Read what samples are made by.

        Args:
            tokenizer: Without truncation or padding.
            mask: Its mask token.
            segments: As the field.

        Raises:
            InputTextError: when it has no mask token.
            BundleError: when it cannot put texts between special tokens.
        """
        single, pair = (SpecialTokens.of(tokenizer, parts) for parts in (1, 2))
        vocabulary = Vocabulary.of(tokenizer, mask)
        rules = Rules.of(tokenizer)
        return cls(tokenizer=tokenizer, rules=rules, vocabulary=vocabulary, single=single, pair=pair, segments=segments)

    def ids(self, text: str) -> NDArray[np.int64]:
        """Return the ids of a text without special tokens. Shape: (tokens,)."""
        return np.array(self.tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64)

    def first_ids(self, text: str, count: int) -> NDArray[np.int64]:
        """Return the first ids of a text without special tokens, `count` at most. Shape: (tokens,)."""
        ids = encoding_of_part(self.rules, text, count).ids[: max(0, count)]
        return np.array(ids, dtype=np.int64)

    def last_ids(self, text: str, count: int) -> NDArray[np.int64]:
        """Return the last ids of a text without special tokens, `count` at most. Shape: (tokens,)."""
        ids = encoding_of_part(self.rules, text, count, last=True).ids
        return np.array(ids[max(0, len(ids) - max(0, count)) :], dtype=np.int64)

    def around(self, *parts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return ids and segments of one text or of two with their special tokens. Shape of each: (length,)."""
        ids, types = (self.single if len(parts) == 1 else self.pair).around([part.tolist() for part in parts])
        return ids, types if self.segments is None and len(parts) > 1 else np.full_like(ids, self.segments or 0)

    def words(self, text: str, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first ids of a text, as `first_ids`, and the index of each token's word. Shapes: (tokens,)."""
        encoding = encoding_of_part(self.rules, text, count)
        words = [-1 if word is None else word for word in encoding.word_ids]
        ids, words = (side[: max(0, count)] for side in (encoding.ids, words))
        return np.array(ids, dtype=np.int64), np.array(words, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One input as a model takes it, with what is to be predicted."""

    text: int
    """Number of the text it is from: the bootstrap resamples texts, not samples or tokens."""
    kind: str = TEXTS
    """Kind of sample: one of `KINDS`."""
    input_ids: NDArray[np.int64]
    """Token ids with special ones, after masking or replacing. Shape: (length,)"""
    token_type_ids: NDArray[np.int64]
    """Segments. Shape: (length,)"""
    positions: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Positions of which something is to be predicted, ascending; none but for `TEXTS` and `REPLACED`. Shape:
    (predicted,)"""
    labels: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """The original ids at those positions; of a text with replaced tokens 1 for a replaced one and 0 for an original.
    Shape: (predicted,)"""
    label: int | None = None
    """`IS_NEXT` or `NOT_NEXT`, or `IN_ORDER` or `SWAPPED`, for a pair; None for a text."""
    words: NDArray[np.int64] | None = None
    """The index of each token's word, counted from 0; -1 for tokens that no answer is about: special tokens, and the
    question before a context. None for samples of which no head asks for words. Shape: (length,)"""
    group: int = 0
    """Number of the question whose choices, or of the query whose documents, it is one of."""

    @property
    def chosen(self) -> int:
        """Number of tokens that were masked or replaced, or chosen for it and stayed."""
        return int(self.labels.sum()) if self.kind == REPLACED else len(self.positions)

    @property
    def is_pair(self) -> bool:
        """Whether it is two texts."""
        return self.kind in PAIRED


def mask_ids(
    ids: NDArray[np.int64], vocabulary: Vocabulary, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Choose 15% of the tokens (at least one); 80% of these become the mask, 10% another random token, 10% stay.

    Special tokens are never chosen. Returns no positions if no token is eligible for masking.

    Args:
        ids: Token ids, special ones included. Shape: (length,)
        vocabulary: The special and ordinary ids.
        rng: Where the choice comes from.

    Returns:
        The ids after masking, the chosen positions (ascending) and the original ids there.
    """
    positions = _chosen(_eligible(ids, vocabulary), rng)
    labels = ids[positions]
    draw = rng.random(len(positions))
    others = _others(labels, vocabulary, rng)
    by_random = (draw >= REPLACED_BY_MASK) & (draw < REPLACED_BY_MASK + REPLACED_BY_RANDOM)
    masked = ids.copy()
    masked[positions] = np.where(draw < REPLACED_BY_MASK, vocabulary.mask, np.where(by_random, others, labels))
    return masked, positions, labels


def _eligible(ids: NDArray[np.int64], vocabulary: Vocabulary) -> NDArray[np.int64]:
    """Return the positions of tokens that are not special, ascending."""
    return np.flatnonzero(~np.isin(ids, list(vocabulary.special)))


def _chosen(eligible: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return 15% of some positions, at least one where there is one, ascending."""
    count = min(len(eligible), max(1, round(MASKED_SHARE * len(eligible))))
    return np.sort(rng.choice(eligible, size=count, replace=False))


def _others(labels: NDArray[np.int64], vocabulary: Vocabulary, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return an ordinary id for each label, and another one than that."""
    # "Another": draw from all ordinary ids but the last, which then replaces a draw of the token's own label.
    others = vocabulary.ordinary[rng.integers(len(vocabulary.ordinary) - 1, size=len(labels))]
    return np.where(others == labels, vocabulary.ordinary[-1], others)


def masked_samples(
    texts: Sequence[Text],
    tokenizer: SampleTokenizer,
    *,
    seed: int = 0,
    max_tokens: int = 128,
    limit: int | None = None,
) -> Iterator[Sample]:
    """Yield each text with seeded masks; a text of more than `max_tokens` gives several samples of that length.

    With a limit, texts come in a drawn order, so that the first chapter does not stand for the whole.

    Args:
        texts: What to mask.
        tokenizer: The model's.
        seed: The same seed, text and tokenizer give the same masks, whatever the texts around it.
        max_tokens: Longest sample, special tokens included.
        limit: Number of masked positions after which no further text is begun.
    """
    masked = 0
    for number, part, whole, types in _pieces(texts, tokenizer, seed, max_tokens, drawn=limit is not None):
        if limit is not None and masked >= limit and part == 0:
            return
        rng = np.random.default_rng([seed, number, part])
        ids, positions, labels = mask_ids(whole, tokenizer.vocabulary, rng)
        masked += len(positions)
        if len(positions):
            yield Sample(text=number, input_ids=ids, token_type_ids=types, positions=positions, labels=labels)


def replaced_samples(
    texts: Sequence[Text],
    tokenizer: SampleTokenizer,
    *,
    seed: int = 0,
    max_tokens: int = 128,
    limit: int | None = None,
) -> Iterator[Sample]:
    """Yield each text with 15% of its tokens replaced by others of the vocabulary, in pieces as `masked_samples` does.

    What is predicted of each token that is not special is whether it was replaced.

    Args:
        texts: What to replace tokens of.
        tokenizer: The model's.
        seed: The same seed, text and tokenizer give the same samples, whatever the texts around it.
        max_tokens: Longest sample, special tokens included.
        limit: Number of replaced tokens after which no further text is begun.
    """
    vocabulary, replaced = tokenizer.vocabulary, 0
    for number, part, whole, types in _pieces(texts, tokenizer, seed, max_tokens, drawn=limit is not None):
        if limit is not None and replaced >= limit and part == 0:
            return
        rng = np.random.default_rng([seed, number, part, 5])
        positions = _eligible(whole, vocabulary)
        chosen = _chosen(positions, rng)
        ids = whole.copy()
        ids[chosen] = _others(whole[chosen], vocabulary, rng)
        replaced += len(chosen)
        if len(positions):
            yield Sample(
                text=number,
                kind=REPLACED,
                input_ids=ids,
                token_type_ids=types,
                positions=positions,
                labels=np.isin(positions, chosen).astype(np.int64),
            )


def _pieces(
    texts: Sequence[Text],
    tokenizer: SampleTokenizer,
    seed: int,
    max_tokens: int,
    *,
    drawn: bool,
) -> Iterator[tuple[int, int, NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the number of a text, that of a piece of it, and the piece's ids and segments with special tokens.

    Args:
        texts: The texts.
        tokenizer: The model's.
        seed: The random seed of the order.
        max_tokens: Longest piece, special tokens included.
        drawn: Whether the texts come in a random order rather than in the given one.
    """
    room = max_tokens - tokenizer.single.added
    order = np.random.default_rng([seed, 2]).permutation(len(texts)) if drawn else np.arange(len(texts))
    for number in order.tolist():
        content = tokenizer.ids(texts[number].text)
        for part, begin in enumerate(range(0, len(content), room)):
            piece = content[begin : begin + room]
            if not part or len(piece) >= SHORTEST:
                yield number, part, *tokenizer.around(piece)


def pair_samples(  # noqa: PLR0913 — what is drawn, by keyword
    texts: Sequence[Text],
    tokenizer: SampleTokenizer,
    *,
    kind: str = PAIRS,
    seed: int = 0,
    max_tokens: int = 128,
    limit: int | None = None,
) -> Iterator[Sample]:
    """Yield pairs of two texts: for half of them B follows A in its text, for half B is from elsewhere.

    Those of the kind `ORDERED` follow each other all, and half of them are swapped.

    A text of several sentences gives one pair for each sentence end inside it: A ends there, and B begins there.
    A stranger begins at a sentence end of another document, or of another text where one document has them all.
    Which pairs get a stranger is drawn; every second one does, so both labels are equally frequent.

    Args:
        texts: Where spans come from.
        tokenizer: The model's.
        kind: `PAIRS` or `ORDERED`.
        seed: The same seed and texts give the same pairs.
        max_tokens: Longest pair, special tokens included; A keeps its end and B its beginning, half of it each.
        limit: The most pairs to yield, drawn evenly from all that there are.
    """
    rng = np.random.default_rng([seed, 1])
    cuts = cuts_of(texts)
    order = rng.permutation(len(cuts))[:limit]
    other_half = rng.permutation(np.arange(len(order)) % 2)
    room = (max_tokens - tokenizer.pair.added) // 2
    sources = sources_of(texts, cuts)
    if kind == PAIRS and len(order) > 1 and len(set(sources)) == 1:
        raise InputTextError(
            "no pair of unrelated sentences can be made from a single text: give more texts of several sentences"
        )

    for index, label in zip(order, other_half, strict=True):
        follower = stranger_to(index, sources, rng) if kind == PAIRS and label == NOT_NEXT else index
        a = tokenizer.last_ids(cut_at(texts, cuts[index])[0], room)
        b = tokenizer.first_ids(cut_at(texts, cuts[follower])[1], room)
        if not len(a) or not len(b):
            continue
        ids, types = tokenizer.around(b, a) if kind == ORDERED and label == SWAPPED else tokenizer.around(a, b)
        yield Sample(text=cuts[index][0], kind=kind, input_ids=ids, token_type_ids=types, label=int(label))


def sentences_of(text: str) -> list[str]:
    """Return the sentences of a text; the whole text where no sentence end is recognized."""
    ends = [0, *(end.end() for end in _SENTENCE_END.finditer(text)), len(text)]
    return [text[begin:end].strip() for begin, end in pairwise(ends)]


def cuts_of(texts: Sequence[Text]) -> list[tuple[int, int]]:
    """Return every sentence end inside a text: the number of the text, and the character behind it."""
    return [
        (number, end.end()) for number, text in enumerate(texts) for end in _SENTENCE_END.finditer(text.text.strip())
    ]


def cut_at(texts: Sequence[Text], cut: tuple[int, int]) -> tuple[str, str]:
    """Return the two parts of a text that is cut at one of `cuts_of`."""
    number, end = cut
    text = texts[number].text.strip()
    return text[:end].rstrip(), text[end:]


def sources_of(texts: Sequence[Text], cuts: Sequence[tuple[int, int]]) -> list[int]:
    """Return where each cut is from: its document, or its text where all cuts are in one document."""
    by_document = len({texts[number].document for number, _ in cuts}) > 1
    return [texts[number].document if by_document else number for number, _ in cuts]


def stranger_to(index: int, sources: Sequence[int], rng: np.random.Generator) -> int:
    """Return the index of a random cut whose source is not that of the cut at `index`; there must be one."""
    stranger = index
    while sources[stranger] == sources[index]:
        stranger = int(rng.integers(len(sources)))
    return stranger


def unread_share(counts: Counter[int], tokenizer: Tokenizer) -> float:
    """Return the share of the tokens that the vocabulary does not have; 0 for a tokenizer without an unknown token."""
    from tokenizers import models

    if isinstance(tokenizer.model, models.Unigram):  # which names its unknown token nowhere else
        unknown = json.loads(tokenizer.to_str())["model"]["unk_id"]
    else:
        token = getattr(tokenizer.model, "unk_token", None)
        unknown = tokenizer.token_to_id(token) if token else None
    return 0.0 if unknown is None else counts[unknown] / max(1, counts.total())


def split_share(counts: Counter[int], tokenizer: Tokenizer) -> float:
    """Return the share of the tokens that are single bytes of a character: how a vocabulary of bytes spells others."""
    decoder = tokenizer.decoder
    if decoder is None:
        return 0.0
    entries = ((tokenizer.id_to_token(token), count) for token, count in counts.items())
    split = sum(count for entry, count in entries if entry and "\ufffd" in decoder.decode([entry]))
    return split / max(1, counts.total())


def token_counts(texts: Sequence[Text], tokenizer: Tokenizer) -> Counter[int]:
    """Count the tokens of at most `READ_AT_MOST` texts, by id."""
    # In the order in which `masked_samples` takes them, so that what is measured is among them.
    order = np.random.default_rng([0, 2]).permutation(len(texts))[:READ_AT_MOST]
    encoded = tokenizer.encode_batch([texts[index].text for index in order], add_special_tokens=False)
    counts: Counter[int] = Counter()
    for encoding in encoded:
        counts.update(encoding.ids)
    return counts


def refuse_unread(texts: Sequence[Text], tokenizer: Tokenizer, name: str, *, shipped: bool, option: str) -> None:
    """Refuse a text that a tokenizer does not read, or of which it makes the same token again and again.

    Args:
        texts: The texts.
        tokenizer: The model's, without truncation or padding.
        name: Of the file.
        shipped: Whether it is a sample that ships.
        option: By which another text is passed.

    Raises:
        InputTextError: where 5% of the tokens and more are unknown, a quarter of them and more are bytes of characters
            that the vocabulary lacks, or half of them and more are the same one.
    """
    counts = token_counts(texts, tokenizer)
    which = f"{name}, the English sample that ships," if shipped else name
    for share, most, are in (
        (unread_share(counts, tokenizer), UNREAD, "unknown to the model's vocabulary"),
        (split_share(counts, tokenizer), SPLIT, "single bytes of characters that the model's vocabulary lacks"),
    ):
        if share >= most:
            raise InputTextError(
                f"{share:.1%} of the tokens of {which} are {are}, so nothing can be judged by it (less than {most:.0%} "
                f"may be): pass a text in the model's language and script with {option} FILE"
            )
    for token, count in counts.most_common(1):
        share = count / counts.total()
        if share >= MONOTONOUS:
            raise InputTextError(
                f"{share:.1%} of the tokens of {name} are the same ({tokenizer.id_to_token(token)!r}), so nothing can "
                f"be judged by it (less than {MONOTONOUS:.0%} may be): pass varied text with {option} FILE"
            )
