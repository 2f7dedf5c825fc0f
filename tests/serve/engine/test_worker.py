"""A worker on a real model: what is queued, dropped, refused, and how one failure leaves the others alone."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref

import numpy as np
import pytest

from bertport.runtime import load
from bertport.serve.engine.slots import DeviceSlots
from bertport.serve.engine.worker import ModelWorker, RawWork
from bertport.serve.errors import BackendFailure, Loading, Overloaded
from bertport.serve.settings import Limits


@pytest.fixture(scope="module")
def streams(tiny_bundle):
    """The model with two batches at once."""
    return load(tiny_bundle, variant="fp32", threads=2, streams=2)


def with_worker(model, use, **limits):
    """Run `use(worker, batches)` in an event loop, and close the worker."""
    batches = []

    async def main():
        worker = ModelWorker(
            model, DeviceSlots(model.streams), Limits(**limits), lambda _, batch: batches.append(batch)
        )
        try:
            return await use(worker, batches)
        finally:
            await asyncio.to_thread(worker.close)

    return asyncio.run(asyncio.wait_for(main(), 60))


def works(model, *texts, task="fill-mask", **parameters):
    return model.bind(task, **parameters).prepare(texts)


def test_what_came_while_the_device_was_busy_runs_together(model):
    async def use(worker, batches):
        with worker.slots:
            jobs = [worker.submit(works(model, "a [MASK] b")) for _ in range(6)]
            other = worker.submit(works(model, ["a b", "c"], task="next-sentence"))
            assert worker.items == 7
        answers = [await job.future for job in jobs]
        assert (await other.future)[0]["label"] == model.next_sentence("a b", "c")["label"]
        assert worker.items == worker.tokens == 0
        return answers, batches

    answers, batches = with_worker(model, use)
    assert [batch.items for batch in batches] == [6, 1]
    wanted = model.fill_mask("a [MASK] b")
    for answer in answers:
        assert [word["token"] for word in answer[0]] == [word["token"] for word in wanted]
        assert [word["score"] for word in answer[0]] == pytest.approx([word["score"] for word in wanted], abs=1e-6)


def test_nearly_equal_lengths_share_a_run_and_its_padding_is_counted(model):
    texts = ["a [MASK]", "a b [MASK]"]

    async def use(worker, batches):
        with worker.slots:
            jobs = [worker.submit(works(model, text)) for text in texts]
        return [(await job.future)[0] for job in jobs], batches

    answers, [batch] = with_worker(model, use)
    assert (batch.items, batch.tokens, batch.padding) == (2, 10, 1)
    for text, answer in zip(texts, answers, strict=True):
        wanted = model.fill_mask(text)
        assert [word["score"] for word in answer] == pytest.approx([word["score"] for word in wanted], abs=1e-5)


def test_a_request_larger_than_the_budget_is_split(model):
    texts = ["a [MASK]"] * 20

    async def use(worker, batches):
        [*answers] = await worker.submit(works(model, *texts)).future
        return answers, batches

    answers, batches = with_worker(model, use, max_batch_tokens=12)
    assert len(answers) == 20
    assert [batch.items for batch in batches] == [3] * 6 + [2]  # of four tokens each
    assert {batch.tokens for batch in batches} == {12, 8}


def test_who_left_costs_nothing(model):
    async def use(worker, batches):
        with worker.slots:
            job = worker.submit(works(model, "a [MASK]", "a b [MASK]"))
            worker.cancel(job)
            assert worker.items == worker.tokens == 0
            stays = worker.submit(works(model, "a b c [MASK]"))
        await stays.future
        assert not job.future.done()
        return batches

    assert [batch.items for batch in with_worker(model, use)] == [1]


def test_who_left_while_every_thread_was_busy_is_not_kept(model):
    busy, go_on = threading.Event(), threading.Event()

    def runs(_):
        busy.set()
        go_on.wait(30)

    async def use(worker, _):
        first = worker.submit([RawWork(tokens=5, run=runs)])
        await asyncio.to_thread(busy.wait, 30)
        worker.cancel(worker.submit(works(model, "a [MASK]", "a b [MASK]")))
        assert worker.items == 0
        assert worker._queue
        go_on.set()
        await first.future
        while worker._queue:  # noqa: ASYNC110 — the worker's thread is no coroutine
            await asyncio.sleep(0.001)

    with_worker(model, use)


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(model):
    async def use(worker, _):
        with worker.slots:
            worker.submit(works(model, *["a [MASK]"] * 4))
            for texts in (["b [MASK]"], ["b [MASK]"] * 2):
                with pytest.raises(Overloaded) as caught:
                    worker.submit(works(model, *texts))
                assert int(caught.value.headers["retry-after"]) >= 1
            assert worker.items == 4

    with_worker(model, use, max_queue_items=4, max_items=4)


def test_work_that_could_not_be_done_in_time_is_refused(model):
    async def use(worker, _):
        worker._speed = (1.0, 1.0)  # a token a second
        with worker.slots:
            worker.submit(works(model, "a b c d e f [MASK]"))
            with pytest.raises(Overloaded, match="9 seconds long"):
                worker.submit(works(model, "a [MASK]"))
            with pytest.raises(Overloaded, match="29 seconds long"):
                worker.submit(works(model, "a [MASK]"), ahead=20)

    with_worker(model, use, request_timeout=10)


def test_one_input_that_fails_does_not_fail_its_batch_mates(model, caplog):
    import dataclasses

    def fails(_):
        raise ValueError("no")

    async def use(worker, _):
        [good] = works(model, "a [MASK] b")
        bad = dataclasses.replace(good, finish=fails)
        with worker.slots:
            first, broken, last = (worker.submit([work]) for work in (good, bad, good))
        with pytest.raises(BackendFailure, match=r"^the model failed on this input: the server's log says more$"):
            await broken.future
        return await first.future, await last.future

    with caplog.at_level(logging.ERROR):
        answers = with_worker(model, use)
    assert [answer[0][0]["token"] for answer in answers] == [model.fill_mask("a [MASK] b")[0]["token"]] * 2
    assert "ValueError: no" in caplog.text


def test_raw_work_runs_alone(model):
    async def use(worker, batches):
        with worker.slots:
            raw = worker.submit([RawWork(tokens=5, run=lambda model: model.variant)])
            other = worker.submit(works(model, "a [MASK] b"))
        assert await raw.future == ["fp32"]
        await other.future
        return batches

    assert [batch.items for batch in with_worker(model, use)] == [1, 1]


def test_streams_run_at_once_each_on_its_share_of_the_threads(streams):
    meeting = threading.Barrier(2, timeout=30)

    def meet(model):  # returns only when another batch runs as well
        meeting.wait()
        return model

    async def use(worker, batches):
        with worker.slots, worker.slots:
            jobs = [worker.submit([RawWork(tokens=5, run=meet)]) for _ in range(4)]
        models = [(await job.future)[0] for job in jobs]
        # The last of them is told from one that is alone by the slots that are taken.
        assert all(model is streams.concurrent_replica for model in models)
        assert worker.items == worker.tokens == worker._running == 0
        return batches

    assert [batch.items for batch in with_worker(streams, use)] == [1] * 4


def test_what_is_alone_on_the_device_has_all_of_it(streams):
    async def use(worker, _):
        ran = [(await worker.submit([RawWork(tokens=5, run=lambda model: model)]).future)[0] for _ in range(3)]
        with worker.slots:  # as another variant of the device would
            ran += await worker.submit([RawWork(tokens=5, run=lambda model: model)]).future
        return ran

    wide, narrow = streams, streams.concurrent_replica
    assert [model is wide for model in with_worker(streams, use)] == [True, True, True, False]
    assert wide.graph is not narrow.graph


def test_variants_that_share_a_device_know_how_fast_they_are_together(streams):
    """Two batches at once on a device: each is done in twice the time that it adds to the work of all."""
    meeting = threading.Barrier(2, timeout=30)

    def runs(_):
        meeting.wait()
        time.sleep(0.2)
        meeting.wait()

    async def main():
        slots = DeviceSlots(2)
        workers = [ModelWorker(streams, slots, Limits(), lambda *_: None) for _ in range(2)]
        try:
            with slots, slots:
                jobs = [worker.submit([RawWork(tokens=100, run=runs)]) for worker in workers]
                while slots.waiting < 2:  # noqa: ASYNC110 — the workers' threads are no coroutines
                    await asyncio.sleep(0.001)
                for worker in workers:
                    worker._speed = (0.0, 0.0)  # so that only these count
            for job in jobs:
                await job.future
            # The batch that is done last may find the other slot free again.
            return max(worker.rate for worker in workers)
        finally:
            for worker in workers:
                await asyncio.to_thread(worker.close)

    rate = asyncio.run(asyncio.wait_for(main(), 60))
    assert 500 < rate <= 1000  # 100 tokens in 0.2 s at most, twice


def test_the_time_of_batches_that_ran_at_once_counts_once(streams):
    meeting = threading.Barrier(2, timeout=30)

    def runs(_):
        meeting.wait()
        time.sleep(0.2)

    async def use(worker, batches):
        began = time.monotonic()
        job = worker.submit([RawWork(tokens=5, run=runs) for _ in range(2)])
        await job.future
        assert [batch.items for batch in batches] == [1, 1]
        assert 0.2 <= job.run_seconds <= time.monotonic() - began
        assert job.started >= job.added

    with_worker(streams, use)


def test_threads_that_have_nothing_to_do_leave_each_other_work(streams, monkeypatch):
    meeting, run = threading.Barrier(2, timeout=30), streams.concurrent_replica.run

    def both(works):  # so that the first to be done does not take what is left
        meeting.wait()
        return run(works)

    monkeypatch.setattr(streams.concurrent_replica, "run", both)

    async def use(worker, batches):
        with worker.slots, worker.slots:
            job = worker.submit(works(streams, *["a b [MASK]"] * 8))
        answers = await job.future
        assert [answer[0]["token"] for answer in answers] == [streams.fill_mask("a b [MASK]")[0]["token"]] * 8
        return batches

    assert sorted(batch.items for batch in with_worker(streams, use)) == [4, 4]


def test_an_idle_worker_holds_nothing_of_what_it_ran(model):
    class Answer:
        """Object that can be referred to weakly."""

    async def use(worker, _):
        [answer] = await worker.submit([RawWork(tokens=1, run=lambda _: Answer())]).future
        held = weakref.ref(answer)
        del answer
        end = time.monotonic() + 20
        while held() is not None and time.monotonic() < end:  # noqa: ASYNC110 — the worker's thread is no coroutine
            await asyncio.sleep(0.001)
        assert held() is None

    with_worker(model, use)


def test_a_closing_worker_finishes_what_waits_and_takes_no_more(model):
    async def use(worker, _):
        with worker.slots:
            job = worker.submit(works(model, "a [MASK]"))
            closing = asyncio.ensure_future(asyncio.to_thread(worker.close))
            while not worker._closing:  # noqa: ASYNC110 — the worker's thread is no coroutine
                await asyncio.sleep(0.001)
            with pytest.raises(Loading):
                worker.submit(works(model, "a [MASK]"))
        assert len((await job.future)[0]) == 5
        await closing

    with_worker(model, use)


def test_arrays_come_as_they_are(model):
    async def use(worker, _):
        return await worker.submit(works(model, "a b", "a b c", task="features", pooling="mean")).future

    answers = with_worker(model, use)
    np.testing.assert_allclose(np.stack(answers), model.features(["a b", "a b c"], pooling="mean"), atol=1e-5)
