"""Service to others while a server is attacked: latency of /health, an honest batch, and memory.

    python -m bench.serving.attacks [--seconds 10] [--only NAME]... [--output FILE]

Each attack is eight clients at once, in a process of their own, that send the same request again and again, against a
server of the default model in INT8. Beside them, one client asks `/health` a hundred times a second, and one sends a
batch of 40 sentences with masks after the other. Writes
docs/data/serving-attacks.json, and fails where a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gzip
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT, commit
from bench.serving.server import PYTHON, serve
from bertport.measure.machine import describe_machine, machine_lock
from bertport.runtime.bundle.default import default_bundle

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20
CLIENTS = 8
READERS = 64
"""Clients that do not read."""
HEALTH_P99_MS = 250.0
"""Bar: of a probe during an attack."""
BATCH_RATIO = 3.0
"""Bar: an honest batch during an attack over the same alone, medians."""
BUDGET = 256 * MIB
"""The server's default for bytes of answers that it holds."""
MODEL = "bertport-default"
SHORTEST, LONGEST = 60, 160
"""Characters of an honest sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One row."""

    case: str
    """Number in the list of inputs that failed, as docs/research/reliability.md names it."""
    summary: str
    """Description of what is sent."""
    request: bytes
    """Head and body."""
    endless: bytes = b""
    """Bytes that are sent after it without end, on the same connection."""
    clients: int = CLIENTS
    """Number of clients at once."""
    reads: bool = True
    """Whether answers are read."""


def _post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def _json(path: str, value: object) -> bytes:
    return _post(path, json.dumps(value, ensure_ascii=False).encode())


def _packed(path: str, body: bytes) -> bytes:
    return _post(path, gzip.compress(body), "Content-Encoding: gzip")


def _infer(count: int, values: list[int], output: str, **parameters: object) -> bytes:
    ids = {"name": "input_ids", "shape": [1, count], "datatype": "INT64", "data": values}
    asked = {"inputs": [ids], "outputs": [{"name": output, "parameters": parameters}]}
    return _json(f"/v2/models/{MODEL}/infer", asked)


