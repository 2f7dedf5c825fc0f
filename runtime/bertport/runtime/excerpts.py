"""Excerpts for messages: the beginning of any value, in bounded work, and what a library says, in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["as_unicode", "excerpt", "one_line"]

LARGEST_NUMBER = 4096
"""Bits of the largest integer that is written out: writing takes time that grows with their square."""


def excerpt(value: object, length: int = 60) -> str:
    """Return the beginning of `repr(value)`, for an error.

    Args:
        value: anything that a caller gave.
        length: most characters of the result; what is longer ends in `...`.
    """
    text = ""
    for part in _parts(value, length):
        text += part
        if len(text) > length:
            return f"{text[: length - 3]}..."
    return text


def as_unicode(text: str) -> str:
    """Return a path or an argument as text that a file can hold: bytes that are no UTF-8 are written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def one_line(said: object) -> str:
    """Return what a library says, such as its error, with each run of white space as one space."""
    return " ".join(str(said).split())


def _parts(value: object, length: int) -> Iterator[str]:
    """Yield a value's `repr` in parts of bounded length; every level of nesting adds at least one character."""
    match value:
        case str() | bytes() | bytearray():
            yield repr(value[: length + 1])
        case bool() | float() | None:
            yield repr(value)
        case int():
            yield repr(value) if value.bit_length() <= LARGEST_NUMBER else f"<a number of {value.bit_length()} bits>"
        case list():
            yield from _items(value, "[", "]", length)
        case tuple():
            yield from _items(value, "(", ",)" if len(value) == 1 else ")", length)
        case dict():
            yield "{"
            for number, (key, item) in enumerate(value.items()):
                yield ", " if number else ""
                yield from _parts(key, length)
                yield ": "
                yield from _parts(item, length)
            yield "}"
        case Mapping() | Sized() if (count := _size(value)) is None or count > length:
            yield f"<{type(value).__name__} of {'many' if count is None else count} items>"
        case _:
            yield repr(value)


def _items(values: list[object] | tuple[object, ...], start: str, end: str, length: int) -> Iterator[str]:
    yield start
    for number, item in enumerate(values):
        yield ", " if number else ""
        yield from _parts(item, length)
    yield end


def _size(value: object) -> int | None:
    try:
        return len(value)  # type: ignore[arg-type]  # Sized, or refused
    except TypeError:  # a numpy array without dimensions
        return 0
