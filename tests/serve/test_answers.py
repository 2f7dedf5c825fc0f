"""Bytes that go out are counted as bytes that come in: as they are written, and until their client has read them."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertport.runtime.bundle.default import default_bundle
from bertport.serve.app import make_app
from bertport.serve.errors import ClientGone, Overloaded, TooLarge
from bertport.serve.http import wire
from bertport.serve.http.admission import Admission, Reservation, Store
from bertport.serve.http.protocol import TRANSPORT
from bertport.serve.settings import Limits, Settings
from bertport.serve.state import Service
from tests.serve.running import PATIENCE, Running, connected, undisturbed

MIB = 1 << 20
LENGTH = 96
LOGITS = LENGTH * 30522
"""Numbers in the logits of one row."""


def infer(length, *, output="logits", binary=False):
    ids = {"name": "input_ids", "shape": [1, length], "datatype": "INT64", "data": [2000 + n for n in range(length)]}
    asked = {"name": output, "parameters": {"binary_data": binary}}
    body = json.dumps({"inputs": [ids], "outputs": [asked]}).encode()
    path = "/v2/models/bertport-default/infer"
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def memory(server, field="VmRSS"):
    """Resident memory of the server, in bytes."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def answer_of(connection):
    """Status, headers and body of one answer."""
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        headers = {}
        while line := stream.readline().strip():
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        return status, headers, stream.read(int(headers[b"content-length"]))


@pytest.fixture(scope="module")
def large():
    """A server of the default model, whose answers may be large."""
    options = ("--variant", "int8-dynamic", "--no-warm-up", "--streams", "1")
    limits = ("--max-answer-bytes", 48 * MIB, "--max-answer-bytes-held", 128 * MIB)
    with undisturbed(default_bundle(), *options, *limits) as running:
        yield running


def test_an_answer_is_counted_by_its_encoding(large):
    with connected(large) as connection:
        connection.sendall(infer(2 * LENGTH))  # 23 MB as numbers, 62 MB as JSON
        status, _, body = answer_of(connection)
        assert status == 413
        assert b"ask for binary data" in body
        connection.sendall(infer(2 * LENGTH, binary=True))
        status, headers, body = answer_of(connection)
        assert status == 200
        size = int(headers[b"inference-header-content-length"])
        values = np.frombuffer(body[size:], dtype="<f4")
        assert values.size == 2 * LOGITS
        connection.sendall(infer(2 * LENGTH, output="pooler_output"))
        assert answer_of(connection)[0] == 200


def test_a_large_answer_is_the_same_as_its_bytes(large):
    with connected(large) as connection:
        connection.sendall(infer(LENGTH, binary=True))
        _, headers, body = answer_of(connection)
        values = np.frombuffer(body[int(headers[b"inference-header-content-length"]) :], dtype="<f4")
        connection.sendall(infer(LENGTH))
        status, _, body = answer_of(connection)
        assert status == 200
        [output] = json.loads(body)["outputs"]
        assert output["shape"] == [1, LENGTH, 30522]
        assert np.array_equal(np.array(output["data"], dtype=np.float32), values)


def test_the_parts_of_a_large_answer_are_put_together_beside_the_event_loop(tiny_bundle):
    tell = (
        "import threading\nfrom bertport.serve.api import raw\njoin = raw.join\n"
        "def told(*given):\n    print(threading.current_thread().name, flush=True)\n    return join(*given)\n"
        "raw.join = told"
    )
    with Running(f"tiny={tiny_bundle}", "--variant", "fp32", "--no-warm-up", before=tell) as server:
        for rows in (1, 40):
            ids = {"name": "input_ids", "shape": [rows, 100], "datatype": "INT64", "data": [15] * 100 * rows}
            asked = {"inputs": [ids], "outputs": [{"name": "pooler_output" if rows == 1 else "last_hidden_state"}]}
            assert server.post("/v2/models/tiny/infer", asked)[0] == 200
        assert server.stop() == 0
        assert server.output.split() == ["MainThread", "pieces"]


def test_clients_that_do_not_read_hold_no_more_than_the_budget(large):
    assert large.post("/", {"inputs": "a cup of [MASK]."})[0] == 200
    idle = memory(large)
    held = [socket.socket() for _ in range(64)]
    try:
        for connection in held:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(PATIENCE)
            connection.connect(("127.0.0.1", large.port))
            connection.sendall(infer(LENGTH))
        large.until(lambda: large.metric("bertport_requests_active") == 0)
        assert memory(large, "VmHWM") < 2 * idle + 128 * MIB
        refused = large.metric("bertport_failures_total", reason="overloaded")
        answered = large.metric("bertport_requests_total", task="tensors")
        assert answered >= 1
        assert refused >= 50
        # Whoever reads is answered all the same, as far as there is room.
        assert large.post("/", {"inputs": "a cup of [MASK]."})[0] == 200
        assert large.get("/health")[0] == 200
    finally:
        for connection in held:
            connection.close()

    # What they held is given back when they leave.
    def roomy():
        with connected(large) as connection:
            connection.sendall(infer(LENGTH))
            return answer_of(connection)[0] == 200

    large.until(roomy)


def test_a_slow_reader_gets_all_of_its_answer(large):
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.settimeout(PATIENCE)
        connection.connect(("127.0.0.1", large.port))
        connection.sendall(infer(LENGTH))
        threading.Event().wait(1)
        status, _, body = answer_of(connection)
        assert status == 200
        assert len(json.loads(body)["outputs"][0]["data"]) == LOGITS


