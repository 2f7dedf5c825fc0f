"""Bodies and tensors that are made to cost more than they are worth."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertport.serve.api.tensors import DATATYPES, read_request
from bertport.serve.errors import BadRequest, Problem, TooLarge, UnsupportedEncoding
from bertport.serve.http.body import MAX_CONTAINERS, MAX_DEPTH, parse_json, unpack

HUGE = 9223372036854775808


def tensor(shape, data=None, datatype="INT64", **more):
    entry = {"name": "input_ids", "shape": shape, "datatype": datatype, **more}
    return entry if data is None else entry | {"data": data}


def read(*inputs, rest=b""):
    body = json.dumps({"inputs": list(inputs)}).encode()
    return read_request(body + rest, str(len(body)))


@pytest.mark.parametrize("header", ["-1", "99", "all", "9" * 40])
def test_a_header_that_is_no_size_of_the_json_is_refused_with_what_to_give(header):
    with pytest.raises(BadRequest, match=r"the body has 14 bytes: give the number of bytes of its JSON"):
        read_request(b'{"inputs": []}', header)


@pytest.mark.parametrize(
    "shape",
    [
        [0, HUGE],
        [0, 2**63 - 1],
        [0, 2**31],
        [0, 2**31 - 1, 2**31 - 1],
        [2**31 - 1, 2],
        [0, 2**16, 2**16],
        [-1],
        [-1, -1],
        [1.0],
        [True],
        [None],
        ["1"],
        [[1]],
        [1, 1, 1, 1, 1],
        {"0": 1},
        "1",
        None,
    ],
)
def test_a_shape_that_is_none_is_refused(shape):
    for datatype in ("BYTES", "INT64", "BOOL", "FP16"):
        for entry in (
            tensor(shape, [], datatype),
            tensor(shape, [1], datatype),
            tensor(shape, None, datatype, parameters={"binary_data_size": 0}),
        ):
            with pytest.raises(BadRequest, match="shape"):
                read(entry)


def test_the_shape_of_the_case_is_answered_by_the_server(server):
    for datatype in ("INT64", "BYTES"):
        for shape in ([0, HUGE], [0, 2**31, 2**31, 2**31]):
            name = "text" if datatype == "BYTES" else "input_ids"
            entry = tensor(shape, [], datatype) | {"name": name}
            status, answer = server.post("/v2/models/tiny/infer", {"inputs": [entry]})
            assert (status, answer["error_type"]) == (400, "bad_request")


@pytest.mark.parametrize("size", [-1, 1.0, True, "8", [8], {}, HUGE, 10**18, [[[0] * 100] * 100] * 20])
def test_a_size_that_is_none_is_refused_in_few_words(size):
    with pytest.raises(BadRequest) as caught:
        read(tensor([1], parameters={"binary_data_size": size}), rest=b"\0" * 8)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([1], [1, 2]),
        ([2, 2], [[1, 2], [3]]),
        ([2, 2], [[1, 2, 3], [4]]),
        ([2, 2], [[1, 2], 3, 4]),
        ([2, 2], [[[1], [2]], [[3], [4]]]),
        ([4], [[1, 2], [3, 4]]),
        ([], [[1]]),
        ([1], [[[[[[1]]]]]]),
        ([1], {"0": 1}),
        ([1], "1"),
        ([1], None),
        ([0], [[]]),
        ([1], [None]),
        ([1], ["1"]),
        ([1], [1.5]),
        ([1], [2**63]),
        ([1], [-(2**63) - 1]),
    ],
)
def test_data_that_does_not_fit_is_refused(shape, data):
    with pytest.raises(BadRequest):
        read(tensor(shape, data))


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2, 2], [[1, 2], [3, 4]]),
        ([2, 2], [1, 2, 3, 4]),
        ([2, 0], [[], []]),
        ([2, 0], []),
        ([0], []),
        ([1, 1, 2], [[[1, 2]]]),
    ],
)
def test_data_may_be_flat_or_nested_as_its_shape(shape, data):
    ids = read(tensor(shape, data)).inputs["input_ids"]
    np.testing.assert_array_equal(ids, np.array(data, dtype=np.int64).reshape(shape))


@pytest.mark.parametrize("datatype", ["FP16", "FP32"])
def test_a_number_that_its_datatype_cannot_hold_is_refused_without_a_warning(datatype):
    with pytest.raises(BadRequest, match="does not fit"):
        read(tensor([1], [1e300], datatype))


def test_null_stands_for_what_is_not_given():
    entry = tensor([1], [1], parameters=None)
    body = {"id": None, "parameters": {"task": None, "top_k": 2}, "inputs": [entry], "outputs": None}
    asked = read_request(json.dumps(body).encode(), None)
    assert (asked.id, asked.parameters, asked.outputs) == (None, {"top_k": 2}, None)
    with pytest.raises(BadRequest, match='"inputs" is a list'):
        read_request(b'{"inputs": null}', None)


def test_data_far_longer_than_its_shape_is_not_walked():
    data = [1] * 300_000

    class Counted(list):
        walked = 0

        def __iter__(self):
            Counted.walked += 1
            return super().__iter__()

    from bertport.serve.api import tensors

    assert tensors._flat(Counted(data), (1,)) is None
    assert tensors._flat([Counted(data)], (1, 1)) is None
    assert not Counted.walked


def test_a_name_is_not_repeated_at_any_length():
    with pytest.raises(BadRequest) as caught:
        read(tensor([1], [1]) | {"name": "a" * 100_000})
    assert len(caught.value.message) < 200
    with pytest.raises(BadRequest) as caught:
        read(tensor([1], [1], ["INT64"] * 10_000))
    assert len(caught.value.message) < 300


@given(st.sampled_from([*DATATYPES, "BYTES"]), st.lists(st.integers(-1, 2**64), max_size=5), st.binary(max_size=64))
def test_any_shape_and_bytes_are_read_or_refused(datatype, shape, rest):
    with suppress(BadRequest):
        read(tensor(shape, None, datatype, parameters={"binary_data_size": len(rest)}), rest=rest)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text("[]{}\\\"'a", max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text('[]{}\\"', max_size=5), inner, max_size=4),
    max_leaves=60,
)


def depth(value):
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return max((depth(child) for child in children), default=0) + isinstance(value, dict | list)


@given(JSON, st.integers(0, 30), st.booleans())
def test_depth_is_counted_without_what_is_in_strings(value, more, ascii_only):
    for _ in range(more):
        value = [value]
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    if depth(value) <= MAX_DEPTH:
        assert parse_json(body) == value
    else:
        with pytest.raises(BadRequest, match="nested"):
            parse_json(body)


def test_containers_are_bounded_and_brackets_in_texts_are_none():
    assert len(parse_json(b"[" + b",".join([b"[]"] * (MAX_CONTAINERS - 1)) + b"]")) == MAX_CONTAINERS - 1
    for one in (b"[]", b"{}", b'{"a":1}', b"[1]"):
        with pytest.raises(TooLarge, match="lists and objects"):
            parse_json(b"[" + b",".join([one] * MAX_CONTAINERS) + b"]")
    text = '[{"' * 200_000 + "\\"
    assert parse_json(json.dumps({"inputs": text}).encode()) == {"inputs": text}
    for broken in (b"[" * 100_000, b'"' + b"[" * 100_000, b"]" * 100_000, b'\\"' * 100_000, b"{" * 19_000):
        with pytest.raises(Problem):
            parse_json(broken)


def test_brackets_that_close_nothing_are_not_counted_one_by_one():
    body = b"[" * (MAX_DEPTH + 1) + b"]" * (2 << 20)
    began = time.thread_time()
    for _ in range(20):
        with pytest.raises(BadRequest, match="is not JSON"):
            parse_json(body)
    assert time.thread_time() - began < 1  # 0.1 s each, with every bracket counted


def test_what_follows_a_packed_body_is_refused():
    one = gzip.compress(b"{}")
    assert unpack(one, "gzip", 100) == b"{}"
    for more in (b"\0", one, gzip.compress(b"") * 50_000):
        with pytest.raises(BadRequest, match="after its end"):
            unpack(one + more, "gzip", 100)
    with pytest.raises(BadRequest, match="after its end"):
        unpack(zlib.compress(b"{}") + b"x", "deflate", 100)
    for encoding in ("gzip, gzip", "gzip,", "identity, gzip", "br", "gzip;q=1", "\xe9"):
        with pytest.raises(UnsupportedEncoding):
            unpack(one, encoding, 100)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_lists_without_end_do_not_hold_the_server(server, pack):
    body = pack(b"[" + b",".join([b"[]"] * 690_000) + b"]")
    began = time.monotonic()
    for _ in range(4):
        status, text = server.request("POST", "/", body, **({"content_encoding": "gzip"} if pack is not bytes else {}))
        assert (status, json.loads(text)["error_type"]) == (413, "too_large")
    assert time.monotonic() - began < 20


def test_more_values_than_any_tensor_has_are_refused_before_they_are_parsed():
    with pytest.raises(TooLarge, match="more than 400,000 values"):
        parse_json(b"[" + b"0," * 500_000 + b"0]")
    text = "a, " * 500_000
    assert parse_json(json.dumps([text]).encode()) == [text]
