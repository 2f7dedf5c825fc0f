"""What a connection keeps in memory beside the request that it is asked."""

from __future__ import annotations

import asyncio
import tracemalloc
from unittest.mock import Mock

import pytest
import uvicorn
from uvicorn.server import ServerState

from bertport.serve.http.protocol import bounded

HEAD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"


async def nothing(_scope, _receive, send):
    """Answer with no content, and read nothing."""
    await send({"type": "http.response.start", "status": 204, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def connection():
    """A connection of a server of `nothing`, in the event loop that runs."""
    config = uvicorn.Config(nothing, ws="none", lifespan="off", log_config=None, proxy_headers=False)
    made = bounded(1, pytest.fail)(config, ServerState(), {})
    made.connection_made(Mock(is_closing=lambda: False))
    return made


async def turns():
    """Let the event loop turn often enough for some answers."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_requests_sent_ahead_are_not_copied_for_each_that_is_answered():
    async def parses():
        asked = connection()
        asked.data_received((HEAD + b"\r\n") * 100_000)  # 4 MB
        tracemalloc.start()
        try:
            await turns()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert asyncio.run(parses()) < 1 << 20


def test_a_body_that_was_not_read_does_not_wait_for_the_end_of_the_connection():
    async def answers():
        asked = connection()
        asked.data_received(HEAD + b"Content-Length: 200000\r\n\r\n" + b"x" * 100_000)
        assert len(asked.cycle.body) == 100_000
        await turns()
        assert asked.cycle.response_complete
        return len(asked.cycle.body)

    assert asyncio.run(answers()) == 0
