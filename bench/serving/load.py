"""Clients of a server, in a process of their own: `python -m bench.serving.load --help`; prints what they saw as JSON.

Raw HTTP/1.1 over asyncio, one connection a client: a client library would cost more than the server that is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

CLOSED = "closed"
"""Outcome of a request whose connection ended before its answer."""


class Client:
    """One connection; opened anew when it was closed."""

    def __init__(self, host: str, port: int) -> None:
        self._place = (host, port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.refused = False

    async def ask(self, path: str, body: bytes) -> int | str:
        """POST; return the status, or `CLOSED` when there was no answer to what was sent."""
        if self._streams is None:
            try:
                self._streams = await asyncio.open_connection(*self._place)
            except OSError:
                self.refused = True  # never accepted, so nothing is lost
                return "refused"
        reader, writer = self._streams
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            headers = answer.lower()
            at = headers.index(b"content-length:")
            await reader.readexactly(int(headers[at + 15 : headers.index(b"\r\n", at)]))
        except (OSError, asyncio.IncompleteReadError, ValueError):
            self.close()
            return CLOSED
        if b"\r\nconnection: close\r\n" in headers:
            self.close()
        return int(answer[9:12])

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Seen:
    """Outcomes of requests, and their times."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.seconds: dict[str, list[float]] = {}

    def note(self, outcome: int | str, seconds: float) -> None:
        """Count an answer."""
        self.outcomes[str(outcome)] += 1
        self.seconds.setdefault(str(outcome), []).append(seconds)


async def closed_loop(arguments: argparse.Namespace, bodies: list[bytes], seen: Seen) -> None:
    """Run a number of clients, each of which asks again as soon as it is answered."""
    end = time.perf_counter() + arguments.seconds

    async def client(number: int) -> None:
        chosen = random.Random(number)  # noqa: S311 — which text is asked is no secret
        connection = Client(arguments.host, arguments.port)
        while time.perf_counter() < end and not connection.refused:
            began = time.perf_counter()
            outcome = await connection.ask(arguments.path, chosen.choice(bodies))
            seen.note(outcome, time.perf_counter() - began)
        connection.close()

    await asyncio.gather(*map(client, range(arguments.clients)))


async def open_loop(arguments: argparse.Namespace, bodies: list[bytes], seen: Seen) -> None:
    """Send requests at a rate, however long the answers take; connections are used again."""
    chosen = random.Random(0)  # noqa: S311 — as above
    idle: list[Client] = []
    running: set[asyncio.Task[None]] = set()

    async def request() -> None:
        connection = idle.pop() if idle else Client(arguments.host, arguments.port)
        began = time.perf_counter()
        outcome = await connection.ask(arguments.path, chosen.choice(bodies))
        seen.note(outcome, time.perf_counter() - began)
        idle.append(connection)

    begin = due = time.perf_counter()
    while due < begin + arguments.seconds:
        due += chosen.expovariate(arguments.rate)  # Poisson arrivals, MLPerf's scenario Server
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(request())
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    for connection in idle:
        connection.close()


def main() -> None:
    """Ask, and print what came back."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/")
    parser.add_argument("--bodies", type=Path, required=True, help="a file of JSON lines, each a body")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float, help="requests a second, in place of --clients")
    arguments = parser.parse_args()
    bodies = arguments.bodies.read_bytes().splitlines()
    seen = Seen()
    began = time.perf_counter()
    asyncio.run((open_loop if arguments.rate else closed_loop)(arguments, bodies, seen))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    said: dict[str, Any] = {
        "wall_s": time.perf_counter() - began,
        "own_cpu_s": usage.ru_utime + usage.ru_stime,
        "outcomes": dict(seen.outcomes),
        "seconds": seen.seconds,
    }
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
