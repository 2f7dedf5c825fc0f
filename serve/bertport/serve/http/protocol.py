"""uvicorn's HTTP protocol, with bounds on what a connection can make it hold, and for how long."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bertport.serve.errors import BadRequest, BodyTimeout, Overloaded, TooLarge

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from bertport.serve.errors import Problem

__all__ = ["TRANSPORT", "WRITE_SECONDS", "BoundedProtocol", "bounded"]

TRANSPORT = "bertport.transport"
"""In a request's scope, under `extensions`: the connection's transport, so that an answer can see how much of what was
written still waits to be read, and abort."""

MAX_HEAD_BYTES = 64 * 1024
"""Most bytes of a request line and its headers, and of blank lines before them."""
MAX_HEADERS = 256
"""Each costs some hundred bytes beside its own, and clients send ten."""
MAX_FRAMING_BYTES = 16 * 1024
"""Most bytes of a body that are not its content: extensions of chunks, and trailers."""
CHUNK_FRAMING_BYTES = 32
"""More of them for each chunk: its size in as many as sixteen digits, and two line ends."""
CHUNKED_PART = 512
"""Least bytes of a chunked body to be parsed at once, so that one that is all line ends costs no call for each."""
HEAD_SECONDS = 10.0
"""Time for a request's head to arrive."""
MAX_AHEAD_BYTES = 32 << 20
"""Most bytes sent ahead on all connections together; beyond it, those with more than `AHEAD_BYTES` are closed."""
AHEAD_BYTES = 16 << 10
"""Bytes that each connection may always send ahead."""
WRITE_SECONDS = 60.0
"""Time for a client to read an answer, once all of it is written."""
LINGER_SECONDS = 5.0
"""Time for what still comes of a request that has its answer. Closing at once would reset the connection, and the
client might lose the answer."""
LINGER_BYTES = 16 * 1024 * 1024
"""Most bytes of it that are read and dropped; what is more waits in the kernel until the time is over."""

ABSOLUTE = re.compile(rb"https?://([^/?#@]+)((?:[/?][^#]*)?)(?:#.*)?", re.IGNORECASE)
"""A target as a client of a proxy writes it: the host, which is to rule over the header, and the path."""


class Stage(Enum):
    """Stage of a connection: what comes next of its bytes."""

    BETWEEN = auto()
    """A request, or nothing."""
    HEAD = auto()
    """More of a head."""
    BODY = auto()
    """More of a body."""


class Guarded:
    """A transport that ignores what is done to it once it is closed, and that closes without losing the answer.

    uvloop's raises RuntimeError when it is closed, and there is a moment between a client's leaving and the protocol's
    knowing of it.

    Args:
        transport: the real one.
        unread: whether more of a request is still to come.
        linger: called when only the sending side was closed, because of that.
    """

    __slots__ = ("_linger", "_transport", "_unread", "lingers", "written")

    def __init__(self, transport: asyncio.Transport, unread: Callable[[], bool], linger: Callable[[], None]) -> None:
        self._transport = transport
        self._unread = unread
        self._linger = linger
        self.lingers = False
        self.written = 0
        """Bytes that were handed over so far."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 — whatever the transport has
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Return whether nothing more can be written."""
        return self.lingers or self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Write, while the client still reads."""
        if not self.is_closing():
            self.written += len(data)
            self._transport.write(data)

    def pause_reading(self) -> None:
        """Read no more for now."""
        if not self.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if not self.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Close: the sending side only, while more of a request is still to come."""
        if self.is_closing():
            return
        if not self._unread():
            self._transport.close()
            return
        self._transport.resume_reading()
        self.lingers = True
        self._transport.write_eof()
        self._linger()

    def drop(self) -> None:
        """Close both sides, once what was written has been sent."""
        self._transport.close()

    def hold(self) -> None:
        """Read no more of what is only dropped."""
        if not self._transport.is_closing():
            self._transport.pause_reading()


class Ahead:
    """Bytes that the connections of a server have sent ahead of their next request."""

    def __init__(self) -> None:
        self.held = 0


