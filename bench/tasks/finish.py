"""Certain losses of static INT8 on tasks with labels: what distillation as a last step could win back at most."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Any

from bench.tasks.page import METRICS, WIDTH, commits_of, difference, mean_difference
from bench.tasks.summary import POINTS
from bench.tasks.tables import TASKS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["finish_of"]


def finish_of(data: Mapping[str, Any], title: str) -> str:
    """Return the item of docs/research/quantization.md that a class of CPU has.

    Args:
        data: What `bench.tasks` measured on one.
        title: What people call it.
    """
    said = [_shown(data, name) for name in data["summary"] if name.startswith("int8-static")]
    text = f"- With {title} ({commits_of(data)}): {'; '.join(said) or 'no static variant was measured'}."
    return fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False) + "\n"


def _shown(data: Mapping[str, Any], name: str) -> str:
    """Return what a static variant loses with an interval below zero, and of how many metrics."""
    summary = data["summary"][name]
    pairs = [
        (task, metric, mean_difference(data, name, task, metric))
        for task, by_metric in summary["differences"].items()
        for metric in by_metric
    ]
    shown = [
        f"{TASKS[task].title} {METRICS[metric]} {difference(paired)}"
        for task, metric, paired in pairs
        if paired["high"] < 0
    ]
    below = f"below zero in {len(shown)} of {len(pairs)}" + (f": {', '.join(shown)}" if shown else "")
    mean = summary["mean"]
    overall = f"{mean['difference'] * POINTS:+.2f}" if mean else "not measured"
    titles = ", ".join(TASKS[task].title for task in summary["mean_of"])
    return f"`{name}`, intervals of paired differences {below}; mean over {titles}: {overall}"
