"""Malformed requests by the thousand against a server of its own: every route, every layer, from one seed.

    python -m bench.serving.fuzz

Starts `bertport serve`, sends requests made from valid ones by breaking them (JSON by its structure, tensors, packed
bodies, chunks, heads and whole requests by their bytes, targets, headers, parameters, texts), several connections at
once, with honest requests in between. Writes the counts to docs/data/serving-fuzz.json, prints a table, and exits with
1 where a verdict fails:

- no 5xx but 503 while loading or stopping, and 504; every refusal is JSON with a sentence;
- no whole request without an answer, and no connection closed without one;
- honest requests are answered, and as before;
- the server goes on, ends with 0 at SIGTERM, and writes nothing on standard error but JSON lines without a traceback;
- its memory at the end is under twice that at the start.
"""

# ruff: noqa: C901, PLR0911, PLR0912, PLR2004, S311 — a fuzzer is odds and choices: naming each would hide them
from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gzip
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import urllib.request
import zlib
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.checkout import ROOT, commit
from bertport.measure.machine import describe_machine
from bertport.serve.api import openai, tei
from bertport.serve.api.page import OPEN_PAGES
from bertport.serve.api.tasks import WIRE_TASKS

OUTPUT = ROOT / "docs" / "data" / "serving-fuzz.json"
MIB = 1 << 20
PATIENCE = 90.0
"""Seconds for the answer to a whole request: the server gives up at 30."""
PART_SECONDS = 0.4
"""For the answer to what may be part of a request: the server waits for the rest, and the client goes."""
HONEST_EVERY = 20
ALLOWED = {503: {"loading", "Unhealthy"}, 504: {"time_up", "Backend"}}
"""5xx that are documented, with the reasons, as each address calls them."""
HONEST = json.dumps({"inputs": "The capital of France is [MASK].", "parameters": {"top_k": 3}}).encode()
HUGE = (2**31, 2**63 - 1, 2**63, -(2**63), 2**64, 10**30, 1e308, -1e-320, 0.1)
TEXTS = (
    "",
    " ",
    "\x00",
    "\u200b",
    "\ufeff[MASK]",
    "\u202e[MASK]\u202c",
    "e\u0301" * 50,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\ud83d",
    "\udc00\ud800",
    "\uffff\U0010ffff",
    "\U000e0041[MASK]",
    "[MASK]" * 40,
    "[CLS][SEP][PAD][UNK][MASK]",
    "##ing ##[MASK]",
    "." * 3000,
    "a" * 5000,
    "漢字" * 400,
    "ﷺ" * 60,
    "Zalgo" + "\u0335\u0321" * 200,
    "\r\n\t\x0b\x0c\x85\u2028",
    "%s%n{}{0}${jndi:ldap://a}",
    "../../etc/passwd",
)
PARAMETERS = sorted(
    {parameter for task in WIRE_TASKS.values() for parameter in task.parameters} | {"truncate", "prompt_name", "x"}
)
FIELDS = tuple(
    dict.fromkeys(
        (
            *("inputs", "parameters", "name"),
            *(field for task in WIRE_TASKS.values() for field in task.inputs.get("properties", ("text", "text_pair"))),
            *(*openai.FIELDS, *tei.EMBED, *tei.PREDICT, *tei.RERANK),
        )
    )
)
"""Names of fields, of inputs and of bodies."""
OF_POST = (
    *("json", "json", "text", "parameters", "bytes", "packed", "chunked", "tensors", "tensors"),
    *("target", "headers", "head", "raw"),
)
OF_GET = ("target", "headers", "head", "raw", "chunked")
"""Ways to break a request, some more often than others."""


