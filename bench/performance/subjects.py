"""The rows of bench.performance, and how they are timed: taking turns, in worker processes."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertport.measure.speed.process import WorkerError, Workers
from bertport.measure.speed.timing import Turn, take_turns
from bertport.measure.speed.workload import Shape, Texts, WorkerSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.performance.models import Prepared

__all__ = ["BATCHES", "Subject", "measure_shapes", "measure_task", "subjects_of"]

BATCHES = (1, 8, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One row of the report."""

    name: str
    """What it is listed under."""
    group: str
    """Its group: other groups are compared with the best row of it."""
    peer: str
    """A row of bench.performance.peers.PEERS."""
    model: str
    """Directory that it loads."""
    variant: str | None = None
    """For bertport a variant, for others the batch size."""
    at_once: int | None = None
    """Inputs given in one call; None for all."""
    python: str = sys.executable
    """Its interpreter."""

    def spec(self, threads: int) -> WorkerSpec:
        """Return what its process loads: rows that share a model and a variant share a process."""
        return WorkerSpec(
            name=f"{self.peer} {Path(self.model).name} {self.variant}",
            opener="bench.performance.peers:open_peer",
            baseline=self.peer,
            file=self.model,
            variant=self.variant,
            threads=threads or None,
            python=None if self.python == sys.executable else self.python,
        )


def subjects_of(model: Prepared, task: str, openvino: str | None, batches: Sequence[int] = BATCHES) -> list[Subject]:
    """Return the rows of a task."""
    bundle, subjects = str(model.bundle), []
    for variant in model.variants:
        precision = "fp32" if variant == "fp32" else "int8"
        for peer, name in (("bertport", "bertport"), ("bare", "tokenizer and session alone")):
            for at_once in (None, 1):
                said = f"{name} {precision}{', one at a time' if at_once else ''}"
                group = f"{peer} {precision}{' single' if at_once else ''}"
                subjects.append(
                    Subject(name=said, group=group, peer=peer, model=bundle, variant=variant, at_once=at_once)
                )
    rows = [("transformers", "transformers", str(model.checkpoint), sys.executable)]
    if model.optimum and model.optimum_python and task != "next-sentence":  # Optimum has no model for it
        rows += [
            (f"optimum {precision}", "optimum", str(model.optimum / precision), model.optimum_python)
            for precision in ("fp32", "int8")
        ]
    rows.append(("onnxruntime, padded", "fused", bundle, sys.executable))
    if openvino:
        rows.append(("openvino, padded", "openvino", bundle, openvino))
    for group, peer, path, python in rows:
        subjects += [
            Subject(
                name=f"{group}, batches of {batch}",
                group=group,
                peer=peer,
                model=path,
                variant=str(batch),
                at_once=batch,
                python=python,
            )
            for batch in batches
        ]
    return subjects


def measure_task(  # noqa: PLR0913 — the rows, the task, how often
    subjects: Sequence[Subject],
    task: str,
    inputs: list[Any],
    *,
    rounds: int,
    threads: int,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Have every subject answer all inputs in each round; return what each took and answered."""
    rows: dict[str, dict[str, Any]] = {}
    turns = []

    def leave_out(name: str, error: WorkerError) -> None:
        say(f"left out: {error}")
        rows[name] = {"subject": rows[name]["subject"], "task": task, "failed": str(error)}

    with Workers() as workers:
        for subject in subjects:
            rows[subject.name] = {"subject": dataclasses.asdict(subject), "task": task}
            texts = Texts(task=task, inputs=tuple(inputs), at_once=subject.at_once or len(inputs))
            spec = subject.spec(threads)
            try:
                # Also the warm-up: every shape is run once.
                rows[subject.name]["answers"] = workers.of(spec).answers(texts)
            except WorkerError as error:
                leave_out(subject.name, error)
                continue
            turns.append(Turn(spec=spec, workload=texts, name=subject.name))
        for run in take_turns(
            turns,
            workers,
            rounds=rounds,
            runs=1,
            warmup=0,
            failed=lambda turn, error: leave_out(turn.name, error),
            progress=lambda done: say(f"{task}: round {done} of {rounds}"),
        ):
            [load_s] = run.load_s
            rows[run.workload] |= {
                "rounds": [list(seconds) for seconds in run.rounds],
                "peak_bytes": run.peak_bytes,
                "load_s": load_s,
            }
    return list(rows.values())


def measure_shapes(  # noqa: PLR0913 — what is measured, how often, by keyword
    subjects: Sequence[Subject],
    shapes: Sequence[tuple[int, int]],
    *,
    rounds: int,
    threads: int,
    vocabulary: int,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Time batches of one length through the graph alone."""
    one = {
        subject.group: subject
        for subject in reversed(subjects)
        if subject.peer != "bare" and "single" not in subject.group
    }
    rows: list[dict[str, Any]] = []
    with Workers() as workers:
        for batch, length in shapes:
            shape = Shape(rows=batch, length=length, vocabulary=vocabulary)
            turns = [Turn(spec=subject.spec(threads), workload=shape, name=group) for group, subject in one.items()]
            rows += [
                {"shape": [batch, length], "group": run.workload, "rounds": [list(seconds) for seconds in run.rounds]}
                for run in take_turns(
                    turns,
                    workers,
                    rounds=rounds,
                    runs=3,
                    warmup=2,
                    failed=lambda _, error: say(f"left out: {error}"),
                )
            ]
            say(f"{batch}x{length}")
    return rows
