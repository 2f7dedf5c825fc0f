"""Frozen dataclasses as JSON values and back, and the JSON Schema of what is written.

A class is an object, and a field is a key of it, in the order of the class. JSON has no number that is not finite: it
is written as null, and only a field of type `bertport.measure.statistics.Number` takes null for one when it is read.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import math
import re
import textwrap
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import (
    TYPE_CHECKING,
    Annotated,
    Literal,
    TypeAlias,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from bertport.runtime.excerpts import excerpt
from bertport.runtime.text.encoder import lone_surrogate

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from _typeshed import DataclassInstance

__all__ = [
    "INLINE",
    "JSON",
    "LEFT_OUT",
    "DecodeError",
    "decode",
    "encode",
    "encode_object",
    "inline_keys",
    "json_schema",
    "laid_out",
]

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
"""Type of the values that `json.loads` returns."""
T = TypeVar("T")
INLINE: Mapping[str, object] = {"inline": True}
"""Metadata of a field that is a dataclass whose keys stand among those of the object around it."""
LEFT_OUT: Mapping[str, object] = {"left out": True}
"""Metadata of a field whose key is left out where it is None."""
UNIONS = (Union, types.UnionType)
WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
"""Names of the types in error messages, for people."""
SCHEMA_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}


class DecodeError(ValueError):
    """A JSON value that is not of the type asked for; the message names its place."""


def inline_keys(kinds: Callable[[], Mapping[str, object]]) -> Mapping[str, object]:
    """Return the metadata of a field that is a mapping whose keys stand among those of the object around it.

    Args:
        kinds: Returns the types of the keys that it takes.
    """
    return {**INLINE, "kinds": kinds}


def encode(value: object) -> JSON:
    """Return a value as JSON values.

    Raises:
        TypeError: for a value that JSON cannot hold.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if not dataclasses.is_dataclass(value):
        raise TypeError(f"JSON cannot hold a {type(value).__name__}")
    written: dict[str, JSON] = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if "inline" in field.metadata:
            written |= encode_object(item)
        elif item is not None or "left out" not in field.metadata:
            written[field.name] = encode(item)
    return written


def encode_object(value: object) -> dict[str, JSON]:
    """Return a dataclass or a mapping as a JSON object."""
    return cast("dict[str, JSON]", encode(value))


def decode(kind: type[T], value: JSON, place: str = "$") -> T:
    """Read JSON values as a type; keys that it does not have are passed over.

    Args:
        kind: A dataclass, or a type that one has as a field.
        value: What to read.
        place: What the value is called in an error.

    Raises:
        DecodeError: for a value that is not of the type.
    """
    return cast("T", _decode(kind, value, place))


def _decode(kind: object, value: JSON, place: str) -> object:
    if dataclasses.is_dataclass(kind):
        return _decode_class(cast("type[object]", kind), _object(value, place), place)
    if get_origin(kind) is not None or isinstance(kind, types.UnionType):
        return _decode_generic(get_origin(kind), get_args(kind), value, place)
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, cast("type", accepted)) or (kind is not bool and isinstance(value, bool)):
        raise _error(place, value, WORDS[cast("type", kind)])
    if isinstance(value, str):
        _check_text(value, place)
    elif isinstance(value, int | float) and not _is_finite(value):
        raise DecodeError(f"{place} is {excerpt(value, 60)}, and a number that a float can hold was expected")
    return value


def _decode_generic(origin: object, parts: tuple[object, ...], value: JSON, place: str) -> object:
    if origin is Annotated:
        return math.nan if value is None else _decode(parts[0], value, place)
    if origin in UNIONS:
        return _decode_union(parts, value, place)
    if origin is tuple:
        return _decode_tuple(parts, value, place)
    if origin is Literal:
        if not any(value == part and type(value) is type(part) for part in parts):  # True is no 1
            raise _error(place, value, f"one of {', '.join(map(repr, parts))}")
        return value
    items = _object(value, place)
    for key in items:
        _check_text(key, f"a key of {place}")
    return {key: _decode(parts[1], item, f"{place}.{key}") for key, item in items.items()}


