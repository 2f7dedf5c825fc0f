"""Fields of a body that is an object: those that are known, each of its type, refused in a sentence otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertport.runtime.excerpts import excerpt
from bertport.serve.errors import BadRequest, Empty, Unprocessable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["fields_of", "flag", "number", "texts_of"]


def fields_of(value: object, known: Collection[str], needed: Collection[str]) -> dict[str, Any]:
    """Return the fields of a body that are not null.

    Args:
        value: the body.
        known: names of all fields that the address takes.
        needed: names of the fields that a body must have.

    Raises:
        BadRequest: for what is no object, and for one without a field that is needed.
        Unprocessable: for a field that the address does not know.
    """
    if not isinstance(value, dict):
        raise BadRequest(f"the body is an object with {_listed(needed)}, not {excerpt(value, 40)}")
    for name in value:
        if name not in known:
            raise Unprocessable(f"the field {excerpt(name, 40)} is not known here: send {_listed(known)}")
    given = {name: field_value for name, field_value in value.items() if field_value is not None}
    for name in needed:
        if name not in given:
            raise BadRequest(f"the body has no field {name!r}: send {_listed(needed)}")
    return given


def texts_of(name: str, value: object, *, one: bool = True) -> list[str]:
    """Return the texts of a field, whose value is a list of texts, or a text alone where `one` allows it.

    Raises:
        Empty: for an empty list.
        Unprocessable: for anything else, token ids too.
    """
    texts = [value] if one and isinstance(value, str) else value
    if not isinstance(texts, list):
        raise Unprocessable(f"{name} is {'a text or ' * one}a list of texts, not {excerpt(value, 40)}")
    if not texts:
        raise Empty(f"{name} is empty: send at least one text")
    for text in texts:
        if isinstance(text, int | list):
            raise Unprocessable(
                f"{name} holds token ids, and those of another tokenizer would be other words: send texts "
                "(LangChain: check_embedding_ctx_length=False), or input_ids to /v2/models/{name}/infer"
            )
        if not isinstance(text, str):
            raise Unprocessable(f"{name} holds {excerpt(text, 40)}, which is not a text: send a list of texts")
    return texts


def flag(given: dict[str, Any], name: str, *, default: bool) -> bool:
    """Return a field that is true or false.

    Raises:
        Unprocessable: for anything else.
    """
    value = given.get(name, default)
    if not isinstance(value, bool):
        raise Unprocessable(f"{name} is true or false, not {excerpt(value, 40)}")
    return value


def number(given: Mapping[str, Any], name: str) -> int | None:
    """Return a field that is a number from 1 up; None where it is not given.

    Raises:
        Unprocessable: for anything else.
    """
    value = given.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise Unprocessable(f"{name} is a number from 1 up, not {excerpt(value, 40)}")
    return value


def _listed(names: Collection[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
