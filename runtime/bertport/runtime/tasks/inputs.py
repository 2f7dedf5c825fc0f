"""Inputs of tasks: from what a caller gives, or a line of JSON, to a text or a pair of texts."""

from __future__ import annotations

from bertport.runtime.errors import InputTextError
from bertport.runtime.excerpts import excerpt

__all__ = ["one_text", "two_texts"]


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
