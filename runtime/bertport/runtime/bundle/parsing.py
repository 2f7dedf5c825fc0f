"""Parsing of JSON values into frozen dataclasses, by their annotations; errors name the place of the value."""

from __future__ import annotations

import dataclasses
import types
import typing
from contextlib import suppress
from typing import Any

from bertport.runtime.errors import BundleError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.installation import upgrade_advice

__all__ = ["FURTHER", "MOST_QUOTED", "OMITTED", "json_values", "parse"]

MOST_QUOTED = 200
"""Characters of a name that an error repeats."""
FURTHER = "further"
"""The field of open places: keys that this version does not know, as they were read."""
OMITTED = "omitted"
"""Key of a field's metadata: the field is not written while it is None."""


def parse(kind: Any, value: object, where: str, *, strict: bool = True) -> Any:  # noqa: ANN401, PLR0911 — a type in, a value of it out; one branch per kind
    """Return a JSON value as a value of the annotated type `kind`.

    Args:
        kind: a dataclass, a tuple, a dictionary, an optional type or one of JSON's.
        value: the JSON value.
        where: its place, for errors.
        strict: whether keys that a dataclass has no field for are refused, unless it has the field `further`.

    Raises:
        BundleError: saying what was expected where.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _record(kind, value, where, strict=strict)
    if origin is types.UnionType:
        if value is None and type(None) in arguments:
            return None
        return parse(
            next(argument for argument in arguments if argument is not type(None)), value, where, strict=strict
        )
    if origin is tuple and isinstance(value, list):
        return tuple(parse(arguments[0], item, where, strict=strict) for item in value)
    if origin is dict and isinstance(value, dict):
        return {
            key: parse(arguments[1], item, f"{where}: {key[:MOST_QUOTED]}", strict=strict)
            for key, item in value.items()
        }
    if kind is Any:
        return value
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):  # JSON's integers have no end
            return float(value)
    if origin is None and type(value) is kind:  # True is no int
        return value
    expected = getattr(kind, "__name__", kind)
    raise BundleError(f"{where}: expected {expected}, found {excerpt(value, 80)}: the bundle is damaged; export again")


def _record(kind: Any, value: dict[str, Any], where: str, *, strict: bool) -> Any:  # noqa: ANN401 — as above
    """Return a JSON object as a dataclass."""
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.name != FURTHER}
    given: dict[str, Any] = {}
    for name, field in fields.items():
        if name in value:
            given[name] = parse(hints[name], value[name], f"{where}: {name}", strict=strict)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise BundleError(f"{where} lacks the field {name!r}: the bundle is damaged; export again")
    unknown = {key: content for key, content in value.items() if key not in fields}
    if FURTHER in hints:
        given[FURTHER] = unknown
    elif unknown and strict:
        raise BundleError(
            f"{where} has a field that this version of bertport does not know ({excerpt(next(iter(unknown)), 80)}): "
            f"the bundle is damaged, or of a later version; {upgrade_advice()}, or export again"
        )
    return kind(**given)


def json_values(value: Any) -> Any:  # noqa: ANN401 — dataclasses in, JSON values out
    """Return dataclasses as JSON values: what `parse` reads."""
    if dataclasses.is_dataclass(value):
        known = {
            field.name: json_values(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.name != FURTHER and not (OMITTED in field.metadata and getattr(value, field.name) is None)
        }
        return known | getattr(value, FURTHER, {})
    if isinstance(value, dict):
        return {key: json_values(content) for key, content in value.items()}
    if isinstance(value, tuple | list):
        return [json_values(item) for item in value]
    return value
