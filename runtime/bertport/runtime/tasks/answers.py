"""The shapes of answers, for type checkers."""

from __future__ import annotations

from typing import NotRequired, TypedDict

__all__ = [
    "Answer",
    "Choice",
    "Entity",
    "FilledMask",
    "NextSentence",
    "RankedText",
    "ScoredLabel",
    "SentenceOrder",
    "TokenLabel",
    "ZeroShot",
]


class FilledMask(TypedDict):
    """One word for one mask."""

    score: float
    """Probability of the word."""
    token: int
    """Token id of the word."""
    token_str: str
    """The word, or piece of one."""
    sequence: str
    """The text with the word in place of the mask."""


class NextSentence(TypedDict):
    """Whether a text follows another."""

    label: str
    """The more probable label, as the bundle records it."""
    score: float
    """Probability of the label."""
    follows: bool
    """Whether it says that the second text follows the first."""
    probabilities: dict[str, float]
    """Probability of each label."""


class SentenceOrder(TypedDict):
    """Whether two texts stand in the order in which they were written."""

    label: str
    """The more probable label, as the bundle records it."""
    score: float
    """Probability of the label."""
    in_order: bool
    """Whether it says that the first text came before the second."""
    probabilities: dict[str, float]
    """Probability of each label."""


class ScoredLabel(TypedDict):
    """One label of a text, in the fields of transformers' text-classification pipeline."""

    label: str
    """The label, as the bundle records it."""
    score: float
    """Its probability; the logit itself where no function is applied."""


class TokenLabel(TypedDict):
    """The label of one token, in the fields of transformers' token-classification pipeline."""

    entity: str
    """The more probable label, as the bundle records it."""
    score: float
    """Probability of the label."""
    index: int
    """Position of the token in the input, special tokens counted."""
    word: str
    """The token, as the vocabulary writes it."""
    start: int
    """Its first character in the text."""
    end: int
    """The character behind its last."""


class Entity(TypedDict):
    """Neighbouring tokens under one label, in the fields of transformers' token-classification pipeline."""

    entity_group: str
    """The label of them all, without the prefix that says whether a token begins an entity."""
    score: float
    """Mean of the tokens' or words' probabilities."""
    word: str
    """The tokens, joined."""
    start: int
    """Its first character in the text."""
    end: int
    """The character behind its last."""


class Answer(TypedDict):
    """One answer to a question, in the fields of transformers' question-answering pipeline."""

    score: float
    """Its probability, summed over all places where the context has it."""
    start: int
    """Its first character in the context."""
    end: int
    """The character behind its last."""
    answer: str
    """These characters of the context; empty where it has no answer."""


class ZeroShot(TypedDict):
    """Scores of candidate labels for a text, in the fields of transformers' zero-shot-classification pipeline."""

    sequence: str
    """The text."""
    labels: list[str]
    """The candidate labels, best first."""
    scores: list[float]
    """Their probabilities, in this order."""


class Choice(TypedDict):
    """The likeliest of several choices for a prompt."""

    label: int
    """The likeliest choice, counted from 0."""
    choice: str
    """Its text."""
    score: float
    """Its probability."""
    probabilities: list[float]
    """Probability of each choice, in the order given."""


class RankedText(TypedDict):
    """A document in a ranking, in the fields of the CrossEncoder of sentence-transformers."""

    corpus_id: int
    """Its place in the list given, counted from 0."""
    score: float
    """Score of its relevance to the query."""
    text: NotRequired[str]
    """The document, where documents are asked for."""
