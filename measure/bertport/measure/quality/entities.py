"""Entities: what the labels of a text's words say of names and the like in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["entities"]

OUTSIDE = "O"
"""The label of words that are part of nothing."""
BEGINS, GOES_ON = "BSU", "IEL"
"""Prefixes of a first word and of a further one, of the schemes BIO, BIOES and BILOU."""


def entities(labels: Sequence[str]) -> set[tuple[str, int, int]]:
    """Return the entities of a text: label without its prefix, first word, and the word behind the last.

    A word with the same label as the one before it belongs to the same entity, unless its prefix begins another one: in
    a scheme without prefixes each run of one label is an entity. A continuing label where no entity began begins one.

    Args:
        labels: A label per word, such as `B-PER`, `I-PER` or `O`, or plain ones.
    """
    spans: list[tuple[str, int, int]] = []
    before = OUTSIDE
    for place, label in enumerate(labels):
        prefix, name = _parts(label)
        if name != OUTSIDE:
            if name == before and prefix not in BEGINS:
                spans[-1] = (name, spans[-1][1], place + 1)
            else:
                spans.append((name, place, place + 1))
        before = name
    return set(spans)


def _parts(label: str) -> tuple[str, str]:
    """Return the prefix of a label, a letter, and the rest; a label without one goes on."""
    prefix, dash, name = label.partition("-")
    if dash and name and len(prefix) == 1 and prefix in BEGINS + GOES_ON:
        return prefix, name
    return GOES_ON[0], label
