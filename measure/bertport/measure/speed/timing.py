"""Fair timing: each model in a process of its own, the processes taking turns, nothing else on the machine.

A round asks every model for a few runs, in one order and in the next round in the reverse order (A B, B A, …), so
that a machine that slows down or speeds up does so for all. Rounds are what the bootstrap resamples.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.measure import statistics
from bertport.measure.machine import machine_lock
from bertport.measure.speed.process import Worker, WorkerError, Workers
from bertport.measure.statistics import DEFAULTS, Estimate, Settings
from bertport.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bertport.measure.speed.workload import WorkerSpec, Workload

__all__ = ["Run", "Summary", "Turn", "interleave", "speedup", "summarize", "take_turns"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One model at one workload."""

    spec: WorkerSpec
    """The model."""
    workload: Workload
    """Workload."""
    name: str
    """Name of the workload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Timed runs of one model at one workload."""

    subject: str
    """Name of the model."""
    workload: str
    """Name of the workload."""
    rounds: tuple[tuple[float, ...], ...]
    """Seconds of each timed run, by round."""
    warmup: tuple[float, ...]
    """Seconds of the runs before them, in order: what the first answers take."""
    load_s: tuple[float, ...]
    """Seconds to load the model: once, or once a round with fresh processes."""
    start_s: tuple[float, ...]
    """Seconds from starting the process to its first answer for this workload: once a round with fresh processes,
    else empty."""
    peak_bytes: int
    """Most memory resident in the process so far."""
    stages: dict[str, float]
    """For texts: seconds of the timed runs in tokenizing, the graph, and post-processing; otherwise empty."""
    tokens: int | None = None
    """For a bundle's texts: tokens that one run computes, padding included; otherwise None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A run's figures, in seconds."""

    median: Estimate
    """Half of the runs were faster."""
    p90: Estimate
    """Nine of ten were; MLPerf's figure for SingleStream."""
    p99: Estimate
    """Ninety-nine of a hundred were; with fewer than a hundred runs it is near the slowest."""
    fastest: float
    """The fastest run."""
    runs: int
    """Number of timed runs."""
    warmup_runs: int
    """Number of runs before them."""
    warmup_s: float
    """Seconds of those in total."""


def interleave(  # noqa: PLR0913 — each is one knob of the procedure, by keyword
    specs: Sequence[WorkerSpec],
    workloads: Mapping[str, Workload],
    *,
    rounds: int = 10,
    runs: int = 5,
    warmup: int = 3,
    fresh: bool = False,
    failed: Callable[[WorkerSpec, WorkerError], None] | None = None,
    waiting: Callable[[], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Run]:
    """Time every model on every workload, one workload after the other, with the machine's lock held.

    Args:
        specs: The models; their names differ.
        workloads: By name.
        rounds: Turns that each takes at each workload.
        runs: Timed runs in a turn.
        warmup: Runs before the first timed one of each workload, in each process.
        fresh: Start a process for every turn, which also measures loading and cold start each time. Otherwise each
            model has one process for all: idle ones do not spin, and loading is paid once.
        failed: Told of a model that cannot be loaded or run, which is then left out; without it the error is raised.
        waiting: Called once when another process holds the machine's lock.
        progress: Called with the number of turns done and the number of all.

    Returns:
        One `Run` per model and workload, in their order.

    Raises:
        UsageError: for two models of one name, or numbers of rounds or runs below 1.
        WorkerError: for the first model that fails, unless `failed` is given.
    """
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names) or min(rounds, runs) < 1 or warmup < 0:
        raise UsageError(
            f"timing takes models of different names, rounds and runs from 1 up, warm-up from 0 up: {names}"
        )
    left, measured = list(specs), {}
    every = rounds * len(workloads)

    def leave_out(turn: Turn, error: WorkerError) -> None:
        if failed is None:
            raise error
        left.remove(turn.spec)
        failed(turn.spec, error)

    with machine_lock(waiting), Workers() as workers:
        for number, (name, workload) in enumerate(workloads.items()):
            turns = [Turn(spec=spec, workload=workload, name=name) for spec in left]
            done = (lambda count, number=number: progress(number * rounds + count, every)) if progress else None
            for run in take_turns(
                turns,
                None if fresh else workers,
                rounds=rounds,
                runs=runs,
                warmup=warmup,
                failed=leave_out,
                progress=done,
            ):
                measured[run.subject, name] = run
    return [measured[spec.name, name] for spec in left for name in workloads]


