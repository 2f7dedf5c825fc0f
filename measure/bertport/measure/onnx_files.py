"""ONNX graphs read as protobuf messages, with the weights that lie beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

__all__ = ["read_model"]


def read_model(path: Path) -> onnx.ModelProto:
    """Read a graph with its weights in memory.

    Not by `onnx.load`: it takes a file's name for its format, and refuses weights that are links or have two names, as
    they have in the Hub's cache and in copies that share their files. What a graph of a bundle may open is checked by
    `Bundle.opening`, within which this is called.

    Raises:
        ImportError: without the onnx package.
    """
    import onnx

    model = onnx.load_from_string(path.read_bytes())
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            with (path.parent / entries["location"]).open("rb") as file:
                file.seek(int(entries.get("offset", "0")))
                tensor.raw_data = file.read(int(entries.get("length", "-1")))
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
    return model
