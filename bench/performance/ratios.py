"""Ratios of speeds between rows of bench.performance, of rounds in which both took a turn."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.performance.subjects import STREAMS
from bertport.measure.statistics import median_ratio

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from bertport.measure.statistics import Estimate

__all__ = ["Compared", "best_row", "compare", "exactly", "ratios", "times"]

MOST_DIGITS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The fastest row of some groups, beside the fastest of others."""

    ours: str
    """Name of the one."""
    theirs: str
    """Name of the other."""
    times: Estimate
    """Ratio of speeds: how many times as fast the one is."""


def best_row(rows: Sequence[dict[str, Any]], groups: Collection[str]) -> dict[str, Any] | None:
    """Return the fastest row of some groups, of those that took every turn; None where no row ran."""
    ran = [row for row in rows if "rounds" in row and row["subject"]["group"] in groups]
    most = max((len(row["rounds"]) for row in ran), default=0)
    return min((row for row in ran if len(row["rounds"]) == most), key=_seconds, default=None)


def _seconds(row: dict[str, Any]) -> float:
    return float(median(sum(turn) for turn in row["rounds"]))


def compare(rows: Sequence[dict[str, Any]], ours: Collection[str], theirs: Collection[str]) -> Compared | None:
    """Compare the fastest row of some groups with the fastest of others; None where there is none of either."""
    one, other = best_row(rows, ours), best_row(rows, theirs)
    if one is None or other is None:
        return None
    took = [[[sum(turn)] for turn in row["rounds"]] for row in (other, one)]
    return Compared(ours=one["subject"]["name"], theirs=other["subject"]["name"], times=median_ratio(took[0], took[1]))


def ratios(name: str, task: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how many times as fast each group of bertport's rows is than every other's best row."""
    groups = dict.fromkeys(row["subject"]["group"] for row in rows if "rounds" in row)
    compared = []
    for ours in (group for group in groups if group.startswith("bertport") and not group.endswith(STREAMS)):
        for theirs in (group for group in groups if not group.startswith("bertport")):
            if theirs.startswith("bare") and theirs.removeprefix("bare") != ours.removeprefix("bertport"):
                continue
            if (both := compare(rows, (ours,), (theirs,))) is not None:
                compared.append(
                    {
                        "model": name,
                        "task": task,
                        "subject": ours,
                        "than": theirs,
                        "row": both.theirs,
                        "times": [both.times.value, both.times.low, both.times.high],
                    }
                )
    return compared


def times(estimate: Estimate, bar: float) -> str:
    """Say how many times as fast, with the interval, so that it can be told from the ratio that is wanted."""
    return f"{exactly(estimate.value, bar)}x ({estimate.low:.2f} to {estimate.high:.2f})"


def exactly(value: float, bar: float, digits: int = 2) -> str:
    """Return a figure with as many digits as tell it from its bar: 4.997, and not a 5.00 that misses 5.

    Args:
        value: The figure.
        bar: What is wanted of it.
        digits: Digits behind the point, at least.
    """
    while digits < MOST_DIGITS and value != bar and round(value, digits) == round(bar, digits):
        digits += 1
    return f"{value:.{digits}f}"
