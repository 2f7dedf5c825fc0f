"""Signature of a graph: inputs and outputs, read from its own file without the onnx package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertport.runtime.bundle.files import open_regular
from bertport.runtime.errors import BundleError
from bertport.runtime.onnx_wire import BYTES, MalformedError, Reader

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Signature", "Tensor", "signature_of"]

# Fields by onnx.proto: the graph of a model, its inputs and outputs, and of these the name, type, shape and sizes.
GRAPH = 7
INPUT, OUTPUT = 11, 12
NAME, TYPE = 1, 2
TENSOR_TYPE = 1
ELEMENT_TYPE, SHAPE = 1, 2
DIMENSION = 1
VALUE, PARAMETER = 1, 2
ELEMENT_TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}
"""Names of element types, as NumPy calls them, by TensorProto.DataType."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input or output of a graph."""

    name: str
    """Its name."""
    dtype: str
    """Element type, as NumPy calls it."""
    axes: tuple[int | str, ...]
    """By axis its size, or the name of one that each call may choose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The inputs and outputs of a graph, in its order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def not_batched(self) -> str | None:
        """Return the name of the first tensor that has no row for each row of the first input; None where all have."""
        batch = self.inputs[0].axes[:1]
        ragged = (each.name for each in (*self.inputs, *self.outputs) if each.axes[:1] != batch)
        return self.inputs[0].name if not batch or isinstance(batch[0], int) else next(ragged, None)


def signature_of(path: Path) -> Signature:
    """Return what a graph takes and gives.

    Raises:
        BundleError: for a file that cannot be read, is no ONNX graph, or whose tensors do not state their types and
            shapes.
    """
    try:
        with open_regular(path) as file:
            size = path.stat().st_size
            return _model(Reader(file, size), size)
    except MalformedError as error:
        raise BundleError(f"{path} is not an ONNX graph that can be served ({error}): export again") from error
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read ({error.strerror or error}): copy the bundle whole, or export again"
        ) from error


def _model(reader: Reader, size: int) -> Signature:
    found: dict[int, list[Tensor]] = {INPUT: [], OUTPUT: []}
    for number, _, start, end in reader.fields(0, size):
        if number == GRAPH:
            for inner, _, begin, stop in reader.fields(start, end):
                if inner in found:
                    found[inner].append(_tensor(reader, begin, stop))
    if not found[INPUT] or not found[OUTPUT]:
        raise MalformedError("it has no inputs or no outputs")
    return Signature(inputs=tuple(found[INPUT]), outputs=tuple(found[OUTPUT]))


def _tensor(reader: Reader, start: int, end: int) -> Tensor:
    name, kind, axes = "", 0, None
    for number, wire, value, stop in reader.fields(start, end):
        if number == NAME and wire == BYTES:
            name = _text(reader, value, stop)
        elif number == TYPE and wire == BYTES:
            for which, inner_wire, begin, close in reader.fields(value, stop):
                if which == TENSOR_TYPE and inner_wire == BYTES:
                    kind, axes = _type(reader, begin, close)
    if not name or kind not in ELEMENT_TYPES or axes is None:
        raise MalformedError(f"its tensor {name!r} has no type and shape that are known")
    return Tensor(name=name, dtype=ELEMENT_TYPES[kind], axes=axes)


def _type(reader: Reader, start: int, end: int) -> tuple[int, tuple[int | str, ...] | None]:
    kind, axes = 0, None
    for number, wire, value, stop in reader.fields(start, end):
        if number == ELEMENT_TYPE:
            kind = value
        elif number == SHAPE and wire == BYTES:
            axes = tuple(
                _dimension(reader, begin, close)
                for which, _, begin, close in reader.fields(value, stop)
                if which == DIMENSION
            )
    return kind, axes


def _dimension(reader: Reader, start: int, end: int) -> int | str:
    for number, wire, value, stop in reader.fields(start, end):
        if number == VALUE:
            return value
        if number == PARAMETER and wire == BYTES:
            return _text(reader, value, stop)
    return ""  # a size that is neither fixed nor named


def _text(reader: Reader, start: int, end: int) -> str:
    try:
        return reader.content(start, end).decode()
    except UnicodeDecodeError as error:
        raise MalformedError("the name of a tensor is not text") from error