def values():
    leaves = st.one_of(
        st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text(max_size=5), st.floats(-1e9, 1e9)
    )
    arrays = st.builds(
        lambda shape, seed: np.random.default_rng(seed).standard_normal(shape).astype(np.float32),
        st.lists(st.integers(1, 7), min_size=1, max_size=3),
        st.integers(0, 9),
    )
    return st.recursive(
        st.one_of(leaves, arrays),
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=4)),
        max_leaves=12,
    )


@given(values(), st.integers(1, 20))
def test_json_in_chunks_is_that_of_orjson(value, numbers):
    wanted = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    before, wire.NUMBERS = wire.NUMBERS, numbers
    try:
        assert b"".join(wire.json_chunks(value)) == wanted
    finally:
        wire.NUMBERS = before


def test_an_answer_that_grows_beyond_its_limit_is_cut_off_while_it_is_written():
    steps = wire._written(np.zeros((1000, 1000), dtype=np.float32), 100_000)
    with pytest.raises(TooLarge, match="more than 100,000 bytes"):
        list(steps)


def test_bytes_that_follow_the_json_count_as_a_part_of_the_answer():
    with pytest.raises(TooLarge, match="more than 100,000 bytes, the most that is sent"):
        list(wire._written([], 100_000, 99_999))
    assert list(wire._written([], 100_000, 99_998)) == []


def test_a_store_never_holds_more_than_it_may():
    admission = Admission(Limits(max_body_bytes_held=2 * MIB + 5))
    one, two = Reservation(admission.bodies), Reservation(admission.bodies)
    one.grow(2 * MIB)
    with pytest.raises(Overloaded, match="bytes of requests"):
        two.grow(6)
    assert (two.size, admission.bodies.held) == (0, 2 * MIB)
    two.grow(5)
    one.settle(3)
    assert admission.bodies.held == 8
    one.release()
    two.release()
    assert admission.bodies.held == 0


def test_probes_and_metrics_are_answered_where_clients_have_not_read_as_much_as_may_be_held():
    def status_of(path):
        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": path, "headers": [(b"host", b"localhost")]}
        asyncio.run(app(scope, None, send))
        return sent[0]["status"]

    service = Service(Settings())
    app = make_app(service)
    Reservation(service.admission.answers).grow(service.admission.answers.most)
    assert status_of("/docs") == 429
    assert status_of("/health") == 200
    assert status_of("/metrics") == 200
    assert service.admission.probes.held == service.admission.metrics.held == 0
    Reservation(service.admission.metrics).grow(service.admission.metrics.most)
    assert (status_of("/metrics"), status_of("/health")) == (429, 200)


class Transport:
    """Of a client that reads in steps."""

    def __init__(self, *left):
        self.written = 10_000
        self.left = list(left)
        self.seen = []
        self.aborted = False

    def get_write_buffer_size(self):
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]

    def abort(self):
        self.aborted = True


def read_out(transport, monkeypatch, size=500):
    monkeypatch.setattr(wire, "READ_OUT_SECONDS", 0.01)
    store = Store(1000, "answers")
    reservation = Reservation(store)
    reservation.grow(size)
    settled = reservation.settle
    hold_sizes = transport.seen

    class Watched(Reservation):
        def settle(self, size):
            hold_sizes.append(size)
            settled(size)

    watched = Watched(store)
    watched.size = size
    asyncio.run(wire.read_out({"extensions": {TRANSPORT: transport}}, watched))
    return transport


def test_what_a_client_has_not_read_counts_until_it_has(monkeypatch):
    assert read_out(Transport(300, 300, 100, 0), monkeypatch).seen == [300, 300, 100]


def test_later_answers_on_a_connection_do_not_make_a_reader_look_idle(monkeypatch):
    class Busy(Transport):
        def get_write_buffer_size(self):
            self.written += 200  # another answer is written, and as much is read
            return 300

    assert read_out(Busy(0), monkeypatch).seen == [300, 100]


def test_a_client_that_reads_nothing_is_let_go(monkeypatch):
    monkeypatch.setattr(wire, "WRITE_SECONDS", 0.05)
    assert read_out(Transport(300), monkeypatch).aborted


def test_the_last_part_of_an_answer_counts_until_it_is_read(monkeypatch):
    monkeypatch.setattr(wire, "CHUNK", 100)
    store = Store(1000, "answers")
    reservation = Reservation(store)
    reservation.grow(250)
    held = []

    async def send(message):
        held.append((len(message.get("body", b"")), store.held))

    answer = wire.Chunked([b"x" * 250], reservation, headers={}, media_type="text/plain")
    asyncio.run(answer({}, None, send))
    assert held == [(0, 250), (100, 250), (100, 250), (50, 150), (0, 50)]
    assert store.held == 50


def test_a_client_that_reads_nothing_holds_a_large_answer_no_longer_than_a_small_one(monkeypatch):
    monkeypatch.setattr(wire, "WRITE_SECONDS", 0.05)
    monkeypatch.setattr(wire, "CHUNK", 1000)
    gone = asyncio.Event()

    class Silent(Transport):
        def abort(self):
            gone.set()

    async def send(message):
        if message.get("body"):
            await asyncio.sleep(60)

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    async def use():
        store = Store(100_000_000, "answers")
        answer = wire.Chunked([b"x" * 50_000_000], Reservation(store), headers={}, media_type="text/plain")
        with pytest.raises(ClientGone):
            await asyncio.wait_for(answer({"extensions": {TRANSPORT: Silent(0)}}, receive, send), 20)

    asyncio.run(use())
