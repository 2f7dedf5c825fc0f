"""A bundle's README.md: how it is read, and how a section of it is replaced."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bertport.runtime.bundle.files import inside, open_regular, read_bounded
from bertport.runtime.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CARD", "card_of", "read_card", "with_section"]

CARD = "README.md"
LARGEST_CARD = 1 << 20
"""Bytes of README.md that are read."""


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
