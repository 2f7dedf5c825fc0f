"""Entities of tagged words, as the CoNLL evaluations count them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertport.measure.labelled.labels import tag_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["entities"]

ENDED = frozenset({"E", "S"})
"""Prefixes of an entity's last word."""
BEGINS = frozenset({"B", "S"})
"""Prefixes of an entity's first word."""


def entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return the entities of a text's tags in order: type, first word, and the word behind the last.

    Any sequence of tags has entities (conlleval, Tjong Kim Sang and De Meulder 2003, and seqeval's default): one begins
    at `B` and `S`, and at any other tag of a type that continues none: after `O`, after another type, after `E` or `S`.
    """
    spans: list[tuple[str, int, int]] = []
    start, open_type, before = 0, "", "O"
    for place, tag in enumerate(tags):
        prefix, kind = tag_parts(tag)
        if open_type and (kind != open_type or prefix in BEGINS or before in ENDED):
            spans.append((open_type, start, place))
            open_type = ""
        if kind and not open_type:
            start, open_type = place, kind
        before = prefix
    if open_type:
        spans.append((open_type, start, len(tags)))
    return spans