def json_value(chosen: random.Random, depth: int = 0) -> Any:  # noqa: ANN401 — any JSON value
    """Make a value of any kind."""
    kind = chosen.randrange(9 if depth < 3 else 6)
    if kind == 0:
        return chosen.choice((None, True, False))
    if kind == 1:
        return chosen.choice((0, 1, -1, *HUGE, float("nan"), float("inf"), chosen.randint(-(10**6), 10**6)))
    if kind in (2, 3):
        return chosen.choice(TEXTS)
    if kind == 4:
        return "".join(chr(chosen.randrange(0xD800)) for _ in range(chosen.randrange(40)))
    if kind == 5:
        return chosen.choice(([], {}, [[]], [[[]]], "[MASK]", ["[MASK]"]))
    if kind == 6:
        return [json_value(chosen, depth + 1) for _ in range(chosen.randrange(5))]
    if kind == 7:
        value: Any = chosen.choice((1, "a [MASK]", []))
        for _ in range(chosen.choice((2, 15, 16, 17, 300, 2000))):
            value = [value] if chosen.random() < 0.5 else {"a": value}
        return value
    names = (*FIELDS, *PARAMETERS)
    return {chosen.choice(names): json_value(chosen, depth + 1) for _ in range(chosen.randrange(4))}


def break_value(value: Any, chosen: random.Random) -> Any:  # noqa: ANN401 — any JSON value
    """Change one place of a value."""
    if chosen.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return json_value(chosen)
    if isinstance(value, list):
        items = list(value)
        at = chosen.randrange(len(items))
        action = chosen.randrange(4)
        if action == 0:
            del items[at]
        elif action == 1:
            items *= chosen.choice((2, 3, 300))
        else:
            items[at] = break_value(items[at], chosen)
        return items
    changed = dict(value)
    key = chosen.choice(list(changed))
    action = chosen.randrange(6)
    if action == 0:
        changed.pop(key)
    elif action == 1:
        changed[chosen.choice((*TEXTS, *PARAMETERS))] = changed.pop(key)
    elif action == 2:
        changed[chosen.choice(PARAMETERS)] = json_value(chosen)
    else:
        changed[key] = break_value(changed[key], chosen)
    return changed


def dumped(value: Any, chosen: random.Random) -> bytes:  # noqa: ANN401 — any JSON value
    """Write JSON, sometimes with what only JSON can say: escapes, names twice, numbers of any length."""
    try:
        text = json.dumps(value, ensure_ascii=chosen.random() < 0.5)
    except RecursionError:
        text = "[" * 5000
    if chosen.random() < 0.05:
        text = text.replace("{", '{"inputs": 1, "inputs": "b [MASK]", ', 1)
    if chosen.random() < 0.05:
        text = text.replace("1", "1" * chosen.choice((40, 5000)), 1).replace("0", "0e9999", 1)
    return text.encode("utf-8", "surrogatepass")


