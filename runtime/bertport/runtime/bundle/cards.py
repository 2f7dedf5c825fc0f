"""A bundle's README.md: how it is read, how a section of it is replaced, and how names are written into it."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from bertport.runtime.bundle.files import inside, open_regular, read_bounded
from bertport.runtime.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CARD", "card_of", "code", "prose", "read_card", "with_section"]

CARD = "README.md"
LARGEST_CARD = 1 << 20
"""Bytes of README.md that are read."""
MARKUP = re.compile(r"[\\`*\[\]<&|~]|(?<![^\W_])_|_(?![^\W_])")
"""Characters that Markdown could read as its own in the middle of a line; an underline within a word is none."""


def card_of(directory: Path) -> Path | None:
    """Return the path of a bundle's card; None where there is none.

    Raises:
        BundleError: when it is a link that leaves the bundle.
    """
    path = directory / CARD
    if not os.path.lexists(path):
        return None
    if not inside(path, directory):
        raise BundleError(f"{path} is a link that leaves the bundle: do not use a bundle from this source")
    return path


def read_card(directory: Path) -> bytes | None:
    """Return the content of a bundle's card; None where there is none.

    Raises:
        BundleError: when it is a link that leaves the bundle, no regular file, or too large.
        OSError: when it cannot be read.
    """
    path = card_of(directory)
    if path is None:
        return None
    with open_regular(path) as file:
        content = read_bounded(file, LARGEST_CARD)
    if len(content) > LARGEST_CARD:
        raise BundleError(f"{path} has more than {LARGEST_CARD:,} bytes: shorten it")
    return content


def with_section(card: str, text: str, *, begin: str, end: str) -> str:
    """Return a card with a section in place of the one between the same marks, or at its end.

    Args:
        card: the card's text.
        text: the section's.
        begin: line before the section.
        end: line behind it.
    """
    before, found, rest = card.partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        before, after = card.rstrip("\n") + "\n\n", "\n"
    return f"{before}{begin}\n{text}\n{end}{after}"


def prose(text: str) -> str:
    """Return a text as Markdown shows it in a line or a table's cell: nothing in it is markup or ends them."""
    return MARKUP.sub(r"\\\g<0>", _in_one_line(text))


def code(text: str) -> str:
    """Return a text as code in a line of Markdown, between more backticks than it has in a row."""
    text = _in_one_line(text)
    marks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    gap = " " * (not text or "`" in (text[0], text[-1]))
    return f"{marks}{gap}{text}{gap}{marks}"


def _in_one_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
