"""Writing the few ONNX messages that the runtime needs, and reading the fields of any, without the onnx package.

Answering does not install it. Field numbers are those of onnx.proto.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "BYTES",
    "FLOAT",
    "INT64",
    "VARINT",
    "MalformedError",
    "Reader",
    "field",
    "graph",
    "model",
    "node",
    "tensor",
    "value",
]

FLOAT = 1
"""TensorProto.DataType of 32-bit floating-point numbers."""
INT64 = 7
"""And of 64-bit integers."""

VARINT = 0
FIXED64 = 1
BYTES = 2
FIXED32 = 5
"""Wire types: how a field's value is written."""
LONGEST_VARINT = 10
"""Bytes of 64 bits, seven in each."""
WINDOW = 2**16
"""Bytes read at once: what lies between the weights, which are skipped."""
MOST_FIELDS = 4_000_000
"""A BERT-large has 100,000; reading one takes a microsecond, and a file of nothing else would take hours."""


class MalformedError(ValueError):
    """Bytes that are no protobuf message, or one that no writer of ONNX writes."""


class Reader:
    """The fields of messages in a file, read through a window so that the contents of the long ones are not read.

    It is stricter than protobuf's own parsers where these take what no writer writes, so that what is seen here is what
    they see.

    Args:
        file: unbuffered and seekable.
        size: its bytes.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.size = size
        self._file = file
        self._start, self._window = 0, b""
        self._left = MOST_FIELDS

    def fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield the fields of the message between two positions: number, wire type, value, and where it ends.

        The value of a field of bytes is the position where they begin, that of a fixed one its position as well.

        Raises:
            MalformedError: when they are not a message.
        """
        while start < end:
            self._left -= 1
            if self._left < 0:
                raise MalformedError(f"it has more than {MOST_FIELDS:,} fields")
            at = start
            tag, start = self.varint(start, end)
            number, wire = tag >> 3, tag & 7
            if not 0 < number < 2**29:
                raise MalformedError(f"the field at byte {at:,} has the number {number}")
            if wire == BYTES:
                value, start = self.varint(start, end)
                value, start = start, start + value
            elif wire == VARINT:
                value, start = self.varint(start, end)
            elif wire in {FIXED32, FIXED64}:
                value, start = start, start + (4 if wire == FIXED32 else 8)
            else:
                raise MalformedError(f"the field at byte {at:,} has the wire type {wire}")
            if start > end:
                raise MalformedError(f"the field at byte {at:,} ends beyond what holds it")
            yield number, wire, value, start

    def varint(self, start: int, end: int) -> tuple[int, int]:
        """Return the number written at a position, and the position behind it.

        Raises:
            MalformedError: when there is none of 64 bits.
        """
        window, index = self._at(start, LONGEST_VARINT)
        if start < end and index < len(window) and window[index] < 0x80:  # noqa: PLR2004 — most numbers are one byte
            return window[index], start + 1
        value = 0
        for shift, byte in enumerate(window[index : index + LONGEST_VARINT]):
            value |= (byte & 0x7F) << 7 * shift
            if byte < 0x80:  # noqa: PLR2004 — the continuation bit
                if start + shift >= end or value >> 64:
                    break
                return value, start + shift + 1
        raise MalformedError(f"there is no number at byte {start:,}")

    def content(self, start: int, end: int) -> bytes:
        """Return the bytes between two positions, no further apart than a window is long."""
        window, index = self._at(start, end - start)
        return window[index : index + end - start]

    def _at(self, start: int, count: int) -> tuple[bytes, int]:
        """Return a window with some bytes in it, as far as the file has them, and where in it they begin."""
        index = start - self._start
        if not 0 <= index <= len(self._window) - count and (index < 0 or self._start + len(self._window) < self.size):
            self._file.seek(start)
            self._start, self._window, index = start, self._file.read(WINDOW), 0
        return self._window, index


def field(number: int, content: int | bytes | str) -> bytes:
    """Encode one field: a number as a varint, bytes and text with their length."""
    if isinstance(content, int):
        return _varint(number << 3) + _varint(content)
    raw = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], *, domain: str = "") -> bytes:
    """Encode a NodeProto without attributes."""
    parts = [field(1, name) for name in inputs] + [field(2, name) for name in outputs] + [field(4, operator)]
    return b"".join(parts) + (field(7, domain) if domain else b"")


def tensor(name: str, kind: int, shape: Sequence[int], values: Sequence[float] | bytes) -> bytes:
    """Encode a TensorProto from little-endian bytes, or from numbers."""
    raw = (
        values if isinstance(values, bytes) else struct.pack(f"<{len(values)}{'f' if kind == FLOAT else 'q'}", *values)
    )
    return b"".join(field(1, size) for size in shape) + field(2, kind) + field(8, name) + field(9, raw)


def value(name: str, kind: int, shape: Sequence[int | str]) -> bytes:
    """Encode a ValueInfoProto; a dimension that is not fixed is given by a name."""
    sizes = b"".join(field(1, field(1 if isinstance(size, int) else 2, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, sizes)))


def graph(
    *,
    nodes: Sequence[bytes] = (),
    name: str = "",
    initializers: Sequence[bytes] = (),
    inputs: Sequence[bytes] = (),
    outputs: Sequence[bytes] = (),
) -> bytes:
    """Encode a GraphProto; without a name it can be merged into one that has one."""
    parts = [field(1, encoded) for encoded in nodes]
    parts += [field(2, name)] if name else []
    parts += [field(5, encoded) for encoded in initializers]
    parts += [field(11, encoded) for encoded in inputs] + [field(12, encoded) for encoded in outputs]
    return b"".join(parts)


def model(content: bytes, *, ir_version: int = 8, opset: int = 17) -> bytes:
    """Encode a ModelProto that holds the graph."""
    return field(1, ir_version) + field(7, content) + field(8, field(1, b"") + field(2, opset))


def _varint(number: int) -> bytes:
    groups = [number >> shift & 0x7F for shift in range(0, max(1, number.bit_length()), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])
