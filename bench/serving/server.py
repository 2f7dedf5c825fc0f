"""A server under measurement, and clients of it, each in a process of its own."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT
from bertport.runtime.text.encoder import Encoded
from bertport.runtime.text.tokenizer import Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertport.runtime.bundle.directory import Bundle

__all__ = ["CLIENTS", "PYTHON", "TIMEOUT", "Process", "load", "make_bodies", "said", "serve", "under_load"]

PYTHON = sys.executable
TIMEOUT = 30
"""Seconds that a request may take."""
CLIENTS = 64
"""Clients of a load, each of which asks again as soon as it is answered."""
TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """A server under measurement, ours or the peer."""

    def __init__(self, command: Sequence[str | Path]) -> None:
        self.process = subprocess.Popen(
            [str(part) for part in command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.port = 0
        self.log: list[str] = []

    def serves(self) -> Process:
        """Wait until `bertport serve` is ready, and read its port from the log."""
        assert self.process.stderr is not None  # noqa: S101 — asked for above
        last = "no message"
        for line in self.process.stderr:
            said = json.loads(line) if line.startswith("{") else {"message": line}
            last = said["message"].strip()
            if said["message"] == "listening":
                self.port = int(said["url"].rpartition(":")[2])
            if said["message"] == "ready":
                # Read on, so that a full pipe never stops the server.
                threading.Thread(target=self.log.extend, args=(self.process.stderr,), daemon=True).start()
                return self
        raise RuntimeError(f"the server ended with {self.process.wait()}: {last}")

    def prints_its_port(self) -> Process:
        """Wait until the peer is ready."""
        assert self.process.stdout is not None  # noqa: S101 — asked for above
        self.port = int(self.process.stdout.readline())
        return self

    @property
    def cpu_s(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    @property
    def loop_cpu_s(self) -> float:
        """Time of the main thread, which is the event loop's."""
        place = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/schedstat")
        return int(place.read_text(encoding="ascii").split()[0]) / 1e9

    @property
    def resident(self) -> int:
        """Bytes resident now."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]) * 4096

    @property
    def peak(self) -> int | None:
        """Most bytes resident so far; None when it has ended."""
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
        return None

    def stop(self, sig: int = signal.SIGTERM) -> int:
        """End it; return the exit code."""
        self.process.send_signal(sig)
        code = self.process.wait(TIMEOUT + 30)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return code


def serve(bundle: Path, variant: str, *more: str) -> Process:
    """Start our server."""
    options = ["--variant", variant, "--port", "0", "--request-timeout", str(TIMEOUT), "--no-access-log", *more]
    return Process([PYTHON, "-m", "bertport.runtime", "serve", bundle, *options]).serves()


def load(port: int, bodies: Path, seconds: float, *options: object) -> subprocess.Popen[str]:
    """Start the clients."""
    command = [PYTHON, "-m", "bench.serving.load", "--port", port, "--bodies", bodies, "--seconds", seconds, *options]
    return subprocess.Popen([str(part) for part in command], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for what a program prints as JSON."""
    out, _ = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args, out)
    value: dict[str, Any] = json.loads(out)
    return value


def under_load(server: Process, bodies: Path, seconds: float, *options: object) -> dict[str, Any]:
    """Return throughput, latency and the server's CPU a request under load."""
    said(load(server.port, bodies, min(3, seconds), *options))  # until the caches and the arena are as they stay
    before, loop = server.cpu_s, server.loop_cpu_s
    seen = said(load(server.port, bodies, seconds, *options))
    used, loop = server.cpu_s - before, server.loop_cpu_s - loop
    good = sorted(seen["seconds"].get("200", []))
    answers = sum(seen["outcomes"].values())
    return {
        "requests_per_s": len(good) / seen["wall_s"],
        "cpu_ms_per_request": 1e3 * used / max(1, answers),
        "loop_ms_per_request": 1e3 * loop / max(1, answers),
        "client_cpu_s": seen["own_cpu_s"],
        "outcomes": seen["outcomes"],
        **{name: 1e3 * _quantile(good, share) for name, share in (("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99))},
    }


def _quantile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def make_bodies(path: Path, bundle: Bundle, count: int = 1024, *, masked: bool = True) -> Path:
    """Write bodies of real lengths: sentences of the held-out text that the model takes.

    Args:
        path: Where they are written.
        bundle: The model's.
        count: How many, at most.
        masked: Whether one word of each is hidden.
    """
    tokens = Tokens.read(bundle)
    text = (ROOT / "data" / "evaluation.txt").read_text(encoding="utf-8")
    chosen = random.Random(0)  # noqa: S311 — repeatable
    texts = []
    for sentence in re.split(r"(?<=[.!?])\s+", text):
        words = sentence.split()
        if len(words) > 2:  # noqa: PLR2004 — less is a heading
            if masked:
                words[chosen.randrange(len(words))] = tokens.mask_token or "[MASK]"
            texts.append(" ".join(words))
    fit = [text for text, encoded in zip(texts, tokens.encode(texts), strict=True) if isinstance(encoded, Encoded)]
    bodies = [json.dumps({"inputs": text}) for text in chosen.sample(fit, min(count, len(fit)))]
    path.write_text("\n".join(bodies) + "\n", encoding="utf-8")
    return path
