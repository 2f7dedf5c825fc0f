"""One variant's queue and the threads that run it: one for each batch that runs at once."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.runtime.errors import BertportError
from bertport.runtime.tasks.table import Work
from bertport.serve.engine.pieces import settle
from bertport.serve.engine.queue import FairBatchQueue
from bertport.serve.errors import (
    BackendFailure,
    ClientGone,
    Failed,
    Loading,
    Overloaded,
    Problem,
    Unprocessable,
    problem_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bertport.runtime import Model
    from bertport.serve.engine.slots import DeviceSlots
    from bertport.serve.settings import Limits

__all__ = ["Batch", "Item", "Job", "ModelWorker", "RawWork"]

_LOG = logging.getLogger(__name__)

SMOOTHING = 0.2
"""Weight of the latest batch in the mean speed: the last dozen batches decide."""
FIRST_RATE = 2000.0
"""Tokens per second assumed before anything ran."""
SMALL_SHARE = 4
"""A request of at most this part of the texts that one may have finds this part of the queue kept for its like."""
WORDS_PER_TOKEN = 4
"""Words of an answer of fill-mask that take as long as a token: about, of a text of the greatest length."""
PATIENCE = 0.8
"""Share of the time per request that may be spent in the queue: the rest is for the run and the answer."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RawWork:
    """Tensors that are run as they came, in a batch of their own."""

    tokens: int
    """Ids in them, padding included."""
    run: Callable[[Model], object]
    """Runs them."""


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """Batch job of one request."""

    future: asyncio.Future[list[Any]]
    """The answers, in order."""
    answers: list[Any]
    """Answers by index of the item; None where one is not there yet."""
    missing: int
    """Number of answers that are not there yet."""
    tokens: int
    """Tokens of all its items."""
    queued_items: int
    """Items that no batch has taken yet."""
    queued_tokens: int
    """Their tokens."""
    added: float
    """Time of arrival, by the monotonic clock."""
    started: float = 0.0
    """Time at which the first of its finished batches began; 0 before."""
    ended: float = 0.0
    """Time at which the latest of them ended; 0 before."""
    run_seconds: float = 0.0
    """Time in which any of them ran."""
    gone: bool = False
    """Whether the request has ended, so that its answers are not wanted any more."""

    def leave(self) -> None:
        """End it because the client left, if there is still nothing to give it."""
        if not self.future.done():
            self.future.set_exception(ClientGone("the client closed its connection before the answer"))

    def fail(self, problem: Problem) -> None:
        """End it from another thread, if there is still nothing to give it."""
        settle(self.future, problem)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Item:
    """One input of a job."""

    job: Job
    """The job that it belongs to."""
    index: int
    """Its place in the answers."""
    work: Work | RawWork
    """Work to run: one row, or raw tensors."""
    length: int | None
    """Tokens of its row; None for raw tensors, which run alone."""
    tokens: int
    """Tokens of its row, or of its tensors."""
    cost: int
    """Cost in tokens: what is decoded and answered counts as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Figures of one run, for the metrics."""

    items: int
    """Rows."""
    tokens: int
    """Tokens of all rows, padding included."""
    padding: int
    """Tokens of padding among them."""
    seconds: float
    """From its begin to its answers."""
    waits: tuple[float, ...]
    """Seconds in the queue of the jobs that began with it."""


