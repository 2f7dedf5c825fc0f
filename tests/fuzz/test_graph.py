"""The reader of graphs on whatever bytes: what it does not refuse, protobuf sees in the same way."""

from __future__ import annotations

import io
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertport.runtime.bundle.external_data import HostileError, spans
from bertport.runtime.onnx_wire import MalformedError
from tests.fuzz import budget

pytestmark = pytest.mark.slow

GRAPHS = ("onnx/model_serving.onnx", "onnx/model.onnx")
PARTS = (b"\x70\x01", b"\x70\x00", b"\x6a\x10", b"\x0a\x08location", b"\x12\x0b/etc/passwd", b"\x80\x00", b"\xff" * 9)
"""Of what is looked for: a data location, an entry, its key, a value, numbers written at length."""


def locations(message):
    """Yield where the tensors of a message lie, as protobuf reads them."""
    from onnx import TensorProto

    if isinstance(message, TensorProto) and message.data_location == TensorProto.EXTERNAL:
        yield {entry.key: entry.value for entry in message.external_data}.get("location", "")
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                yield from locations(part)


def test_changed_graphs_are_seen_as_protobuf_sees_them(tiny_bundle):
    import onnx
    from google.protobuf.message import DecodeError

    contents = [(tiny_bundle / name).read_bytes() for name in GRAPHS]

    @given(st.data())
    def read(data):
        content = data.draw(st.sampled_from(contents))
        for _ in range(data.draw(st.integers(1, 4))):
            at, length = data.draw(st.integers(0, len(content))), data.draw(st.integers(0, 12))
            new = data.draw(st.binary(max_size=4) | st.sampled_from(PARTS))
            content = (
                content[:at]
                + (new if data.draw(st.booleans()) else new[:length].ljust(length))
                + content[at + length :]
            )
        named = None
        with suppress(MalformedError, HostileError):
            named = {span.location for span in spans(io.BytesIO(content), len(content))}
        if named is not None:
            with suppress(DecodeError):
                assert set(locations(onnx.ModelProto.FromString(content))) <= named

    budget.run(read, among=6)
