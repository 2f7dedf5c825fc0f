"""Entities: what the labels of a text's words say of names and the like in it, as the CoNLL evaluations count them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["OUTSIDE", "PREFIXES", "entities", "entity_type", "tag_parts"]

OUTSIDE = "O"
"""The tag of words that are part of nothing."""
PREFIXES = ("B", "I", "E", "S", "L", "U")
"""Prefixes of tags: the first word of an entity, one inside, the last, and the only one; BILOU names these two L, U."""
BEGINS = frozenset({"B", "S", "U"})
"""Prefixes of an entity's first word."""
ENDED = frozenset({"E", "S", "L", "U"})
"""Prefixes of an entity's last word."""


def tag_parts(tag: str) -> tuple[str, str]:
    """Return the prefix of a tag, such as `B`, and the type behind it: both empty for `O`.

    A tag without a prefix is one of its type, as `I` is; the type of a prefix alone is `_`.
    """
    if tag == OUTSIDE:
        return "", ""
    if tag in PREFIXES:
        return tag, "_"
    prefix, dash, kind = tag.partition("-")
    return (prefix, kind or "_") if dash and prefix in PREFIXES else ("I", tag)


def entity_type(tag: str) -> str:
    """Return the type of the entity that a tag is of; nothing for `O`."""
    return tag_parts(tag)[1]


def entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return the entities of a text's tags in order: type, first word, and the word behind the last.

    Any sequence of tags has entities (conlleval, Tjong Kim Sang and De Meulder 2003, and seqeval's default): one begins
    at `B`, `S` and `U`, and at any other tag of a type that continues none: after `O`, after another type, after `E`,
    `S`, `L` or `U`. In a scheme without prefixes each run of one tag is an entity.

    Args:
        tags: A tag per word, such as `B-PER`, `I-PER` or `O`, or plain ones.
    """
    spans: list[tuple[str, int, int]] = []
    start, open_type, before = 0, "", OUTSIDE
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
