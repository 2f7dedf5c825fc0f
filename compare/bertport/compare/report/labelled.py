"""Metrics on labelled data in the report: their tables, and the sentences on them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bertport.compare.report.formatting import NONE, interval, number, percent, sentence
from bertport.compare.report.metrics import POINTS, in_points, loses, losses, main_metric, metrics_of
from bertport.compare.report.tables import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bertport.compare.report.document import Report, Row
    from bertport.measure.labelled.figures import LabelFigures, PairedDifference

__all__ = [
    "labelled_notes",
    "labelled_paragraphs",
    "labelled_points",
    "labelled_tables",
    "standing",
]

MOST_LABELS = 40
"""Labels that the table of labels shows, at most: those of most examples."""


def standing(report: Report, row: Row) -> str:
    """Return how a row does by the main metric, for a sentence; nothing without labelled data."""
    metric = main_metric(report)
    estimate = row.metric(metric) if metric else None
    if metric is None or estimate is None or not math.isfinite(estimate.value):
        return ""
    paired = row.difference(metric)
    if paired is None or not math.isfinite(paired.difference.value):
        return f"{metric} {in_points(estimate.value)}"
    return f"{metric} {_against(paired, report.settings.confidence)}"


def labelled_paragraphs(report: Report) -> tuple[str, ...]:
    """Return what the labelled data is, and what a loss on it means; nothing without it."""
    data = report.data
    if data is None:
        return ()
    first = f"the first {data.examples:,}" if data.limit and data.limit <= data.examples else f"{data.examples:,}"
    cut = " Texts that are too long were cut." if data.truncation else ""
    text = (
        f"{data.task} on {first} examples of {data.name} ({data.fingerprint[:23]}).{cut} "
        "A variant that is shown to lose against fp32 in any metric is not recommended, whatever its agreement."
    )
    return (text,)


def labelled_points(report: Report) -> tuple[str, ...]:
    """Return what is odd about the data or about figures, each once."""
    of_data = report.data.notes if report.data else ()
    of_rows = [note for row in report.rows if row.labelled for note in row.labelled.figures.notes]
    return tuple(sentence(note) for note in dict.fromkeys((*of_data, *of_rows)))


def labelled_notes(report: Report) -> Iterator[str]:
    """Yield a sentence for each row that is shown to lose on the labelled data, and so is not recommended."""
    for row in report.rows:
        lost = losses(row, report.settings.confidence)
        if lost and row.is_variant and report.data:
            what = "; ".join(f"{paired.metric} {_against(paired, report.settings.confidence)}" for paired in lost)
            yield (
                f"{row.name} is not recommended, because it loses on {report.data.name} "
                f"({report.data.examples:,} examples): {what}."
            )


def _against(paired: PairedDifference, confidence: float) -> str:
    """Return a difference from fp32 in words."""
    size, chance = paired.difference, f"p = {paired.p_value:.2g}"
    text = f"{interval(size, '+.2f', factor=POINTS)} points from fp32's"
    if size.value == size.low == size.high == 0:
        return "as fp32's"
    if paired.p_value < 1 - confidence:
        return f"{text}, {chance}"
    return f"{text}, no difference seen"


def labelled_tables(report: Report) -> tuple[Table, ...]:
    """Return the tables of the labelled data: metrics, differences from fp32, labels and calibration."""
    rows = [row for row in report.rows if row.labelled]
    tables = (_metrics(report, rows), _differences(report, rows), _labels(rows), _calibration(rows))
    return tuple(table for table in tables if table.rows)


def _metrics(report: Report, rows: Sequence[Row]) -> Table:
    names = metrics_of(report)
    return Table(
        title="Metrics",
        caption="In points, hundredths of a metric's whole, with 95% intervals, for which examples are resampled. That "
        "two of them overlap says nothing about a difference, because variants answer the same examples: see the next "
        "table.",
        head=("variant", "examples", *names),
        rows=tuple(
            (
                row.name,
                f"{row.labelled.figures.examples:,}" if row.labelled else NONE,
                *(interval(row.metric(name), ".1f", factor=POINTS) for name in names),
            )
            for row in rows
        ),
    )


def _differences(report: Report, rows: Sequence[Row]) -> Table:
    pairs = [(row, paired) for row in rows if row.labelled for paired in row.labelled.differences.values()]
    numbers = any(paired.spearman for _, paired in pairs)
    return Table(
        title="Differences from fp32 on the same examples",
        caption="Points of the variant minus those of fp32, with the paired 95% interval; p is that of McNemar's exact "
        "test for shares of right answers, and of a permutation test for other metrics. No difference seen is no proof "
        "that there is none.",
        head=(
            "variant",
            "metric",
            "difference, points",
            "p",
            "what was seen",
            "rank correlation with fp32" if numbers else "same answers as fp32",
        ),
        rows=tuple(
            (
                row.name,
                paired.metric,
                interval(paired.difference, "+.2f", factor=POINTS),
                number(paired.p_value, ".2g") if math.isfinite(paired.p_value) else NONE,
                _seen(paired, report.settings.confidence),
                interval(paired.spearman, ".4f") if numbers else percent(paired.agreement, ".2f"),
            )
            for row, paired in pairs
        ),
    )


def _seen(paired: PairedDifference, confidence: float) -> str:
    if not math.isfinite(paired.difference.value):
        return "not defined"
    if not paired.p_value < 1 - confidence:
        return "no difference seen"
    return "worse than fp32" if loses(paired, confidence) else "better than fp32"


def _labels(rows: Sequence[Row]) -> Table:
    by_row = {row.name: row.labelled.figures.labels for row in rows if row.labelled and row.labelled.figures.labels}
    support = {label: figures.support for labels in by_row.values() for label, figures in labels.items()}
    names = sorted(support, key=lambda label: -support[label])
    left = len(names) - MOST_LABELS
    return Table(
        title="Label by label",
        caption="Precision / recall / F1 in points of each label, those of most examples first."
        + (f" {left:,} rarer labels are in report.json." if left > 0 else ""),
        head=("label", "examples", *by_row),
        rows=tuple(
            (
                label,
                f"{support[label]:,}",
                *(_of_label(labels.get(label)) for labels in by_row.values()),
            )
            for label in names[:MOST_LABELS]
        ),
    )


def _of_label(figures: LabelFigures | None) -> str:
    if figures is None:
        return NONE
    return " / ".join(
        in_points(figure) if math.isfinite(figure) else NONE
        for figure in (figures.precision, figures.recall, figures.f1)
    )


def _calibration(rows: Sequence[Row]) -> Table:
    measured = [(row.name, row.labelled.figures.calibration) for row in rows if row.labelled]
    return Table(
        title="Calibration of probabilities",
        caption="Whether a probability is the share of right answers that it promises: ECE is the mean distance of the "
        "two over 15 equal bins of confidence (Guo et al. 2017), 0 where they are the same. In points.",
        head=("variant", "ECE", "mean confidence", "accuracy"),
        rows=tuple(
            (
                name,
                interval(calibration.ece, ".1f", factor=POINTS),
                in_points(calibration.confidence),
                in_points(calibration.accuracy),
            )
            for name, calibration in measured
            if calibration
        ),
    )
