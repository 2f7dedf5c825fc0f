"""The portable form of a serving graph: every position decoded, its weights in the same file, without the onnx package.

A serving graph decodes the positions that it is given, which other programs do not know, and may keep its weights in a
file whose name they do not look for. Its portable form has the tokenizer's inputs alone. It makes the positions itself,
all of them in order, gives what it decodes the shape of a batch, and gives outputs under their further names too. The
operators in between are the same ones, and so are the numbers.
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from bertport.runtime import onnx_wire as pb
from bertport.runtime.bundle.external_data import DATA_LOCATION, EXTERNAL_DATA, NAME, spans
from bertport.runtime.bundle.golden import MATRIX
from bertport.runtime.heads import POSITIONS, decoded_outputs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from bertport.runtime.bundle.external_data import Span
    from bertport.runtime.bundle.golden import Golden, GoldenOutput, GoldenVariant

__all__ = ["LARGEST", "FormError", "portable_golden", "portable_graph"]

LARGEST = 2**31 - 1
"""Bytes of an ONNX file, which is one protobuf message."""
IDS = "input_ids"
"""The input whose shape is that of a batch."""
GRAPH, NODE, INITIALIZER, INPUT, OUTPUT, VALUE_INFO = 7, 1, 5, 11, 12, 13
NODE_INPUT, NODE_OUTPUT, NODE_ATTRIBUTE = 1, 2, 5
RAW_DATA = 9
WHOLE = 2**64
"""What a negative number is written as the rest to."""


class FormError(ValueError):
    """A graph that has no portable form, with the reason."""


class _Value(NamedTuple):
    """Description of an input or an output of a graph."""

    kind: int
    """Element type."""
    dims: tuple[bytes, ...]
    """Dimensions, as messages."""


def portable_graph(path: Path, outputs: Collection[str], aliases: Mapping[str, Collection[str]]) -> bytes:
    """Return the portable form of a graph, an ONNX file.

    Args:
        path: the graph's file, which was checked; files that hold its weights lie beside it or below.
        outputs: names of its outputs.
        aliases: by the name of an output one more name for the whole of it, or one for each column of its last axis.

    Raises:
        FormError: where ONNX cannot write it in one file.
        MalformedError, HostileError: when the file is no ONNX graph of a bundle.
    """
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        external = {span.tensor: span for span in spans(file, size)}
        total = size + sum(span.length for span in external.values())
        if total > LARGEST:
            raise FormError(f"it would have {total / 1e9:.1f} GB, and an ONNX file can have {LARGEST / 1e9:.1f}")
        return _Form(file, size, path.parent, external, outputs, aliases).model()


class _Form:
    def __init__(  # noqa: PLR0913, PLR0917 — what the graph is made of
        self,
        file: BinaryIO,
        size: int,
        directory: Path,
        external: Mapping[str, Span],
        outputs: Collection[str],
        aliases: Mapping[str, Collection[str]],
    ) -> None:
        self._file, self._size, self._directory = file, size, directory
        self._reader = pb.Reader(file, size)
        self._external = external
        self._aliases = aliases
        self._decoded = decoded_outputs(outputs)

    def model(self) -> bytes:
        """Return the whole file."""
        return b"".join(
            pb.field(GRAPH, self._graph(start, end)) if number == GRAPH else self._bytes(at, end)
            for number, at, start, end in self._fields(0, self._size)
        )

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield the fields of a message: number, and where the field, its value and the next field begin."""
        for number, _, value, stop in self._reader.fields(start, end):
            yield number, start, value, stop
            start = stop

    def _bytes(self, start: int, end: int) -> bytes:
        self._file.seek(start)
        parts = []
        while start < end and (part := self._file.read(end - start)):  # an unbuffered file may give less than asked
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    def _graph(self, start: int, end: int) -> bytes:
        fields = list(self._fields(start, end))
        values = dict(
            _read_value(self._bytes(first, last)) for number, _, first, last in fields if number in {INPUT, OUTPUT}
        )
        serving = POSITIONS in values
        decoded = self._decoded if serving else []
        parts = _positions() if serving else []
        for number, at, first, last in fields:
            described = number in {INPUT, OUTPUT, VALUE_INFO}
            name = _name(self._bytes(first, last)) if described else ""
            if number == INITIALIZER:
                parts.append(self._initializer(at, first, last))
            elif number == NODE and decoded:
                parts.append(pb.field(NODE, _renamed(self._bytes(first, last), decoded)))
            elif number == OUTPUT and name in decoded:
                values[name] = values[name]._replace(dims=values[IDS].dims + values[name].dims[1:])
                parts.append(pb.field(OUTPUT, _described(name, values[name])))
            elif not (described and name in {POSITIONS, *decoded}):
                parts.append(self._bytes(at, last))
        parts += [part for output in decoded for part in _shaped(output)]
        parts += [
            part for output, names in self._aliases.items() for part in _named(output, tuple(names), values[output])
        ]
        return b"".join(parts)

    def _initializer(self, at: int, start: int, end: int) -> bytes:
        """Return a tensor's field, with what another file holds of it."""
        kept, name = [], ""
        for number, begin, first, last in self._fields(start, end):
            if number == NAME:
                name = self._bytes(first, last).decode()
            if number in {EXTERNAL_DATA, DATA_LOCATION}:
                continue
            kept.append((begin, last))
        span = self._external.get(name)
        if span is None:
            return self._bytes(at, end)
        with (self._directory / PurePosixPath(span.location)).open("rb") as file:
            file.seek(span.offset)
            data = pb.field(RAW_DATA, file.read(span.length))
        return pb.field(INITIALIZER, b"".join(self._bytes(*place) for place in kept) + data)


