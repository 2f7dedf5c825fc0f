"""Samples to measure on: texts with seeded masks by BERT's procedure, and sentence pairs for NSP.

Source: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers", section 3.1 and appendix A.2.
`models/pretraining/objective.py` does the same for training, where spans must fill a batch exactly.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bertport.runtime.errors import InputTextError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from bertport.measure.text import Text

__all__ = [
    "IS_NEXT",
    "NOT_NEXT",
    "PAIRS",
    "TEXTS",
    "Sample",
    "Vocabulary",
    "mask_ids",
    "masked_samples",
    "pair_samples",
    "refuse_unread",
    "token_counts",
    "unread_share",
]

MASKED_SHARE = 0.15
REPLACED_BY_MASK = 0.8
REPLACED_BY_RANDOM = 0.1
IS_NEXT, NOT_NEXT = 0, 1
"""NSP labels with BERT's polarity."""
TEXTS, PAIRS = "texts", "pairs"
"""The kinds of samples: masked texts, and pairs of which B follows A or does not."""
SHORTEST = 8
"""Tokens below which the end of a text that was cut is left out: it has no context to speak of."""
UNREAD = 0.05
"""Share of unknown tokens from which a text says nothing of a model: what it would be judged by is holes."""
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

    cls: int
    sep: int
    mask: int
    pad: int
    special: frozenset[int]
    """Ids that are never chosen: the above, [UNK], and every other special entry."""
    ordinary: NDArray[np.int64]
    """Ids that a random replacement is drawn from, ascending. Shape: (ordinary,)"""

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Vocabulary:
        """Read a BERT tokenizer's special and ordinary entries ([unused7] and its like are not ordinary).

        Raises:
            InputTextError: when one of [CLS], [SEP], [MASK], [PAD] is not in the vocabulary.
        """
        entries = tokenizer.get_vocab(with_added_tokens=True)
        missing = [name for name in ("[CLS]", "[SEP]", "[MASK]", "[PAD]") if name not in entries]
        if missing:
            raise InputTextError(
                f"the tokenizer has no {', '.join(missing)}, so no masked text can be made: use a BERT tokenizer"
            )
        added = {index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        bracketed = {index for entry, index in entries.items() if re.fullmatch(r"\[[A-Za-z0-9_ ]+\]", entry)}
        special = added | bracketed
        return cls(
            cls=entries["[CLS]"],
            sep=entries["[SEP]"],
            mask=entries["[MASK]"],
            pad=entries["[PAD]"],
            special=frozenset(special),
            ordinary=np.array(sorted(set(entries.values()) - special), dtype=np.int64),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One input as a model takes it, with what is to be predicted."""

    text: int
    """Number of the text it is from: the bootstrap resamples texts, not samples or tokens."""
    input_ids: NDArray[np.int64]
    """Token ids with [CLS] and [SEP], after masking. Shape: (length,)"""
    token_type_ids: NDArray[np.int64]
    """0 for [CLS] A [SEP], 1 for B [SEP]. Shape: (length,)"""
    positions: NDArray[np.int64]
    """Positions whose token is to be predicted, ascending; none for a pair. Shape: (masked,)"""
    labels: NDArray[np.int64]
    """The original ids at those positions. Shape: (masked,)"""
    next_sentence: int | None = None
    """`IS_NEXT` or `NOT_NEXT` for a pair; None for a masked text."""

    @property
    def kind(self) -> str:
        """`TEXTS` or `PAIRS`."""
        return TEXTS if self.next_sentence is None else PAIRS


def mask_ids(
    ids: NDArray[np.int64], vocabulary: Vocabulary, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Choose 15% of the tokens (at least one); 80% of these become [MASK], 10% another random token, 10% stay.

    Special tokens are never chosen. Returns no positions if no token is eligible for masking.

    Args:
        ids: Token ids, special ones included. Shape: (length,)
        vocabulary: The special and ordinary ids.
        rng: Where the choice comes from.

    Returns:
        The ids after masking, the chosen positions (ascending) and the original ids there.
    """
    candidates = np.flatnonzero(~np.isin(ids, list(vocabulary.special)))
    count = min(len(candidates), max(1, round(MASKED_SHARE * len(candidates))))
    positions = np.sort(rng.choice(candidates, size=count, replace=False))
    labels = ids[positions]
    draw = rng.random(count)
    # "Another": draw from all ordinary ids but the last, which then replaces a draw of the token's own label.
    others = vocabulary.ordinary[rng.integers(len(vocabulary.ordinary) - 1, size=count)]
    others = np.where(others == labels, vocabulary.ordinary[-1], others)
    by_random = (draw >= REPLACED_BY_MASK) & (draw < REPLACED_BY_MASK + REPLACED_BY_RANDOM)
    masked = ids.copy()
    masked[positions] = np.where(draw < REPLACED_BY_MASK, vocabulary.mask, np.where(by_random, others, labels))
    return masked, positions, labels


def masked_samples(
    texts: Sequence[Text], tokenizer: Tokenizer, *, seed: int = 0, max_tokens: int = 128, limit: int | None = None
) -> Iterator[Sample]:
    """Yield each text with seeded masks; a text of more than `max_tokens` gives several samples of that length.

    With a limit, texts come in a drawn order, so that the first chapter does not stand for the whole.

    Args:
        texts: What to mask.
        tokenizer: The model's tokenizer, without truncation or padding.
        seed: The same seed, text and tokenizer give the same masks, whatever the texts around it.
        max_tokens: Longest sample, special tokens included.
        limit: Number of masked positions after which no further text is begun.
    """
    vocabulary = Vocabulary.of(tokenizer)
    room = max_tokens - 2
    masked = 0
    order = np.arange(len(texts)) if limit is None else np.random.default_rng([seed, 2]).permutation(len(texts))
    for number in order.tolist():
        if limit is not None and masked >= limit:
            return
        content = np.array(tokenizer.encode(texts[number].text, add_special_tokens=False).ids, dtype=np.int64)
        for part, begin in enumerate(range(0, len(content), room)):
            piece = content[begin : begin + room]
            if part and len(piece) < SHORTEST:
                continue
            whole = np.concatenate([[vocabulary.cls], piece, [vocabulary.sep]])
            ids, positions, labels = mask_ids(whole, vocabulary, np.random.default_rng([seed, number, part]))
            masked += len(positions)
            if len(positions):
                yield Sample(
                    text=number,
                    input_ids=ids,
                    token_type_ids=np.zeros_like(ids),
                    positions=positions,
                    labels=labels,
                )


def pair_samples(  # noqa: PLR0913 — what is drawn, by keyword
    texts: Sequence[Text],
    tokenizer: Tokenizer,
    *,
    seed: int = 0,
    max_tokens: int = 128,
    limit: int | None = None,
    segments: int | None = None,
) -> Iterator[Sample]:
    """Yield `[CLS] A [SEP] B [SEP]`: for half of the pairs B follows A in its text, for half B is from elsewhere.

    A text of several sentences gives one pair for each sentence end inside it: A ends there, and B begins there.
    A stranger begins at a sentence end of another document, or of another text where there is one document only.
    Which pairs get a stranger is drawn; every second one does, so both labels are equally frequent.

    Args:
        texts: Where spans come from.
        tokenizer: The model's tokenizer, without truncation or padding.
        seed: The same seed and texts give the same pairs.
        max_tokens: Longest pair, special tokens included; A keeps its end and B its beginning, half of it each.
        limit: The most pairs to yield, drawn evenly from all that there are.
        segments: The segment of every token, where the model takes one for all; None for 0 in A and 1 in B.
    """
    vocabulary = Vocabulary.of(tokenizer)
    rng = np.random.default_rng([seed, 1])
    cuts = [
        (number, end.end()) for number, text in enumerate(texts) for end in _SENTENCE_END.finditer(text.text.strip())
    ]
    order = rng.permutation(len(cuts))[:limit]
    strange = rng.permutation(np.arange(len(order)) % 2)
    room = (max_tokens - 3) // 2
    by_document = len({text.document for text in texts}) > 1
    sources = [texts[number].document if by_document else number for number, _ in cuts]
    if len(order) > 1 and len(set(sources)) == 1:
        raise InputTextError(
            "no pair of strangers can be made from a single text: give more texts of several sentences"
        )

    def ids(text: str) -> NDArray[np.int64]:
        return np.array(tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64)

    for index, label in zip(order, strange, strict=True):
        number, cut = cuts[index]
        other, begin = number, cut
        if label == NOT_NEXT:
            stranger = index
            while sources[stranger] == sources[index]:
                stranger = int(rng.integers(len(cuts)))
            other, begin = cuts[stranger]
        a, b = ids(texts[number].text.strip()[:cut])[-room:], ids(texts[other].text.strip()[begin:])[:room]
        if not len(a) or not len(b):
            continue
        whole = np.concatenate([[vocabulary.cls], a, [vocabulary.sep], b, [vocabulary.sep]])
        yield Sample(
            text=number,
            input_ids=whole,
            token_type_ids=(
                (np.arange(len(whole)) >= len(a) + 2).astype(np.int64)
                if segments is None
                else np.full_like(whole, segments)
            ),
            positions=np.empty(0, dtype=np.int64),
            labels=np.empty(0, dtype=np.int64),
            next_sentence=int(label),
        )


def unread_share(counts: Counter[int], tokenizer: Tokenizer) -> float:
    """Return the share of the tokens that the vocabulary does not have; 0 for a tokenizer without an unknown token."""
    token = getattr(tokenizer.model, "unk_token", None)
    unknown = tokenizer.token_to_id(token) if token else None
    return 0.0 if unknown is None else counts[unknown] / max(1, counts.total())


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
        InputTextError: where 5% of the tokens and more are unknown, or half of them and more are the same one.
    """
    counts = token_counts(texts, tokenizer)
    share = unread_share(counts, tokenizer)
    if share >= UNREAD:
        which = f"{name}, the English sample that ships," if shipped else name
        raise InputTextError(
            f"{share:.1%} of the tokens of {which} are unknown to the model's vocabulary, so nothing can be judged by "
            f"it (less than {UNREAD:.0%} may be): pass a text in the model's language and script with {option} FILE"
        )
    for token, count in counts.most_common(1):
        share = count / counts.total()
        if share >= MONOTONOUS:
            raise InputTextError(
                f"{share:.1%} of the tokens of {name} are the same ({tokenizer.id_to_token(token)!r}), so nothing can "
                f"be judged by it (less than {MONOTONOUS:.0%} may be): pass varied text with {option} FILE"
            )
