"""ONNX files on disk: written without a copy of the weights, and where in them each tensor's bytes lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertport.export.graph.passes.share_weights import SMALLEST_SHARED, Location
from bertport.runtime.onnx_wire import BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx
    import onnx_ir as ir
    from google.protobuf.message import Message  # type: ignore[import-untyped]  # it ships no types

__all__ = ["EXTERNAL_ABOVE", "Written", "save", "to_proto"]

EXTERNAL_ABOVE = 2**31 - 2**20
"""Bytes of weights; a protobuf message must stay under 2 GiB, and the graph itself needs some of them."""

# Field numbers in onnx.proto, which never change.
GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A graph as it was written."""

    graph: onnx.ModelProto
    """The graph, which refers to its weights instead of holding them, from the directory that it was written to."""
    beside: tuple[str, ...]
    """Names of the files written beside it."""
    locations: dict[str, Location]
    """Location of each weight's bytes, by name, without the small tensors, which the graph itself holds."""


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Return a model as the protobuf message that PyTorch's exporter would write.

    It records shapes of inputs and outputs alone, and gives the standard operator set no name.
    """
    import onnx_ir as ir

    written: onnx.ModelProto = ir.to_proto(model)
    del written.graph.value_info[:]
    for opset in written.opset_import:
        if not opset.domain:
            opset.ClearField("domain")
    return written


def save(model: ir.Model, path: Path, *, external_above: int = EXTERNAL_ABOVE) -> Written:
    """Write a model, its weights inside it or, where they are too many, in `<path>_data` beside it.

    They go to the file one by one: a protobuf message that held them all would be written from a second copy.

    Args:
        model: the model.
        path: the file to write; in its own directory are the files of tensors that are external already.
        external_above: bytes of weights above which they are written apart.

    Returns:
        What was written.
    """
    graph, weights = _without_weights(model)
    apart = sum(tensor.nbytes for tensor in weights.values()) > external_above
    if not apart:
        locations = _write_with_weights(graph, weights, path)
        return Written(graph=_referring(graph, locations), beside=(), locations=locations)
    data = path.with_name(f"{path.name}_data")
    locations = {}
    with data.open("wb") as file:
        for name, tensor in weights.items():
            locations[name] = Location(file=data.name, offset=file.tell(), length=tensor.nbytes)
            file.write(tensor.tobytes())
    graph = _referring(graph, locations)
    path.write_bytes(graph.SerializeToString())
    return Written(graph=graph, beside=(data.name,), locations=locations)


def _referring(graph: onnx.ModelProto, locations: Mapping[str, Location]) -> onnx.ModelProto:
    """Return the graph with its weights where they were written; it is changed in place."""
    import onnx

    for tensor in graph.graph.initializer:
        if place := locations.get(tensor.name):
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", place.file), ("offset", place.offset), ("length", place.length)):
                tensor.external_data.add(key=key, value=str(value))
    return graph


def _without_weights(model: ir.Model) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """Return a model as protobuf without the values of its weights, and these by name; the model stays as it is."""
    import onnx_ir as ir

    weights: dict[str, ir.TensorProtocol] = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.nbytes < SMALLEST_SHARED:
            continue
        weights[name] = tensor
        value.const_value = ir.ExternalTensor("", 0, 0, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name)
    written = to_proto(model)
    for name, tensor in weights.items():
        model.graph.initializers[name].const_value = tensor
    for initializer in written.graph.initializer:
        if initializer.name in weights:
            initializer.ClearField("external_data")
            initializer.ClearField("data_location")
    return written, weights


def _write_with_weights(
    model: onnx.ModelProto, weights: Mapping[str, ir.TensorProtocol], path: Path
) -> dict[str, Location]:
    """Write the bytes that protobuf would write of the whole model; return where those of the weights are."""
    graph = model.graph
    heads = {tensor.name: tensor.SerializeToString() for tensor in graph.initializer}
    for name, tensor in weights.items():
        heads[name] += _tag(RAW_DATA) + _varint(tensor.nbytes)
    lengths = {name: len(head) + (weights[name].nbytes if name in weights else 0) for name, head in heads.items()}
    before, after = _around(graph, INITIALIZER)
    size = sum(len(_tag(INITIALIZER) + _varint(length)) + length for length in lengths.values())
    first, last = _around(model, GRAPH)
    locations = {}
    with path.open("wb") as file:
        file.write(first + _tag(GRAPH) + _varint(len(before) + size + len(after)) + before)
        for name, head in heads.items():
            file.write(_tag(INITIALIZER) + _varint(lengths[name]) + head)
            if name in weights:
                locations[name] = Location(file=path.name, offset=file.tell(), length=weights[name].nbytes)
                file.write(weights[name].tobytes())
        file.write(after + last)
    return locations


def _around(message: Message, number: int) -> tuple[bytes, bytes]:
    """Return what protobuf writes of a message before and after the field of a number."""
    from google.protobuf.message import Message

    parts = type(message)(), type(message)()
    for field, value in message.ListFields():
        part = parts[field.number > number]
        if field.number == number:
            continue
        if isinstance(value, Message):
            getattr(part, field.name).CopyFrom(value)
        elif isinstance(value, str | bytes | int | float):
            setattr(part, field.name, value)
        else:
            getattr(part, field.name).extend(value)
    return parts[0].SerializeToString(), parts[1].SerializeToString()


def _tag(number: int) -> bytes:
    """Return how a field of bytes begins."""
    return _varint(number << 3 | BYTES)


def _varint(number: int) -> bytes:
    """Return a number of 0 or more as protobuf writes it: seven bits a byte, the lowest first."""
    written = bytearray()
    while number > 0x7F:  # noqa: PLR2004 — seven bits
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])
