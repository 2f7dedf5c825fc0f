"""Tensors of the Open Inference Protocol, as JSON or bytes after it, to numpy and back; nothing is taken on trust."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.runtime.excerpts import excerpt
from bertport.serve.errors import BadRequest
from bertport.serve.http.body import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["DATATYPES", "Asked", "describe", "read_request"]

DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Types of fixed size; BYTES is text."""
BYTES = "BYTES"
MAX_TENSORS = 16
"""Inputs or outputs of a request."""
MAX_PARTS = 4096
"""Most parts of a parameter that is a list."""
IGNORED = frozenset(
    {
        "binary_data_output",
        "sequence_id",
        "sequence_start",
        "sequence_end",
        "priority",
        "timeout",
        "triton_final_response",
    }
)
"""Parameters that are read here, and those of Triton's own, which mean nothing here."""
MAX_RANK = 4
"""Dimensions of a tensor."""
MAX_SIZE = 2**31 - 1
"""Largest dimension, and largest product of those that are not zero: with one of zero the rest may be anything, and
NumPy multiplies them in 64 bits."""
MAX_NAME = 256
"""Characters of a name, which errors and answers repeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request, read."""

    id: str | None
    """The client's, given back."""
    parameters: Mapping[str, Any]
    """Parameters of the request."""
    inputs: Mapping[str, NDArray[Any]]
    """By name; text is an array of objects, each a str."""
    outputs: Mapping[str, bool] | None
    """The outputs asked for, and whether each as bytes; None for the usual ones."""
    binary: bool
    """Whether outputs are bytes where it is not said."""


def read_request(body: bytes, header: str | None) -> Asked:
    """Read a request.

    Args:
        body: JSON, then the tensors that it says are binary, in their order.
        header: `Inference-Header-Content-Length`, the size of the JSON; None for nothing but JSON.

    Raises:
        BadRequest: for anything that does not fit together.
    """
    size = len(body)
    if header is not None:
        size = int(header) if header.isdecimal() and len(header) < len(str(len(body))) + 1 else -1
        if not 0 <= size <= len(body):
            raise BadRequest(
                f"Inference-Header-Content-Length is {header[:20]!r} and the body has {len(body)} bytes: give the "
                "number of bytes of its JSON"
            )
    value = parse_json(body[:size])
    if not isinstance(value, dict):
        raise BadRequest('the request is an object with "inputs"')
    rest = memoryview(body)[size:]
    inputs: dict[str, NDArray[Any]] = {}
    for tensor in _list(value, "inputs"):
        name = _name(tensor)
        if name in inputs:
            raise BadRequest(f"the input {name!r} is given twice")
        shape = _shape(tensor, name)
        length = _parameters(tensor).get("binary_data_size")
        if length is None:
            inputs[name] = _from_json(tensor, name, shape)
            continue
        if not isinstance(length, int) or isinstance(length, bool) or not 0 <= length <= len(rest):
            raise BadRequest(f"the input {name!r} says it has {excerpt(length, 20)} bytes and {len(rest)} are left")
        inputs[name] = _from_bytes(rest[:length], tensor.get("datatype"), name, shape)
        rest = rest[length:]
    if len(rest):
        raise BadRequest(f"{len(rest)} bytes after the JSON belong to no input")
    if not inputs:
        raise BadRequest('the request has no "inputs"')
    given = value.get("id")
    parameters = _parameters(value)
    binary = parameters.get("binary_data_output") is True
    outputs = {
        _name(output): _parameters(output).get("binary_data", binary) is True for output in _list(value, "outputs", [])
    }
    return Asked(
        id=given if isinstance(given, str) else None,
        parameters={
            key: _bounded(key, parameter)
            for key, parameter in parameters.items()
            if key not in IGNORED and parameter is not None
        },
        inputs=inputs,
        outputs=outputs or None,
        binary=binary,
    )


def describe(
    outputs: Mapping[str, NDArray[Any]], binary: Mapping[str, bool]
) -> tuple[list[dict[str, Any]], list[memoryview]]:
    """Return outputs as an answer has them.

    Args:
        outputs: by name; arrays of objects are text.
        binary: whether each output goes as bytes.

    Returns:
        The entry of each output, arrays as they are, and the bytes that follow the JSON, in order and not copied.
    """
    described: list[dict[str, Any]] = []
    parts: list[memoryview] = []
    for name, array in outputs.items():
        text = array.dtype == object
        datatype = BYTES if text else next(key for key, dtype in DATATYPES.items() if dtype == array.dtype)
        entry: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": datatype}
        if binary.get(name, False):
            part = memoryview(_text_bytes(array.ravel().tolist()) if text else _bytes(array))
            entry["parameters"] = {"binary_data_size": len(part)}
            parts.append(part)
        else:
            entry["data"] = array.ravel().tolist() if text else array.ravel()
        described.append(entry)
    return described, parts


def _bytes(array: NDArray[Any]) -> memoryview:
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8).data if flat.size else memoryview(b"")


