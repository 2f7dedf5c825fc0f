"""The shapes of answers, for type checkers."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["FilledMask", "NextSentence"]


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
