"""Strict JSON: what a bundle's files are read as, so that whatever was read can be written again."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from bertport.runtime.errors import BundleError
from bertport.runtime.excerpts import excerpt

__all__ = ["is_deeper", "json_object", "refuse_unwritable", "strict_json"]

DEEPEST = 100
"""Levels of objects and lists; those of today take six."""


def strict_json(content: bytes, name: str) -> object:
    """Return the JSON values in a file's content: no key twice, and every number finite.

    Args:
        content: of the file, of bounded size.
        name: of the file, for errors.

    Raises:
        BundleError: for what is no such JSON.
    """
    try:
        value: object = json.loads(
            content.decode(), object_pairs_hook=json_object, parse_constant=_refuse_constant, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{name} is not JSON ({excerpt(str(error), 200)}): the bundle is damaged; export again"
        ) from error
    return value


def json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object of its members, as `json.loads` asks for it (`object_pairs_hook`).

    Raises:
        ValueError: for two members of one name, of which another reader may take the other.
    """
    value = dict(pairs)
    if len(value) < len(pairs):
        repeated = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {excerpt(repeated, 80)} is there twice")
    return value


def refuse_unwritable(value: object, name: str) -> None:
    """Refuse values that could not be written again: nested too deep, or with text that is not Unicode text.

    Raises:
        BundleError: for them.
    """
    if is_deeper(value, DEEPEST):  # than Python's stack lets it be written again; its open places hold anything
        raise BundleError(f"{name} is nested more than {DEEPEST} levels deep: the bundle is damaged; export again")
    _refuse_surrogates(value, name)


def is_deeper(value: object, most: int) -> bool:
    """Return whether lists and objects are within each other more than `most` levels deep, without recursion."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(most):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    """Return a number; one too large for a float would be an infinity, which JSON cannot hold."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is larger than any float")
    return value


def _refuse_surrogates(value: object, name: str) -> None:
    """Refuse text that has no UTF-8 (half of a pair of escapes), as it could be neither shown nor written again.

    Called when the nesting is known to be bounded.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_surrogates(key, name)
            _refuse_surrogates(inner, name)
    elif isinstance(value, list):
        for inner in value:
            _refuse_surrogates(inner, name)
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise BundleError(
                f"{name} has a text that is not Unicode text ({excerpt(value, 80)}): the bundle is damaged; "
                "export again"
            ) from error
