"""Metrics on labelled data, as a report holds them: which there are, and which rows lose against their reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertport.measure.labelled.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertport.compare.report.document import Report, Row
    from bertport.measure.labelled.figures import PairedDifference

__all__ = [
    "POINTS",
    "in_points",
    "is_worse",
    "judging",
    "lacks_metrics",
    "loses",
    "losses",
    "main_metric",
    "metrics_of",
    "more_is_better",
    "shows_difference",
]

POINTS = 100
"""Points in the whole of a metric."""
CALIBRATION = "ece"
"""The metric of how well probabilities are what they say, which no variant is left out for."""


def main_metric(report: Report) -> str | None:
    """Return the task's main metric: the first of those that were measured; None without labelled data."""
    return next(iter(metrics_of(report)), None)


def metrics_of(report: Report) -> list[str]:
    """Return the metrics that any row was measured by, in their order; calibration only where it is the only one."""
    names = {name: None for row in report.rows if row.labelled for name in row.labelled.figures.metrics}
    return [name for name in names if name != CALIBRATION] or list(names)


def more_is_better(metric: str) -> bool:
    """Return whether a metric is better where it is larger; of one of a later version nothing else is known."""
    return metric not in METRICS or METRICS[metric].higher_is_better


def shows_difference(paired: PairedDifference, confidence: float) -> bool:
    """Return whether the paired test rejects that a metric is the reference's."""
    return paired.p_value < 1 - confidence


def is_worse(paired: PairedDifference) -> bool:
    """Return whether a metric is worse than the reference's, shown or not."""
    size = paired.difference.value
    return size < 0 if more_is_better(paired.metric) else size > 0


def loses(paired: PairedDifference, confidence: float) -> bool:
    """Return whether a metric is worse than the reference's: by the paired test, or as it is not even defined."""
    return paired.undefined is not None or (is_worse(paired) and shows_difference(paired, confidence))


def judging(differences: Mapping[str, PairedDifference]) -> dict[str, PairedDifference]:
    """Return the differences by which variants are chosen: those of answers, and not of the calibration beside them."""
    return {name: paired for name, paired in differences.items() if name != CALIBRATION}


def losses(row: Row, confidence: float) -> list[PairedDifference]:
    """Return the metrics in which a row is shown to lose against its reference."""
    differences = judging(row.labelled.differences) if row.labelled else {}
    return [paired for paired in differences.values() if loses(paired, confidence)]


def lacks_metrics(report: Report, row: Row) -> bool:
    """Return whether a row could not be measured on the labelled data, on which the reference of its bundle was."""
    return row.labelled is None and any(
        other.reference and other.labelled and other.bundle == row.bundle for other in report.rows
    )


def in_points(value: float) -> str:
    """Return a metric in points, hundredths of its whole."""
    return f"{value * POINTS:.1f}"
