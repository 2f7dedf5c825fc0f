"""Summary of all runs: differences from fp32 with their intervals, and the bars, for every subject of 8 bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.tasks.tables import FP32, GLUE, PYTORCH, SUBJECTS, TASKS
from bertport.measure.drops import reach_of_none
from bertport.measure.labelled.figures import choose_metrics
from bertport.measure.labelled.kinds import REGRESSION
from bertport.measure.labelled.metrics import METRICS, Judged
from bertport.measure.statistics import CONFIDENCE, Settings, resample_weights, share

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from bench.tasks.tables import Task
    from bertport.measure.labelled.data import LabelledData
    from bertport.measure.labelled.figures import Chosen
    from bertport.measure.labelled.metrics import Metric
    from bertport.measure.labelled.predictions import Predictions
    from bertport.measure.labelled.resampling import Sums

    Run = Mapping[str, Any]

__all__ = ["BARS", "LARGE_LOSS", "LOW_END", "POINTS", "Bar", "TaskRuns", "careful_low_end", "summarize"]

POINTS = 100.0
"""Points in a metric's own unit of 1."""
LARGE_LOSS = 0.015
"""A loss of a metric in a single run above which its paired test is named beside the bars."""
MEAN, LOW_END, RANKS = "mean", "mean, low end", "rank correlation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One row: what INT8 is held to."""

    name: str
    """Its key among the data."""
    what: str
    """Bar in words."""
    tasks: tuple[str, ...]
    """The tasks that it is about."""
    least: float
    """The least that the figure may be."""
    show: Callable[[float], str]
    """Writes a figure."""


BARS = (
    *(
        Bar(
            name=f"agreement {' '.join(tasks)}",
            what=f"agreement on {' and '.join(TASKS[task].title for task in tasks)}: at least 98.5%",
            tasks=tasks,
            least=0.985,
            show=lambda value: f"{value:.2%}",
        )
        for tasks in (("sst2",), ("cola",), ("mrpc", "rte"))
    ),
    Bar(
        name=RANKS,
        what="STS-B, Spearman's correlation with fp32's scores: at least 0.995",
        tasks=("stsb",),
        least=0.995,
        show=lambda value: f"{value:.5f}",
    ),
    Bar(
        name=MEAN,
        what="mean difference over the five tasks of GLUE: at least -0.5",
        tasks=GLUE,
        least=-0.005,
        show=lambda value: f"{value * POINTS:+.2f}",
    ),
    Bar(
        name=LOW_END,
        what="lower end of its paired interval: at least -1.0",
        tasks=GLUE,
        least=-0.01,
        show=lambda value: f"{value * POINTS:+.2f}",
    ),
)
"""The bars, in the order of the page."""


@dataclass(frozen=True, kw_only=True)
class TaskRuns:
    """The runs of a task, with what their subjects answered to the same examples."""

    task: Task
    """The task."""
    data: LabelledData
    """The examples."""
    answers: Mapping[int, Mapping[str, Predictions]]
    """By seed and subject."""

    def seeds(self, subject: str) -> list[int]:
        """Return the seeds of the runs that a subject answered."""
        return [seed for seed, answers in self.answers.items() if subject in answers]

    def differences(self, subject: str) -> dict[str, NDArray[np.float64]]:
        """Return by metric a subject's differences from fp32, the mean of its seeds: of all examples, then resampled.

        A resample draws the same examples for every seed, since they have them in common.
        """
        chosen = choose_metrics(self.data, self.task.metrics, positive=self.task.positive)
        return {
            metric.name: np.mean(
                [self._difference(metric, seed, subject, chosen) for seed in self.seeds(subject)], axis=0
            )
            for metric in chosen.metrics
        }

    def _difference(self, metric: Metric, seed: int, subject: str, chosen: Chosen) -> NDArray[np.float64]:
        of_subject, of_fp32 = (
            self._resampled(metric.sums(Judged(self.data, self.answers[seed][name], chosen.positive)))
            for name in (subject, FP32)
        )
        return of_subject - of_fp32

    def _resampled(self, sums: Sums) -> NDArray[np.float64]:
        """Return a metric of the examples as they are, followed by that of their resamples."""
        settings = Settings(seed=list(TASKS).index(self.task.name))  # of its own, so that tasks vary independently
        drawn = (
            sums.figure(sums.contributions.T @ weights) if sums.weighted is None else sums.weighted(weights)
            for weights in resample_weights(len(self.data), settings)
        )
        return np.concatenate([[sums.value], *drawn])


def summarize(runs: Sequence[Run], tasks: Sequence[TaskRuns]) -> dict[str, Any]:
    """Return what the page says of all runs.

    Args:
        runs: The figures of each run, as the data hold them.
        tasks: The tasks that were measured, with their answers.
    """
    return {
        name: _of_subject(name, runs, tasks)
        for name in SUBJECTS
        if name not in {PYTORCH, FP32} and any("metrics" in run["subjects"].get(name, {}) for run in runs)
    }