class BoundedProtocol(HttpToolsProtocol):
    """Bounds a connection: the bytes and the time of heads, framing and answers, and the requests read ahead.

    uvicorn bounds none of these with httptools: headers, trailers and the extensions of chunks may grow for ever, a
    head may take for ever, as may a body whose route does not read it; requests that are sent ahead are all parsed and
    kept, and an answer that is not read stays in memory.

    Here every byte is counted as part of a head, of a body, or of a body's framing. What is sent ahead is parsed up to
    the next request and waits there; the client's sending side then waits too.
    """

    max_connections = 4096
    ahead = Ahead()
    refused: Callable[[Problem, str], None]
    """Told of each connection that is refused where no request is there to tell of it, and of its client's address."""

    transport: Guarded  # type: ignore[assignment]  # what uvicorn uses of one

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 — uvicorn's own
        super().__init__(*args, **kwargs)
        self._stage = Stage.BETWEEN
        self._counted = 0
        self._chunks = 0
        self._left: int | None = 0
        self._dropped = 0
        self._ahead = bytearray()
        self._offered = False
        self._problem: Problem | None = None
        self._last: bytes | None = None
        self._ahead_counted = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Refuse what is too many."""
        super().connection_made(Guarded(transport, self._unread, self._linger))  # type: ignore[arg-type]  # as above
        if len(self.connections) > self.max_connections:
            problem = Overloaded("too many connections: try again later", retry_after=1)
            self._tell(problem)
            self.transport.write(_answer(problem))
            self.transport.close()
            return
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers, and drop what was not parsed."""
        self._cancel_head_timer()
        self._cancel_linger_timer()
        self._ahead.clear()
        self._count_ahead()
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrives, as far as it is to be answered next."""
        self._unset_keepalive_if_required()
        if self.transport.lingers or (self._linger_timer is not None and self._stage is Stage.BODY):
            self._dropped += len(data)
            if self._dropped > LINGER_BYTES:
                self.transport.hold()
                return
        if self.parser is None or self.transport.is_closing():
            return  # what was sent before the client saw that it is refused
        if self._last is not None:
            self.flow.pause_reading()
            return
        self._ahead += data
        self._parse()

    def on_message_begin(self) -> None:
        """Wait for the head."""
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: self.transport}  # type: ignore[dict-item]  # ours, beside ASGI's own
        self._stage = Stage.HEAD
        self._start_head_timer()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers, which nothing here uses, are dropped."""
        if self._stage is not Stage.HEAD:
            return
        if len(self.headers) >= MAX_HEADERS:
            self._fail(_TooManyHeaders(f"the request has more than {MAX_HEADERS} headers: send fewer"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to count the body."""
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._offered = True
            return
        self._cancel_head_timer()
        self._counted = self._chunks = 0
        self._left = 0
        for name, value in self.headers:
            if name == b"content-length":
                self._left = int(value)
            elif name == b"transfer-encoding":
                self._left = None
        if not self.url.startswith(b"/"):
            self._take_target()
        super().on_headers_complete()
        self._stage = Stage.BODY

    def on_chunk_header(self) -> None:
        """Count a chunk."""
        self._chunks += 1

    def on_body(self, body: bytes) -> None:
        """Count what is the body's own."""
        self._counted -= len(body)
        if self._left is not None:
            self._left -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the next request."""
        if self._offered:
            return
        self._stage = Stage.BETWEEN
        self._counted = 0
        self._left = 0
        super().on_message_complete()
        if self._linger_timer is not None:
            self._cancel_linger_timer()
            self._keep_alive()

    def on_response_complete(self) -> None:
        """Allow the client a time to read the answer, and to send what it has still to send."""
        last = self._last is not None and not self.pipeline
        super().on_response_complete()
        if self.cycle.response_complete:
            self.cycle.body = bytearray()  # what was not read of it would wait there as long as the connection
        if self.transport.is_closing():
            return
        if last and self._last is not None:
            self.transport.write(self._last)
            self.transport.close()
        elif self._stage is Stage.BODY and self.cycle.response_complete:
            self._unset_keepalive_if_required()
            self._linger()
        elif self._ahead:
            self.loop.call_soon(self._parse)

    def shutdown(self) -> None:
        """Close an idle connection, also one that lingers."""
        if self.transport.lingers:
            self.transport.drop()
        else:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, but not one whose answer is still being read."""
        if self.transport.get_write_buffer_size():
            self._keep_alive()
            return
        super().timeout_keep_alive_handler()

    def _parse(self) -> None:
        """Feed the parser up to the end of the next request, and keep the rest, as far as all connections may."""
        self._parse_next()
        self._count_ahead()
        if self._ahead_counted > AHEAD_BYTES and self.ahead.held > MAX_AHEAD_BYTES:
            self.transport.abort()

    def _count_ahead(self) -> None:
        self.ahead.held += len(self._ahead) - self._ahead_counted
        self._ahead_counted = len(self._ahead)

    def _parse_next(self) -> None:
        while self._ahead and self._last is None and self.parser is not None and not self.transport.is_closing():
            if self.pipeline:
                self.flow.pause_reading()
                return
            taken = self._feed(bytes(self._ahead[: self._end()]))
            del self._ahead[:taken]  # which copies nothing of the rest, however much there is
        self._ahead.clear()  # of a request that is refused
        idle = self._stage is Stage.BETWEEN and (self.cycle is None or self.cycle.response_complete)
        if idle and self.timeout_keep_alive_task is None:
            self._start_head_timer()  # blank lines alone keep no connection

    def _end(self) -> int:
        """Return where to stop: parts end where a request may end, so that few of them are in one."""
        if self._left:
            return self._left
        end = self._ahead.find(b"\r\n\r\n", 0 if self._left is not None else CHUNKED_PART)
        return end + 4 if end >= 0 else len(self._ahead)

    def _feed(self, part: bytes) -> int:
        """Feed the parser, and return how many bytes it took."""
        taken = len(part)
        self._counted += taken
        try:
            self.parser.feed_data(part)
        except httptools.HttpParserUpgrade as stop:
            taken = stop.args[0]
            self._decline()
        except httptools.HttpParserError as error:
            sentence = f"the request is not HTTP/1.1: {_reason(error)}"
            self._refuse(self._problem or BadRequest(sentence))
            return taken
        if self._stage is Stage.BODY:
            if self._counted > MAX_FRAMING_BYTES + CHUNK_FRAMING_BYTES * self._chunks:
                self._refuse(BadRequest("the body has too many bytes of chunk extensions or trailers: send none"))
        elif self._counted > MAX_HEAD_BYTES:
            self._refuse(_TooManyHeaders(f"the head has more than {MAX_HEAD_BYTES:,} bytes: send fewer headers"))
        return taken

    def _decline(self) -> None:
        """Read a head again without the offer of another protocol in it.

        None is spoken here, and RFC 9110 lets a server ignore the offer; the parser would take the request's body for
        the other protocol's. Java's own client makes this offer with every request.
        """
        self._offered = False
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        self._counted = 0
        self._feed(b"\r\n".join([*lines, b"", b""]))

    def _take_target(self) -> None:
        """Read a target that is no path: the host of an absolute one rules over the header, as RFC 9112 has it."""
        if self.url == b"*":
            return
        absolute = ABSOLUTE.fullmatch(self.url) if self.parser.get_method() != b"CONNECT" else None
        if absolute is None:
            self._fail(BadRequest("the request's target is not a path: send one that begins with /"))
        else:
            host, path = absolute.groups()
            self.headers[:] = [(b"host", host), *(header for header in self.headers if header[0] != b"host")]
            self.url = path if path.startswith(b"/") else b"/" + path

    def _fail(self, problem: Problem) -> None:
        """Stop the parser, and say why."""
        self._problem = problem
        raise problem

    def _refuse(self, problem: Problem) -> None:
        """Answer what cannot be parsed, after the requests before it, and close."""
        self._cancel_head_timer()
        answer = _answer(problem)
        if self._stage is Stage.BODY and self.pipeline:
            self.pipeline.popleft()  # its own turn has not come
            self._tell(problem)
        elif self._stage is Stage.BODY and not self.cycle.response_complete:
            if not self.cycle.response_started:
                self.transport.write(answer)
            self.transport.close()
            self.cycle.disconnected = True  # which its own end tells of
            self.cycle.message_event.set()
            return
        elif self.cycle is None or self.cycle.response_complete:
            if self._stage is not Stage.BODY:  # that one has had its answer
                self.transport.write(answer)
                self._tell(problem)
            self.transport.close()
            return
        else:
            self._tell(problem)
        self._last = answer
        self.flow.pause_reading()

    def _tell(self, problem: Problem) -> None:
        # Browsers keep connections in reserve, which send nothing in time.
        if self._counted or not isinstance(problem, BodyTimeout):
            self.refused(problem, self.client[0] if self.client else "")

    def _unread(self) -> bool:
        return self._stage is not Stage.BETWEEN or bool(self._ahead) or bool(self._counted)

    def _linger(self) -> None:
        """Begin to wait for what still comes of a request that has its answer."""
        if self._linger_timer is None:
            self._dropped = 0
            self._linger_timer = self.loop.call_later(LINGER_SECONDS, self._linger_over, LINGER_SECONDS)

    def _linger_over(self, waited: float) -> None:
        if self.transport.get_write_buffer_size() and waited < WRITE_SECONDS:
            # The client still reads.
            self._linger_timer = self.loop.call_later(LINGER_SECONDS, self._linger_over, waited + LINGER_SECONDS)
            return
        self._linger_timer = None
        self.transport.abort()

    def _head_late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self._refuse(BodyTimeout(f"the headers did not arrive within {HEAD_SECONDS:g} seconds"))

    def _keep_alive(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_late)

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _cancel_linger_timer(self) -> None:
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None


class _TooManyHeaders(TooLarge):
    """A head that is too large."""

    status = 431


def _reason(error: httptools.HttpParserError) -> str:
    """Return what llhttp says; an error in a callback of ours is about the target."""
    if isinstance(error, httptools.HttpParserCallbackError | httptools.HttpParserInvalidURLError):
        return "its target cannot be read"
    return str(error)


def _answer(problem: Problem) -> bytes:
    """Return an answer that closes the connection, as bytes."""
    phrases = {400: b"Bad Request", 408: b"Request Timeout", 429: b"Too Many Requests"}
    phrase = phrases.get(problem.status, b"Request Header Fields Too Large")
    more = b"".join(b"%s: %s\r\n" % (name.encode(), value.encode()) for name, value in problem.headers.items())
    body = orjson.dumps(problem.to_json())
    return (
        b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\n%scontent-length: %d\r\nconnection: close\r\n\r\n%s"
        % (problem.status, phrase, more, len(body), body)
    )


def bounded(max_connections: int, refused: Callable[[Problem, str], None]) -> type[BoundedProtocol]:
    """Return the protocol with a bound on the connections.

    Args:
        max_connections: connections that may be open at once.
        refused: told of each connection that is refused: the problem, and the client.
    """
    own = {"max_connections": max_connections, "ahead": Ahead(), "refused": staticmethod(refused)}
    return type("Protocol", (BoundedProtocol,), own)
