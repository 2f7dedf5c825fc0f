"""ONNX files on disk: saving them, and finding where in them each tensor's bytes lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertport.export.graph.passes.share_weights import Location
from bertport.runtime.onnx_wire import BYTES, Reader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx
    import onnx_ir as ir

__all__ = ["EXTERNAL_ABOVE", "save", "tensor_locations", "to_proto"]

EXTERNAL_ABOVE = 2**31 - 2**20
"""Bytes of weights; a protobuf message must stay under 2 GiB, and the graph itself needs some of them."""

# Field numbers in onnx.proto, which never change.
GRAPH, INITIALIZER, NAME, RAW_DATA = 7, 5, 8, 9


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Return a model as the protobuf message that PyTorch's exporter would write.

    It records shapes of inputs and outputs alone, and gives the standard operator set no name.
    """
    import onnx_ir as ir

    written: onnx.ModelProto = ir.to_proto(model)
    del written.graph.value_info[:]
    for each in written.opset_import:
        if not each.domain:
            each.ClearField("domain")
    return written


def save(model: onnx.ModelProto, path: Path, *, external_above: int = EXTERNAL_ABOVE) -> tuple[str, ...]:
    """Write a model, its weights inside it or, where they are too many, in `<path>_data` beside it.

    Args:
        model: the model, its tensors in memory; their bytes are moved out of it when they go to a file.
        path: the file to write.
        external_above: bytes of weights above which they are written apart.

    Returns:
        The names of the files written beside the graph.
    """
    import onnx

    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if size <= external_above:
        path.write_bytes(model.SerializeToString())
        return ()
    data = path.with_name(path.name + "_data")
    onnx.save_model(model, path, save_as_external_data=True, location=data.name, size_threshold=1024)
    return (data.name,)


def tensor_locations(path: Path) -> dict[str, Location]:
    """Find every initialiser's bytes: in the graph's own file, or in the one it refers to.

    Tensors that are stored as numbers rather than bytes are left out.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    locations = {}
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            entry = {each.key: each.value for each in tensor.external_data}
            locations[tensor.name] = Location(
                file=entry["location"], offset=int(entry.get("offset", 0)), length=int(entry["length"])
            )
    # The onnx package parses a file into objects and does not tell where their bytes came from.
    with path.open("rb", buffering=0) as file:
        reader = Reader(file, path.stat().st_size)
        for graph in _spans(reader, 0, reader.size, GRAPH):
            for tensor_span in _spans(reader, *graph, INITIALIZER):
                name = [reader.content(*span).decode() for span in _spans(reader, *tensor_span, NAME)]
                for start, end in _spans(reader, *tensor_span, RAW_DATA):
                    locations[name[-1]] = Location(file=path.name, offset=start, length=end - start)
    return locations


def _spans(reader: Reader, start: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Yield where the fields of bytes of one number begin and end in a message."""
    for number, wire, value, stop in reader.fields(start, end):
        if number == wanted and wire == BYTES:
            yield value, stop
