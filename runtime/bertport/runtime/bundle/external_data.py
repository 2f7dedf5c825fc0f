"""External data of an ONNX graph: the files that it opens, read from its own file without the onnx package.

ONNX Runtime opens whatever a graph names: weights in other files by `external_data`, anywhere in the graph, and what
some operators take by a path. A bundle's manifest says what there should be; only this says what there is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from bertport.runtime.onnx_wire import BYTES, VARINT, MalformedError, Reader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

__all__ = ["DATA_LOCATION", "EXTERNAL_DATA", "NAME", "HostileError", "Span", "spans"]

# Messages within messages that can lead to a tensor or an operator, by onnx.proto's names and numbers.
NESTED: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
}
NAMES: dict[str, tuple[int, int]] = {"NodeProto": (7, 4), "FunctionProto": (10, 1)}
"""The fields with the domain and the name of an operator."""
ONCE: dict[str, frozenset[int]] = {
    "ModelProto": frozenset({7}),
    "TrainingInfoProto": frozenset({1, 2}),
    "FunctionProto": frozenset({1, 10}),
    "NodeProto": frozenset({4, 7}),
    "AttributeProto": frozenset({5, 6, 22}),
    "SparseTensorProto": frozenset({1, 2}),
}
"""Fields that are not repeated. Written twice, messages are merged: each half may be harmless, and the whole not."""
DIMS, DATA_TYPE, NAME, EXTERNAL_DATA, DATA_LOCATION = 1, 2, 8, 13, 14
KEY, VALUE = 1, 2
DEFAULT, EXTERNAL = 0, 1

DEEPEST = 100
"""Messages within messages, as in protobuf's own parsers."""
LONGEST_NAME = 512
"""Bytes of a name that is looked at: as long as a path in a bundle may be, and longer than any operator's."""
BITS = {
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((7, 11, 13, 14), 64),
    15: 128,
    **dict.fromkeys((21, 22, 23), 4),
    **dict.fromkeys((25, 26), 2),
}
"""Bits of an element by TensorProto.DataType: every one but strings, which cannot lie in another file."""
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Domains whose operators ONNX Runtime brings itself; any other is code of a third party."""
FOREIGN = frozenset({"EPContext", "Snpe", "PythonOp", "PythonOpGrad"})
"""Operators that ONNX Runtime hands to other software as they are: compiled code, or the path of a file with it."""
POSITIONS, TABLE_AXES = "embeddings.position_embeddings.weight", 2
"""Part of the name of a table of positions, as in checkpoints, and the number of its axes."""
SPECIAL = re.compile(r"[\x00-\x1f\x7f\\:*?\"<>|]")
"""Characters that no file of a bundle has in its name: Windows allows none, and `*` begins the names under which ONNX
Runtime takes an offset for an address in memory."""


class HostileError(ValueError):
    """A graph that asks for what no exporter writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Bytes of another file that hold a tensor."""

    tensor: str
    """Name of the tensor."""
    location: str
    """Path of the file, from the graph's directory."""
    offset: int
    """Position of the first byte."""
    length: int
    """Number of bytes."""


def spans(file: BinaryIO, size: int, positions: dict[str, int] | None = None) -> Iterator[Span]:
    """Yield the tensors of a graph that lie in other files, each seen to be a plain path below the graph's directory.

    Args:
        file: the graph's, unbuffered.
        size: its bytes.
        positions: takes the rows of each table of positions, by its tensor's name.

    Raises:
        MalformedError: when the file is no ONNX graph.
        HostileError: for a path that leads elsewhere, or an operator that opens files by itself.
    """
    yield from _Walk(Reader(file, size), {} if positions is None else positions).model()


