"""Layout of text in a terminal: the terminal's width and a text's, in columns, and line breaks."""

from __future__ import annotations

import os
import sys
import unicodedata
from typing import TextIO

__all__ = ["columns", "cut", "is_live", "width", "wrapped"]

UNSEEN = frozenset({"Mn", "Me", "Cf"})
"""Categories of characters that take no column of their own."""
FIRST_MEDIAL, LAST_FINAL = "\u1160", "\u11ff"
"""Vowels and finals of Hangul, which a terminal puts into the syllable before them."""
USUAL = 80
"""Columns of a terminal that does not say how many it has."""


def is_live(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal on which a line can be rewritten."""
    return bool(stream and stream.isatty() and os.environ.get("TERM") != "dumb")


def columns(stream: TextIO | None) -> int:
    """Return the columns of the terminal that a stream is, or as COLUMNS says; more than any line has without one."""
    try:
        if stream is None or not stream.isatty():
            return sys.maxsize
        stated = os.environ.get("COLUMNS", "")
        if stated.isdecimal() and int(stated):
            return int(stated)
        return os.get_terminal_size(stream.fileno()).columns or USUAL  # 0 where nobody has set a size
    except (OSError, ValueError):  # a terminal without a size, or a stream without a file
        return USUAL


def wrapped(text: str, room: int) -> list[str]:
    """Return a text in lines of at most `room` columns, broken at spaces if it has any."""
    if width(text) <= room:
        return [text]
    lines = []
    while text:
        fitting = len(cut(text, room)) or 1
        end = text.rfind(" ", 1, fitting + 1) if fitting < len(text) else fitting
        end = end if text[: max(end, 0)].strip() else fitting
        lines.append(text[:end].rstrip())
        text = text[end:].lstrip()
    return lines


def cut(text: str, room: int) -> str:
    """Return the beginning of a text that takes at most `room` columns, with the marks on its last character."""
    taken = 0
    for place, character in enumerate(text):
        taken += width(character)
        if taken > room:
            return text[:place]
    return text


def width(text: str) -> int:
    """Return the columns that a text takes in a terminal.

    East Asian wide characters take two; marks on another character, vowels and finals of Hangul syllables, and format
    characters none.
    """
    return sum(1 if " " <= character <= "~" else _columns_of(character) for character in text)


def _columns_of(character: str) -> int:
    if unicodedata.category(character) in UNSEEN or FIRST_MEDIAL <= character <= LAST_FINAL:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
