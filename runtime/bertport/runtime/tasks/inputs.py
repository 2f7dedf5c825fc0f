"""Inputs of tasks: from what a caller gives, or a line of JSON, to a text, a pair of texts, or several of either."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.runtime.errors import InputTextError
from bertport.runtime.excerpts import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable

    from bertport.runtime.errors import UsageError
    from bertport.runtime.text.encoder import Text

__all__ = ["MOST_ROWS", "Parts", "one_text", "text_or_pair", "texts_in", "two_texts"]

MOST_ROWS = 16_384
"""Most rows of a batch that one input may make: labels, documents, choices, or windows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A compound input: several texts, each a row of a batch like any other, whose answers together make one.

    A reader that makes one of a list refuses a list of more than `MOST_ROWS` before it copies anything.
    """

    texts: tuple[Text, ...]
    """The texts or pairs, one at least."""
    combine: Callable[[list[Any]], object]
    """Makes the answer of the texts' answers, in order."""


def one_text(task: str, value: object) -> str:
    """Return the text of an input: a text, or an object with the one field `text`.

    Raises:
        InputTextError: for anything else; it names the task.
    """
    text = value["text"] if isinstance(value, dict) and value.keys() == {"text"} else value
    if not isinstance(text, str):
        raise InputTextError(f'{task} takes a text, or {{"text": …}}, not {excerpt(value)}')
    return text


def two_texts(task: str, value: object) -> tuple[str, str]:
    """Return the pair of an input: two texts in a list, or an object with `text` and `text_pair`.

    Raises:
        InputTextError: for anything else; it names the task.
    """
    match value:
        case {"text": str(a), "text_pair": str(b), **other} if not other:
            return a, b
        case [str(a), str(b)]:
            return a, b
    raise InputTextError(
        f'{task} takes two texts, ["A", "B"] or {{"text": "A", "text_pair": "B"}}, not {excerpt(value)}'
    )


def text_or_pair(task: str, value: object) -> Text:
    """Return the text or pair of an input: one text, two in a list, or an object with `text`, perhaps `text_pair`.

    Raises:
        InputTextError: for anything else; it names the task.
    """
    match value:
        case str(text):
            return text
        case {"text": str(text), **other} if not other:
            return text
        case [str(a), str(b)]:
            return a, b
        case {"text": str(a), "text_pair": str(b), **other} if not other:
            return a, b
    raise InputTextError(f'{task} takes a text, {{"text": …}}, or a pair ["A", "B"], not {excerpt(value)}')


def texts_in(name: str, value: object, error: type[UsageError]) -> tuple[str, ...]:
    """Return the texts of a list, each of which makes a row.

    Args:
        name: what the caller calls the list.
        value: what the caller gave.
        error: what is raised for a list of anything else, of none, and of too many.
    """
    if not isinstance(value, list | tuple):
        raise error(f"{name} is a list of 1 to {MOST_ROWS:,} texts, not {excerpt(value)}")
    if not 1 <= len(value) <= MOST_ROWS:
        raise error(f"{name} is a list of 1 to {MOST_ROWS:,} texts, not of {len(value):,}")
    for number, text in enumerate(value, 1):
        if not isinstance(text, str):
            raise error(f"{name} is a list of texts, and number {number} is {excerpt(text)}")
    return tuple(value)