def _cost(work: Work) -> int:
    """Return what an input costs, in tokens: decoding a position takes about as long as encoding a token."""
    return len(work.ids) + len(work.positions) * (1 + (work.top_k or 1) // WORDS_PER_TOKEN)


class ModelWorker:
    """A loaded variant, its queue, and the threads that run it batch by batch, one for each of the model's streams.

    Nothing waits for a batch to fill: a free thread takes what there is, but for what the other free ones could take.
    A text that is alone on the device has all of its cores.

    Args:
        model: the loaded variant.
        slots: shared by all workers of a device.
        limits: of the server.
        watch: told of each batch, in the event loop's thread.
        died: told the reason, from the thread that ended, when one ends otherwise than by `close`.
    """

    def __init__(
        self,
        model: Model,
        slots: DeviceSlots,
        limits: Limits,
        watch: Callable[[ModelWorker, Batch], None],
        died: Callable[[ModelWorker, str], None] = lambda *_: None,
    ) -> None:
        self.model = model
        self.failure: str | None = None
        self.variant = model.variant
        self.budget = limits.max_batch_tokens or model.batch_tokens
        self.items = 0
        self.tokens = 0
        self.users = 0
        self.slots = slots
        self._coming = self._running = 0
        self._speed = (FIRST_RATE, 1.0)
        self._limits = limits
        self._watch = watch
        self._died = died
        self._held: list[list[Item]] = [[] for _ in range(model.streams)]
        self._changed = threading.Condition()
        provider = model.graph.provider
        self._queue: FairBatchQueue[Item] = FairBatchQueue(
            lambda item: item.job.gone, overhead=provider.overhead_tokens, most_rows=provider.batch_rows
        )
        self._closing = False
        self._threads = [
            threading.Thread(target=self._owned, args=(number,), name=f"worker-{model.variant}-{number}", daemon=True)
            for number in range(model.streams)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def rate(self) -> float:
        """Tokens per second, of late."""
        tokens, seconds = self._speed
        return tokens / max(seconds, 1e-6)

    @property
    def wait(self) -> float:
        """Seconds of work that wait."""
        return self.tokens / self.rate

    def submit(self, works: Sequence[Work | RawWork], *, ahead: float = 0.0) -> Job:
        """Queue one request's work; called in the event loop.

        Args:
            works: what to run.
            ahead: seconds of work that wait in other workers of the same device.

        Raises:
            Overloaded: when the queue is full, or the work would have to wait longer than a request may take.
            Loading: when the worker is closing.
            Failed: when one of its threads has ended.
            Unprocessable: for work without tokens, which no batch can be made of.
        """
        loop = asyncio.get_running_loop()
        sizes = [work.tokens if isinstance(work, RawWork) else len(work.ids) for work in works]
        costs = [size if isinstance(work, RawWork) else _cost(work) for work, size in zip(works, sizes, strict=True)]
        if not all(sizes):
            raise Unprocessable("an input has no tokens: send a text that is not empty")
        job = Job(
            future=loop.create_future(),
            answers=[None] * len(works),
            missing=len(works),
            tokens=sum(sizes),
            queued_items=len(works),
            queued_tokens=sum(sizes),
            added=time.monotonic(),
        )
        items = [
            Item(
                job=job,
                index=index,
                work=work,
                length=None if isinstance(work, RawWork) else size,
                tokens=size,
                cost=cost,
            )
            for index, (work, size, cost) in enumerate(zip(works, sizes, costs, strict=True))
        ]
        with self._changed:
            if self.failure is not None:
                raise Failed(self.failure)
            if self._closing:
                raise Loading("the server is stopping", estimated_time=1)
            # Under fair queueing a small request does not wait for all of a large one.
            own = sum(costs) * (self._queue.requests + 1) / self.rate
            wait = ahead + min(self.wait, own)
            room = self._limits.max_queue_items
            if len(items) > self._limits.max_items // SMALL_SHARE:
                room -= room // SMALL_SHARE  # which is kept for small ones
            if self.items and self.items + len(items) > room:
                raise Overloaded(f"the queue of variant {self.variant!r} is full: try again later", retry_after=wait)
            if wait > PATIENCE * self._limits.request_timeout:
                raise Overloaded(
                    f"the queue of variant {self.variant!r} is {wait:.0f} seconds long: try again later",
                    retry_after=wait,
                )
            self.items += len(items)
            self.tokens += job.queued_tokens
            self._queue.add(items)
            self._changed.notify(len(items))
        return job

    def cancel(self, job: Job) -> None:
        """Cancel a job: items that have not begun never will."""
        with self._changed:
            job.gone = True
            self.items -= job.queued_items
            self.tokens -= job.queued_tokens
            job.queued_items = job.queued_tokens = 0

    def close(self) -> None:
        """End the threads when the queue is empty, and join them; not from the event loop's thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def run_alone(self, works: Sequence[Work]) -> list[Any]:
        """Run equal-length work in the caller's thread, in each session that would run it: for warming up."""
        tokens = sum(len(work.ids) for work in works)
        with self.slots:
            began = time.perf_counter()
            answers = self.model.concurrent_replica.run(works)
            self._measure(tokens, (time.perf_counter() - began) / self.model.streams)  # as many will run at once
        if self.model.streams > 1 and len(works) == 1:
            with self.slots.all():
                answers = self.model.run(works)
        return answers

    def _owned(self, number: int) -> None:
        """Work; and where that ends by an error, fail all that waits: no later request may wait for this thread."""
        try:
            self._work(number)
        except BaseException as error:  # noqa: BLE001 — whatever it is, the jobs that wait are told
            reason = f"variant {self.variant!r} can answer no more: its thread ended ({type(error).__name__})"
            _LOG.critical("%s", reason, exc_info=error)
            with self._changed:
                self.failure = reason
                self._closing = True
                left = [*self._held[number], *self._queue.clear()]
                self.items = self.tokens = 0
                for item in left:
                    item.job.queued_items = item.job.queued_tokens = 0
                self._changed.notify_all()
            for job in {id(item.job): item.job for item in left}.values():
                job.fail(Failed(reason))
            self._died(self, reason)

    def _work(self, number: int) -> None:
        while True:
            with self._changed:
                # What another thread is about to take wakes nobody else, so that it finds the device free. Items
                # of ended jobs are taken too, to be dropped.
                while not self._queue or 0 < self._coming >= self.items:
                    if self._closing and not self._queue:
                        return
                    self._changed.wait()
                self._coming += 1
            with self.slots:  # and only then choose, so that the latest that came can join
                batch, last = self._take()
                self._held[number] = batch
                if not batch:
                    continue
                began = time.monotonic()
                if last and len(batch) == 1:
                    with self.slots.alone() as alone:
                        outcomes = self._run(batch, self.model if alone else self.model.concurrent_replica)
                else:
                    alone = False
                    outcomes = self._run(batch, self.model.concurrent_replica)
                together = 1 if alone else self.slots.taken
            # After the slot is released, so that a client that asks again at once finds the device free.
            self._finish(batch, outcomes, began, together)
            self._held[number] = []
            del batch, outcomes  # or they would be held until the next come

    def _take(self) -> tuple[list[Item], bool]:
        """Return the next batch, and whether nothing waits behind it."""
        with self._changed:
            free = len(self._threads) - self._running
            share = max(1, -(-self.tokens // free))  # the rest is for the other threads that have nothing to do
            batch = self._queue.take(min(self.budget, share) if free > 1 else self.budget)
            for item in batch:
                item.job.queued_items -= 1
                item.job.queued_tokens -= item.tokens
            self.items -= len(batch)
            self.tokens -= sum(item.tokens for item in batch)
            self._coming -= 1
            self._running += bool(batch)
            if self._closing:
                self._changed.notify_all()  # a thread that waits for work may find that there is none left
            return batch, not self.items

    def _run(self, batch: Sequence[Item], model: Model) -> list[Any]:
        """Return answers or Problems, in order; one input that the model fails on does not fail its batch mates."""
        try:
            raw = batch[0].work
            if isinstance(raw, RawWork):
                return [raw.run(model)]
            answers = model.run([item.work for item in batch if isinstance(item.work, Work)])
            return [problem_of(answer) if isinstance(answer, BertportError) else answer for answer in answers]
        except Problem as problem:
            return [problem] * len(batch)
        except Exception:  # noqa: BLE001 — ONNX Runtime's errors share no base; it is logged
            _LOG.exception("a batch of %d with %d tokens failed", len(batch), batch[0].tokens)
            if len(batch) == 1:
                return [BackendFailure("the model failed on this input: the server's log says more")]
        return [answer for item in batch for answer in self._run([item], model)]

    def _finish(self, batch: Sequence[Item], outcomes: Sequence[Any], began: float, together: int = 1) -> None:
        """Post the answers to the event loop; `together` is about how many batches shared the device."""
        seconds = time.monotonic() - began
        tokens = sum(item.tokens for item in batch)
        with self._changed:
            self._measure(tokens, seconds / together)
            self._running -= 1
        with suppress(RuntimeError):  # the event loop is closed: the process is ending, and nothing waits
            batch[0].job.future.get_loop().call_soon_threadsafe(self._deliver, batch, outcomes, began, seconds)

    def _deliver(self, batch: Sequence[Item], outcomes: Iterable[Any], began: float, seconds: float) -> None:
        waits = []
        for job in {id(item.job): item.job for item in batch}.values():
            if not job.started:
                job.started = began
                waits.append(began - job.added)
            end = began + seconds
            job.run_seconds += max(0.0, end - max(began, job.ended))
            job.ended = max(end, job.ended)
        tokens = sum(item.tokens for item in batch)
        padded = max(tokens, len(batch) * max(item.tokens for item in batch))
        ran = Batch(items=len(batch), tokens=padded, padding=padded - tokens, seconds=seconds, waits=tuple(waits))
        try:
            self._watch(self, ran)
        except Exception:  # noqa: BLE001 — no count is worth an answer
            _LOG.exception("a batch could not be counted")
        for item, outcome in zip(batch, outcomes, strict=True):
            job = item.job
            job.answers[item.index] = outcome
            job.missing -= 1
            if job.future.done():
                continue
            if isinstance(outcome, Problem):
                job.future.set_exception(outcome)
            elif job.missing == 0:
                job.future.set_result(job.answers)

    def _measure(self, tokens: int, seconds: float) -> None:
        old_tokens, old_seconds = self._speed
        self._speed = (
            old_tokens + SMOOTHING * (tokens - old_tokens),
            old_seconds + SMOOTHING * (seconds - old_seconds),
        )
