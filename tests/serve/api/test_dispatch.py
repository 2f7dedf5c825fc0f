"""Whose fault it is when the time is over: the client's, the queue's, or the request's own size."""

from __future__ import annotations

import asyncio

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


def test_a_request_of_which_a_part_still_waits_is_in_the_queue(model):
    works = model.bind("fill-mask").prepare(["a [MASK]", "a [MASK]"])

    async def use():
        worker = ModelWorker(model, DeviceSlots(), Limits(max_batch_tokens=4), lambda *_: None)
        context = a_context()
        try:
            with worker.slots:
                job = worker.submit(works)
                _learn(context, job)
                assert (context.phase, context.run) == ("body", None)
                worker._coming += 1  # as its own thread does, before it waits for its slot
                batch, last = worker._take()
                assert not last
                worker._finish(batch, worker._run(batch, model), job.added)
                await asyncio.sleep(0)  # for what it hands to the event loop
                _learn(context, job)
                assert (context.phase, job.queued_items) == ("queue", 1)
            await job.future
            _learn(context, job)
            assert context.phase == "run"
        finally:
            await asyncio.to_thread(worker.close)

    asyncio.run(asyncio.wait_for(use(), 60))
