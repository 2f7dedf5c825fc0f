"""A request's body: bounded before and while it is read, and parsed beside the event loop where it is large."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertport.serve.engine.pieces import whole
from bertport.serve.errors import ClientGone
from bertport.serve.http.body import parse_json, too_large, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

__all__ = ["INLINE_BYTES", "parsed", "read_body", "read_json"]

INLINE_BYTES = 32 << 10
"""Bodies up to this size are parsed in the event loop, in a fraction of a millisecond."""


async def read_json(request: Request) -> Any:  # noqa: ANN401 — any JSON value
    """Return the JSON of a request's body.

    Raises:
        Problem: why there is none.
    """
    return await parsed(request, parse_json, await read_body(request))


async def parsed(request: Request, parse: Callable[..., Any], body: bytes, *more: object) -> Any:  # noqa: ANN401 — what `parse` returns
    """Return what a function makes of a body, called beside the event loop where the body is large."""
    if len(body) <= INLINE_BYTES:
        return parse(body, *more)
    request.state.context.phase = "prepare"  # it has arrived, and may wait for others to be parsed
    return await request.state.service.pieces.run(whole(parse, body, *more), len(body))


async def read_body(request: Request) -> bytes:
    """Return a body within the limits, packed and unpacked, whatever its headers claim; the request holds its bytes.

    Raises:
        TooLarge, BadRequest, UnsupportedEncoding, Overloaded, ClientGone: why there is none.
    """
    service, reservation = request.state.service, request.state.body
    limit: int = service.settings.limits.max_payload_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limit:
        raise too_large(limit)
    body = bytearray()  # a list of its parts would cost forty times as much when each is a byte
    with service.admission.body():
        while True:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone("the client closed its connection while it sent the request")
            part = message.get("body", b"")
            if len(body) + len(part) > limit:
                raise too_large(limit)
            reservation.grow(len(part))
            body += part
            if not message.get("more_body", False):
                break
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return bytes(body)
    request.state.context.phase = "prepare"
    unpacked: bytes = await service.pieces.run(whole(unpack, bytes(body), encoding, limit), len(body))
    reservation.grow(len(unpacked))
    return unpacked