def _decode_class(kind: type[object], value: dict[str, JSON], place: str) -> object:
    values: dict[str, object] = {}
    for field, hint in _fields(cast("Hashable", kind)):
        if "inline" in field.metadata:
            if dataclasses.is_dataclass(hint):
                values[field.name] = _decode_class(cast("type[object]", hint), value, place)
                continue
            values[field.name] = {
                name: _decode(part, value[name], f"{place}.{name}")
                for name, part in _inline_kinds(field).items()
                if name in value
            }
        elif field.name in value or not _has_default(field):
            values[field.name] = _member(value, field.name, hint, place)
    try:
        return kind(**values)
    except ValueError as error:  # a class may check its values
        raise DecodeError(f"{place} is wrong: {error}") from error


def _decode_union(parts: tuple[object, ...], value: JSON, place: str) -> object:
    """Read an optional value, or one of several classes, which are told apart by their keys."""
    if value is None and type(None) in parts:
        return None
    kinds = [part for part in parts if part is not type(None)]
    if len(kinds) > 1:
        kinds = [part for part in kinds if _looks_like(part, value)] or kinds
    return _decode(kinds[0], value, place)


def _looks_like(kind: object, value: JSON) -> bool:
    """Return whether a value can only be meant as a type."""
    if isinstance(value, dict) and dataclasses.is_dataclass(kind):
        return all(field.name in value for field, _ in _fields(cast("Hashable", kind)) if not _has_default(field))
    return isinstance(value, int | float) and kind is float


