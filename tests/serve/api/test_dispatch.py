"""Whose fault it is when the time is over: the client's, the queue's, or the request's own size."""

from __future__ import annotations

import asyncio
import threading

import pytest

from bertport.serve.api.dispatch import _learn, in_time
from bertport.serve.engine.slots import DeviceSlots
from bertport.serve.engine.worker import ModelWorker
from bertport.serve.errors import BodyTimeout, Overloaded, TimeUp
from bertport.serve.observability.context import RequestContext
from bertport.serve.settings import Limits


def a_context(phase="body"):
    return RequestContext(request_id="1", method="POST", path="/", client="", phase=phase)


@pytest.mark.parametrize(
    ("phase", "problem", "status"), [("body", BodyTimeout, 408), ("queue", Overloaded, 429), ("run", TimeUp, 504)]
)
def test_what_it_waited_for_says_which_answer_it_gets(phase, problem, status):
    async def waits():
        async with in_time(a_context(phase), 0.01):
            await asyncio.sleep(60)

    with pytest.raises(problem) as caught:
        asyncio.run(waits())
    assert caught.value.status == status


def test_a_request_of_which_a_part_still_waits_is_in_the_queue(model, monkeypatch):
    works = model.bind("fill-mask").prepare(["a [MASK]", "a [MASK]"])
    busy, go_on, run = threading.Event(), threading.Event(), model.run

    def runs(works):
        busy.set()
        go_on.wait(30)
        return run(works)

    monkeypatch.setattr(model, "run", runs)

    async def use():
        worker = ModelWorker(model, DeviceSlots(), Limits(max_batch_tokens=4), lambda *_: None)
        context = a_context()
        try:
            job = worker.submit(works)
            _learn(context, job)
            assert (context.phase, context.run) == ("body", None)
            await asyncio.to_thread(busy.wait, 30)
            other = asyncio.ensure_future(asyncio.to_thread(worker.slots.__enter__))
            while not worker.slots.waiting:  # noqa: ASYNC110 — the thread is no coroutine
                await asyncio.sleep(0.001)
            go_on.set()
            await other  # the slot goes to it before the second part, which has not asked yet
            try:
                while not job.started:  # noqa: ASYNC110 — the worker's thread is no coroutine
                    await asyncio.sleep(0.001)
                _learn(context, job)
                assert (context.phase, job.queued_items) == ("queue", 1)
            finally:  # or the worker, which waits for it, would not close
                worker.slots.__exit__()
            await job.future
            _learn(context, job)
            assert context.phase == "run"
        finally:
            go_on.set()
            await asyncio.to_thread(worker.close)

    asyncio.run(asyncio.wait_for(use(), 60))