def take_turns(  # noqa: PLR0913 — as above
    turns: Sequence[Turn],
    workers: Workers | None,
    *,
    rounds: int,
    runs: int,
    warmup: int,
    failed: Callable[[Turn, WorkerError], None],
    progress: Callable[[int], None] | None = None,
) -> list[Run]:
    """Have models take turns, each at a workload of its own; the caller holds the machine's lock.

    Args:
        turns: The models and their workloads, in order; every second round reverses it.
        workers: Running processes; None for a fresh one for every turn.
        rounds: Number of rounds.
        runs: Timed runs in a turn.
        warmup: Runs before the first timed one, in each process.
        failed: Told of a turn whose model cannot be loaded or run, which is then left out.
        progress: Called with the number of rounds done.

    Returns:
        One `Run` per turn that is left, in their order.
    """
    records = [_Record() for _ in turns]
    left = list(range(len(turns)))
    for number in range(rounds):
        for index in list(left) if number % 2 == 0 else left[::-1]:
            turn, record = turns[index], records[index]
            try:
                if workers is None:
                    with Worker(turn.spec) as worker:
                        record.add_start(worker, turn.workload)
                        record.add(worker.time(turn.workload, warmup=max(0, warmup - 1), runs=runs))
                else:
                    worker = workers.of(turn.spec)
                    record.load_s[:] = [worker.load_s]
                    record.add(worker.time(turn.workload, warmup=0 if number else warmup, runs=runs))
            except WorkerError as error:
                left.remove(index)
                failed(turn, error)
        if progress:
            progress(number + 1)
    return [records[index].run(turns[index].spec.name, turns[index].name) for index in left]


def summarize(run: Run, settings: Settings = DEFAULTS) -> Summary:
    """Return a run's median, 90th and 99th percentile with intervals that resample rounds."""
    median, p90, p99 = (statistics.quantile(run.rounds, level, settings) for level in (0.5, 0.9, 0.99))
    return Summary(
        median=median,
        p90=p90,
        p99=p99,
        fastest=min(min(each) for each in run.rounds),
        runs=sum(map(len, run.rounds)),
        warmup_runs=len(run.warmup),
        warmup_s=sum(run.warmup),
    )


def speedup(reference: Run, candidate: Run, settings: Settings = DEFAULTS) -> Estimate:
    """Return how many times faster the candidate is: the ratio of medians, its interval from resampled rounds."""
    return statistics.median_ratio(reference.rounds, candidate.rounds, settings)


class _Record:
    """The timings of one turn, collected over the rounds."""

    def __init__(self) -> None:
        self.rounds: list[tuple[float, ...]] = []
        self.warmup: list[float] = []
        self.load_s: list[float] = []
        self.start_s: list[float] = []
        self.peak_bytes = 0
        self.stages: dict[str, float] = {}
        self.tokens: int | None = None

    def add_start(self, worker: Worker, workload: Workload) -> None:
        """Run a fresh worker's first answer."""
        first = worker.time(workload, warmup=0, runs=1)
        self.start_s.append(time.perf_counter() - worker.started)
        self.load_s.append(worker.load_s)
        self.warmup += first["seconds"]

    def add(self, answer: Mapping[str, Any]) -> None:
        """Add one turn."""
        self.rounds.append(tuple(answer["seconds"]))
        self.warmup += answer["warmup"]
        self.peak_bytes = max(self.peak_bytes, answer["peak_bytes"])
        for stage, seconds in answer.get("stages", {}).items():
            self.stages[stage] = self.stages.get(stage, 0.0) + seconds
        self.tokens = answer.get("tokens", self.tokens)

    def run(self, subject: str, workload: str) -> Run:
        """Return them as a frozen value."""
        return Run(
            subject=subject,
            workload=workload,
            rounds=tuple(self.rounds),
            warmup=tuple(self.warmup),
            load_s=tuple(self.load_s),
            start_s=tuple(self.start_s),
            peak_bytes=self.peak_bytes,
            stages=dict(self.stages),
            tokens=self.tokens,
        )
