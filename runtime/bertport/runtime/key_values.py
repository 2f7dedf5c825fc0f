"""Options of a command line that are written KEY=VALUE."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bertport.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["json_or_text", "key_values"]


def key_values(pairs: Iterable[str], what: str) -> dict[str, str]:
    """Return options by key, as they are written.

    Args:
        pairs: the options.
        what: what messages call one of them.

    Raises:
        UsageError: for one that is not KEY=VALUE, or a key that is given twice.
    """
    options: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"a {what} is written KEY=VALUE, not {pair!r}")
        if key in options:
            raise UsageError(f"the {what} {key!r} is given twice ({options[key]!r} and {value!r}): keep one")
        options[key] = value
    return options


def json_or_text(text: str) -> object:
    """Return the value that a text is as JSON, or the text where it is none."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value