def _decode_tuple(parts: tuple[object, ...], value: JSON, place: str) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise _error(place, value, "a list")
    kinds = [parts[0]] * len(value) if parts[1:] == (...,) else list(parts)
    if len(kinds) != len(value):
        raise _error(place, value, f"a list of {len(kinds)}")
    return tuple(
        _decode(kind, item, f"{place}[{number}]") for number, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _object(value: JSON, place: str) -> dict[str, JSON]:
    if not isinstance(value, dict):
        raise _error(place, value, "an object")
    return value


def _member(value: dict[str, JSON], name: str, kind: object, place: str) -> object:
    if name not in value:
        raise DecodeError(f"{place} has no {name!r}")
    return _decode(kind, value[name], f"{place}.{name}")


def _error(place: str, value: JSON, expected: str) -> DecodeError:
    match value:
        case None:
            given = "null"
        case list() | dict():
            given = "a list" if isinstance(value, list) else "an object"
        case _:
            given = excerpt(value, 60)
    return DecodeError(f"{place} is {given}, and {expected} was expected")


def _check_text(text: str, place: str) -> None:
    """Refuse text that no file and no terminal can show: JSON's escapes can write half of a surrogate pair."""
    if reason := lone_surrogate(text):
        raise DecodeError(f"{place} is not Unicode text ({reason})")


def _is_finite(value: float) -> bool:
    """Return whether a float can hold a number: JSON's integers have no end, and 1e400 is read as infinity."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _inline_kinds(field: dataclasses.Field[object]) -> Mapping[str, object]:
    """Return the types of the keys that a mapping takes from the object around it."""
    return cast("Callable[[], Mapping[str, object]]", field.metadata["kinds"])()


def _has_default(field: dataclasses.Field[object]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


@cache
def _fields(kind: Hashable) -> tuple[tuple[dataclasses.Field[object], object], ...]:
    """Return the fields of a dataclass with their types."""
    cls = cast("type[DataclassInstance]", kind)
    hints = get_type_hints(cls, include_extras=True)
    return tuple((field, hints[field.name]) for field in dataclasses.fields(cls))


def laid_out(value: JSON) -> str:
    """Return JSON text with each innermost list or object on one line."""
    text = json.dumps(value, ensure_ascii=False, indent=1)
    # A line break in a string is written as an escape, so every one that stands there is layout.
    return re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda innermost: re.sub(r"\n\s*", " ", innermost[0]), text) + "\n"


def json_schema(kind: type[object]) -> dict[str, JSON]:
    """Return the JSON Schema (2020-12) of what `encode` makes of a dataclass; its docstrings are the descriptions."""
    definitions: dict[str, JSON] = {}
    reference = _schema(kind, definitions)
    name = cast("dict[str, str]", reference)["$ref"].rpartition("/")[2]
    root = cast("dict[str, JSON]", definitions.pop(name))
    return {**root, "$defs": dict(sorted(definitions.items()))}


def _schema(kind: object, definitions: dict[str, JSON]) -> dict[str, JSON]:
    if dataclasses.is_dataclass(kind):
        cls = cast("type[object]", kind)
        if cls.__name__ not in definitions:
            definitions[cls.__name__] = None  # its place, in case it is part of itself
            definitions[cls.__name__] = _class_schema(cls, definitions)
        return {"$ref": f"#/$defs/{cls.__name__}"}
    if get_origin(kind) is not None or isinstance(kind, types.UnionType):
        return _generic_schema(get_origin(kind), get_args(kind), definitions)
    return {"type": SCHEMA_TYPES[cast("type", kind)]}


def _generic_schema(origin: object, parts: tuple[object, ...], definitions: dict[str, JSON]) -> dict[str, JSON]:
    if origin is Annotated:
        return {"type": ["number", "null"]}
    if origin in UNIONS:
        kinds = [_schema(part, definitions) for part in parts]
        simple = [schema["type"] for schema in kinds if set(schema) == {"type"}]
        return {"type": simple} if len(simple) == len(kinds) else {"anyOf": cast("list[JSON]", kinds)}
    if origin is tuple and parts[1:] == (...,):
        return {"type": "array", "items": _schema(parts[0], definitions)}
    if origin is tuple:
        items: list[JSON] = [_schema(part, definitions) for part in parts]
        return {"type": "array", "prefixItems": items, "minItems": len(parts), "maxItems": len(parts)}
    if origin is Literal:
        return {"enum": cast("list[JSON]", list(parts))}
    return {"type": "object", "additionalProperties": _schema(parts[1], definitions)}


def _class_schema(kind: type[object], definitions: dict[str, JSON]) -> dict[str, JSON]:
    properties: dict[str, JSON] = {}
    required: list[JSON] = []
    for key in _keys(kind):
        described = {"description": key.meaning} if key.meaning else {}
        properties[key.name] = {**_schema(key.kind, definitions), **described}
        required += [key.name] if key.required else []
    lines = (inspect.getdoc(kind) or "").splitlines()
    return {"type": "object", "description": lines[0], "properties": properties, "required": required}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Key:
    """One key of an object."""

    name: str
    """As JSON has it."""
    kind: object
    """Type of its value."""
    meaning: str = ""
    """Its description."""
    required: bool = False
    """Whether it is always there."""


def _keys(kind: type[object]) -> Iterator[_Key]:
    """Yield the keys of a class, those of fields that stand among them included."""
    meanings = _attribute_docstrings(kind)
    for field, hint in _fields(cast("Hashable", kind)):
        if "inline" not in field.metadata:
            meaning = meanings.get(field.name, "")
            yield _Key(name=field.name, kind=hint, meaning=meaning, required=not _has_default(field))
        elif dataclasses.is_dataclass(hint):
            yield from _keys(cast("type[object]", hint))
        else:
            yield from (_Key(name=name, kind=part) for name, part in _inline_kinds(field).items())


def _attribute_docstrings(kind: type[object]) -> dict[str, str]:
    """Return the docstring below each field in the source of a class."""
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    docstrings: dict[str, str] = {}
    body = cast("ast.ClassDef", tree).body
    for before, after in pairwise(body):
        match before, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                docstrings[name] = " ".join(text.split())
    return docstrings
