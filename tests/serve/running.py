"""A server in a process of its own, as a user starts it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress

PATIENCE = 120
"""Seconds to wait for what takes less than one on an idle machine."""


class Running:
    """A `bertport serve` on a free port; its log is read as it comes.

    `before` is Python that runs first in its process: a fault that no client can cause any more.
    """

    def __init__(self, *arguments, wait=True, before="", **environment):
        main = (
            ["-c", f"{before}\nfrom bertport.runtime.cli import main\nmain()"] if before else ["-m", "bertport.runtime"]
        )
        command = [sys.executable, *main, "serve", "--port", "0", *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        self.lines = []
        self.other = []
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        try:
            self.url = self.wait_for("listening")["url"]
            self.port = int(self.url.rsplit(":", 1)[1])
            if wait:
                self.wait_for("ready")
        except BaseException:  # the test has no server that it could end
            self.stop(signal.SIGKILL)
            raise

    def _read(self):
        for line in self.process.stderr:
            with self.changed:
                try:
                    self.lines.append(json.loads(line))
                except ValueError:
                    self.other.append(line)
                self.changed.notify_all()

    def wait_for(self, message, **fields):
        """Return the first line of the log with this message and these fields."""

        def matching():
            return [
                line
                for line in self.lines
                if line["message"] == message and all(line.get(key) == value for key, value in fields.items())
            ]

        with self.changed:
            ended = lambda: self.process.poll() is not None and not self.reader.is_alive()  # noqa: E731 — a condition
            self.changed.wait_for(lambda: matching() or ended(), timeout=PATIENCE)
            assert matching(), f"no {message!r} {fields} in {self.lines} {self.other}"
            return matching()[0]

    def get(self, path, **headers):
        """GET a path: status and text."""
        return self.request("GET", path, None, **headers)

    def post(self, path, value, **headers):
        """POST JSON: status and the JSON that came back."""
        status, text = self.request("POST", path, json.dumps(value).encode(), **headers)
        return status, json.loads(text)

    def request(self, method, path, data, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=headers)  # noqa: S310 — ours
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310 — as above
                return answer.status, answer.read().decode()
        except urllib.request.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name, **labels):
        """Return the sum of a metric's series with these labels; None when there is none."""
        from prometheus_client.parser import text_string_to_metric_families

        _, text = self.get("/metrics")
        values = [
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(values) if values else None

    def until(self, condition):
        """Wait until a condition holds."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.05)

    def stop(self, sig=signal.SIGTERM):
        """Send a signal and give the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        code = self.process.wait(PATIENCE)
        self.reader.join(PATIENCE)
        self.output = self.process.stdout.read() if not self.process.stdout.closed else self.output
        self.process.stdout.close()
        self.process.stderr.close()
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop(signal.SIGKILL)


@contextmanager
def undisturbed(*arguments, bad=("error",)):
    """A running server that ends with 0, writes nothing but JSON lines, and none of them of a bad level."""
    with Running(*arguments) as running:
        yield running
        assert running.stop() == 0
        assert not [line for line in running.lines if line["level"] in bad or "exception" in line]
        assert not running.other


def free_port():
    """A port that was free just now, for a server that cannot choose one and say it."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def connected(server, timeout=PATIENCE):
    """A connection to a server."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=timeout)


def received(connection):
    """Everything until the server closes; a test that hangs here fails by the socket's timeout."""
    parts = []
    with suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


__all__ = ["PATIENCE", "Running", "connected", "free_port", "received", "undisturbed"]
