"""Speed on each task's own texts: every subject answers them one at a time, all taking turns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bench.tasks.tables import FP32, PYTORCH, STOCK, SUBJECTS
from bertport.measure import statistics
from bertport.measure.quality.model import read_tokenizer
from bertport.measure.speed.timing import interleave, speedup, summarize
from bertport.measure.speed.workload import Texts, WorkerSpec
from bertport.runtime.bundle.directory import Bundle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.tasks.made import Made
    from bench.tasks.tables import Task
    from bertport.measure.speed.timing import Run
    from bertport.measure.statistics import Estimate

__all__ = ["lengths_of", "time_task"]

TEXTS = 96
"""Examples that are timed, evenly spaced over the part."""
TYPICAL = 16
"""Examples whose length is nearest to the median, timed by themselves."""
ROUNDS = 6
ALL, MEDIAN = "all", "median"


def text_of(inputs: Any) -> Any:  # noqa: ANN401 — an input of a task
    """Return an input as every subject takes it: words as one text, which transformers' pipeline asks for."""
    return " ".join(inputs["words"]) if isinstance(inputs, dict) and "words" in inputs else inputs


def lengths_of(bundle: Path, inputs: Sequence[Any]) -> list[int]:
    """Return the tokens of each input, special ones included."""
    tokenizer = read_tokenizer(Bundle.open(bundle))
    texts = [
        (given["text"], given["text_pair"]) if isinstance(given, dict) else given for given in map(text_of, inputs)
    ]
    return [len(encoding.ids) for encoding in tokenizer.encode_batch(texts)]


def time_task(task: Task, checkpoint: Path, made: Made, inputs: Sequence[Any], *, quick: bool) -> dict[str, Any]:
    """Time every subject on examples of a task; return what each took.

    Args:
        task: The task.
        checkpoint: A checkpoint that was trained for it.
        made: What was made of it.
        inputs: The examples.
        quick: Whether a round of few examples is enough, which tries this program.
    """
    lengths = np.array(lengths_of(made.bundle, inputs))
    typical = np.argsort(np.abs(lengths - np.median(lengths)), kind="stable")[: 4 if quick else TYPICAL]
    spread = np.unique(np.linspace(0, len(inputs) - 1, 8 if quick else TEXTS).round().astype(int))
    workloads = {
        name: Texts(task=task.task, inputs=tuple(text_of(inputs[index]) for index in chosen))
        for name, chosen in ((ALL, spread), (MEDIAN, typical))
    }
    bundle = Bundle.open(made.bundle)
    specs = [
        _spec(name, task, checkpoint, made)
        for name, subject in SUBJECTS.items()
        if subject.timed and (name in {PYTORCH, STOCK} or name in bundle.manifest.variants)
    ]
    runs = {
        (run.subject, run.workload): run
        for run in interleave(specs, workloads, rounds=2 if quick else ROUNDS, runs=1, warmup=1)
    }
    return {
        "texts": len(spread),
        "median_tokens": float(np.median(lengths)),
        "rounds": 2 if quick else ROUNDS,
        "subjects": {
            spec.name: {
                "texts_per_second": _as_json(rate(runs[spec.name, ALL])),
                "median_ms": _as_json(summarize(runs[spec.name, MEDIAN]).median, scale=1e3),
                "times_fp32": _as_json(speedup(runs[FP32, ALL], runs[spec.name, ALL])),
                "times_pytorch": _as_json(speedup(runs[PYTORCH, ALL], runs[spec.name, ALL])),
            }
            for spec in specs
        },
    }


def rate(run: Run) -> Estimate:
    """Return the texts that a run answered in a second."""
    rounds = np.array(run.rounds)
    return statistics.ratio(np.full(len(rounds), rounds.shape[1]), rounds.sum(axis=1))


def _as_json(estimate: Estimate, scale: float = 1.0) -> dict[str, float]:
    return {end: getattr(estimate, end) * scale for end in ("value", "low", "high")}


def _spec(name: str, task: Task, checkpoint: Path, made: Made) -> WorkerSpec:
    if name == PYTORCH:
        return WorkerSpec(name=name, file=str(checkpoint), baseline="transformers", task=task.task)
    if name == STOCK:
        opener = "bench.tasks.graphs:open_timed"
        return WorkerSpec(name=name, file=str(made.stock), bundle=str(made.bundle), opener=opener)
    return WorkerSpec(name=name, bundle=str(made.bundle), variant=name)
