"""From inputs to answers: tokenize, queue, wait; and give up when the client does or the time is over."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from bertport.runtime.errors import InputTextError
from bertport.serve.problems import BodyTimeout, Overloaded, TimeUp, Unprocessable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from concurrent.futures import Executor

    from starlette.requests import Request

    from bertport.runtime.tasks import Call, Work
    from bertport.serve.hosts import Hosts
    from bertport.serve.lane import Job, Lane, RawWork
    from bertport.serve.note import Note

__all__ = ["INLINE_CHARACTERS", "in_time", "prepare", "run", "using"]

INLINE_CHARACTERS = 4000
"""Texts up to this size are tokenized in the event loop, in about a millisecond at most: handing them to another
thread costs as much. Longer ones would hold up everybody."""


@asynccontextmanager
async def in_time(note: Note, seconds: float) -> AsyncIterator[None]:
    """Bound a request's time; what it waited for when the time was over says whose fault it is.

    Raises:
        BodyTimeout, Overloaded, TimeUp: when the time is over.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        if note.phase == "body":
            message = f"the request did not arrive within {seconds:g} seconds"
            raise BodyTimeout(message, headers={"connection": "close"}) from None
        if note.phase == "queue":
            message = f"the request waited {seconds:g} seconds in the queue: try again later"
            raise Overloaded(message, retry_after=seconds) from None
        message = f"the answer was not ready within {seconds:g} seconds: send less at once"
        raise TimeUp(message) from None


@contextmanager
def using(lane: Lane) -> Iterator[None]:
    """Keep a lane open while a request needs it."""
    lane.users += 1
    try:
        yield
    finally:
        lane.users -= 1


async def prepare(call: Call, inputs: Sequence[object], pool: Executor) -> list[Work]:
    """Tokenize.

    Raises:
        Unprocessable: for the first input that the task cannot take.
    """
    if sum(map(_characters, inputs)) <= INLINE_CHARACTERS:
        outcomes = call.prepare(inputs)
    else:
        outcomes = await asyncio.get_running_loop().run_in_executor(pool, call.prepare, inputs)
    works = []
    for number, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, InputTextError):
            where = f"input {number}: " if len(outcomes) > 1 else ""
            raise Unprocessable(where + outcome.message)
        works.append(outcome)
    return works


async def run(request: Request, hosts: Hosts, note: Note, lane: Lane, works: Sequence[Work | RawWork]) -> list[Any]:
    """Queue work and wait for its answers.

    Raises:
        Overloaded: when there is no room for it.
        BackendFailure: when the model failed.
        ClientGone: when the client left, after which what has not begun never runs.
    """
    job = lane.submit(works, ahead=hosts.ahead(lane))
    note.phase, note.items, note.tokens = "queue", len(works), job.tokens
    left = asyncio.ensure_future(_disconnect(request))
    left.add_done_callback(lambda _: job.leave())  # asyncio.wait on both would cost each request more
    try:
        return await job.future
    finally:
        left.cancel()
        _learn(note, job)
        if job.missing:
            lane.cancel(job)


def _learn(note: Note, job: Job) -> None:
    if job.started:
        # What still waits of it when its time is over waits because of others: that is overload, not its own size.
        note.phase = "queue" if job.queued_items else "run"
        note.queued, note.run = job.started - job.added, job.run_seconds


async def _disconnect(request: Request) -> None:
    """Return when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _characters(value: object) -> int:
    match value:
        case str():
            return len(value)
        case dict():
            return sum(map(_characters, value.values()))
        case list():
            return sum(map(_characters, value))
    return 1
