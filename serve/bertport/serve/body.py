"""From a body's bytes to JSON values: bounded while it is unpacked, and after it is parsed."""

from __future__ import annotations

import zlib
from typing import Any

import orjson

from bertport.serve.problems import BadRequest, TooLarge, UnsupportedEncoding

__all__ = ["MAX_DEPTH", "parse_json", "too_large", "unpack"]

MAX_DEPTH = 16
"""Levels of nesting in JSON: a batch of tensors has six. (orjson itself stops at 1,024.)"""

WINDOW_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
"""What zlib calls the encodings that are taken."""


def unpack(body: bytes, encoding: str, limit: int) -> bytes:
    """Decompress, never to more than `limit` bytes and one.

    Raises:
        UnsupportedEncoding, BadRequest, TooLarge: why it cannot be.
    """
    bits = WINDOW_BITS.get(encoding.encode("latin-1", "replace"))
    if bits is None:
        message = f"the content encoding {encoding[:40]!r} is not taken: send gzip, deflate or none"
        raise UnsupportedEncoding(message)
    unpacker = zlib.decompressobj(bits)
    try:
        unpacked = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        message = f"the body is not {encoding}: {error}"
        raise BadRequest(message) from error
    if len(unpacked) > limit:
        raise too_large(limit)
    if not unpacker.eof:
        message = f"the {encoding} body is cut short"
        raise BadRequest(message)
    return unpacked


def parse_json(body: bytes) -> Any:  # noqa: ANN401 — any JSON value
    """Parse JSON of any content type: curl sends `-d` as a form.

    Raises:
        BadRequest: for an empty body, one that is not JSON, or one nested too deeply.
    """
    if not body:
        message = 'the body is empty: send {"inputs": …}'
        raise BadRequest(message)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        message = f"the body is not JSON: {error}"
        raise BadRequest(message) from error
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for each in level for inner in _children(each)]
        if not level:
            return value
    message = f"the body's JSON is nested more than {MAX_DEPTH} levels deep"
    raise BadRequest(message)


def _children(value: object) -> list[object]:
    """Give the containers inside a container."""
    if isinstance(value, dict):
        return [each for each in value.values() if isinstance(each, dict | list)]
    if isinstance(value, list):
        return [each for each in value if isinstance(each, dict | list)]
    return []


def too_large(limit: int) -> TooLarge:
    """Return the refusal of a body of more than `limit` bytes."""
    message = f"the body is larger than {limit:,} bytes: send less at once"
    return TooLarge(message, headers={"connection": "close"})
