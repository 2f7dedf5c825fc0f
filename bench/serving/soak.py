"""Clients as the world has them, for minutes: honest ones of every task and length among hostile ones.

    python -m bench.serving.soak --port PORT --bodies FILE --seconds 300

Prints how often each kind was tried, and every answer to an honest one that is neither 200 nor 429; a thousand of these
end it.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from bench.serving.load import Client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LONG = "a very long text " * 2500
MOST_WRONG = 1000
"""Wrong answers at which it ends: more say nothing new, and the program that waits for its end reads them after it, so
that they have to fit into a pipe (64 KiB)."""
BOMB = gzip.compress(b" " * 50_000_000)


class Soak:
    """State that all clients share."""

    def __init__(self, port: int, bodies: list[bytes], end: float) -> None:
        self.port = port
        self.end = end
        self.texts = [json.loads(body)["inputs"] for body in bodies]
        self.tried: Counter[str] = Counter()
        self.wrong: list[str] = []

    def question(self, chosen: random.Random) -> tuple[str, object]:
        """Return an honest request of some task: address and body."""
        few = chosen.sample(self.texts, chosen.choice((1, 1, 1, 2, 8, 40)))
        pairs = [{"text": text, "text_pair": chosen.choice(self.texts)} for text in few]
        return chosen.choice(
            [
                ("/tasks/fill-mask", {"inputs": few[0], "parameters": {"top_k": chosen.choice((1, 5, 50))}}),
                ("/tasks/fill-mask", {"inputs": few}),
                ("/tasks/text-classification", {"inputs": pairs, "parameters": {"truncation": True}}),
                ("/tasks/feature-extraction", {"inputs": few, "normalize": True}),
                ("/tasks/features", {"inputs": few[0]}),
                ("/tasks/sentence-similarity", {"inputs": {"source_sentence": few[0], "sentences": few}}),
                ("/tasks/feature-extraction", {"inputs": LONG, "truncate": True}),
            ]
        )

    async def honest(self, chosen: random.Random) -> None:
        """Ask as one should."""
        client = Client("127.0.0.1", self.port)
        for _ in range(chosen.randint(1, 20)):
            path, body = self.question(chosen)
            outcome = await client.ask(path, json.dumps(body).encode())
            if outcome not in (200, 429):
                self.wrong.append(f"{path}: {outcome}")
                if len(self.wrong) >= MOST_WRONG:
                    self.end = time.monotonic()
            if time.monotonic() > self.end:
                break
        client.close()

    async def send(self, data: bytes, wait: float) -> None:
        """Send bytes, perhaps read something, and hang up."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(data)
            await writer.drain()
            await asyncio.wait_for(reader.read(1000), wait)
            writer.close()
        except (OSError, TimeoutError):
            pass

    async def hangs_up(self, chosen: random.Random) -> None:
        """Ask much and leave at once."""
        body = json.dumps({"inputs": chosen.sample(self.texts, 40)}).encode()
        await self.send(_post(len(body)) + body, 0.01)

    async def cut_short(self, chosen: random.Random) -> None:
        """Send less than was announced."""
        await self.send(_post(10_000) + b'{"inputs": "' + b"x" * chosen.randint(0, 5000), 0.2)

    async def garbage(self, chosen: random.Random) -> None:
        """Send what is no HTTP, or no JSON, or JSON of the wrong types."""
        bodies = [b"[" * 100_000, b'{"inputs": 5}', b'{"inputs": [[[[1]]]]}', b'{"inputs": {"a": 1}}', b"\xff" * 1000]
        body = chosen.choice(bodies)
        await self.send(chosen.choice([_post(len(body)) + body, b"\x00\x01\x02" * 1000]), 0.5)

    async def ten_thousand_tokens(self, chosen: random.Random) -> None:  # noqa: ARG002 — as the others
        """Send a text that is much too long."""
        body = json.dumps({"inputs": LONG}).encode()
        await self.send(_post(len(body)) + body, 1)

    async def bomb(self, chosen: random.Random) -> None:  # noqa: ARG002 — as the others
        """Send what would unpack to fifty megabytes."""
        await self.send(_post(len(BOMB), "Content-Encoding: gzip") + BOMB, 1)

    async def slow(self, chosen: random.Random) -> None:
        """Send a head, a byte at a time."""
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            for byte in b"POST / HTTP/1.1\r\nHost: localhost\r\n"[: chosen.randint(5, 29)]:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.1)
            writer.close()
        except OSError:
            pass

    async def does_not_read(self, chosen: random.Random) -> None:
        """Ask for large answers, and read none."""
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            body = json.dumps({"inputs": chosen.sample(self.texts, 40)}).encode()
            writer.write((_post(len(body), path="/tasks/features") + body) * 3)
            await asyncio.sleep(2)
            writer.close()
        except OSError:
            pass


def _post(length: int, *more: str, path: str = "/") -> bytes:
    return "\r\n".join(
        [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {length}", *more, "", ""]
    ).encode()


async def soak(port: int, bodies: list[bytes], seconds: float, clients: int) -> Soak:
    """Run clients of every kind, three honest ones for each hostile one."""
    shared = Soak(port, bodies, time.monotonic() + seconds)
    hostile: list[Callable[[random.Random], Awaitable[None]]] = [
        shared.hangs_up,
        shared.cut_short,
        shared.garbage,
        shared.ten_thousand_tokens,
        shared.bomb,
        shared.slow,
        shared.does_not_read,
    ]

    async def client(number: int) -> None:
        chosen = random.Random(number)  # noqa: S311 — repeatable
        while time.monotonic() < shared.end:
            kind = chosen.choice(hostile) if number % 4 == 0 else shared.honest
            shared.tried[getattr(kind, "__name__", "honest")] += 1
            await kind(chosen)

    await asyncio.gather(*map(client, range(clients)))
    return shared


def main() -> None:
    """Run, and print what was tried and what went wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--bodies", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", type=int, default=32)
    arguments = parser.parse_args()
    bodies = arguments.bodies.read_bytes().splitlines()
    shared = asyncio.run(soak(arguments.port, bodies, arguments.seconds, arguments.clients))
    json.dump({"tried": dict(shared.tried), "wrong": shared.wrong}, sys.stdout)


if __name__ == "__main__":
    main()
