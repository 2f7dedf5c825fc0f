"""The reader of tensors on whatever bytes: what it does not take, it refuses with 4xx."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertport.serve.api.tensors import DATATYPES, MAX_RANK, MAX_TENSORS, read_request
from bertport.serve.errors import Problem
from tests.fuzz import budget

pytestmark = pytest.mark.slow

SIZES = st.integers(-1, 4) | st.sampled_from([2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 10**30]) | st.floats()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([2**63, 2**64, -1]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
HEADER = st.none() | st.integers(-2, 400).map(str) | st.text(max_size=6) | st.sampled_from(["9" * 40, "²", "\u0661"])


def read(body, header):
    """Read, and check what was read; any error but a refusal is a finding."""
    try:
        asked = read_request(body, header)
    except Problem as problem:
        if not 400 <= problem.status < 500 or len(problem.message) > 2000:
            raise
        return
    assert 0 < len(asked.inputs) <= MAX_TENSORS
    for array in asked.inputs.values():
        assert array.ndim <= MAX_RANK
        assert array.dtype == object or array.dtype in DATATYPES.values()
        assert array.dtype.kind != "f" or np.isfinite(array).all() or header is not None
        if array.dtype == object:
            assert all(type(text) is str for text in array.ravel())


def test_arbitrary_bytes_are_read_or_refused():
    @given(st.binary(max_size=400), HEADER)
    def read_any(body, header):
        read(body, header)

    budget.run(read_any, among=3)


@st.composite
def requests(draw):
    """A request of tensors, as JSON and bytes, nearly right."""
    inputs, rest = [], b""
    for name in draw(st.lists(st.sampled_from(["input_ids", "text", "x", ""]), max_size=3)):
        entry = {
            "name": name,
            "shape": draw(st.lists(SIZES, max_size=5) | VALUES),
            "datatype": draw(st.sampled_from([*DATATYPES, "BYTES", "INT65"]) | VALUES),
        }
        way = draw(st.integers(0, 3))
        if way == 0:
            entry["data"] = draw(st.lists(VALUES, max_size=6) | st.lists(st.integers(), max_size=16) | VALUES)
        elif way == 1:
            part = draw(st.binary(max_size=40))
            entry["parameters"] = {"binary_data_size": len(part)}
            rest += part
        elif way == 2:
            texts = draw(st.lists(st.text(max_size=6), max_size=4))
            part = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)
            rest += part
            entry |= {"datatype": "BYTES", "shape": [len(texts)], "parameters": {"binary_data_size": len(part)}}
        else:
            entry["parameters"] = draw(VALUES | st.fixed_dictionaries({"binary_data_size": SIZES | VALUES}))
        for key in draw(st.sets(st.sampled_from(sorted(entry)), max_size=1)):
            entry[key] = draw(VALUES)
        inputs.append(entry)
    value = {"inputs": inputs} | draw(
        st.fixed_dictionaries({}, optional={"outputs": VALUES, "parameters": VALUES, "id": VALUES, "inputs": VALUES})
    )
    head = json.dumps(value).encode()
    return head + rest, draw(st.just(str(len(head))) | HEADER)


def test_requests_that_are_nearly_right_are_read_or_refused():
    @given(requests())
    def read_one(request):
        read(*request)

    budget.run(read_one, among=3)


def test_right_requests_are_read_as_they_were_written():
    kinds = st.sampled_from(sorted(set(DATATYPES) - {"BOOL"}))

    @given(kinds, st.lists(st.integers(0, 3), max_size=MAX_RANK), st.binary(min_size=700, max_size=700), st.booleans())
    def reread(datatype, shape, source, binary):
        dtype = DATATYPES[datatype]
        wanted = np.frombuffer(source, dtype=dtype, count=int(np.prod(shape))).reshape(shape)
        entry = {"name": "x", "shape": shape, "datatype": datatype}
        rest = b""
        if binary or not np.isfinite(wanted).all():
            rest = wanted.tobytes()
            entry["parameters"] = {"binary_data_size": len(rest)}
        else:
            entry["data"] = wanted.ravel().tolist()
        head = json.dumps({"inputs": [entry]}).encode()
        array = read_request(head + rest, str(len(head))).inputs["x"]
        np.testing.assert_array_equal(array, wanted)
        assert array.dtype == dtype

    budget.run(reread, among=3)
