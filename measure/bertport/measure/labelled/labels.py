"""Labels of data: which of a head's labels stands behind each value that a file has in their place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from bertport.measure.quality.entities import OUTSIDE, PREFIXES, entity_type, tag_parts
from bertport.runtime.errors import InputTextError, UsageError
from bertport.runtime.excerpts import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "BOOLEANS",
    "DECIMAL",
    "DEFAULT_NAMES",
    "IDS",
    "NAMES",
    "Reading",
    "read_label_values",
    "shown",
]

NAMES, IDS, BOOLEANS, DEFAULT_NAMES = "names", "ids", "truth values", "names of the form LABEL_0"
"""Forms in which a file writes labels."""
DEFAULT_NAME = re.compile(r"LABEL_(\d{1,9})")
"""Pattern of the names that transformers gives to labels without a name."""
DECIMAL = re.compile(r"\d{1,9}")
"""A label's number in a file whose values are text."""
SHOWN = 200
"""Characters of a list of labels in a sentence."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Reading of a file's labels: their form, and the label of each value."""

    form: str
    """Form of the labels in the file: `NAMES`, `IDS`, `BOOLEANS` or `DEFAULT_NAMES`."""
    labels: tuple[str, ...]
    """The label behind each value, in the order of the values."""


def read_label_values(
    values: Sequence[tuple[str | int, str]],
    labels: Sequence[str],
    label_map: Mapping[str, str],
    *,
    tags: bool = False,
) -> Reading:
    """Return which labels stand behind a file's values; how they are written is decided once for all of them.

    Args:
        values: each value that occurs, with the place where it does so first. Names, numbers and truth values.
        labels: the head's, one per column.
        label_map: the bundle's name for what the file calls a label; of tags also for a type of entities.
        tags: whether the labels are tags, of which the head need know the types alone.

    Raises:
        InputTextError: for a value behind which there is no label; the sentence names both sides' labels.
        UsageError: for a map of unknown labels.
    """
    known = set(labels)
    types = {entity_type(label) for label in labels}
    if tags:
        known |= {f"{prefix}-{kind}" for prefix in PREFIXES for kind in types if kind} | {OUTSIDE}
    _check_map(label_map, [value for value, _ in values], known | types if tags else known, labels)
    mapped = [(_mapped(value, label_map, tags=tags), place) for value, place in values]
    words = {word: label for label in reversed(labels) if (word := _boolean(label)) is not None}
    names = [_named(value, known, words) for value, _ in mapped]
    named = tuple(name for name in names if name is not None)
    if len(named) == len(names):
        _refuse_two_readings(mapped, labels)
        return Reading(NAMES, named)
    ordered = len(labels) == 2 and all(labels[word] == label for word, label in words.items())  # noqa: PLR2004 — yes and no
    if ordered and all(_boolean(value) is not None for value, _ in mapped):
        return Reading(BOOLEANS, tuple(labels[bool(_boolean(value))] for value, _ in mapped))
    texts = [(_spellings(value)[0], place) for value, place in mapped]
    for form, number in ((IDS, _id), (DEFAULT_NAMES, _default_name)):
        numbers = [number(value) for value, _ in mapped]
        if all(found is not None for found in numbers):
            for found, (_, place) in zip(numbers, texts, strict=True):
                if found is None or not 0 <= found < len(labels):
                    raise InputTextError(
                        f"{place}: there is no label {excerpt(found)}: the bundle's are "
                        f"{', '.join(f'{index} ({label})' for index, label in enumerate(labels[:8]))}"
                        f"{', …' if len(labels) > 8 else ''}: number them so, or give their names"  # noqa: PLR2004
                    )
            return Reading(form, tuple(labels[found or 0] for found in numbers))
    text, place = next(each for each, name in zip(texts, names, strict=True) if name is None)
    raise InputTextError(
        f"{place}: the label {excerpt(text)} is not one of the bundle's labels ({shown(labels)}), and the data has "
        f"{shown(text for text, _ in texts)}: use the bundle's names or numbers, or map the data's names to them"
    )


def shown(labels: Iterable[str]) -> str:
    """Return labels for a sentence, cut where they are many."""
    text = ", ".join(islice(labels, SHOWN))
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _check_map(
    label_map: Mapping[str, str], values: Sequence[str | int], known: set[str], labels: Sequence[str]
) -> None:
    """Raise UsageError for a map from a label that the data does not have, or to one that the bundle does not have."""
    written = dict.fromkeys(_spellings(value)[0] for value in values)
    there = {spelling for value in values for spelling in _spellings(value)}
    there |= {entity_type(str(value)) for value in values}
    for source, target in label_map.items():
        if source not in there:
            raise UsageError(
                f"the label map names {excerpt(source)}, which the data does not have "
                f"({shown(written)}): map labels of the data to those of the bundle"
            )
        if target not in known:
            raise UsageError(
                f"the label map leads to {excerpt(target)}, which is not one of the bundle's labels "
                f"({shown(labels)}): map labels of the data to those of the bundle"
            )


def _spellings(value: str | int) -> tuple[str, ...]:
    """Return how a map may write a value, its usual form first: a truth value as JSON does, or as Python does."""
    return (str(value).lower(), str(value)) if isinstance(value, bool) else (str(value),)


def _mapped(value: str | int, label_map: Mapping[str, str], *, tags: bool) -> str | int:
    """Return a value with its name in the bundle; of tags the type may be mapped alone."""
    for spelling in _spellings(value):
        if spelling in label_map:
            return label_map[spelling]
    if tags and isinstance(value, str):
        prefix, kind = tag_parts(value)
        if kind in label_map and kind:
            return OUTSIDE if label_map[kind] == OUTSIDE else f"{prefix}-{label_map[kind]}"
    return value


def _named(value: str | int, known: set[str], words: Mapping[bool, str]) -> str | None:
    """Return the label whose name a value is: as it stands, or of a truth value in any case; None where there is none.

    Args:
        value: The value.
        known: The names of labels.
        words: The labels that are named true and false.
    """
    if not isinstance(value, bool) and str(value) in known:
        return str(value)
    truth = _boolean(value)
    return None if truth is None else words.get(truth)


def _refuse_two_readings(values: Sequence[tuple[str | int, str]], labels: Sequence[str]) -> None:
    """Raise InputTextError for numbers that are names of labels, and may as well be the numbers of others.

    Text that is a name is meant as one.
    """
    numbers = [(value, place) for value, place in values if isinstance(value, int) and not isinstance(value, bool)]
    if len(numbers) < len(values) or not all(0 <= number < len(labels) for number, _ in numbers):
        return
    for number, place in numbers:
        if labels[number] != str(number):
            raise InputTextError(
                f"{place}: the label {number} is the name of a label of the bundle and the number of another, "
                f"{excerpt(labels[number])}: write names as text, or map each label of the data to the bundle's"
            )


def _boolean(value: str | int) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else None


def _id(value: str | int) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if DECIMAL.fullmatch(value) else None


def _default_name(value: str | int) -> int | None:
    match = DEFAULT_NAME.fullmatch(value) if isinstance(value, str) else None
    return int(match[1]) if match else None
