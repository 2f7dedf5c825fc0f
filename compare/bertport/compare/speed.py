"""What the timed runs of a comparison say: one dictionary of JSON values per row and workload."""

from __future__ import annotations

import dataclasses
from statistics import fmean
from typing import TYPE_CHECKING, Any

from bertport.measure import statistics
from bertport.measure.speed.timing import Run, speedup, summarize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertport.measure.statistics import Estimate, Settings

__all__ = ["inverse", "latency", "ratio", "read_run", "start"]


def read_run(value: Mapping[str, Any]) -> Run:
    """Read a run that went through JSON."""
    fields = {
        **value,
        "rounds": tuple(tuple(each) for each in value["rounds"]),
        **{name: tuple(value[name]) for name in ("warmup", "load_s", "start_s")},
    }
    return Run(**fields)


def latency(run: Run, settings: Settings) -> dict[str, Any]:
    """Return the quantiles of a run's times, in seconds, and what they rest on."""
    found = summarize(run, settings)
    total = sum(run.stages.values())
    return {
        **{name: dataclasses.asdict(getattr(found, name)) for name in ("median", "p90", "p99")},
        "mean": fmean(each for turn in run.rounds for each in turn),
        "fastest": found.fastest,
        "runs": found.runs,
        "warmup_runs": found.warmup_runs,
        "warmup_s": found.warmup_s,
        "rounds": [[round(each, 7) for each in turn] for turn in run.rounds],
        "stages": {name: seconds / total for name, seconds in run.stages.items()} if total else {},
    }


def inverse(estimate: Mapping[str, float], amount: float) -> dict[str, Any]:
    """Turn seconds for an amount of work into work a second; the ends of the interval change places."""
    return {
        "value": amount / estimate["value"],
        "low": amount / estimate["high"],
        "high": amount / estimate["low"],
        "count": estimate["count"],
        "clusters": estimate["clusters"],
    }


def ratio(reference: Run, candidate: Run, settings: Settings) -> dict[str, Any]:
    """Say how many times faster a candidate is, and whether the interval leaves room for no difference at all."""
    found: Estimate = speedup(reference, candidate, settings)
    return {**dataclasses.asdict(found), "no_difference_seen": found.low <= 1 <= found.high}


def start(run: Run, settings: Settings) -> dict[str, Any]:
    """Return cold start and load time of fresh processes, in seconds, and the memory that one answer takes."""
    return {
        name: dataclasses.asdict(statistics.quantile([[each] for each in values], 0.5, settings))
        for name, values in (("cold_start", run.start_s), ("load", run.load_s))
    } | {"peak_bytes_of_one_answer": run.peak_bytes}
