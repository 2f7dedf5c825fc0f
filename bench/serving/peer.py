"""Server as people write it first: a library behind the same framework and server, nothing else.

    python -m bench.serving.peer TASK CHECKPOINT

A task is a pipeline's of transformers, or `embeddings` of sentence-transformers. Prints its port when it is ready.
Starlette runs the blocking call in its pool of threads, as its documentation says.
"""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import JSONResponse

EMBEDDINGS = "embeddings"


def answering(task: str, checkpoint: str) -> Callable[[str], Any]:
    """Return what answers a text."""
    if task == EMBEDDINGS:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(checkpoint, device="cpu", local_files_only=True)
        return lambda text: model.encode([text], show_progress_bar=False).tolist()
    from transformers import pipeline

    make: Any = pipeline  # typed for tasks that are known beforehand alone
    pipe: Callable[[str], Any] = make(task, model=checkpoint, device="cpu")
    return pipe


def main() -> None:
    """Serve a checkpoint until the process is ended."""
    import uvicorn
    from starlette import responses
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.routing import Route

    answer_one = answering(*sys.argv[1:])
    answer_one("a [MASK]")

    async def answer(request: Request) -> JSONResponse:
        body = await request.json()
        return responses.JSONResponse(await run_in_threadpool(answer_one, body["inputs"]))

    sock = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(sock.getsockname()[1], flush=True)
    config = uvicorn.Config(Starlette(routes=[Route("/", answer, methods=["POST"])]), log_level="error")
    uvicorn.Server(config).run(sockets=[sock])


if __name__ == "__main__":
    main()
