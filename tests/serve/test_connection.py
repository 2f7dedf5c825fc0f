"""What one connection may send, hold and take its time for: over real sockets, with real bytes."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.serve.running import PATIENCE, Running, connected, received, undisturbed

MIB = 1 << 20
BOUND = 40
"""Seconds within which every connection has its answer and is closed; the longest bound is ten."""
HOST = b"Host: localhost\r\n"
GET = b"GET /health HTTP/1.1\r\n" + HOST
CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
ASK = b'{"inputs": "a [MASK]"}'


@pytest.fixture(scope="module")
def plain(tiny_bundle):
    """A server that says nothing but JSON lines, and no error."""
    with undisturbed(tiny_bundle, "--variant", "fp32", "--no-warm-up", bad=("error", "warning")) as running:
        yield running


def ask(*more, body=ASK, target=b"/"):
    lines = [b"POST %s HTTP/1.1" % target, b"Host: localhost", b"Content-Length: %d" % len(body), *more, b"", body]
    return b"\r\n".join(lines)


def exchange(server, *parts):
    """Send all of it and give all that comes back until the server closes."""
    with connected(server, BOUND) as connection:
        with suppress(ConnectionResetError, BrokenPipeError):
            for part in parts:
                connection.sendall(part)
        return received(connection)


def statuses(answer):
    """The statuses of answers that follow each other."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", answer)]


def body_of(answer):
    return json.loads(answer.rpartition(b"\r\n\r\n")[2])


def resident(server):
    """Bytes of memory of the server."""
    [line] = [
        line
        for line in Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii").splitlines()
        if line.startswith("VmRSS")
    ]
    return int(line.split()[1]) * 1024


