"""What people write first: transformers' pipeline behind the same framework and server, nothing else.

    python -m bench.serving.peer CHECKPOINT

Prints its port when it is ready. Starlette runs the blocking call in its pool of threads, as its documentation says.
"""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import JSONResponse


def main() -> None:
    """Serve a checkpoint until the process is ended."""
    import uvicorn
    from starlette import responses
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.routing import Route
    from transformers import pipeline

    pipe = pipeline("fill-mask", model=sys.argv[1], device="cpu")
    pipe("a [MASK]")

    async def answer(request: Request) -> JSONResponse:
        body = await request.json()
        return responses.JSONResponse(await run_in_threadpool(pipe, body["inputs"]))

    sock = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(sock.getsockname()[1], flush=True)
    config = uvicorn.Config(Starlette(routes=[Route("/", answer, methods=["POST"])]), log_level="error")
    uvicorn.Server(config).run(sockets=[sock])


if __name__ == "__main__":
    main()
