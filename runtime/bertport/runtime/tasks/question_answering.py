"""question-answering: the part of a context that answers a question, as transformers 4's pipeline finds it.

A context that is too long for the model is read in windows that overlap, each behind the whole question. In each, the
score of a span is the product of two probabilities: that its first token begins the answer, and that its last ends it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.runtime.errors import InputTextError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.tasks.labels import probabilities
from bertport.runtime.tasks.parameters import boolean, whole_number
from bertport.runtime.text.windows import Windows

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from bertport.runtime.bundle.manifest import Manifest
    from bertport.runtime.tasks.answers import Answer
    from bertport.runtime.text.encoder import Encoded
    from bertport.runtime.text.tokenizer import Tokens

__all__ = ["Options", "Spans", "finish", "merge", "read", "spans", "windows"]

MOST_TOKENS = 384
"""Tokens of a window where nothing else is asked for, as in transformers; fewer where the model takes fewer."""
MOST_STRIDE = 128
"""Tokens that windows have in common where nothing else is asked for; fewer where they are short."""
LONGEST_ANSWER = 15
"""Most tokens of an answer where nothing else is asked for, as in transformers."""
MOST_ANSWERS = 100
"""Most answers to a question: for each window, twice as many spans are written out and compared with all others."""
NO_ANSWER = -10_000.0
"""Stand-in for the logits of tokens that no answer may have, in transformers too: their probability is 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Parameters of question-answering."""

    top_k: int = 1
    """Number of answers, best first, 100 at most; there may be fewer."""
    max_answer_len: int = LONGEST_ANSWER
    """Most tokens of an answer."""
    max_seq_len: int | None = None
    """Most tokens of a window, the question and special tokens included; None for 384, or what the model takes."""
    doc_stride: int | None = None
    """Tokens of the context that neighbouring windows have in common; None for 128, or half a short window."""
    handle_impossible_answer: bool = False
    """Let the empty answer compete, which the model gives where the context has none."""
    align_to_words: bool = True
    """Extend an answer to whole words, as the tokenizer knows them."""
    truncation: bool = False
    """Read only the first window of a context that is too long, instead of all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """The likeliest answers of one window."""

    context: str
    """The whole context."""
    answers: list[tuple[float, int, int, str]]
    """Score, first character and the one behind the last of each, best first, and its text in lower case."""
    empty: float
    """Score of the empty answer."""


def read(tokens: Tokens) -> Callable[[object], tuple[str, str]]:
    """Return the function that reads an input, {"question", "context"}, to the pair that the model takes."""

    def pair(value: object) -> tuple[str, str]:
        match value:
            case {"question": str(question), "context": str(context), **other} if not other:
                pass
            case _:
                raise InputTextError(
                    f'question-answering takes {{"question": "Q", "context": "C"}}, not {excerpt(value)}'
                )
        for name, text in (("question", question), ("context", context)):
            if not text:
                raise InputTextError(f"the {name} is empty: give one with words in it: {excerpt(value)}")
        return (context, question) if tokens.pads_left else (question, context)

    return pair