def flood(server, opening, part, size=48 * MIB, seconds=20):
    """Send an opening, and a part again and again until the server will not have it; give what came, and what went."""
    end = time.monotonic() + seconds
    sent, block = 0, part * max(1, 65536 // len(part))
    with connected(server, BOUND) as connection:
        connection.sendall(opening)
        connection.settimeout(1)
        while sent < size and time.monotonic() < end:
            try:
                connection.sendall(block)
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                break
            sent += len(block)
        connection.settimeout(BOUND)
        return received(connection), sent


FLOODS = {
    "trailers": (CHUNKED + b"1\r\n1\r\n0\r\n", b"a:b\r\n"),
    "trailers of a body that is not read": (CHUNKED.replace(b"POST / ", b"POST /nothing ") + b"0\r\n", b"a:b\r\n"),
    "one trailer": (CHUNKED + b"0\r\na: ", b"b"),
    "a trailer's name": (CHUNKED + b"0\r\n", b"a"),
    "chunk extensions": (CHUNKED, b"1;" + b"a=b;" * 2000 + b"\r\n1\r\n"),
    "one chunk extension": (CHUNKED + b"1;a=", b"b"),
    "a quoted chunk extension": (CHUNKED + b'1;a="', b"b;"),
    "a chunk's size": (CHUNKED, b"0"),
    "headers": (GET, b"a:b\r\n"),
    "one header": (GET + b"a: ", b"b"),
    "a header's name": (GET, b"a"),
    "a target": (b"GET /", b"a"),
    "a method": (b"", b"G"),
    "blank lines": (b"", b"\r\n"),
    "blank lines after a request": (GET + b"\r\n", b"\r\n"),
}


def at_once(function, values):
    """Call a function with each value, all at once: each waits for the server's bounds on time."""
    with ThreadPoolExecutor(len(values)) as pool:
        return list(pool.map(function, values))


@pytest.mark.slow
def test_what_is_no_body_is_bounded_and_refused(plain):
    assert plain.get("/health")[0] == 200
    before = resident(plain)
    outcomes = at_once(lambda opening: flood(plain, *opening), list(FLOODS.values()))
    for name, (answer, sent) in zip(FLOODS, outcomes, strict=True):
        # A reset may take the answer with it where the client goes on sending for ever.
        assert not answer or statuses(answer)[-1] in (400, 404, 431), (name, answer[:300])
        assert sent < 40 * MIB, name
    assert resident(plain) < before + 12 * MIB
    assert plain.get("/health")[0] == 200


def test_a_refusal_reaches_a_client_that_still_sends(plain):
    for opening, status in (
        (GET + b"a: " + b"b" * 70_000, 431),
        (GET + b"a: b\r\n" * 300, 431),
        (CHUNKED + b"0\r\n" + b"a: b\r\n" * 20_000, 400),
        (CHUNKED + b"1;" + b"a" * 40_000, 400),
    ):
        answer = exchange(plain, opening + b"x" * 100_000)
        assert statuses(answer) == [status], answer[:200]
        assert b"\r\nconnection: close\r\n" in answer
        assert set(body_of(answer)) == {"error", "error_type"}


def test_a_large_refused_body_is_taken_so_that_the_answer_arrives(plain):
    answer = exchange(plain, ask(body=b" " * (8 * MIB)))
    assert statuses(answer) == [413]


def test_a_connection_that_is_refused_is_counted_and_logged(plain):
    def counted():
        return plain.metric("bertport_failures_total", bundle="", reason="bad_request")

    before = counted()
    for sent in (b"\x16\x03\x01\x02", GET.replace(b"/health", b"a.b:80") + b"\r\n", ask() + b"NONSENSE\r\n\r\n"):
        assert 400 in statuses(exchange(plain, sent))
    assert counted() == before + 3
    sentence = "the request is not HTTP/1.1: its target cannot be read"
    plain.wait_for("refused", client="127.0.0.1", status=400, reason="bad_request", error=sentence)


@pytest.mark.slow
def test_a_body_that_nobody_reads_ends_in_time(plain):
    before = resident(plain)
    began = time.monotonic()
    part = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    methods = (b"GET /health", b"POST /nothing", b"DELETE /", b"GET /metrics")
    openings = [
        method + b" HTTP/1.1\r\n" + HOST + length + b"\r\n\r\n"
        for method in methods
        for length in (b"Content-Length: 100000000000", b"Transfer-Encoding: chunked")
    ]
    for answer, sent in at_once(lambda opening: flood(plain, opening, part, size=1 << 40), openings):
        assert not answer or statuses(answer)[0] in (200, 404, 405)
        assert sent < 64 * MIB
    assert time.monotonic() - began < BOUND
    assert resident(plain) < before + 12 * MIB


@pytest.mark.slow
def test_a_slow_body_that_nobody_reads_ends_in_time(plain):
    with connected(plain, BOUND) as connection:
        connection.sendall(GET + b"Content-Length: 1000\r\n\r\n")
        began = time.monotonic()
        with suppress(ConnectionResetError, BrokenPipeError):
            while time.monotonic() - began < BOUND:
                connection.sendall(b"x")
                time.sleep(0.2)
        assert 3 < time.monotonic() - began < BOUND


def test_a_body_that_nobody_reads_may_come_late_and_the_connection_goes_on(plain):
    with connected(plain, BOUND) as connection:
        connection.sendall(GET + b"Content-Length: 4\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"1234" + GET + b"Connection: close\r\n\r\n")
        assert statuses(received(connection)) == [200]


@pytest.mark.slow
def test_a_slow_head_after_an_answer_ends_in_time(plain):
    def trickle(late):
        with connected(plain, BOUND) as connection:
            connection.sendall(GET + b"\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            connection.sendall(late)
            return received(connection)

    for answer in at_once(trickle, [b"GET /hea", b"\r\n", GET + b"a"]):
        assert statuses(answer) == [408]
        assert body_of(answer)["error_type"] == "body_timeout"


def test_requests_sent_ahead_are_answered_in_their_order(plain):
    asked = b"".join(
        [
            ask(b"X-Request-Id: a1"),
            GET + b"X-Request-Id: a2\r\n\r\n",
            CHUNKED.replace(b"\r\n\r\n", b"\r\nX-Request-Id: a3\r\n\r\n") + b"16\r\n" + ASK + b"\r\n0\r\nt: u\r\n\r\n",
            ask(b"X-Request-Id: a4", target=b"/nothing"),
            GET + b"X-Request-Id: a5\r\nConnection: close\r\n\r\n",
        ]
    )
    for size in (1, 7, len(asked)):
        answer = exchange(plain, *[asked[at : at + size] for at in range(0, len(asked), size)])
        ids = [line.partition(b": ")[2] for line in answer.split(b"\r\n") if line.startswith(b"x-request-id")]
        assert ids == [b"a1", b"a2", b"a3", b"a4", b"a5"]
        assert statuses(answer) == [200, 200, 200, 404, 200]


def test_a_request_before_a_broken_one_has_its_answer(plain):
    answer = exchange(plain, ask() + ask() + b"NONSENSE\r\n\r\n")
    assert sorted(statuses(answer)) == [200, 200, 400]
    assert body_of(answer)["error_type"] == "bad_request"


@pytest.mark.slow
def test_thousands_of_requests_sent_ahead_wait_outside(plain):
    before = resident(plain)
    count, most = 20_000, before
    one = GET.replace(b"/health", b"/nothing") + b"\r\n"
    with connected(plain, BOUND) as connection:
        connection.setblocking(False)  # noqa: FBT003 — socket's own
        left, answers, begun = memoryview(one * count), 0, time.monotonic()
        while answers < count and time.monotonic() - begun < PATIENCE:
            with suppress(BlockingIOError):
                left = left[connection.send(left[:65536]) :] if left else left
            with suppress(BlockingIOError):
                answers += connection.recv(1 << 20).count(b"there is nothing at")
            if answers % 64 == 0:
                most = max(most, resident(plain))
        assert answers >= count - 64  # one that is cut in two by a read is not counted
    assert most < before + 8 * MIB


NO_REQUESTS = [
    (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 22\r\nTransfer-Encoding: chunked\r\n\r\n" + ASK, 400),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 22\r\n\r\n" + ASK, 400),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 22\r\nContent-Length: 22\r\n\r\n" + ASK, 400),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999999999999999\r\n\r\n" + ASK, 400),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n" + ASK, 400),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 18446744073709551615\r\n\r\n" + ASK, 413),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip\r\n\r\n" + ASK, 400),
    (CHUNKED + b"FFFFFFFFFFFFFFFFF\r\n" + ASK, 400),
    (CHUNKED + b"16\n" + ASK, 400),
    (CHUNKED + b"16\r\n" + ASK + b"0\r\n\r\n", 400),
    (GET + b"a: b\r\n c\r\n\r\n", 400),
    (GET + b"a: b\x00c\r\n\r\n", 400),
    (GET + b"a : b\r\n\r\n", 400),
    (b"GET /health HTTP/1.1\nHost: localhost\n\n", 400),
    (b"GET a.b:80 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"CONNECT a.b:443 HTTP/1.1\r\n" + HOST + b"\r\n\x16\x03\x01", 400),
    (b"GET ftp://localhost/health HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET http://user@localhost/health HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET http:// HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"get /health HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /health HTTP/1.9\r\n" + HOST + b"\r\n", 400),
    (b"GET /health\r\n", 408),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"r" * 500, 400),
    (b"\x00" * 100, 400),
    (b"", 408),
]


@pytest.mark.slow
def test_what_is_no_request_is_refused_and_closed(plain):
    answers = at_once(lambda case: exchange(plain, case[0]), NO_REQUESTS)
    for (sent, expected), answer in zip(NO_REQUESTS, answers, strict=True):
        assert statuses(answer) == [expected], (sent, answer)
        assert b"\r\nconnection: close\r\n" in answer.lower()
        assert set(body_of(answer)) == {"error", "error_type"}


REQUESTS = [
    (b"GET http://localhost/health HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n", [200]),
    (b"GET HTTP://localhost HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n", [200]),
    (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n", [404]),
    (b"GET /health HTTP/1.0\r\n\r\n", [200]),
    (b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", [200]),
    (b"GET /health HTTP/2.0\r\n" + HOST + b"Connection: close\r\n\r\n", [200]),
    (b"\r\n\r\n" + GET + b"Connection: close\r\n\r\n", [200]),
    (GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\n\r\n", [200]),
    (GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: a\r\n\r\n", [200]),
    (ask(b"Connection: Upgrade", b"Upgrade: h2c"), [200]),
    (ask(b"Expect: 100-continue", b"Connection: close"), [100, 200]),
    (GET + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n12345", [200]),
    (CHUNKED + b"16;a=b\r\n" + ASK + b"\r\n0\r\nt: u\r\n\r\n", [200]),
    (CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in ASK) + b"0\r\n\r\n", [200]),
    (CHUNKED + b"".join(b"%016x\r\n%c\r\n" % (1, byte) for byte in ASK * 1) + b"0\r\n\r\n", [200]),
]


def test_what_is_a_request_is_answered_and_what_follows_it_too(plain):
    for sent, expected in REQUESTS:
        # Where the connection goes on, a second request on it has its answer.
        more = b"" if b"close" in sent or b"HTTP/1.0" in sent else GET + b"Connection: close\r\n\r\n"
        answer = exchange(plain, sent + more)
        assert statuses(answer) == [*expected, *([200] if more else [])], (sent, answer)


def test_a_long_body_in_small_chunks_is_no_flood(plain):
    text = json.dumps({"inputs": "a [MASK]" + " " * 100_000}).encode()
    parts = [b"%x\r\n%s\r\n" % (len(text[at : at + 3]), text[at : at + 3]) for at in range(0, len(text), 3)]
    answer = exchange(
        plain, CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), *[b"".join(parts), b"0\r\n\r\n"]
    )
    assert statuses(answer) == [200], answer[:300]


def test_a_server_with_lingering_connections_stops_at_once(tiny_bundle):
    with Running(tiny_bundle, "--variant", "fp32", "--no-warm-up") as server, connected(server, BOUND) as connection:
        connection.sendall(GET + b"a: " + b"b" * 70_000)
        assert connection.recv(65536).startswith(b"HTTP/1.1 431")
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < BOUND