class _Walk:
    def __init__(self, reader: Reader, positions: dict[str, int]) -> None:
        self._reader = reader
        self._positions = positions
        self._used: dict[str, str] = {}
        self._defined: set[str] = set()

    def model(self) -> Iterator[Span]:
        yield from self._message("ModelProto", 0, self._reader.size, 1)
        for domain, operator in self._used.items():
            if domain not in self._defined:
                raise HostileError(f"uses the operator {operator!r} of {domain!r}, which is not part of ONNX Runtime")

    def _message(self, kind: str, start: int, end: int, depth: int) -> Iterator[Span]:
        if depth > DEEPEST:
            raise MalformedError(f"its messages are nested more than {DEEPEST} deep")
        nested, once, names = NESTED[kind], ONCE.get(kind, frozenset()), NAMES.get(kind, ())
        seen: dict[int, str] = {}
        for number, wire, value, stop in self._reader.fields(start, end):
            inner = nested.get(number)
            if inner is None and number not in names:
                continue
            self._bytes_only(kind, number, wire, value)
            if number in once:
                self._first(kind, number, seen, value)
            if inner == "TensorProto":
                yield from self._tensor(value, stop)
            elif inner is not None:
                yield from self._message(inner, value, stop, depth + 1)
            else:
                seen[number] = self._text(value, stop)
        if names:
            self._operator(kind, *(seen.get(number, "") for number in names))

    def _operator(self, kind: str, domain: str, name: str) -> None:
        if name in FOREIGN:
            raise HostileError(f"has the operator {name}, which opens files or runs code that no hash covers")
        if kind == "FunctionProto":
            self._defined.add(domain)
        elif domain not in DOMAINS:
            self._used.setdefault(domain, name)

    def _tensor(self, start: int, end: int) -> Iterator[Span]:
        sizes: list[int] = []
        entries: dict[str, str] = {}
        values: dict[int, int] = {}
        name = (0, 0)
        for number, wire, value, stop in self._reader.fields(start, end):
            if number == DIMS:
                sizes += [value] if wire == VARINT else self._packed(wire, value, stop)
            elif number in {DATA_TYPE, DATA_LOCATION}:
                if wire != VARINT or number in values:
                    self._wrong("TensorProto", number, start)
                values[number] = value
            elif number == NAME and wire == BYTES:
                name = (value, stop)
            elif number == EXTERNAL_DATA:
                self._bytes_only("TensorProto", number, wire, value)
                key, text = self._entry(value, stop)
                if key in entries:
                    raise MalformedError(f"it gives a tensor the key {key!r} twice")
                entries[key] = text
        self._count_positions(name, sizes)
        location = values.get(DATA_LOCATION, DEFAULT)
        if location not in {DEFAULT, EXTERNAL}:
            self._wrong("TensorProto", DATA_LOCATION, start)
        if location == EXTERNAL or entries:  # those that are not used today are what another reader may use
            yield _span(self._text(*name), entries, values.get(DATA_TYPE, 0), sizes)

    def _count_positions(self, name: tuple[int, int], sizes: list[int]) -> None:
        if len(sizes) == TABLE_AXES and POSITIONS in (text := self._text(*name)):
            self._positions[text] = sizes[0]

    def _packed(self, wire: int, start: int, end: int) -> list[int]:
        self._bytes_only("TensorProto", DIMS, wire, start)
        values = []
        while start < end:
            value, start = self._reader.varint(start, end)
            values.append(value)
        return values

    def _entry(self, start: int, end: int) -> tuple[str, str]:
        """Return key and value of a StringStringEntryProto."""
        seen: dict[int, str] = {}
        for number, wire, value, stop in self._reader.fields(start, end):
            if number in {KEY, VALUE}:
                self._bytes_only("StringStringEntryProto", number, wire, value)
                self._first("StringStringEntryProto", number, seen, value)
                if stop - value > LONGEST_NAME:
                    raise HostileError(f"gives a tensor a location of {stop - value:,} characters")
                seen[number] = self._text(value, stop)
        return seen.get(KEY, ""), seen.get(VALUE, "")

    def _text(self, start: int, end: int) -> str:
        """Return a name; bytes that are no UTF-8 become characters that no name has."""
        return self._reader.content(start, min(end, start + LONGEST_NAME)).decode(errors="surrogateescape")

    def _first(self, kind: str, number: int, seen: dict[int, str], at: int) -> None:
        if number in seen:
            self._wrong(kind, number, at)
        seen[number] = ""

    def _bytes_only(self, kind: str, number: int, wire: int, at: int) -> None:
        if wire != BYTES:
            self._wrong(kind, number, at)

    @staticmethod
    def _wrong(kind: str, number: int, at: int) -> None:
        raise MalformedError(f"the field {number} of the {kind} at byte {at:,} is not what ONNX writes there")


def _span(tensor: str, entries: dict[str, str], kind: int, sizes: list[int]) -> Span:
    """Return the place of a tensor's data in another file."""
    named = ascii(tensor[:100])
    for key in entries.keys() - {"location", "offset", "length", "checksum"}:
        raise HostileError(f"gives the tensor {named} the unknown key {key[:100]!a}")
    _refuse_elsewhere(named, entries.get("location", ""))
    length = _bytes_of(named, kind, sizes)
    numbers = {}
    for key, default in (("offset", "0"), ("length", str(length))):
        text = entries.get(key, default)
        if re.fullmatch(r"[0-9]{1,18}", text) is None:
            raise HostileError(f"gives the tensor {named} the {key} {text[:100]!a}, which is not a number of bytes")
        numbers[key] = int(text)
    if numbers["length"] != length:
        raise HostileError(f"gives the tensor {named} {numbers['length']:,} bytes, and its shape needs {length:,}")
    return Span(tensor=tensor, location=entries["location"], offset=numbers["offset"], length=length)


def _refuse_elsewhere(named: str, location: str) -> None:
    """Refuse what is not the plain path of a file at or below the graph's directory."""
    shown, path = ascii(location[:100]), PurePosixPath(location)
    if not location:
        message = f"keeps the tensor {named} in another file and names none"
    elif path.is_absolute() or re.match(r"[A-Za-z]:|\\", location):
        message = f"keeps the tensor {named} in {shown}, an absolute path"
    elif ".." in re.split(r"[/\\]", location):
        message = f"keeps the tensor {named} in {shown}, which leaves its directory"
    elif SPECIAL.search(location) or not location.isprintable() or str(path) != location or location == ".":
        message = f"keeps the tensor {named} in {shown}, which is not a plain file path"
    else:
        return
    raise HostileError(message)


def _bytes_of(named: str, kind: int, sizes: list[int]) -> int:
    bits = BITS.get(kind)
    if bits is None:
        raise HostileError(f"keeps the tensor {named} of the type {kind} in another file, where that type cannot be")
    elements = 1
    for size in sizes:
        elements *= size
        if elements >> 60:  # a negative size is written as one of 2**63 and more
            raise HostileError(f"gives the tensor {named} a shape of more elements than a file can hold")
    return (elements * bits + 7) // 8