def break_bytes(data: bytes, chosen: random.Random) -> bytes:
    """Change some bytes: turn, take out, put in, repeat, cut."""
    changed = bytearray(data)
    for _ in range(chosen.choice((1, 1, 2, 5))):
        if not changed:
            break
        at = chosen.randrange(len(changed))
        length = chosen.choice((1, 1, 2, 8, 100))
        action = chosen.randrange(6)
        if action == 0:
            changed[at] ^= 1 << chosen.randrange(8)
        elif action == 1:
            del changed[at : at + length]
        elif action == 2:
            changed[at:at] = chosen.randbytes(length)
        elif action == 3:
            changed[at:at] = changed[at : at + length] * chosen.choice((1, 2, 50))
        elif action == 4:
            changed[at:at] = chosen.choice(
                (b"\r\n", b"\n", b"\x00", b": ", b"\r\n ", b"\r\n\r\n", b"0\r\n\r\n", b"%", b"\xff")
            )
        else:
            del changed[at:]
    return bytes(changed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request."""

    kind: str
    """Way in which it was made."""
    route: str
    """Route that it was made from."""
    data: bytes
    """All of its bytes."""
    whole: bool
    """Whether an answer has to come: a request that is whole."""


class Maker:
    """Makes requests.

    Args:
        document: the server's OpenAPI document, whose routes are tried.
        names: of the server's bundles.
        variants: of the bundles.
    """

    def __init__(self, document: dict[str, Any], names: list[str], variants: list[str]) -> None:
        self._names, self._variants = names, variants
        self.routes = [
            (method.upper(), path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        ]
        self.routes += [("GET", path, {}) for path in sorted(OPEN_PAGES)]

    def make(self, chosen: random.Random) -> Sent:
        """Make one."""
        method, path, operation = chosen.choice(self.routes)
        # Routes with a body are where most can be broken.
        if method != "POST" and chosen.random() < 0.5:
            method, path, operation = chosen.choice(self.routes)
        target = self._target(path, chosen)
        body = self._body(operation, chosen) if method == "POST" else b""
        kind = chosen.choice(OF_POST if method == "POST" else OF_GET)
        headers: list[tuple[bytes, bytes]] = []
        if kind in ("json", "text", "parameters"):
            body = getattr(self, f"_{kind}")(body, chosen)
        elif kind == "bytes":
            body = break_bytes(body, chosen)
        elif kind == "packed":
            encoding, body = self._packed(body, chosen)
            headers.append((b"Content-Encoding", encoding))
        elif kind == "tensors":
            size, body = self._tensors(chosen)
            if "/infer" not in target:
                target = f"/v2/models/{self._names[0]}/infer"
            path = "/v2/models/{name}/infer"
            if size is not None:
                headers.append((b"Inference-Header-Content-Length", size))
        elif kind == "target":
            target = self._strange_target(target, chosen)
        elif kind == "headers":
            headers += self._strange_headers(chosen)
        route = f"{method} {path}"
        if chosen.random() < 0.03:
            method = chosen.choice(("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD"))
        begin = f"{method} {target} HTTP/1.1".encode("latin-1", "replace")
        lines = [begin, b"Host: localhost", *(b"%s: %s" % header for header in headers)]
        if kind == "chunked":
            lines.append(b"Transfer-Encoding: chunked")
            return Sent(kind=kind, route=route, **self._chunked(lines, body, chosen))
        if body or method == "POST":
            lines.append(b"Content-Length: %d" % len(body))
        data = b"\r\n".join([*lines, b"", body])
        if kind == "head":
            head, _, rest = data.partition(b"\r\n\r\n")
            data = break_bytes(head, chosen) + b"\r\n\r\n" + rest
        elif kind == "raw":
            data = break_bytes(data, chosen)
        # Strange targets and headers may be no request at all, which is refused; they are whole all the same.
        return Sent(kind=kind, route=route, data=data, whole=kind not in ("head", "raw"))

    def _target(self, path: str, chosen: random.Random) -> str:
        path = path.replace("{name}", chosen.choice(self._names)).replace("{version}", chosen.choice(self._variants))
        path = path.replace("{task}", chosen.choice(list(WIRE_TASKS)))
        if chosen.random() < 0.2:
            key = chosen.choice(("variant", "task", "nothing"))
            path += f"?{key}=" + chosen.choice((*self._variants, *WIRE_TASKS, "", "int9", "%00", "%ff", "a" * 300))
        return path

    def _body(self, operation: dict[str, Any], chosen: random.Random) -> bytes:
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        examples = [example["value"] for example in content.get("examples", {}).values()] or [{}]
        return json.dumps(chosen.choice(examples)).encode()

    def _json(self, body: bytes, chosen: random.Random) -> bytes:
        value = json.loads(body)
        for _ in range(chosen.choice((1, 1, 2, 4))):
            value = break_value(value, chosen)
        return dumped(value, chosen)

    def _text(self, body: bytes, chosen: random.Random) -> bytes:
        def text() -> str:
            pieces = chosen.choices((*TEXTS, "[MASK]", "word", "ß", "é"), k=chosen.randrange(1, 6))
            return chosen.choice(("", " ")).join(pieces)

        def replaced(value: Any) -> Any:  # noqa: ANN401 — any JSON value
            if isinstance(value, str):
                return text() if chosen.random() < 0.7 else value
            if isinstance(value, list):
                return [replaced(item) for item in value]
            return {key: replaced(item) for key, item in value.items()} if isinstance(value, dict) else value

        return dumped(replaced(json.loads(body)), chosen)

    def _parameters(self, body: bytes, chosen: random.Random) -> bytes:
        value = json.loads(body)
        if not isinstance(value, dict):
            value = {"inputs": value}
        given = {chosen.choice(PARAMETERS): json_value(chosen) for _ in range(chosen.randrange(1, 4))}
        value = value | given if chosen.random() < 0.3 else value | {"parameters": given}
        return dumped(value, chosen)

    def _packed(self, body: bytes, chosen: random.Random) -> tuple[bytes, bytes]:
        encoding = chosen.choice((b"gzip", b"deflate", b"x-gzip", b"GZIP", b"br", b"gzip, gzip", b"identity", b"\xe9"))
        content = chosen.choice((body, b" " * 3_000_000, b"[" + b"[]," * 50_000 + b"[]]", b"", b"x"))
        packed = zlib.compress(content) if encoding == b"deflate" else gzip.compress(content)
        action = chosen.randrange(5)
        if action == 0:
            packed = break_bytes(packed, chosen)
        elif action == 1:
            packed += chosen.choice((packed, b"\0", b"garbage"))
        elif action == 2:
            packed = packed[: chosen.randrange(len(packed))]
        return encoding, packed

    def _tensors(self, chosen: random.Random) -> tuple[bytes | None, bytes]:
        names = (
            "input_ids",
            "attention_mask",
            "token_type_ids",
            "masked_positions",
            "text",
            "text_pair",
            "",
            "nothing",
        )
        types = ("INT64", "BYTES", "BOOL", "FP16", "FP32", "FP64", "UINT64", "INT8", "INT65", None)
        sizes = (0, 1, 2, 3, 8, -1, 2**31, 2**63, True, 1.5, "1", None)
        inputs, rest = [], b""
        for name in chosen.choice((chosen.sample(names, 2), ["input_ids"], ["input_ids"], ["text"], [])):
            text = name.startswith("text")
            shape: Any = [1, 4] if not text else [1]
            entry: dict[str, Any] = {"name": name, "shape": shape, "datatype": "BYTES" if text else "INT64"}
            if chosen.random() < 0.5:
                entry["data"] = ["a [MASK]"] if text else [2, 5, 6, 3]
            else:
                part = struct.pack("<I", 8) + b"a [MASK]" if text else struct.pack("<4q", 2, 5, 6, 3)
                if chosen.random() < 0.4:
                    part = break_bytes(part, chosen)
                entry["parameters"] = {"binary_data_size": len(part)}
                rest += part
            action = chosen.randrange(8)
            if action == 0:
                entry["shape"] = [chosen.choice(sizes) for _ in range(chosen.randrange(6))]
            elif action == 1:
                entry["datatype"] = chosen.choice(types)
            elif action == 2:
                entry["parameters"] = {"binary_data_size": chosen.choice((*sizes, *HUGE))}
            elif action == 3:
                entry = break_value(entry, chosen)
            elif action == 4:
                entry["data"] = json_value(chosen)
            inputs.append(entry)
        outputs = chosen.choice(
            ("logits", "pooler_output", "last_hidden_state", "answer", "embedding", "probabilities", "x")
        )
        value: Any = {"inputs": inputs}
        if chosen.random() < 0.5:
            value["outputs"] = [{"name": outputs, "parameters": {"binary_data": chosen.random() < 0.5}}]
        if chosen.random() < 0.3:
            value["parameters"] = json_value(chosen)
        if chosen.random() < 0.2:
            value = break_value(value, chosen)
        head = dumped(value, chosen)
        size: bytes | None = b"%d" % len(head)
        if chosen.random() < 0.2:
            size = chosen.choice((None, b"", b"-1", b"1", b"9" * 30, b"%d" % (len(head) + 1), b"\xb2", b"0x10"))
        return size, head + rest

    def _strange_target(self, target: str, chosen: random.Random) -> str:
        more = (
            "%00",
            "%ff",
            "%2e%2e/",
            "/..",
            "//",
            "?",
            "?a=%zz&&=",
            "#a",
            "%",
            "\x7f",
            "é",
            "{",
            "|",
            "a" * 3000,
            ";a=b",
        )
        at = chosen.randrange(len(target) + 1)
        strange = target[:at] + chosen.choice(more) + target[at:]
        return chosen.choice(
            (strange, strange, strange, f"http://localhost{strange}", "*", "localhost:80", "http://", "")
        )

    def _strange_headers(self, chosen: random.Random) -> list[tuple[bytes, bytes]]:
        names = (
            *(b"X-Request-Id", b"X-Bertport-Variant", b"X-Bertport-Task", b"Content-Type", b"Authorization"),
            *(b"Expect", b"Upgrade", b"Connection", b"Host", b"Origin", b"Accept-Encoding", b"Range", b"traceparent"),
            *(b"Cookie", b"X-Forwarded-For", b"Access-Control-Request-Method", b"If-None-Match", b"TE"),
        )
        values = (
            *(b"", b"a", b"100-continue", b"upgrade", b"h2c", b"close", b"keep-alive", b"\xff\xfe", b"a" * 5000, b"*"),
            *(b"Bearer ", b"bytes=0-", b"evil.example", b"00-" + b"1" * 32 + b"-" + b"1" * 16 + b"-01", b"\t", b"a\tb"),
        )
        count = chosen.choice((1, 2, 3, 100, 300))
        return [(chosen.choice(names), chosen.choice(values)) for _ in range(count)]

    def _chunked(self, lines: list[bytes], body: bytes, chosen: random.Random) -> dict[str, Any]:
        parts, at = [], 0
        while at < len(body):
            size = chosen.choice((1, 3, 16, 1000))
            part = body[at : at + size]
            extension = chosen.choice((b"", b"", b";a=b", b';a="b;c"', b";" + b"x" * 300))
            parts.append(b"%x%s\r\n%s\r\n" % (len(part), extension, part))
            at += size
        trailers = chosen.choice((b"", b"", b"a: b\r\n", b"Content-Length: 5\r\n", b"a: b\r\n" * 3000))
        data = b"\r\n".join([*lines, b"", b"".join(parts)]) + b"0\r\n" + trailers + b"\r\n"
        if chosen.random() < 0.4:
            head, _, rest = data.partition(b"\r\n\r\n")
            return {"data": head + b"\r\n\r\n" + break_bytes(rest, chosen), "whole": False}
        return {"data": data, "whole": True}


class Server:
    """`bertport serve` in a process of its own."""

    def __init__(self, bundles: list[str]) -> None:
        command = [sys.executable, "-m", "bertport.runtime", "serve", "--port", "0", *bundles]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.lines: list[dict[str, Any]] = []
        self.other: list[str] = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._ready.wait(300):
            raise SystemExit(f"the server did not become ready: {self.lines[-3:]} {self.other[-3:]}")

    def _read(self) -> None:
        for line in self.process.stderr or ():
            try:
                record = json.loads(line)
            except ValueError:
                self.other.append(line)
                continue
            if record.get("message") == "listening":
                self.port = int(record["url"].rsplit(":", 1)[1])
            if record.get("message") == "ready":
                self._ready.set()
            if record.get("message") != "request" or "exception" in record:
                self.lines.append(record)
        self._ready.set()

    def get(self, path: str) -> Any:  # noqa: ANN401 — any JSON value
        """GET JSON."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE) as answer:
            return json.load(answer)

    def resident(self) -> int:
        """Return the bytes of memory that it holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return 1024 * int(status.partition("VmRSS:")[2].split()[0])

    def stop(self) -> int:
        """End it as an orchestrator does, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(120)
        self._reader.join(10)
        return code


@dataclass(slots=True)
class Findings:
    """Observations of a run."""

    statuses: Counter[str] = field(default_factory=Counter)
    """Answers by status."""
    routes: Counter[str] = field(default_factory=Counter)
    """Requests by route."""
    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    """Statuses by kind of request."""
    path: str = "/tasks/fill-mask"
    """Path that honest requests are sent to."""
    expected: Any = None
    """The answer to the first honest request."""
    honest: int = 0
    """Honest requests, all answered rightly."""
    wrong: list[str] = field(default_factory=list)
    """Verdicts that failed, each with what was sent."""

    def blame(self, what: str, sent: Sent) -> None:
        """Note a failed verdict."""
        self.wrong.append(f"{what}: {sent.kind} of {sent.route}: {sent.data[:600]!r}")


class Connection:
    """A connection, and the answers on it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, data: bytes, seconds: float, *, keep: bool) -> tuple[int, bytes] | None:
        """Send, and return the status and body of the answer; None where the server waits for more."""
        try:
            async with asyncio.timeout(seconds):
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self._port)
                reader, writer = self._streams
                with suppress(ConnectionError):
                    writer.write(data)
                    await writer.drain()
                status, body, closes = await self._answer(reader, bodiless=data.startswith(b"HEAD "))
        except TimeoutError:
            self.close()
            return None
        except BaseException:
            self.close()
            raise
        if closes or not keep:
            self.close()
        return status, body

    async def _answer(self, reader: asyncio.StreamReader, *, bodiless: bool) -> tuple[int, bytes, bool]:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            status = int(head[9:12])
            if status >= 200:
                break
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        body = await reader.readexactly(int(length[1])) if length and not bodiless else b""
        return status, body, b"\r\nconnection: close" in head or length is None

    def close(self) -> None:
        """Close it."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def worker(chosen: random.Random, count: int, maker: Maker, port: int, findings: Findings) -> None:
    """Send so many requests."""
    connection = Connection(port)
    for number in range(count):
        sent = maker.make(chosen)
        findings.routes[sent.route] += 1
        kinds = findings.kinds.setdefault(sent.kind, Counter())
        try:
            keep = sent.whole and chosen.random() < 0.7
            if not sent.whole:
                connection.close()  # what is left of such a request would be part of the next
            answer = await connection.ask(sent.data, PATIENCE if sent.whole else PART_SECONDS, keep=keep)
        except (OSError, asyncio.IncompleteReadError) as error:
            findings.blame(f"closed without an answer ({type(error).__name__})", sent)
            answer = None
        name = str(answer[0]) if answer else "none"
        findings.statuses[name] += 1
        kinds[name] += 1
        if answer is None:
            if sent.whole:
                findings.blame("no answer to a whole request", sent)
        else:
            judge(sent, *answer, findings)
        if number % HONEST_EVERY == 0:
            await honest(port, findings, keep=connection)
    connection.close()


def judge(sent: Sent, status: int, body: bytes, findings: Findings) -> None:
    """Judge one answer."""
    reason = None
    if status >= 400 and body:
        try:
            value = json.loads(body)
            if isinstance(value["error"], dict):
                reason, sentence = value["error"]["code"], value["error"]["message"]
            else:
                reason, sentence = value["error_type"], value["error"]
            if not isinstance(sentence, str) or len(sentence) > 2000:
                findings.blame(f"{status} whose error is no sentence", sent)
        except (ValueError, LookupError, TypeError):
            findings.blame(f"{status} whose body is not as every error's: {body[:100]!r}", sent)
    if status >= 500 and reason not in ALLOWED.get(status, ()):
        findings.blame(f"{status} {body[:200]!r}", sent)


async def honest(port: int, findings: Findings, keep: Connection | None = None) -> Any:  # noqa: ANN401
    """Ask as one should."""
    head = f"POST {findings.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(HONEST)}\r\n\r\n"
    data = head.encode() + HONEST
    sent = Sent(kind="honest", route=f"POST {findings.path}", data=data, whole=True)
    try:
        answer = await (keep or Connection(port)).ask(data, PATIENCE, keep=keep is not None)
    except (OSError, asyncio.IncompleteReadError) as error:
        findings.blame(f"honest, closed without an answer ({type(error).__name__})", sent)
        return None
    value = [word["token_str"] for word in json.loads(answer[1])] if answer and answer[0] == 200 else answer
    findings.expected = findings.expected or value
    if value != findings.expected:
        findings.blame(f"honest, answered {value}", sent)
    findings.honest += 1
    return value


async def attack(server: Server, requests: int, connections: int, seed: int) -> tuple[Findings, int, int]:
    """Send everything, and return what was seen, and the server's memory before and after."""
    models = server.get("/models")
    variants = sorted({variant["variant"] for model in models for variant in model["variants"]})
    maker = Maker(server.get("/openapi.json"), [model["name"] for model in models], variants)
    able = next(model["name"] for model in models if "fill-mask" in model["tasks"])
    findings = Findings(path=f"/models/{able}/tasks/fill-mask")
    for _ in range(200):
        await honest(server.port, findings)
    before = server.resident()
    shares = [requests // connections + (number < requests % connections) for number in range(connections)]
    await asyncio.gather(
        *(
            worker(random.Random(f"{seed} {number}"), share, maker, server.port, findings)
            for number, share in enumerate(shares)
        )
    )
    for _ in range(50):
        await honest(server.port, findings)
    return findings, before, server.resident()


def table(findings: Findings) -> str:
    """Return the counts as a table."""
    statuses = sorted(findings.statuses)
    lines = ["| made by | " + " | ".join(statuses) + " |", "|---" * (len(statuses) + 1) + "|"]
    for kind, counts in sorted(findings.kinds.items()):
        lines.append(f"| {kind} | " + " | ".join(str(counts[status]) for status in statuses) + " |")
    return "\n".join([*lines, "| all | " + " | ".join(str(findings.statuses[status]) for status in statuses) + " |"])


def main() -> None:
    """Fuzz, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--bundle",
        action="append",
        default=[],
        help="directory of a bundle, or NAME=directory; several times for several, one of which fills masks; the "
        "embedded one without",
    )
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    server = Server(arguments.bundle)
    began = time.monotonic()
    try:
        findings, before, after = asyncio.run(attack(server, arguments.requests, arguments.connections, arguments.seed))
        alive = server.process.poll() is None
    finally:
        code = server.stop()
    seconds = time.monotonic() - began
    wrong = list(findings.wrong)
    if not alive or code:
        wrong.append(f"the server {'went on' if alive else 'ended'}, and its exit code is {code}")
    wrong += [f"not a JSON line on standard error: {line[:300]!r}" for line in server.other[:20]]
    wrong += [f"a traceback in the log: {line}" for line in server.lines if "exception" in line][:20]
    if after >= 2 * before:
        wrong.append(f"memory went from {before:,} to {after:,} bytes")
    result = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "seed": arguments.seed,
        "requests": sum(findings.routes.values()),
        "honest": findings.honest,
        "connections": arguments.connections,
        "seconds": round(seconds, 1),
        "resident_bytes": {"start": before, "end": after},
        "exit_code": code,
        "statuses": dict(sorted(findings.statuses.items())),
        "kinds": {kind: dict(sorted(counts.items())) for kind, counts in sorted(findings.kinds.items())},
        "routes": dict(sorted(findings.routes.items())),
        "log": dict(Counter(str(line.get("level")) for line in server.lines)),
        "wrong": wrong,
        "machine": dataclasses.asdict(describe_machine()),
        "versions": {name: version(name) for name in ("uvicorn", "httptools", "starlette", "orjson", "onnxruntime")},
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=2, ensure_ascii=True) + os.linesep, encoding="utf-8")
    print(table(findings))
    print(f"{result['requests']} requests and {findings.honest} honest ones in {seconds:.0f} s; seed {arguments.seed}")
    print(
        f"resident memory: {before / 2**20:.0f} MiB at the start, {after / 2**20:.0f} MiB at the end; exit code {code}"
    )
    for complaint in wrong[:40]:
        print(f"WRONG {complaint}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
