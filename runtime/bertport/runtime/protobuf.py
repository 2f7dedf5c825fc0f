"""Writing the few ONNX messages that the runtime needs, without the onnx package, which answering does not install.

Field numbers are those of onnx.proto.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FLOAT", "INT64", "field", "graph", "model", "node", "tensor", "value"]

FLOAT = 1
"""TensorProto.DataType of 32-bit floating-point numbers."""
INT64 = 7
"""And of 64-bit integers."""


def field(number: int, content: int | bytes | str) -> bytes:
    """Encode one field: a number as a varint, bytes and text with their length."""
    if isinstance(content, int):
        return _varint(number << 3) + _varint(content)
    raw = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], *, domain: str = "") -> bytes:
    """Encode a NodeProto without attributes."""
    parts = [field(1, each) for each in inputs] + [field(2, each) for each in outputs] + [field(4, operator)]
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
    parts = [field(1, each) for each in nodes]
    parts += [field(2, name)] if name else []
    parts += [field(5, each) for each in initializers]
    parts += [field(11, each) for each in inputs] + [field(12, each) for each in outputs]
    return b"".join(parts)


def model(content: bytes, *, ir_version: int = 8, opset: int = 17) -> bytes:
    """Encode a ModelProto that holds the graph."""
    return field(1, ir_version) + field(7, content) + field(8, field(1, b"") + field(2, opset))


def _varint(number: int) -> bytes:
    groups = [number >> shift & 0x7F for shift in range(0, max(1, number.bit_length()), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])
