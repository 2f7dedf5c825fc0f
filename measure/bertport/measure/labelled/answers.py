"""Answers in a context, compared as SQuAD v1.1 does (Rajpurkar et al. 2016)."""

from __future__ import annotations

import re
import string
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["answer_f1", "exact_match", "normalized"]

ARTICLES = re.compile(r"\b(?:a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(answer: str) -> str:
    """Return an answer in lower case, without punctuation and articles, its words one space apart."""
    return " ".join(ARTICLES.sub(" ", answer.lower().translate(PUNCTUATION)).split())


def exact_match(answer: str, truths: Sequence[str]) -> bool:
    """Return whether an answer is one of the right ones, all normalized."""
    return normalized(answer) in {normalized(truth) for truth in truths}


def answer_f1(answer: str, truths: Sequence[str]) -> float:
    """Return the F1 of an answer's normalized words against those of the right answer that it is nearest to."""
    words = normalized(answer).split()
    return max(_f1(words, normalized(truth).split()) for truth in truths)


def _f1(words: list[str], truth: list[str]) -> float:
    """Return twice the number of words in common over the number of both; 0 where there is none in common."""
    common = (Counter(words) & Counter(truth)).total()
    return 2 * common / (len(words) + len(truth)) if common else 0.0
