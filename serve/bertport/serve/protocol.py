"""uvicorn's HTTP protocol, with bounds on what a client can make it hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

__all__ = ["TRANSPORT", "BoundedProtocol", "bounded"]

TRANSPORT = "bertport.transport"
"""In a request's scope, under `extensions`: the connection's transport, so that an answer can see how much of what was
written still waits to be read, and abort."""

MAX_HEAD_BYTES = 64 * 1024
"""Of a request line and its headers, more or less: what one read brought is taken whole."""
HEAD_SECONDS = 10.0
"""For a request's head to arrive."""
WRITE_SECONDS = 60.0
"""For a client to read an answer, once all of it is written."""


class Guarded:
    """A transport that takes no notice of what is done to it once it is closed, as asyncio's own.

    uvloop's raises RuntimeError, and there is a moment between a client's leaving and the protocol's knowing of it.
    """

    __slots__ = ("_transport",)

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 — whatever the transport has
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write, while there is somebody to read."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def pause_reading(self) -> None:
        """Read no more for now."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if not self._transport.is_closing():
            self._transport.resume_reading()


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections whose head is too large or too slow, and those whose client does not read.

    uvicorn bounds none of these with httptools: headers may grow for ever, a head may take for ever, and an answer
    that nobody reads stays in memory.
    """

    max_connections = 4096

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 — uvicorn's own
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Refuse what is too many."""
        super().connection_made(Guarded(transport))  # type: ignore[arg-type]  # all that uvicorn uses of one
        if len(self.connections) > self.max_connections:
            self._refuse(b"429 Too Many Requests", b"too many connections", b"retry-after: 1\r\n")
            return
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._cancel_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what arrives before a head is complete."""
        if self.parser is None or self.transport.is_closing():
            return  # what was sent before the client saw that it is refused
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self._refuse(b"431 Request Header Fields Too Large", b"the headers are too large")

    def on_message_begin(self) -> None:
        """Begin to count, and to wait, anew."""
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: self.transport}  # type: ignore[dict-item]  # ours, beside ASGI's own
        self._in_head = True
        self._head_bytes = 0
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_late)

    def on_headers_complete(self) -> None:
        """Stop counting."""
        self._in_head = False
        self._cancel_head_timer()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Give the client a time to read the answer."""
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self.loop.call_later(WRITE_SECONDS, self._abort_if_unread)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, but not one whose answer is still being read."""
        if self.transport.get_write_buffer_size():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
            return
        super().timeout_keep_alive_handler()

    def _head_late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self._refuse(b"408 Request Timeout", b"the headers did not arrive in time")

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _abort_if_unread(self) -> None:
        # A connection that is closing waits for its buffer, so closing it is not enough.
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _refuse(self, status: bytes, reason: bytes, more: bytes = b"") -> None:
        body = b'{"error":"%s"}' % reason
        self.transport.write(
            b"HTTP/1.1 %s\r\ncontent-type: application/json\r\n%scontent-length: %d\r\nconnection: close\r\n\r\n%s"
            % (status, more, len(body), body)
        )
        self.transport.close()


def bounded(max_connections: int) -> type[BoundedProtocol]:
    """Give the protocol with a bound on the connections."""
    return type("Protocol", (BoundedProtocol,), {"max_connections": max_connections})
