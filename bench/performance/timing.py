"""Timing of the rows of bench.performance: taking turns, in worker processes, with the machine's lock held."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from bench.performance.subjects import SHAPED, SINGLE, STREAMS
from bertport.measure.speed.process import WorkerError
from bertport.measure.speed.timing import Turn, take_turns
from bertport.measure.speed.workload import Shape, Texts, to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.performance.subjects import Subject
    from bertport.measure.speed.process import Workers
    from bertport.measure.speed.timing import Run

__all__ = ["measure_shapes", "measure_task", "worth_more_rounds"]

MUCH_SLOWER = 1.25
"""A size of batch that took so many times as long as its group's best in the first round takes no further turns: it
cannot be the best one, and a page needs its speed but no interval."""


def measure_task(  # noqa: PLR0913 — the rows, the task, how often
    subjects: Sequence[Subject],
    task: str,
    inputs: list[Any],
    *,
    workers: Workers,
    rounds: int,
    threads: int,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Have every subject answer all inputs in each round; return what each took and answered."""
    rows: dict[str, dict[str, Any]] = {}
    turns: dict[str, Turn] = {}

    def leave_out(name: str, error: WorkerError) -> None:
        say(f"left out: {error}")
        turns.pop(name, None)
        rows[name] = {"subject": rows[name]["subject"], "task": task, "failed": str(error)}

    for subject in subjects:
        rows[subject.name] = {"subject": dataclasses.asdict(subject), "task": task}
        texts = Texts(task=task, inputs=tuple(inputs), at_once=subject.at_once or len(inputs))
        spec = subject.spec(threads)
        try:
            # Also the warm-up: every shape is run once. Larger batches come later, and need more memory.
            answered = workers.of(spec).ask({"do": "answer", "workload": to_json(texts)})
        except WorkerError as error:
            leave_out(subject.name, error)
            continue
        rows[subject.name] |= {"answers": answered["answers"], "peak_bytes": answered["peak_bytes"]}
        turns[subject.name] = Turn(spec=spec, workload=texts, name=subject.name)
    say(f"{task}: warm")

    def take(some: Sequence[Turn], count: int) -> list[Run]:
        return take_turns(
            some,
            workers,
            rounds=count,
            runs=1,
            warmup=0,
            failed=lambda turn, error: leave_out(turn.name, error),
            progress=lambda done: say(f"{task}: round {done} of {count}"),
        )

    totals = {}
    for run in take(list(turns.values()), 1):
        rows[run.workload] |= {"rounds": [list(seconds) for seconds in run.rounds], "load_s": run.load_s[0]}
        totals[run.workload] = sum(run.rounds[0])
    kept = worth_more_rounds([subject for subject in subjects if subject.name in totals], totals)
    for run in take([turns[name] for name in reversed(kept)], rounds - 1):  # the first round's order reversed
        rows[run.workload]["rounds"] += [list(seconds) for seconds in run.rounds]
    return list(rows.values())


def worth_more_rounds(subjects: Sequence[Subject], totals: dict[str, float]) -> list[str]:
    """Return the names of the rows that may be the best of their group, by what each took in one round."""
    best: dict[str, float] = {}
    for subject in subjects:
        best[subject.group] = min(best.get(subject.group, totals[subject.name]), totals[subject.name])
    return [subject.name for subject in subjects if totals[subject.name] <= MUCH_SLOWER * best[subject.group]]


def measure_shapes(  # noqa: PLR0913 — what is measured, how often, by keyword
    subjects: Sequence[Subject],
    shapes: Sequence[tuple[int, int]],
    *,
    workers: Workers,
    rounds: int,
    threads: int,
    vocabulary: int,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Time batches of one length through the graph alone."""
    one = {
        subject.group: subject
        for subject in reversed(subjects)
        if subject.group in SHAPED or (subject.peer == "bertport" and not subject.group.endswith((SINGLE, STREAMS)))
    }
    rows: list[dict[str, Any]] = []
    for batch, length in shapes:
        shape = Shape(rows=batch, length=length, vocabulary=vocabulary)
        turns = [Turn(spec=subject.spec(threads), workload=shape, name=group) for group, subject in one.items()]
        rows += [
            {"shape": [batch, length], "group": run.workload, "rounds": [list(seconds) for seconds in run.rounds]}
            for run in take_turns(
                turns,
                workers,
                rounds=rounds,
                runs=1,
                warmup=1,
                failed=lambda _, error: say(f"left out: {error}"),
            )
        ]
        say(f"{batch}x{length}")
    return rows