def _of_subject(name: str, runs: Sequence[Run], tasks: Sequence[TaskRuns]) -> dict[str, Any]:
    differences = {row.task.name: row.differences(name) for row in tasks if row.seeds(name)}
    scored = {
        task: np.mean(list(by_metric.values()), axis=0) for task, by_metric in differences.items() if task in GLUE
    }
    mean = _interval(np.mean(list(scored.values()), axis=0)) if scored else None
    own = [run for run in runs if name in run["subjects"]]
    return {
        "runs": len(own),
        "refused": sum("refused" in run["subjects"][name] for run in own),
        "differences": {
            task: {metric: _interval(figures) for metric, figures in by_metric.items()}
            for task, by_metric in differences.items()
        },
        "mean": mean,
        "mean_of": list(scored),
        "losses": _losses(name, own),
        "bars": _bars(name, own, tasks, mean if len(scored) == len(GLUE) else None),
    }


def _interval(figures: NDArray[np.float64]) -> dict[str, float]:
    """Return a figure with the percentiles of its resamples, which follow it."""
    low, high = np.quantile(figures[1:], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return {"difference": float(figures[0]), "low": float(low), "high": float(high)}


def careful_low_end(summary: Mapping[str, Any], examples: Mapping[str, int]) -> float:
    """Return the lower end of the mean's interval, of tasks' reaches that a lack of changed answers does not shrink.

    A task's end is at least as far from its difference as budgets have it (`bertport.measure.drops`); the metrics of a
    task move together, so their reaches are averaged; tasks vary independently, so theirs are added in squares.

    Args:
        summary: A subject's, as `summarize` gives it.
        examples: Number of each task's.
    """
    squares = []
    for task in summary["mean_of"]:
        reaches = [
            max(
                paired["difference"] - paired["low"],
                0.0 if REGRESSION in METRICS[metric].kinds else reach_of_none(examples[task]),
            )
            for metric, paired in summary["differences"][task].items()
        ]
        squares.append((sum(reaches) / len(reaches)) ** 2)
    return float(summary["mean"]["difference"] - math.sqrt(sum(squares)) / len(squares))


def _losses(name: str, runs: Sequence[Run]) -> list[dict[str, Any]]:
    return [
        {"task": run["task"], "seed": run["seed"], "metric": metric, **paired}
        for run in runs
        for metric, paired in run["subjects"][name].get("against_fp32", {}).items()
        if paired["difference"] < -LARGE_LOSS
    ]


def _bars(
    name: str, runs: Sequence[Run], tasks: Sequence[TaskRuns], mean: Mapping[str, float] | None
) -> dict[str, dict[str, Any]]:
    """Return the figure that is held against each bar, the lowest of a seed, and whether they reach it."""
    bars = {}
    for bar in BARS:
        if bar.name in {MEAN, LOW_END}:
            figure = mean and {"value": mean["difference" if bar.name == MEAN else "low"]}
        elif bar.name == RANKS:
            figure = _ranks(name, [run for run in runs if run["task"] in bar.tasks])
        else:
            own = [row for row in tasks if row.task.name in bar.tasks and row.seeds(name)]
            figure = _agreement(name, own) if len(own) == len(bar.tasks) else None
        if figure:
            lowest = figure.get("lowest", figure["value"])
            bars[bar.name] = {**figure, "met": figure["value"] >= bar.least, "every_run": lowest >= bar.least}
    return bars


def _ranks(name: str, runs: Sequence[Run]) -> dict[str, float] | None:
    values = [run["subjects"][name]["rank_correlation"] for run in runs if "metrics" in run["subjects"][name]]
    return {"value": float(np.mean(values)), "lowest": min(values)} if values else None


def _agreement(name: str, tasks: Sequence[TaskRuns]) -> dict[str, float]:
    """Return the agreement over all examples and seeds of some tasks; its clusters are the examples."""
    same = {
        (row.task.name, seed): row.answers[seed][name].values == row.answers[seed][FP32].values
        for row in tasks
        for seed in row.seeds(name)
    }
    by_task = [[hits for (task, _), hits in same.items() if task == row.task.name] for row in tasks]
    hits = [np.sum(of_task, axis=0) for of_task in by_task]
    totals = [np.full(len(of_task[0]), len(of_task)) for of_task in by_task]
    by_seed = [
        np.concatenate([hits for (_, of), hits in same.items() if of == seed]) for seed in {of for _, of in same}
    ]
    pooled = share(np.concatenate(hits), np.concatenate(totals))
    return {
        **{end: float(getattr(pooled, end)) for end in ("value", "low", "high")},
        "lowest": min(float(hits.mean()) for hits in by_seed),
    }
