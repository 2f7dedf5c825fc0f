"""From a body's bytes to JSON values: bounded while it is unpacked, and after it is parsed."""

from __future__ import annotations

import zlib
from typing import Any

import orjson

from bertport.serve.errors import BadRequest, TooLarge, UnsupportedEncoding

__all__ = ["MAX_DEPTH", "parse_json", "too_large", "unpack"]

MAX_DEPTH = 16
"""Levels of nesting in JSON: a batch of tensors has six. (orjson itself stops at 1,024.)"""
MAX_CONTAINERS = 20_000
"""Lists and objects in a body. A million numbers are parsed in 20 ms; 700,000 empty lists, as many bytes, take seven
times as long, and nothing else can run meanwhile. A full batch of pairs has 258 of them."""
MAX_VALUES = 400_000
"""Values in a body: the three tensors of 256 texts of 512 tokens are 393,216, which orjson parses in 8 ms."""
NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

WINDOW_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
"""Window bits by which zlib knows the content encodings that are taken."""


def unpack(body: bytes, encoding: str, limit: int) -> bytes:
    """Decompress, never to more than `limit` bytes and one.

    Raises:
        UnsupportedEncoding, BadRequest, TooLarge: why it cannot be.
    """
    bits = WINDOW_BITS.get(encoding.encode("latin-1", "replace"))
    if bits is None:
        raise UnsupportedEncoding(f"the content encoding {encoding[:40]!r} is not taken: send gzip, deflate or none")
    unpacker = zlib.decompressobj(bits)
    try:
        unpacked = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise BadRequest(f"the body is not {encoding}: {error}") from error
    if len(unpacked) > limit:
        raise too_large(limit)
    if not unpacker.eof:
        raise BadRequest(f"the {encoding} body is cut short: send it whole")
    if unpacker.unused_data:
        raise BadRequest(f"the {encoding} body has {len(unpacker.unused_data):,} bytes after its end: send one stream")
    return unpacked


def parse_json(body: bytes) -> Any:  # noqa: ANN401 — any JSON value
    """Parse JSON of any content type: curl sends `-d` as a form.

    Raises:
        BadRequest: for an empty body, one that is not JSON, or one nested too deeply.
        TooLarge: for one of too many lists and objects.
    """
    if not body:
        raise BadRequest('the body is empty: send {"inputs": …}')
    deep = _depth(body) > MAX_DEPTH
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if deep:
        raise BadRequest(f"the body's JSON is nested more than {MAX_DEPTH} levels deep")
    return value


def _depth(body: bytes) -> int:
    """Return how deeply JSON is nested, and refuse too many values before any is made.

    Brackets inside of strings are no containers. What is not JSON may be counted wrongly, but never a bracket that the
    parser would have come to.
    """
    containers = body.count(b"[") + body.count(b"{")
    if containers <= MAX_DEPTH and body.count(b",") <= MAX_VALUES:
        return containers
    # Escaped characters go first, backslashes before quotes, so that every quote left begins or ends a string.
    outside = b"".join(body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    if outside.count(b",") > MAX_VALUES:
        raise TooLarge(f"the body's JSON has more than {MAX_VALUES:,} values: send less at once, or tensors as bytes")
    brackets = outside.translate(None, NO_BRACKETS)
    if brackets.count(b"[") + brackets.count(b"{") > MAX_CONTAINERS:
        raise TooLarge(f"the body's JSON has more than {MAX_CONTAINERS:,} lists and objects: send less at once")
    depth = deepest = 0
    for bracket in brackets[: 2 * MAX_CONTAINERS]:  # JSON closes no more than it opens
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def too_large(limit: int) -> TooLarge:
    """Return the refusal of a body of more than `limit` bytes."""
    message = f"the body is larger than {limit:,} bytes: send less at once"
    return TooLarge(message, headers={"connection": "close"})
