"""Running a variant once in every bucket, and asking it once for every task, before it serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.runtime.errors import BertportError, BundleError, InputTextError
from bertport.runtime.heads import HIDDEN_STATES, POOLER, output_of
from bertport.runtime.tasks.table import NO_POSITIONS, TASKS, Work, joined, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bertport.runtime import Model
    from bertport.serve.engine.worker import ModelWorker

__all__ = ["warm_up"]

SHORTEST = 8
"""Tokens of the shortest bucket that is run."""
CHEAPEST = (output_of(POOLER), HIDDEN_STATES)
"""Outputs, the one that costs least to fetch first."""


def warm_up(worker: ModelWorker, *, every_bucket: bool) -> Iterator[str]:
    """Ask every task a real question, then run batches of every length from the longest to the shortest, by halves.

    Yields:
        What is being done.

    Raises:
        BundleError: when an output is not finite.
    """
    model = worker.model
    tasks = model.describe()["tasks"]
    for number, task in enumerate(tasks, 1):
        yield f"task {number} of {len(tasks)}: {task}"
        _ask(worker, task)
    if not every_bucket:
        return
    lengths = _lengths(model.tokens.max_length)
    for number, length in enumerate(lengths, 1):
        yield f"bucket {number} of {len(lengths)}: {length} tokens"
        work = _plain(model, length)
        for works in ([work], [work] * max(1, worker.budget // length)):
            _check(worker, f"{length} tokens", worker.run_alone(works))


def _lengths(longest: int) -> list[int]:
    """Halve from the longest to the shortest: what the first allocates serves the others."""
    lengths = [longest]
    while lengths[-1] // 2 >= SHORTEST:
        lengths.append(lengths[-1] // 2)
    return lengths


def _ask(worker: ModelWorker, task: str) -> None:
    model = worker.model
    mask = f"{model.tokens.mask_token}."
    [prepared] = model.bind(task).prepare([TASKS[task].sample(mask)])
    if isinstance(prepared, InputTextError):
        raise BundleError(f"variant {worker.variant!r} cannot answer {task} ({prepared.message}): export again")
    answers = [answer for work in rows(prepared) for answer in worker.run_alone([work])]
    _check(worker, task, [joined(prepared, iter(answers))])


def _check(worker: ModelWorker, what: str, answers: list[Any]) -> None:
    for answer in answers:
        if isinstance(answer, BertportError):  # as for an output that is no number
            raise BundleError(f"variant {worker.variant!r} cannot answer {what} ({answer.message}): export again")


def _plain(model: Model, length: int) -> Work:
    """Return work of a length that asks for the cheapest output there is."""
    output = next(output for output in CHEAPEST if output in model.graph.outputs)
    return Work(
        ids=np.zeros(length, dtype=np.int64),
        type_ids=np.zeros(length, dtype=np.int64),
        positions=NO_POSITIONS,
        output=output,
        finish=lambda _: None,
    )