def attacks() -> dict[str, Attack]:
    """Return the table, by name."""
    most = (2 * MIB) - 200
    words = " ".join(["w"] * 60_000)
    limit = "." * (1 << 17)
    chunked = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    pair = {"inputs": {"text": words, "text_pair": words}, "parameters": {"truncation": True}}
    pairs = [{"text": limit, "text_pair": limit} for _ in range(7)]
    return {
        "pair": Attack(
            case="S1",
            summary="a pair of 2 x 60,000 words with truncation, gzipped to some hundred bytes",
            request=_packed("/tasks/next-sentence", json.dumps(pair).encode()),
        ),
        "pairs": Attack(
            case="S1",
            summary="seven pairs of 2 x 131,072 full stops with truncation",
            request=_json("/tasks/next-sentence", {"inputs": pairs, "parameters": {"truncation": True}}),
        ),
        "dots": Attack(case="S4", summary="a text of 2 MB of full stops", request=_json("/tasks/features", "." * most)),
        "long": Attack(
            case="S4",
            summary="fifteen texts of 131,072 full stops",
            request=_json("/tasks/features", {"inputs": [limit] * 15, "parameters": {"pooling": "mean"}}),
        ),
        "target": Attack(
            case="S4",
            summary="a target of 2 MB",
            request=_json("/tasks/fill-mask", {"inputs": "a [MASK]", "parameters": {"targets": "a" * most}}),
        ),
        "targets": Attack(
            case="S4",
            summary="4,096 targets of 485 characters",
            request=_json(
                "/tasks/fill-mask",
                {"inputs": "a [MASK]", "parameters": {"targets": [f"{n:05d}" + "x y " * 120 for n in range(4096)]}},
            ),
        ),
        "words": Attack(
            case="S4",
            summary="3,900 targets of one character",
            request=_json(
                "/tasks/fill-mask",
                {"inputs": "a [MASK]", "parameters": {"targets": [chr(0x4E00 + n) for n in range(3900)]}},
            ),
        ),
        "lists": Attack(
            case="S4", summary="2 MB of [[],[],…]", request=_post("/", b"[" + b"[]," * (most // 3) + b"0]")
        ),
        "gzip": Attack(
            case="S4", summary="the same, gzipped", request=_packed("/", b"[" + b"[]," * (most // 3) + b"0]")
        ),
        "strings": Attack(
            case="S4",
            summary="an input, and a parameter, of 250,000 texts each",
            request=_json("/tasks/features", {"inputs": [["a"] * 250_000], "parameters": {"pooling": ["a"] * 250_000}}),
        ),
        "numbers": Attack(
            case="S4",
            summary="a tensor of 390,000 numbers as JSON, of which 512 are its shape",
            request=_infer(512, [7] * 390_000, "pooler_output"),
        ),
        "silent": Attack(
            case="S5",
            summary="64 clients that ask for logits of 160 tokens as JSON, some 50 MB, and do not read",
            clients=READERS,
            reads=False,
            request=_infer(160, [2000 + n for n in range(160)], "logits"),
        ),
        "silent-binary": Attack(
            case="S5",
            summary="64 clients that ask for logits of 512 tokens as bytes, 62 MB, and do not read",
            clients=READERS,
            reads=False,
            request=_infer(512, [2000 + n for n in range(512)], "logits", binary_data=True),
        ),
        "trailers": Attack(
            case="S6", summary="trailers without end", request=chunked + b"0\r\n", endless=b"a:b\r\n" * 10_000
        ),
        "extensions": Attack(
            case="S6", summary="chunk extensions without end", request=chunked + b"1;", endless=b"a=b;" * 10_000
        ),
    }


async def attack(plan: Attack, port: int, seconds: float) -> dict[str, int]:
    """Be the attackers for some seconds; return how often each status was answered."""
    end = time.monotonic() + seconds
    seen: Counter[str] = Counter()

    async def client() -> None:
        while time.monotonic() < end:
            try:
                await asyncio.wait_for(once(), max(0.1, end - time.monotonic()) + 1)
            except (OSError, asyncio.IncompleteReadError):
                seen["closed"] += 1
                await asyncio.sleep(0.01)
            except TimeoutError:
                seen["unanswered"] += 1

    async def once() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            if not plan.reads:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                reader._transport.pause_reading()  # type: ignore[attr-defined]  # noqa: SLF001 — else asyncio reads ahead
            writer.write(plan.request)
            while plan.endless and time.monotonic() < end and not reader.at_eof() and not writer.is_closing():
                writer.write(plan.endless)
                await asyncio.wait_for(writer.drain(), max(0.01, end - time.monotonic()))
                await asyncio.sleep(0)
            if not plan.reads:
                await asyncio.sleep(max(0, end - time.monotonic()))
                seen["unread"] += 1
                return
            answer = await reader.readuntil(b"\r\n\r\n")
            seen[answer[9:12].decode()] += 1
        finally:
            writer.transport.abort()

    await asyncio.gather(*(client() for _ in range(plan.clients)))
    return dict(seen)


class Loop:
    """A thread that does something again and again, and notes how long each time took and what came of it."""

    def __init__(self, once: Callable[[], int], pause: float) -> None:
        self.seconds: list[float] = []
        self.outcomes: Counter[str] = Counter()
        self._once, self._pause, self._stop = once, pause, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.perf_counter()
            try:
                self.outcomes[str(self._once())] += 1
            except (OSError, http.client.HTTPException) as error:
                self.outcomes[type(error).__name__] += 1
            self.seconds.append(time.perf_counter() - began)
            self._stop.wait(self._pause)

    def stop(self) -> list[float]:
        """End it; return the times, sorted."""
        self._stop.set()
        self._thread.join()
        return sorted(self.seconds)


def asks(port: int, method: str, path: str, body: bytes | None = None) -> Callable[[], int]:
    """Return a function that sends a request on a connection of its own thread's, and returns the status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def once() -> int:
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            raise
        return answer.status

    return once


def honest() -> bytes:
    """Return a batch of 40 sentences of the held-out excerpt, each with a mask."""
    lines = (ROOT / "data" / "evaluation.txt").read_text(encoding="utf-8").splitlines()
    sentences = [line for line in lines if SHORTEST <= len(line) <= LONGEST][:40]
    masked = [f"{line.rsplit(' ', 2)[0]} [MASK] {line.rsplit(' ', 1)[1]}" for line in sentences]
    return json.dumps({"inputs": masked, "parameters": {"top_k": 1}}).encode()


def measure(name: str, plan: Attack, seconds: float) -> dict[str, Any]:
    """Attack a server of its own, and see what it does meanwhile."""
    server = serve(default_bundle(), "int8-dynamic")
    batch = honest()
    ask = asks(server.port, "POST", "/tasks/fill-mask", batch)
    for _ in range(3):
        ask()
    alone = Loop(ask, 0)
    time.sleep(min(seconds, 5))
    before = median(alone.stop())
    idle = server.resident
    command = [
        PYTHON,
        "-m",
        "bench.serving.attacks",
        "--attacker",
        name,
        "--port",
        str(server.port),
        "--seconds",
        str(seconds),
    ]
    attacker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    health = Loop(asks(server.port, "GET", "/health"), 0.01)
    other = Loop(ask, 0)
    out, _ = attacker.communicate()
    probes, batches = health.stop(), other.stop()
    peak = server.peak or -1
    alive = server.process.poll() is None
    code = server.stop() if alive else server.process.returncode
    bad = [line for line in server.log if not line.startswith("{")]
    return {
        "case": plan.case,
        "summary": plan.summary,
        "clients": plan.clients,
        "answers": json.loads(out),
        "health_ms": {"p50": 1e3 * median(probes), "p99": 1e3 * probes[int(0.99 * (len(probes) - 1))]},
        "health_answers": dict(health.outcomes),
        "batch_ms": {"alone": 1e3 * before, "attacked": 1e3 * median(batches)},
        "batch_ratio": median(batches) / before,
        "batch_answers": dict(other.outcomes),
        "memory": {"idle": idle, "peak": peak},
        "exit_code": code,
        "lines_outside_the_log": bad[:5],
    }


def verdicts(measured: dict[str, Any]) -> list[str]:
    """Return the bars that an attack broke."""
    broken = []
    if measured["health_ms"]["p99"] > HEALTH_P99_MS:
        broken.append(f"/health took {measured['health_ms']['p99']:.0f} ms at p99 (limit: {HEALTH_P99_MS:.0f})")
    if measured["batch_ratio"] > BATCH_RATIO or set(measured["batch_answers"]) != {"200"}:
        broken.append(f"the batch took {measured['batch_ratio']:.1f} times as long: {measured['batch_answers']}")
    if set(measured["health_answers"]) != {"200"}:
        broken.append(f"/health: {measured['health_answers']}")
    if not 0 < measured["memory"]["peak"] < 2 * measured["memory"]["idle"] + BUDGET:
        broken.append(
            f"memory grew from {measured['memory']['idle'] / MIB:.0f} to {measured['memory']['peak'] / MIB:.0f} MiB"
        )
    if measured["exit_code"] != 0 or measured["lines_outside_the_log"]:
        broken.append(f"exit code {measured['exit_code']}, {measured['lines_outside_the_log']}")
    return broken


def main() -> None:
    """Attack, and write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--only", action="append")
    parser.add_argument("--output", type=Path, help="[docs/data/serving-attacks.json]")
    parser.add_argument("--attacker", help="be the clients of this attack, against --port")
    parser.add_argument("--port", type=int)
    arguments = parser.parse_args()
    table = attacks()
    if arguments.attacker:
        json.dump(asyncio.run(attack(table[arguments.attacker], arguments.port, arguments.seconds)), sys.stdout)
        return
    if arguments.only and not arguments.output:
        parser.error("--only measures some attacks, and the page has all: add --output FILE")
    output = arguments.output or ROOT / "docs" / "data" / "serving-attacks.json"
    results, failed = {}, False
    with machine_lock():
        for name in arguments.only or table:
            results[name] = measure(name, table[name], arguments.seconds)
            broken = verdicts(results[name])
            failed |= bool(broken)
            said = results[name]
            print(
                f"{name:14} /health p99 {said['health_ms']['p99']:7.1f} ms, batch x{said['batch_ratio']:.2f}, "
                f"{said['memory']['idle'] / MIB:.0f} -> {said['memory']['peak'] / MIB:.0f} MiB, {said['answers']}",
                *(f"\n    BROKEN: {bar}" for bar in broken),
                flush=True,
            )
    value = {
        "machine": dataclasses.asdict(describe_machine()),
        "commit": commit(),
        "seconds": arguments.seconds,
        "attacks": results,
    }
    value["date"] = time.strftime("%Y-%m-%d", time.gmtime())
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    sys.exit(failed)


if __name__ == "__main__":
    main()