def _list(value: Mapping[str, Any], key: str, default: list[Any] | None = None) -> Sequence[Mapping[str, Any]]:
    entries = value.get(key)
    if entries is None:  # clients also write null for what is not given
        entries = default
    if (
        not isinstance(entries, list)
        or len(entries) > MAX_TENSORS
        or not all(isinstance(entry, dict) for entry in entries)
    ):
        raise BadRequest(f'"{key}" is a list of at most {MAX_TENSORS} objects')
    return entries


def _name(value: Mapping[str, Any]) -> str:
    name = value.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
        raise BadRequest(f"every input and output has a name, of at most {MAX_NAME} characters")
    return name


def _parameters(value: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = value.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise BadRequest('"parameters" is an object')
    return parameters


def _bounded(name: str, value: object) -> object:
    """Return a parameter that is a scalar, or a short list of them: it is held while a request waits."""
    parts = value if isinstance(value, list) else [value]
    if len(parts) > MAX_PARTS or any(isinstance(part, list | dict) for part in parts):
        raise BadRequest(
            f"the parameter {excerpt(name)} is neither a number, a word nor a list of at most {MAX_PARTS} of them"
        )
    return value


def _shape(value: Mapping[str, Any], name: str) -> tuple[int, ...]:
    shape = value.get("shape")
    good = isinstance(shape, list) and len(shape) <= MAX_RANK
    if not good or not all(type(dimension) is int and 0 <= dimension <= MAX_SIZE for dimension in shape or ()):
        raise BadRequest(f"the shape of {name!r} is a list of at most {MAX_RANK} sizes, each at most {MAX_SIZE:,}")
    sizes = tuple(shape or ())
    if prod(filter(None, sizes)) > MAX_SIZE:
        raise BadRequest(f"the shape of {name!r} is {list(sizes)}, more than {MAX_SIZE:,} values: send less at once")
    return sizes


def _from_json(value: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    datatype = value.get("datatype")
    flat = _flat(value.get("data"), shape)
    if flat is None:
        raise BadRequest(f"the data of {name!r} does not have the shape {list(shape)}")
    kinds = set(map(type, flat))
    if datatype == BYTES:
        if not kinds <= {str}:
            raise BadRequest(f"the data of {name!r} is text, as its datatype BYTES says")
        return _texts(flat, shape)
    dtype = _dtype(datatype, name)
    if not kinds <= ({bool, int} if dtype.kind in "biu" else {bool, int, float}):
        raise BadRequest(f"the data of {name!r} is not of its datatype {datatype}")
    message = f"the data of {name!r} does not fit its datatype {datatype}"
    try:
        with np.errstate(over="ignore"):
            array = np.array(flat, dtype=dtype).reshape(shape)
    except (OverflowError, ValueError) as error:
        raise BadRequest(message) from error
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise BadRequest(message)
    return array


def _flat(data: object, shape: tuple[int, ...]) -> list[Any] | None:
    """Return data in one list, whether it came in one or nested as its shape says; None where it is neither.

    Lengths are compared before anything is walked: what does not fit costs nothing.
    """
    if not isinstance(data, list):
        return None
    if not data or not isinstance(data[0], list):
        return data if len(data) == prod(shape) else None
    level: list[Any] = [data]
    for size in shape:
        if not all(isinstance(part, list) and len(part) == size for part in level):
            return None
        level = [inner for part in level for inner in part]
    return level if shape else None


def _from_bytes(data: memoryview, datatype: object, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    if datatype == BYTES:
        return _texts(_split(data, name, prod(shape)), shape)
    dtype = _dtype(datatype, name)
    if len(data) != dtype.itemsize * prod(shape):
        raise BadRequest(f"{name!r} has {len(data)} bytes, which is not the shape {list(shape)} of {datatype}")
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def _split(data: memoryview, name: str, count: int) -> list[str]:
    """Part texts: before each stands its length, four bytes, the lowest first."""
    texts: list[str] = []
    at = 0
    if 4 * count > len(data):
        raise BadRequest(f"{name!r} does not hold the {count} texts of its shape")
    try:
        while at < len(data):
            (length,) = struct.unpack_from("<I", data, at)
            at += 4 + length
            if at > len(data) or len(texts) >= count:
                break
            texts.append(str(data[at - length : at], "utf-8"))
    except (struct.error, UnicodeDecodeError) as error:
        raise BadRequest(f"{name!r} is not a list of UTF-8 texts, each after its length: {error}") from error
    if at != len(data) or len(texts) != count:
        raise BadRequest(f"{name!r} does not hold the {count} texts of its shape")
    return texts


def _texts(texts: Sequence[str], shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return array.reshape(shape)


def _text_bytes(texts: Sequence[str]) -> bytes:
    return b"".join(struct.pack("<I", len(encoded)) + encoded for encoded in (text.encode() for text in texts))


def _dtype(datatype: object, name: str) -> np.dtype[Any]:
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise BadRequest(
            f"the datatype of {name!r} is {excerpt(datatype, 20)} and can be {', '.join((*DATATYPES, BYTES))}"
        )
    return DATATYPES[datatype]
