"""Answers as bytes: small ones written at once, large ones in pieces, counted as they are made and as they are read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from starlette.responses import Response

from bertport.serve.errors import ClientGone, TooLarge
from bertport.serve.http.protocol import TRANSPORT, WRITE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from bertport.serve.http.admission import Reservation

__all__ = ["INLINE_BYTES", "JSON_NUMBER", "Chunked", "answer", "encode", "json_chunks", "read_out"]

JSON_NUMBER = 12
"""Bytes of a float32 in JSON, comma included: about. Random logits take 10.6."""
INLINE_BYTES = 64 << 10
"""Answers up to this size are written in the event loop, in a fraction of a millisecond."""
NUMBERS = 1 << 16
"""Numbers that are written at once: some milliseconds, in which nothing else in the process runs."""
CHUNK = 256 << 10
"""Bytes handed to the transport at once: what it holds beyond its own mark while a client does not read."""
SLOWEST = 64 << 10
"""Bytes a second that a client has to read, after `WRITE_SECONDS`."""


def encode(value: object) -> Response:
    """Return a small value as JSON, arrays included."""
    return Response(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


async def answer(
    request: Request,
    value: object,
    *,
    expected: int,
    parts: Sequence[memoryview] = (),
    json_size: str | None = None,
) -> Response:
    """Return a task's answer as a response, its bytes counted among those that the server holds.

    Args:
        request: what is answered; its hold takes the bytes.
        value: JSON values and arrays.
        expected: bytes that it takes, about.
        parts: bytes that follow the JSON.
        json_size: name of the header that says how long the JSON is, where bytes follow it.

    Raises:
        TooLarge: when it has more bytes than an answer may have.
        Overloaded: when the server holds too many bytes of answers.
    """
    reservation: Reservation = request.state.answer
    most: int = request.state.service.settings.limits.max_answer_bytes
    if expected <= INLINE_BYTES and not parts:
        response = encode(value)
        _check(len(response.body), most)
        reservation.settle(len(response.body))
        return response
    following = sum(map(len, parts))
    chunks: list[bytes | memoryview] = [
        *await request.state.service.pieces.run(_written(value, most, following), expected)
    ]
    headers = {}
    if json_size is not None:
        headers[json_size] = str(sum(map(len, chunks)))
    chunks += parts
    reservation.settle(sum(map(len, chunks)))
    media_type = "application/json" if json_size is None else "application/octet-stream"
    return Chunked(chunks, reservation, headers=headers, media_type=media_type)


def _written(value: object, most: int, following: int = 0) -> Generator[None, None, list[bytes]]:
    """Write JSON, a chunk at a time.

    Args:
        value: what is written.
        most: bytes of an answer.
        following: bytes of it that follow the JSON.

    Raises:
        TooLarge: as soon as there are more than `most` bytes.
    """
    chunks: list[bytes] = []
    buffer = bytearray()
    size = following
    for piece in json_chunks(value):
        size += len(piece)
        _check(size, most)
        buffer += piece
        if len(buffer) >= CHUNK:
            chunks.append(bytes(buffer))
            buffer.clear()
            yield
    chunks.append(bytes(buffer))
    return chunks


def _check(size: int, most: int) -> None:
    if size > most:
        raise TooLarge(f"the answer has more than {most:,} bytes, the most that is sent: ask for less at once")


def json_chunks(value: object) -> Iterator[bytes]:
    """Yield JSON of any value as orjson writes it, none of the parts from more than some `NUMBERS` numbers."""
    match value:
        case np.ndarray() if value.size > NUMBERS:
            rows = max(1, NUMBERS * len(value) // value.size)
            yield b"["
            for start in range(0, len(value), rows):
                yield b"," * bool(start)
                part = np.ascontiguousarray(value[start : start + rows])
                yield orjson.dumps(part, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
            yield b"]"
        case np.ndarray():
            yield orjson.dumps(np.ascontiguousarray(value), option=orjson.OPT_SERIALIZE_NUMPY)
        case list():
            yield b"["
            for number, part in enumerate(value):
                yield b"," * bool(number)
                yield from json_chunks(part)
            yield b"]"
        case dict() if any(isinstance(part, list | dict | np.ndarray) for part in value.values()):
            yield b"{"
            for number, (key, part) in enumerate(value.items()):
                yield b"," * bool(number) + orjson.dumps(key) + b":"
                yield from json_chunks(part)
            yield b"}"
        case _:
            yield orjson.dumps(value)


class Chunked(Response):
    """A response of known size, handed over only as fast as its client reads, and let go of as it is read.

    Args:
        chunks: the body.
        hold: counts its bytes.
        headers: beside its size and type.
        media_type: of the body.
    """

    def __init__(
        self,
        chunks: list[bytes | memoryview],
        reservation: Reservation,
        *,
        headers: Mapping[str, str],
        media_type: str,
    ) -> None:
        self._chunks = chunks
        self._reservation = reservation
        self._size = sum(map(len, chunks))
        super().__init__(headers={**headers, "content-length": str(self._size)}, media_type=media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it.

        Raises:
            ClientGone: when the client reads too slowly; its connection is aborted then.
        """
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        began = asyncio.get_running_loop().time()
        sent = waiting = 0
        try:
            async with asyncio.timeout(WRITE_SECONDS) as limit:
                for part in self._parts():
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                    # A part counts until the next is taken, which waits for the client to have read all but its end.
                    self._reservation.grow(-min(waiting, self._reservation.size))
                    waiting = len(part)
                    sent += waiting
                    limit.reschedule(began + WRITE_SECONDS + sent / SLOWEST)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            if transport := _transport(scope):
                transport.abort()
                while (await receive())["type"] != "http.disconnect":
                    pass  # until uvicorn knows it too
            raise ClientGone("the client did not read the answer in time") from None

    def _parts(self) -> Iterator[memoryview]:
        while self._chunks:
            chunk = memoryview(self._chunks.pop(0))
            for start in range(0, len(chunk), CHUNK):
                yield chunk[start : start + CHUNK]


async def read_out(scope: Scope, reservation: Reservation) -> None:
    """Wait until the client has read all that was written; until then, what it has not read counts."""
    transport = _transport(scope)
    if transport is None or not reservation.size:
        return
    await asyncio.sleep(0)  # the event loop writes at the end of its turn
    end: int = transport.written
    patience = WRITE_SECONDS + reservation.size / SLOWEST
    waited = 0.0
    # Later answers on the same connection may be written meanwhile: what counts is how far the client has read.
    while (left := end - (transport.written - _unread(transport))) > 0:
        if waited > patience:
            transport.abort()
            return
        reservation.settle(min(left, reservation.size))
        await asyncio.sleep(READ_OUT_SECONDS)
        waited += READ_OUT_SECONDS


def _unread(transport: Any) -> int:  # noqa: ANN401 — as below
    try:
        return int(transport.get_write_buffer_size())
    except RuntimeError:  # uvloop's of a connection that is closed
        return 0


READ_OUT_SECONDS = 0.05
"""Between two looks at what a client has read."""


def _transport(scope: Scope) -> Any:  # noqa: ANN401 — asyncio's or uvloop's, or what a test puts there
    return (scope.get("extensions") or {}).get(TRANSPORT)