def _inner(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield the fields of a short message: number, all its bytes, and the value of one of bytes."""
    at = 0
    for number, wire, value, stop in pb.Reader(io.BytesIO(message), len(message)).fields(0, len(message)):
        yield number, message[at:stop], message[value:stop] if wire == pb.BYTES else b""
        at = stop


def _name(message: bytes) -> str:
    """Return the name of a ValueInfoProto."""
    return next((value.decode() for number, _, value in _inner(message) if number == 1), "")


def _read_value(message: bytes) -> tuple[str, _Value]:
    """Return what a ValueInfoProto names and says; one that is no tensor of a known rank has no dimensions."""
    name, kind = "", 0
    dims: tuple[bytes, ...] = ()
    for number, _, value in _inner(message):
        if number == 1:
            name = value.decode()
        elif number == 2:  # noqa: PLR2004 — onnx.proto's number of the type
            for _, _, tensor in _inner(value):
                for of_tensor, whole, shape in _inner(tensor):
                    if of_tensor == 1:
                        kind = whole[1]
                    else:
                        dims = tuple(dim for _, _, dim in _inner(shape))
    return name, _Value(kind, dims)


def _described(name: str, value: _Value) -> bytes:
    """Encode a ValueInfoProto."""
    sizes = b"".join(pb.field(1, dim) for dim in value.dims)
    return pb.field(1, name) + pb.field(2, pb.field(1, pb.field(1, value.kind) + pb.field(2, sizes)))


def _positions() -> list[bytes]:
    """Return nodes and constants that make the positions, of all tokens in their order."""
    count, first, step = (f"{POSITIONS}.{part}" for part in ("count", "first", "step"))
    return [
        pb.field(NODE, pb.node("Size", [IDS], [count])),
        pb.field(NODE, pb.node("Range", [first, count, step], [POSITIONS])),
        pb.field(INITIALIZER, pb.tensor(first, pb.INT64, [], [0])),
        pb.field(INITIALIZER, pb.tensor(step, pb.INT64, [], [1])),
    ]


def _rows(output: str) -> str:
    """Return the name that a decoded output gets where it is still a matrix of rows."""
    return f"{output}.rows"


def _renamed(node: bytes, decoded: Collection[str]) -> bytes:
    """Return a node that makes, or takes, decoded outputs as matrices of rows."""
    return b"".join(
        pb.field(number, _rows(value.decode()))
        if number in {NODE_INPUT, NODE_OUTPUT} and value.decode() in decoded
        else whole
        for number, whole, value in _inner(node)
    )


def _shaped(output: str) -> list[bytes]:
    """Return nodes and a constant that give a matrix of rows the shape of the batch."""
    shape, batch, last = (f"{output}.{part}" for part in ("shape", "batch", "last"))
    axis = pb.field(NODE_ATTRIBUTE, _integer("axis", 0))
    return [
        pb.field(NODE, pb.node("Shape", [IDS], [batch])),
        pb.field(NODE, pb.node("Concat", [batch, last], [shape]) + axis),
        pb.field(NODE, pb.node("Reshape", [_rows(output), shape], [output])),
        pb.field(INITIALIZER, pb.tensor(last, pb.INT64, [1], (WHOLE - 1).to_bytes(8, "little"))),
    ]


def _named(output: str, names: Collection[str], value: _Value) -> Iterator[bytes]:
    """Yield what gives an output, or each column of its last axis, under another name too."""
    whole = len(names) == 1
    for column, name in enumerate(names):
        if whole:
            yield pb.field(NODE, pb.node("Identity", [output], [name]))
        else:
            index, axis = f"{name}.column", pb.field(NODE_ATTRIBUTE, _integer("axis", -1))
            yield pb.field(NODE, pb.node("Gather", [output, index], [name]) + axis)
            yield pb.field(INITIALIZER, pb.tensor(index, pb.INT64, [], [column]))
        yield pb.field(OUTPUT, _described(name, value if whole else value._replace(dims=value.dims[:-1])))


def _integer(name: str, number: int) -> bytes:
    """Encode an AttributeProto of an integer."""
    return pb.field(1, name) + pb.field(3, number % WHOLE) + pb.field(20, 2)


def portable_golden(golden: Golden, vectors: GoldenVariant) -> GoldenVariant:
    """Return golden vectors of a serving graph for its portable form: the same rows, of every token's.

    Args:
        golden: what they are part of, whose batches state the positions.
        vectors: those of the serving graph.
    """
    decoded = decoded_outputs(vectors.outputs)
    outputs = {
        name: _all_rows(golden, output) if name in decoded and _is_matrix(output) else output
        for name, output in vectors.outputs.items()
    }
    return dataclasses.replace(vectors, outputs=outputs)


def _is_matrix(output: GoldenOutput) -> bool:
    return all(len(shape) == MATRIX for shape in output.shapes)


def _all_rows(golden: Golden, output: GoldenOutput) -> GoldenOutput:
    inputs = [batch.inputs for batch in golden.batches]
    shapes = tuple(
        (len(given.input_ids), len(given.input_ids[0]), shape[-1])
        for given, shape in zip(inputs, output.shapes, strict=True)
    )
    rows = tuple(
        dataclasses.replace(row, row=(inputs[row.batch].masked_positions or ())[row.row]) for row in output.rows
    )
    return dataclasses.replace(output, shapes=shapes, rows=rows)
