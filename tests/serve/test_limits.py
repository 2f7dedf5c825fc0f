"""What a client cannot do to the server: over a real socket, with real bytes."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
import struct
import time
import tracemalloc
import zlib
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from bertport.serve.app import Front, make_app
from bertport.serve.errors import Overloaded, TooLarge
from bertport.serve.http.admission import Admission
from bertport.serve.http.body import unpack
from bertport.serve.settings import Settings
from bertport.serve.state import Service
from tests.serve.running import Running, connected, received, undisturbed

LIMITS = {
    "--max-concurrent-requests": 2,
    "--max-queue-items": 8,
    "--max-items": 8,
    "--max-payload-bytes": 20_000,
    "--max-candidates": 100,
    "--max-answer-bytes": 40_000,
    "--request-timeout": 20,
}
ASK = {"inputs": "a [MASK]"}


@pytest.fixture(scope="module")
def small(tiny_bundle):
    """A server with low limits."""
    options = [str(part) for pair in LIMITS.items() for part in pair]
    with undisturbed(tiny_bundle, "--variant", "fp32", "--no-warm-up", *options) as running:
        yield running


def head(length, *more):
    lines = ["POST / HTTP/1.1", "Host: localhost", f"Content-Length: {length}", *more, "", ""]
    return "\r\n".join(lines).encode()


def test_a_payload_that_says_it_is_too_large_is_refused_before_it_is_sent(small):
    with connected(small) as connection:
        connection.sendall(head(10**12))
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"larger than 20,000 bytes" in answer


def test_a_payload_that_does_not_say_so_is_cut_off(small):
    with connected(small) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"2000\r\n" + b"x" * 0x2000 + b"\r\n"
        connection.sendall(chunk * 3)
        assert received(connection).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_not_unpacked(small, encoding):
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    bomb = pack(b" " * 10_000_000)
    assert len(bomb) < 20_000
    status, text = small.request("POST", "/", bomb, content_encoding=encoding)
    assert status == 413, text
    status, text = small.request("POST", "/", pack(json.dumps(ASK).encode()), content_encoding=encoding)
    assert status == 200, text
    status, text = small.request("POST", "/", pack(json.dumps(ASK).encode())[:-5], content_encoding=encoding)
    assert (status, "cut short" in text) == (400, True), text
    status, text = small.request("POST", "/", b"no", content_encoding=encoding)
    assert status == 400, text


def test_a_bomb_takes_no_memory():
    bomb = gzip.compress(b" " * 50_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            unpack(bomb, "gzip", 20_000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_other_encodings_are_refused(small):
    assert small.request("POST", "/", b"{}", content_encoding="br")[0] == 415


def test_items_candidates_and_answers_are_bounded(small):
    assert small.post("/", {"inputs": ["a [MASK]"] * 9})[0] == 413
    assert small.post("/", {"inputs": ["a [MASK]"] * 8})[0] == 200
    assert small.post("/", {"inputs": {"source_sentence": "a", "sentences": ["b"] * 8}})[0] == 413
    assert small.post("/", {"inputs": "[MASK] " * 30})[0] == 422
    assert small.post("/", {"inputs": "[MASK] " * 20})[0] == 200
    assert small.post("/", {"inputs": "a [MASK]", "parameters": {"targets": ["a"] * 101}})[0] == 422
    status, answer = small.post("/tasks/features", {"inputs": "word " * 150})
    assert (status, '"pooling": "mean"' in answer["error"]) == (413, True)
    tensor = {"name": "input_ids", "shape": [8, 4], "datatype": "INT64", "data": [20] * 32}
    assert small.post("/v2/models/tiny-bert/infer", {"inputs": [tensor]})[0] == 413
    asked = {"inputs": [tensor], "outputs": [{"name": "pooler_output"}]}
    assert small.post("/v2/models/tiny-bert/infer", asked)[0] == 200


def test_overload_is_429_at_once_for_a_text_and_a_list_alike(tiny_bundle):
    # A run for each text, so that two requests take their time.
    options = ("--variant", "fp32", "--no-warm-up", "--max-batch-tokens", "1", "--max-concurrent-requests", "2")
    with Running(tiny_bundle, *options) as server:
        body = json.dumps({"inputs": ["[MASK] " + "a " * 140] * 256, "parameters": {"top_k": 1}}).encode()
        with connected(server) as one, connected(server) as other:
            for client in (one, other):
                client.sendall(head(len(body), "Connection: close") + body)
            server.until(lambda: server.metric("bertport_requests_active") == 2)
            server.until(lambda: server.metric("bertport_queue_items"))
            for inputs in ("a [MASK]", ["a [MASK]"]):
                began = time.monotonic()
                with connected(server) as connection:
                    asked = json.dumps({"inputs": inputs}).encode()
                    connection.sendall(head(len(asked), "Connection: close") + asked)
                    answer = received(connection)
                assert answer.startswith(b"HTTP/1.1 429"), answer
                assert b"\r\nretry-after: 1\r\n" in answer
                assert time.monotonic() - began < 5
            assert server.get("/health")[0] == server.get("/ready")[0] == 200
            for client in (one, other):
                assert received(client).startswith(b"HTTP/1.1 200")
        server.until(lambda: server.metric("bertport_requests_active") == 0)
        assert server.post("/", ASK)[0] == 200


def test_bodies_that_do_not_come_to_an_end_take_no_place_from_others(small):
    """Two requests are answered at once here, and any number may wait for their clients."""
    body = json.dumps(ASK).encode()
    slow = [connected(small) for _ in range(5)]
    try:
        for connection in slow:
            connection.sendall(head(len(body)) + body[:5])
        small.until(lambda: small.metric("bertport_requests_active") == 5)
        assert small.post("/", ASK)[0] == 200
        for connection in slow:
            connection.sendall(body[5:])
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    finally:
        for connection in slow:
            connection.close()
    small.until(lambda: small.metric("bertport_requests_active") == 0)


def test_a_body_that_arrives_when_all_places_are_taken_is_refused():
    limits = SimpleNamespace(max_concurrent_requests=1, max_body_bytes_held=1, max_answer_bytes_held=1)
    admission = Admission(limits)
    with ExitStack() as stack:
        with pytest.raises(Overloaded, match="answers 1 requests already"), admission.enter(), admission.body():
            stack.enter_context(admission.enter())
        assert (admission.active, admission.waiting) == (1, 0)
    assert admission.inside == 0
    with admission.enter(), pytest.raises(ValueError, match="cut"), admission.body():
        raise ValueError("cut")
    assert admission.inside == 0


def test_a_body_cut_short_costs_nothing(small):
    before = small.metric("bertport_tokens_total")
    gone = small.metric("bertport_failures_total", reason="client_gone")
    with connected(small) as connection:
        connection.sendall(head(500) + b'{"inputs"')
    small.until(lambda: small.metric("bertport_failures_total", reason="client_gone") == gone + 1)
    assert small.metric("bertport_tokens_total") == before
    assert small.metric("bertport_requests_active") == 0


def test_a_client_that_leaves_takes_its_work_out_of_the_queue(tiny_bundle):
    # A run for each text, so that the queue is long; the third client leaves as soon as it has asked.
    with Running(tiny_bundle, "--variant", "fp32", "--no-warm-up", "--max-batch-tokens", "1") as server:
        texts = ["[MASK] " + "a " * 140] * 256
        body = json.dumps({"inputs": texts, "parameters": {"top_k": 1}}).encode()
        with connected(server) as stays, connected(server) as stays_too:
            for client in (stays, stays_too):
                client.sendall(head(len(body), "Connection: close") + body)
            server.until(lambda: server.metric("bertport_queue_items"))
            with connected(server) as leaves:
                leaves.sendall(head(len(body)) + body)
                server.until(lambda: server.metric("bertport_requests_active") == 3)
            for client in (stays, stays_too):
                assert received(client).startswith(b"HTTP/1.1 200")
        server.until(lambda: server.metric("bertport_requests_active") == 0)
        assert server.metric("bertport_failures_total", reason="client_gone") == 1
        # What it takes to notice may run: a few of its texts, out of 256.
        assert 2 <= server.metric("bertport_tokens_total") / (256 * 143) < 2.5
        assert server.metric("bertport_queue_items") == server.metric("bertport_queue_tokens") == 0


def test_clients_that_reset_their_connection_leave_no_error(small):
    body = json.dumps({"inputs": ["[MASK] a b c d"] * 8}).encode()
    for number in range(60):
        with connected(small) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(head(len(body)) + body)
            time.sleep(0.0005 * (number % 10))
    small.until(lambda: small.metric("bertport_requests_active") == 0)
    assert small.post("/", ASK)[0] == 200
    assert not [line for line in small.lines if line["level"] == "error"]


def test_a_body_that_takes_too_long_is_408(tiny_bundle):
    with (
        Running(tiny_bundle, "--variant", "fp32", "--no-warm-up", "--request-timeout", "0.5") as server,
        connected(server) as connection,
    ):
        connection.sendall(head(500) + b'{"inputs"')
        assert received(connection).startswith(b"HTTP/1.1 408")


def test_headers_are_bounded(small):
    with connected(small) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        try:
            for number in range(40):
                connection.sendall(b"X-%d: " % number + b"y" * 8000 + b"\r\n")
        except (ConnectionResetError, BrokenPipeError):
            return
        answer = received(connection)
    assert not answer or answer.startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize(
    "line",
    [
        b"GET /../../../../etc/passwd HTTP/1.1",
        b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1",
        b"GET //etc/passwd HTTP/1.1",
        b"POST /models/../../etc/passwd HTTP/1.1",
        b"POST /models/%00 HTTP/1.1",
        b"POST /?variant=..%2f..%2fonnx%2fmodel.onnx HTTP/1.1",
        b"GET /v2/models/%ff%fe HTTP/1.1",
        b"DELETE / HTTP/1.1",
        b"TRACE / HTTP/1.1",
        b"GET /\xff HTTP/1.1",
        b"GET",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
def test_no_path_reads_a_file_or_breaks_the_server(small, line):
    with connected(small) as connection:
        connection.sendall(line + b"\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}\r\n\r\n")
        answer = received(connection)
    assert answer[9:10] == b"4", answer
    assert b"root:" not in answer
    assert b"Traceback" not in answer


def test_an_api_key_is_asked_for_everywhere_but_health(tiny_bundle):
    # Given by the environment, as in a container: no process list shows it.
    with Running(tiny_bundle, "--variant", "fp32", "--no-warm-up", BERTPORT_API_KEY="sesame") as server:
        for path in ("/health", "/ready", "/v2/health/live", "/v2/health/ready"):
            assert server.get(path)[0] == 200
        for path in ("/models", "/info", "/metrics", "/v2/models/tiny-bert", "/nothing"):
            assert server.get(path)[0] == 401
            assert server.get(path, authorization="Bearer sesam")[0] == 401
            assert server.get(path, authorization="Basic sesame")[0] == 401
            assert server.get(path, authorization="Bearer sesame")[0] in (200, 404)
        status, answer = server.post("/", ASK)
        assert (status, answer["error_type"]) == (401, "unauthorized")
        assert server.post("/", ASK, authorization="Bearer sesame")[0] == 200
        assert server.post("/reload", {}, authorization="Bearer wrong")[0] == 401
        assert server.post("/reload", {}, authorization="Bearer sesame")[0] == 200
        assert server.post("/", ASK, authorization="Bearer sesame")[0] == 200
        assert "sesame" not in json.dumps(server.lines)


def test_the_api_key_is_compared_in_constant_time(monkeypatch):
    # Only the standard library's function can promise that, so what is asserted is that it decides, and alone.
    compared = []

    def compare(given, key):
        compared.append((given, key))
        return given == b"let me in"

    async def answer(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    def status_of(authorization):
        messages = []

        async def send(message):
            messages.append(message)

        headers = [(b"host", b"localhost"), (b"authorization", authorization)]
        asyncio.run(front({"type": "http", "method": "GET", "path": "/models", "headers": headers}, None, send))
        return messages[0]["status"]

    front = Front(answer, Service(Settings(api_key="sesame")))
    monkeypatch.setattr("bertport.serve.app.hmac.compare_digest", compare)
    for given in (b"Bearer sesame", b"Bearer s", b"Bearer ", b"bearer  sesame"):
        assert status_of(given) == 401
    assert status_of(b"Bearer let me in") == 204
    assert [given for given, _ in compared] == [b"sesame", b"s", b"", b"sesame", b"let me in"]
    assert {key for _, key in compared} == {b"sesame"}


def test_addresses_below_a_prefix_are_what_they_are_without_it():
    # As Ray Serve asks: the path is whole, and the prefix is told beside it.
    def asked(method, path):
        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": method, "root_path": "/mine", "path": f"/mine{path}"}
        asyncio.run(app(scope | {"headers": [(b"host", b"localhost")]}, None, send))
        return sent[0]["status"], json.loads(sent[1]["body"])

    app = make_app(Service(Settings(api_key="sesame")))
    assert asked("GET", "/health") == (200, {"status": "ok"})
    status, answer = asked("POST", "/v1/embeddings")
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")


def test_a_request_that_is_cancelled_is_counted_as_one_whose_client_left():
    async def answer(scope, _receive, _send):
        scope["state"]["context"].task = "fill-mask"
        raise asyncio.CancelledError

    async def ask():
        with pytest.raises(asyncio.CancelledError):
            await Front(answer, service)(scope, None, None)

    service = Service(Settings())
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"host", b"localhost")]}
    asyncio.run(ask())
    value, labels = service.metrics.registry.get_sample_value, {"bundle": "", "variant": "", "task": "fill-mask"}
    assert value("bertport_failures_total", labels | {"reason": "client_gone"}) == 1
    assert value("bertport_requests_total", labels) is None


def test_an_error_that_nobody_expected_is_told_without_a_stack_trace(caplog):
    sent = []

    async def breaks(*_):
        raise ValueError("secret")

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/models", "headers": [(b"x-request-id", b"my-id")]}
    with caplog.at_level(logging.ERROR):
        asyncio.run(Front(breaks, Service(Settings()))(scope, None, send))
    [start, body] = sent
    assert start["status"] == 500
    assert (b"x-request-id", b"my-id") in start["headers"]
    told = json.loads(body["body"])
    assert told == {"error": "the server failed: its log says more, under this request's id", "error_type": "internal"}
    assert "ValueError: secret" in caplog.text


def test_a_body_is_not_held_while_its_answer_is_read():
    held = []

    async def answer(scope, _receive, send):
        scope["state"]["body"].grow(100)
        held.append(service.admission.bodies.held)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def send(_message):
        held.append(service.admission.bodies.held)

    service = Service(Settings(access_log=False))
    scope = {"type": "http", "method": "GET", "path": "/models", "headers": [(b"host", b"localhost")]}
    asyncio.run(Front(answer, service)(scope, None, send))
    assert held == [100, 0, 0]


def test_a_connection_keeps_no_variant_once_it_has_its_answer():
    # Its scope is there as long as no other request comes on it, which may be long after a reload.
    async def answer(scope, _receive, send):
        scope["state"]["context"].worker = SimpleNamespace(variant="fp32")
        await send({"type": "http.response.start", "status": 204, "headers": []})

    async def send(_message):
        pass

    scope = {"type": "http", "method": "GET", "path": "/models", "headers": [(b"host", b"localhost")]}
    asyncio.run(Front(answer, Service(Settings(access_log=False)))(scope, None, send))
    assert scope["state"]["context"].worker is None


def test_a_variant_ends_no_line_of_the_head():
    async def answer(scope, _receive, send):
        scope["state"]["context"].worker = SimpleNamespace(variant="a\r\nset-cookie: é=\x85€")
        await send({"type": "http.response.start", "status": 204, "headers": []})

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/models", "headers": [(b"host", b"localhost")]}
    asyncio.run(Front(answer, Service(Settings(access_log=False)))(scope, None, send))
    assert (b"x-bertport-variant", b"a??set-cookie: \xe9=??") in sent[0]["headers"]


ASKED_HEADERS = ["authorization", "inference-header-content-length", "x-bertport-variant", "x-stainless-lang"]
"""Headers of pages: this server's own, and one that OpenAI's client adds."""


def test_pages_of_other_origins_get_nothing_unless_told(small, tiny_bundle):
    def preflight(server, origin):
        with connected(server) as connection:
            lines = [f"Origin: {origin}", "Access-Control-Request-Method: POST", "Connection: close"]
            lines.append("Access-Control-Request-Headers: " + ",".join(ASKED_HEADERS))
            asked = "\r\n".join(["OPTIONS / HTTP/1.1", "Host: localhost", *lines, "", ""])
            connection.sendall(asked.encode())
            return received(connection).lower()

    assert b"access-control" not in preflight(small, "http://page.example")
    with Running(tiny_bundle, "--variant", "fp32", "--no-warm-up", "--cors-origin", "http://page.example") as server:
        allowed = preflight(server, "http://page.example")
        assert b"access-control-allow-origin: http://page.example" in allowed
        with connected(server) as connection:
            connection.sendall(head(2, "Origin: http://page.example", "Connection: close") + b"{}")
            exposed = received(connection).lower()
        lines = [line for line in (allowed + exposed).splitlines() if line.startswith(b"access-control-")]
        told = dict(line.split(b": ", 1) for line in lines)
        assert told[b"access-control-allow-headers"].decode().split(",") == ASKED_HEADERS
        for name in (b"x-bertport-variant", b"inference-header-content-length"):
            assert name in told[b"access-control-expose-headers"]
        assert b"access-control-allow-origin" not in preflight(server, "http://other.example")


def test_a_limit_on_files_bounds_connections_before_it_is_met(tiny_bundle):
    few = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))"
    with Running(tiny_bundle, "--variant", "fp32", "--no-warm-up", before=few) as server:
        held = [connected(server) for _ in range(150)]
        try:
            held[-1].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert received(held[-1]).startswith(b"HTTP/1.1 429")
        finally:
            for connection in held:
                connection.close()
        server.until(lambda: server.get("/health")[0] == 200)
        assert server.metric("bertport_failures_total", bundle="", reason="overloaded") >= 1
        server.wait_for("refused", status=429, client="127.0.0.1")
        assert server.post("/", ASK)[0] == 200
        assert server.stop() == 0
        assert not [line for line in server.lines if line["level"] == "error"]
        assert [line for line in server.lines if "limit on open files is 100" in line["message"]]
        assert not server.other
