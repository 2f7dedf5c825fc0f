"""Samples for heads that are trained for a task: sentences, questions with a context, and groups of texts to choose of.

All are made of running text, in whatever language, with a fixed seed. What is asked need not make sense: what is
measured is whether two models answer alike, not whether they are right.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bertport.measure.quality.samples import (
    CANDIDATES,
    CHOICES,
    GIVEN_PAIRS,
    PLAIN,
    QUESTIONS,
    Sample,
    cut_at,
    cuts_of,
    sentences_of,
    sources_of,
    stranger_to,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from bertport.measure.quality.samples import SampleTokenizer
    from bertport.measure.text import Text

__all__ = [
    "GROUPS",
    "candidate_samples",
    "given_pair_samples",
    "plain_samples",
    "question_samples",
    "task_samples",
]

GROUPS = {CHOICES: 4, CANDIDATES: 8}
"""Texts of a group, by its kind: SWAG and RACE have four choices, and a reranker gets more documents than that."""
SHORTEST = 4
"""Tokens of the shortest sentence: "Yes." says nothing to a classifier."""
LONGEST_QUESTION = 24
"""Tokens of the longest question; the longest of SQuAD have more, those of its middle half 11 to 16 words."""
LEFT_OUT = 4
"""Tokens that are left out of a sentence to ask for them, at most."""
QUESTIONS_OF_A_TEXT = 2
"""Questions that are asked of one text, at most."""


def task_samples(  # noqa: PLR0913 — what is drawn, by keyword
    kinds: Collection[str],
    texts: Sequence[Text],
    tokenizer: SampleTokenizer,
    *,
    seed: int = 0,
    max_tokens: int = 128,
    longest_pair: int = 128,
    positions: int | None = None,
    pairs: int | None = None,
    whole: bool = False,
) -> list[Sample]:
    """Return samples of the kinds in `TASK_KINDS` that are asked for; other kinds are ignored.

    Args:
        kinds: The kinds that are asked for.
        texts: What they are made of.
        tokenizer: The model's.
        seed: The same seed, texts and tokenizer give the same samples.
        max_tokens: Tokens of the longest sentence, and of the longest question with its context.
        longest_pair: Tokens of the longest text with one that may follow it.
        positions: The most sentences; None for all.
        pairs: The most questions, and the most texts that may follow another, about; None for all.
        whole: Whether each text is one input as it stands, and not each sentence of it.
    """
    made: list[Sample] = []
    if PLAIN in kinds:
        made += plain_samples(texts, tokenizer, seed=seed, max_tokens=max_tokens, limit=positions, whole=whole)
    if GIVEN_PAIRS in kinds:
        made += given_pair_samples(texts, tokenizer, seed=seed, max_tokens=max_tokens, limit=positions)
    if QUESTIONS in kinds:
        made += question_samples(texts, tokenizer, seed=seed, max_tokens=max_tokens, limit=pairs)
    for kind in GROUPS:
        if kind in kinds:
            made += candidate_samples(texts, tokenizer, kind=kind, seed=seed, max_tokens=longest_pair, limit=pairs)
    return made


def plain_samples(  # noqa: PLR0913 — what is drawn, by keyword
    texts: Sequence[Text],
    tokenizer: SampleTokenizer,
    *,
    seed: int = 0,
    max_tokens: int = 128,
    limit: int | None = None,
    whole: bool = False,
) -> Iterator[Sample]:
    """Yield sentences as they are written; what is longer than `max_tokens` is cut.

    Args:
        texts: Where they are from.
        tokenizer: The model's.
        seed: The seed of the order.
        max_tokens: Longest sample, special tokens included.
        limit: The most sentences, drawn evenly from all that there are.
        whole: Whether each text, and each of a pair, is one input as it stands.
    """
    parts = [
        (number, part)
        for number, text in enumerate(texts)
        for part in ((text.pair or (text.text,)) if whole else sentences_of(text.text.strip()))
    ]
    least = 1 if whole else SHORTEST
    made = 0
    for index in np.random.default_rng([seed, 6]).permutation(len(parts)).tolist():
        if limit is not None and made >= limit:
            return
        number, part = parts[index]
        ids, words = tokenizer.words(part, max_tokens - tokenizer.single.added)
        if len(ids) >= least:
            made += 1
            yield _sample(tokenizer, number, PLAIN, (ids,), words)


def given_pair_samples(
    texts: Sequence[Text],
    tokenizer: SampleTokenizer,
    *,
    seed: int = 0,
    max_tokens: int = 128,
    limit: int | None = None,
) -> Iterator[Sample]:
    """Yield the pairs among some texts as they are; of one that is too long, the longer text is cut.

    Args:
        texts: The texts; those that are no pairs are passed over.
        tokenizer: The model's.
        seed: The seed of the order.
        max_tokens: Longest sample, special tokens included.
        limit: The most pairs, drawn evenly from all that there are.
    """
    pairs = [(number, text.pair) for number, text in enumerate(texts) if text.pair]
    room = max_tokens - tokenizer.pair.added
    for index in np.random.default_rng([seed, 9]).permutation(len(pairs))[:limit].tolist():
        number, pair = pairs[index]
        first, second = (tokenizer.first_ids(part, room) for part in pair)
        first = first[: max(room - len(second), (room + 1) // 2)]
        second = second[: room - len(first)]
        if len(first) and len(second):
            yield _sample(tokenizer, number, GIVEN_PAIRS, (first, second))


def question_samples(
    texts: Sequence[Text],
    tokenizer: SampleTokenizer,
    *,
    seed: int = 0,
    max_tokens: int = 128,
    limit: int | None = None,
) -> Iterator[Sample]:
    """Yield questions with a context: those that are given as pairs, or else made up of running text.

    A question that is made up is a sentence of the context with some words left out, and a question mark.

    Such questions are answered by extractive models as if they were asked properly (Lewis et al. 2019, "Unsupervised
    Question Answering by Cloze Translation", where the sentence with its gap stands beside better ones).

    Args:
        texts: Where contexts come from; the sentence before the one that is asked about begins it.
        tokenizer: The model's.
        seed: The same seed and texts give the same questions.
        max_tokens: Longest sample, special tokens included; the context is cut.
        limit: The most questions, drawn evenly from all that there are.
    """
    rng = np.random.default_rng([seed, 7])
    given = [(number, text.pair) for number, text in enumerate(texts) if text.pair]
    if given:
        for index in rng.permutation(len(given))[:limit].tolist():
            number, (asked_for, context_text) = given[index]
            question = tokenizer.first_ids(asked_for, max_tokens // 2)
            yield from _question(tokenizer, number, question, context_text, max_tokens)
        return
    mark = tokenizer.ids("?")
    asked = []
    for number, text in enumerate(texts):
        sentences = sentences_of(text.text.strip())
        places = rng.permutation(len(sentences))[:QUESTIONS_OF_A_TEXT]
        asked += [(number, sentences, int(place)) for place in places]
    made = 0
    for index in rng.permutation(len(asked)).tolist():
        if limit is not None and made >= limit:
            return
        number, sentences, place = asked[index]
        sentence = tokenizer.ids(sentences[place])
        size = int(rng.integers(1, LEFT_OUT + 1))
        if len(sentence) < SHORTEST + size:
            continue
        gap = int(rng.integers(len(sentence) - size + 1))
        question = np.concatenate([sentence[:gap], sentence[gap + size :]])[:LONGEST_QUESTION]
        question = np.concatenate([question, mark])
        for sample in _question(tokenizer, number, question, " ".join(sentences[max(0, place - 1) :]), max_tokens):
            made += 1
            yield sample


def _question(
    tokenizer: SampleTokenizer, number: int, question: NDArray[np.int64], context: str, max_tokens: int
) -> Iterator[Sample]:
    """Yield a question with as much of its context as there is room for; nothing where there is none."""
    room = max_tokens - tokenizer.pair.added - len(question)
    ids, words = tokenizer.words(context, room)
    if len(question) and len(ids):
        yield _sample(tokenizer, number, QUESTIONS, (question, ids), words)


def candidate_samples(  # noqa: PLR0913 — what is drawn, by keyword
    texts: Sequence[Text],
    tokenizer: SampleTokenizer,
    *,
    kind: str = CANDIDATES,
    seed: int = 0,
    max_tokens: int = 128,
    limit: int | None = None,
) -> Iterator[Sample]:
    """Yield groups of a text with each of several that may follow it: the one that does, and strangers.

    Args:
        texts: Where they come from, cut at sentence ends as for `samples.pair_samples`.
        tokenizer: The model's.
        kind: `CHOICES` or `CANDIDATES`.
        seed: The same seed and texts give the same groups.
        max_tokens: Longest sample, special tokens included; the text keeps its end, and what follows its beginning.
        limit: The most samples; no group is cut in two.
    """
    rng = np.random.default_rng([seed, 8])
    cuts, size = cuts_of(texts), GROUPS[kind]
    sources = sources_of(texts, cuts)
    if len(set(sources)) < 2:  # noqa: PLR2004 — strangers are from another place
        return
    room = (max_tokens - tokenizer.pair.added) // 2
    most = None if limit is None else limit // size
    for group, index in enumerate(rng.permutation(len(cuts))[:most].tolist()):
        text = tokenizer.last_ids(cut_at(texts, cuts[index])[0], room)
        followers = [index, *(stranger_to(index, sources, rng) for _ in range(size - 1))]
        candidates = [tokenizer.first_ids(cut_at(texts, cuts[follower])[1], room) for follower in followers]
        if len(text) and all(len(candidate) for candidate in candidates):
            for candidate in candidates:
                yield replace(_sample(tokenizer, cuts[index][0], kind, (text, candidate)), group=group)


def _sample(
    tokenizer: SampleTokenizer,
    number: int,
    kind: str,
    parts: tuple[NDArray[np.int64], ...],
    words: NDArray[np.int64] | None = None,
) -> Sample:
    """Return a sample of one text or two; words are those of the last."""
    ids, types = tokenizer.around(*parts)
    placed = None
    if words is not None:
        behind = len((tokenizer.single if len(parts) == 1 else tokenizer.pair).special[-1])
        placed = np.full(len(ids), -1, dtype=np.int64)
        placed[len(ids) - behind - len(words) : len(ids) - behind] = words
    return Sample(text=number, kind=kind, input_ids=ids, token_type_ids=types, words=placed)
