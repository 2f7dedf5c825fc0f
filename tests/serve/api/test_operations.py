"""What operators rely on: probes, metrics, logs, signals, reloading."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from bertport.runtime.providers.table import AUTO, PROVIDERS
from bertport.serve.errors import REASONS
from bertport.serve.observability.tracing import _exporter, tracing
from tests.serve.running import PATIENCE, Running

ASK = {"inputs": "a [MASK]"}
FAST = ("--variant", "fp32", "--no-warm-up")


class Load:
    """Clients that ask, one question after the other on one connection each, until the server refuses to."""

    def __init__(self, server, clients=8):
        self.answered, self.lost = 0, []
        self.enough = threading.Event()
        self._lock = threading.Lock()
        self._stop = False
        self._threads = [threading.Thread(target=self._ask, args=(server.port,)) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            while not self._stop:
                try:
                    connection.connect() if connection.sock is None else None
                except ConnectionRefusedError:
                    return  # not accepted, so not lost
                try:
                    connection.request("POST", "/", json.dumps(ASK))
                    answer = connection.getresponse()
                    body = answer.read()
                except (ConnectionError, http.client.HTTPException) as error:
                    self.lost.append(repr(error))
                    return
                with self._lock:
                    if answer.status == 200 and len(json.loads(body)) == 5:
                        self.answered += 1
                    else:
                        self.lost.append((answer.status, body))
                    if self.answered > 50:
                        self.enough.set()
        finally:
            connection.close()

    def stop(self):
        self._stop = True
        for thread in self._threads:
            thread.join(PATIENCE)


def test_probes_and_information(server):
    assert server.get("/health") == (200, '{"status":"ok"}')
    assert server.get("/ready") == (200, '{"status":"ready"}')
    information = json.loads(server.get("/info")[1])
    assert information["limits"]["max_items"] == 256
    assert {"bertport", "onnxruntime", "python"} <= information["versions"].keys()
    assert [model["name"] for model in information["models"]] == ["tiny", "org/other"]


def test_a_request_has_an_id_and_a_line_in_the_log(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    for given, kept in (("my-id.1", True), ("bad id\t", False), ("x" * 200, False)):
        connection.request("POST", "/", json.dumps(ASK), {"X-Request-Id": given})
        answer = connection.getresponse()
        answer.read()
        assert (answer.headers["x-request-id"] == given) == kept
        assert answer.headers["server-timing"].startswith("queue;dur=")
        assert answer.headers["x-bertport-variant"] == "fp32"
        line = server.wait_for("request", request_id=answer.headers["x-request-id"])
        assert (line["status"], line["task"], line["bundle"], line["items"]) == (200, "fill-mask", "tiny", 1)
        assert line["tokens"] == 4
        assert line["ms"] >= line["run_ms"] > 0
    connection.close()


def test_no_request_is_logged_where_the_log_of_them_is_off(tiny_bundle):
    with Running(tiny_bundle, *FAST, "--no-access-log") as server:
        assert server.post("/", ASK)[0] == 200
        assert server.get("/nothing")[0] == 404
        assert server.stop() == 0
        messages = {line["message"] for line in server.lines}
    assert "stopped" in messages
    assert not messages & {"request", "refused"}


@pytest.mark.slow
def test_metrics_are_complete_before_the_first_request(tiny_bundle):
    with Running(tiny_bundle, *FAST) as server:
        for reason in REASONS:
            assert server.metric("bertport_failures_total", reason=reason, task="fill-mask", variant="fp32") == 0
        for name in ("requests_total", "items_total", "request_seconds_count"):
            for task in ("fill-mask", "feature-extraction", "text-classification", "next-sentence", "tensors"):
                assert server.metric(f"bertport_{name}", task=task, variant="fp32", bundle="tiny-bert") == 0
        for name in ("queue_seconds_count", "run_seconds_count", "batch_items_count", "batch_tokens_sum"):
            assert server.metric(f"bertport_{name}", variant="fp32") == 0
        for name in ("tokens_total", "padding_tokens_total", "queue_items", "queue_tokens"):
            assert server.metric(f"bertport_{name}", variant="fp32") == 0
        names = _names(server)
        assert server.post("/", ASK)[0] == 200
        assert server.post("/", {"inputs": "none", "parameters": {}})[0] == 422
        assert server.get("/nothing")[0] == 404
        assert _names(server) == names
        assert server.metric("bertport_requests_total", task="fill-mask") == 1
        assert server.metric("bertport_tokens_total") == server.metric("bertport_batch_tokens_sum") == 4
        assert server.metric("bertport_failures_total", task="fill-mask", reason="unprocessable") == 1
        assert server.metric("bertport_failures_total", task="", reason="not_found") == 1
        assert server.metric("bertport_queue_seconds_count") == server.metric("bertport_run_seconds_count") == 1


def _names(server):
    lines = server.get("/metrics")[1].splitlines()
    return sorted(line.rpartition(" ")[0] for line in lines if line.startswith("bertport"))


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_loses_no_request_and_exits_with_0(tiny_bundle, sig):
    with Running(tiny_bundle, *FAST) as server:
        load = Load(server)
        assert load.enough.wait(PATIENCE), load.lost
        assert server.stop(sig) == 0
        load.stop()
        assert load.lost == []
        answered = [line for line in server.lines if line.get("status") == 200]
        assert len(answered) == load.answered
        assert not [line for line in server.lines if line["level"] == "error"]


def test_a_second_signal_ends_the_time_to_drain(tiny_bundle):
    with Running(tiny_bundle, *FAST, "--drain-seconds", "600") as server:
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("stopping")
        assert server.stop() == 0


def test_a_reload_under_load_loses_no_request(tiny_bundle, tmp_path):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    with Running(f"b={bundle}", *FAST) as server:
        load = Load(server)
        assert load.enough.wait(PATIENCE), load.lost
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("reloaded")
        assert server.metric("bertport_reloads_total", outcome="done") == 1
        # A bundle that is damaged meanwhile is refused, and the old one goes on.
        with (bundle / "onnx" / "model.onnx").open("r+b") as file:
            file.write(b"damaged")
        server.process.send_signal(signal.SIGHUP)
        server.until(lambda: server.metric("bertport_reloads_total", outcome="failed") == 1)
        assert server.post("/", ASK)[0] == 200
        load.stop()
        assert load.lost == []
        [line] = [line for line in server.lines if line["level"] == "error"]
        assert "is not the file that was exported" in line["message"]
        assert server.stop() == 0


SLOW = (
    "import time\nfrom bertport.serve.engine import registry\nwarm_up = registry.warm_up\n"
    "def slowly(*given, **named):\n    time.sleep(1)\n    yield from warm_up(*given, **named)\n"
    "registry.warm_up = slowly"
)
"""What makes warming up take a second more."""


@pytest.mark.slow
def test_a_signal_while_bundles_are_loaded_has_them_loaded_once_more(tiny_bundle):
    with Running(f"b={tiny_bundle}", *FAST, before=SLOW) as server:
        server.process.send_signal(signal.SIGHUP)
        server.until(lambda: [line["message"] for line in server.lines].count("loading b") == 2)
        server.process.send_signal(signal.SIGHUP)  # of a bundle that was exchanged after it had been read
        server.until(lambda: server.metric("bertport_reloads_total", outcome="done") == 2)
        assert server.stop() == 0


@pytest.mark.slow
def test_a_signal_during_a_reload_over_http_has_the_bundles_loaded_once_more(tiny_bundle):
    with Running(f"b={tiny_bundle}", *FAST, "--api-key", "sesame", before=SLOW) as server:
        answers = []
        over_http = threading.Thread(
            target=lambda: answers.append(server.post("/reload", {}, authorization="Bearer sesame"))
        )
        over_http.start()
        server.until(lambda: [line["message"] for line in server.lines].count("loading b") == 2)
        server.process.send_signal(signal.SIGHUP)
        over_http.join(PATIENCE)
        server.until(lambda: [line for line in server.lines if line["message"].startswith("reload")])
        assert not [line for line in server.lines if line["level"] == "error"]
        server.wait_for("reloaded")
        assert answers[0][0] == 200
        assert [line["message"] for line in server.lines].count("loading b") == 3
        assert server.stop() == 0


def test_a_request_that_began_before_a_reload_is_answered_after_it(tiny_bundle):
    body = json.dumps(ASK).encode()
    with (
        Running(tiny_bundle, *FAST) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client,
    ):
        client.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:5])
        server.until(lambda: server.metric("bertport_requests_active") == 1)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("reloaded")
        time.sleep(0.5)  # an old variant that nobody held would be gone by then
        client.sendall(body[5:])
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        assert server.stop() == 0


def test_spans_where_opentelemetry_is_asked_for(tiny_bundle):
    trace = "0af7651916cd43dd8448eb211c80319c"
    with Running(tiny_bundle, *FAST, OTEL_TRACES_EXPORTER="console", OTEL_SERVICE_NAME="mine") as server:
        assert server.post("/", ASK, traceparent=f"00-{trace}-b7ad6b7169203331-01")[0] == 200
        assert server.wait_for("request", status=200)["trace_id"] == trace
        assert server.post("/", ASK, traceparent="nonsense")[0] == 200
        assert server.stop() == 0
    spans = [span for span in _values(server.output) if span["attributes"].get("http.response.status_code") == 200]
    [span] = [span for span in spans if span["context"]["trace_id"] == f"0x{trace}"]
    assert span["name"] == "POST fill-mask"
    assert span["parent_id"] == "0xb7ad6b7169203331"
    assert (span["attributes"]["bertport.tokens"], span["attributes"]["bertport.variant"]) == (4, "fp32")
    assert span["resource"]["attributes"]["service.name"] == "mine"
    assert len(spans) == 2


def test_variables_of_opentelemetry_that_are_empty_are_none(monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
    monkeypatch.setattr("bertport.serve.observability.tracing._set_up", pytest.fail)
    assert tracing() is None


def test_several_exporters_of_spans(monkeypatch, caplog):
    asked = []
    monkeypatch.setattr("bertport.serve.observability.tracing._set_up", asked.append)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console, OTLP,zipkin,none")
    tracing()
    monkeypatch.delenv("OTEL_TRACES_EXPORTER")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://localhost:4318/v1/traces")
    tracing()
    assert asked == [["console", "otlp"], ["otlp"]]
    [message] = caplog.messages
    assert message.startswith("no spans are exported by 'zipkin', which OTEL_TRACES_EXPORTER names: ")


def test_an_exporter_of_spans_without_its_package_leaves_the_others(monkeypatch, caplog):
    monkeypatch.setattr("bertport.serve.observability.tracing.OTLP", "no_such_package")
    assert _exporter("otlp") is None
    assert caplog.messages == ["no spans are exported by 'otlp': no_such_package is not installed"]
    assert _exporter("console") is not None


def _values(text):
    """JSON values, one after the other."""
    decoder, at, values = json.JSONDecoder(), 0, []
    while at < len(text.rstrip()):
        value, at = decoder.raw_decode(text, at)
        values.append(value)
        at += len(text[at:]) - len(text[at:].lstrip())
    return values


def test_reloading_over_http_needs_a_key(server):
    status, answer = server.post("/reload", {})
    assert (status, answer["error_type"]) == (403, "forbidden")


def test_it_answers_while_it_loads(tiny_bundle):
    settings = {"BERTPORT_THREADS": "3", "BERTPORT_STREAMS": "2"}
    with Running(tiny_bundle, "--variant", "all", wait=False, **settings) as server:
        assert server.get("/health")[0] == 200
        status, text = server.get("/ready")
        assert status in (200, 503)
        if status == 503:
            assert json.loads(text)["estimated_time"] > 0
        server.wait_for("ready")
        assert any("bucket 5 of 5: 10 tokens" in line["message"] for line in server.lines)
        assert server.get("/ready")[0] == 200
        [model] = json.loads(server.get("/models")[1])
        assert model["digest"].startswith("sha256:")
        assert {(variant["threads"], variant["streams"]) for variant in model["variants"]} == {(3, 2)}
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["{bundle}", "--variant", "int9"], 2, "unknown variant 'int9'"),
        (["/nowhere"], 2, "no bundle at /nowhere"),
        (["{bundle}", "{bundle}"], 2, "two bundles are called 'tiny-bert'"),
        (["{bundle}", "--max-items", "9999"], 2, "--max-items is 9999 and the queue takes 2048"),
        (["{bundle}", "--threads", "2", "--streams", "3"], 2, "streams is 3 and each takes at least one of 2 threads"),
        (["{bundle}", "--request-timeout", "0"], 2, "--request-timeout is 0.0"),
        (["{bundle}", "--api-key", " "], 2, "the API key is empty"),
        (["{bundle}", "--host", "203.0.113.1"], 2, "cannot listen on 203.0.113.1"),
        (["{bundle}", "--host", "\u00fc..example"], 2, "cannot listen on "),
    ],
)
def test_mistakes_end_the_command_with_a_sentence(tiny_bundle, arguments, code, said):
    command = [argument.format(bundle=tiny_bundle) for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "bertport.runtime", "serve", "--port", "0", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == code, done.stderr
    assert f"bertport: error: {said}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--provider", "nothing"], f"'nothing' is not one of {', '.join(map(repr, (*PROVIDERS, AUTO)))}"),
        (["--threads", "0"], "0 is not in the range x>=1"),
    ],
)
def test_values_that_no_server_can_have_are_refused_before_a_bundle_is_read(arguments, said):
    done = subprocess.run(
        [sys.executable, "-m", "bertport.runtime", "serve", "/nowhere", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 2
    assert arguments[0] in done.stderr
    assert said in done.stderr


def test_a_damaged_bundle_ends_the_command(tiny_bundle, tmp_path):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (bundle / "onnx" / "model.onnx").write_bytes(b"damaged")
    done = subprocess.run(
        [sys.executable, "-m", "bertport.runtime", "serve", "--port", "0", bundle],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert "is not the file that was exported" in done.stderr
    assert "Traceback" not in done.stderr