def windows(options: Options, tokens: Tokens) -> Windows:
    """Return how contexts are cut.

    Raises:
        UsageError: for a length or a stride that is no number.
    """
    length = whole_number("max_seq_len", options.max_seq_len, min(tokens.max_length, MOST_TOKENS))
    stride = whole_number("doc_stride", options.doc_stride, min(length // 2, MOST_STRIDE), least=0)
    cut = 0 if tokens.pads_left else 1
    return Windows(length=length, stride=stride, cut=cut, first=options.truncation, named="context")


def finish(
    options: Options,
    tokens: Tokens,
    manifest: Manifest,  # noqa: ARG001 — every task's `finish` takes it
) -> Callable[[NDArray[np.float32], Encoded], Spans]:
    """Return the function that turns the logits of a window, `[tokens, 2]`, into its likeliest answers.

    Raises:
        UsageError: for a parameter out of range.
    """
    top_k = _top_k(options)
    longest = whole_number("max_answer_len", options.max_answer_len, LONGEST_ANSWER)
    boolean("handle_impossible_answer", options.handle_impossible_answer)
    align = boolean("align_to_words", options.align_to_words)
    # Several spans may be one answer once they are extended to words, so that more are looked at, as in transformers.
    count = 2 * top_k + 10 if align else top_k
    side = 0 if tokens.pads_left else 1

    def window(logits: NDArray[np.float32], encoded: Encoded) -> Spans:
        chosen, empty = spans(logits, encoded, count, longest)
        begin, end = encoded.cut
        places = encoded.spans[begin:end]
        firsts, lasts = places[:, 0], places[:, 1]
        if align:
            firsts, lasts = _of_words(places, encoded.words)
        context = encoded.text[side]
        characters = ((score, int(firsts[first]), int(lasts[last])) for score, first, last in chosen)
        answers = [(score, start, end, context[start:end].lower()) for score, start, end in characters]
        return Spans(context=context, answers=answers, empty=empty)

    return window


def spans(
    logits: NDArray[np.float32], encoded: Encoded, count: int, longest: int
) -> tuple[list[tuple[float, int, int]], float]:
    """Return the likeliest spans of a window, and the score of the empty answer.

    Args:
        logits: of the begin and of the end of an answer, for each token `[tokens, 2]`.
        encoded: the window.
        count: spans wanted.
        longest: most tokens of a span.

    Returns:
        Score, first and last token of the spans, best first and the first in the text among equals: tokens are counted
        from the first of the context. And the score of the empty answer, for which the first special token stands.
    """
    begin, end = encoded.cut
    allowed = np.zeros(len(encoded.ids), dtype=bool)
    allowed[begin:end] = True
    allowed[0] |= encoded.spans[0, 0] < 0
    shares = probabilities(np.where(allowed, np.ascontiguousarray(logits.T), np.float32(NO_ANSWER)))
    starts, ends = shares[:, begin:end]
    longest = min(longest, end - begin)
    # For each first token the scores of those that may be the last: itself and as many behind it as there may be.
    behind = np.lib.stride_tricks.sliding_window_view(
        np.concatenate([ends, np.full(longest - 1, -1, ends.dtype)]), longest
    )
    scores = (starts[:, None] * behind).ravel()
    inside = behind.ravel() >= 0
    best = _best(np.where(inside, scores, np.float32(-1)), min(count, int(inside.sum())))
    chosen = [(float(scores[place]), *_pair(int(place), longest)) for place in best]
    return chosen, float(shares[0, 0] * shares[1, 0])


def _pair(place: int, longest: int) -> tuple[int, int]:
    """Return first and last token of a span, by its place among the scores."""
    first, further = divmod(place, longest)
    return first, first + further


def _best(scores: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Return the places of the largest scores, best first, the first among equals."""
    bound = np.partition(scores, -count)[-count]
    places = np.flatnonzero(scores >= bound)
    ordered: NDArray[np.intp] = places[np.argsort(-scores[places], kind="stable")][:count]
    return ordered


def _of_words(places: NDArray[np.int64], words: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each token where the first token of its word begins, and where the last one ends, in the window."""
    changes = np.flatnonzero(np.diff(words)) + 1
    begins, ends = np.append(0, changes), np.append(changes, len(words)) - 1
    lengths = ends - begins + 1
    return np.repeat(places[begins, 0], lengths), np.repeat(places[ends, 1], lengths)


def merge(options: Options) -> Callable[[list[Spans]], Any]:
    """Return the function that makes the answer of a context's windows.

    Answers with the same text, whatever its case, become one answer, whose score is their sum. The result
    is the best of them, or a list of the `top_k` best where more than one is asked for and found.
    """
    top_k = _top_k(options)

    def answer(windows: list[Spans]) -> Answer | list[Answer]:
        answers = _answers(windows)
        if options.handle_impossible_answer:
            answers.append({"score": min(window.empty for window in windows), "start": 0, "end": 0, "answer": ""})
        best = sorted(answers, key=lambda answer: -answer["score"])[:top_k]
        return best[0] if len(best) == 1 else best

    return answer


def _answers(windows: list[Spans]) -> list[Answer]:
    """Return the answers of all windows, each text once, in the order in which they were found."""
    answers: dict[str, Answer] = {}
    for window in windows:
        for score, start, end, text in window.answers:
            if text in answers:
                answers[text]["score"] += score
            else:
                answers[text] = {"score": score, "start": start, "end": end, "answer": window.context[start:end]}
    return list(answers.values())


def _top_k(options: Options) -> int:
    """Return how many answers are given, at most; UsageError where that is out of range."""
    return whole_number("top_k", options.top_k, 1, most=MOST_ANSWERS)
