"""Metrics on labelled data in the report: their tables, and the sentences on them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bertport.compare.report.formatting import NONE, interval, percent
from bertport.compare.report.metrics import (
    POINTS,
    in_points,
    lacks_metrics,
    loses,
    losses,
    main_metric,
    metrics_of,
    shows_difference,
)
from bertport.compare.report.tables import Table
from bertport.measure.labelled.kinds import TAGS
from bertport.runtime.excerpts import excerpt

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
"""Labels that the table of labels shows, at most: the most frequent."""


def standing(report: Report, row: Row) -> str:
    """Return how a row does by the main metric, for a sentence; nothing without labelled data."""
    metric = main_metric(report)
    estimate = row.metric(metric) if metric else None
    if metric is None or estimate is None or not math.isfinite(estimate.value):
        return ""
    paired = row.difference(metric)
    if paired is None or not math.isfinite(paired.difference.value):
        return f"{metric} {in_points(estimate.value)}"
    if not shows_difference(paired, report.settings.confidence):
        low, high = (f"{POINTS * end:+.2f}" for end in (paired.difference.low, paired.difference.high))
        return f"no difference in {metric} seen ({low} to {high} points)"
    return f"{metric} {_against(paired)}"


def labelled_paragraphs(report: Report) -> tuple[str, ...]:
    """Return what the labelled data is, and what a loss on it means; nothing without it."""
    data = report.data
    if data is None:
        return ()
    first = f"the first {data.examples:,}" if data.limit and data.limit <= data.examples else f"{data.examples:,}"
    cut = " Texts that are too long were cut." if data.truncation else ""
    prompts = data.prompts or {}
    begin = ""
    if any(prompts.values()):
        texts = (prompts.get(side) for side in ("query", "document"))
        query, document = (excerpt(text) if text else "nothing" for text in texts)
        begin = f" Queries, or first texts, begin with {query}, and documents, or second texts, with {document}."
    text = (
        f"{data.task} on {first} examples of {data.name} ({data.fingerprint[:23]}).{cut}{begin} "
        "A variant that is shown to lose against fp32 in any metric is not recommended, whatever its agreement."
    )
    return (text,)


def labelled_points(report: Report) -> tuple[str, ...]:
    """Return what is odd about the data or about figures, each once; names that begin one are left as they are."""
    of_data = report.data.notes if report.data else ()
    of_rows = [note for row in report.rows if row.labelled for note in row.labelled.figures.notes]
    return tuple(f"{note}." for note in dict.fromkeys((*of_data, *of_rows)))


def labelled_notes(report: Report) -> Iterator[str]:
    """Yield a sentence for each variant that the labelled data keeps from being recommended."""
    main = main_metric(report)
    for row in report.rows:
        if report.data and row.is_variant and row.quality and not row.failed and lacks_metrics(report, row):
            yield (
                f"{row.name} is not recommended, because it could not be measured on {report.data.name}: the reason is "
                "under what was not measured."
            )
        lost = sorted(losses(row, report.settings.confidence), key=lambda paired: paired.metric != main)
        if not lost or not row.is_variant or report.data is None:
            continue
        first, *others = lost
        also = f", and loses in {', '.join(paired.metric for paired in others)} too" if others else ""
        yield (
            f"{row.name} is not recommended, because it loses on the {report.data.examples:,} examples of "
            f"{report.data.name}: {first.metric} is {_against(first)}{also}."
        )


def _against(paired: PairedDifference) -> str:
    """Return a difference from fp32 that was shown, in words."""
    if paired.undefined is not None:
        return f"not defined ({paired.undefined}), and fp32's is"
    return f"{interval(paired.difference, '+.2f', factor=POINTS)} points from fp32's, p = {paired.p_value:.2g}"


def labelled_tables(report: Report) -> tuple[Table, ...]:
    """Return the tables of the labelled data: metrics, differences from fp32, labels and calibration."""
    rows = [row for row in report.rows if row.labelled]
    tables = (_metrics(report, rows), _differences(report, rows), _labels(rows), _calibration(rows))
    return tuple(table for table in tables if table.rows)


def _metrics(report: Report, rows: Sequence[Row]) -> Table:
    names = metrics_of(report)
    return Table(
        title="Metrics",
        caption="In points, hundredths of a metric's whole, with 95% intervals: exact ones for shares of right "
        "answers, and for other metrics those of resampled examples. That two of them overlap says nothing about a "
        "difference, because variants answer the same examples: see the next table.",
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
    names, confidence = metrics_of(report), report.settings.confidence
    compared = [row for row in rows if row.labelled and row.labelled.differences]
    first = {row.name: row.difference(names[0]) for row in compared} if names else {}
    numbers = any(paired and paired.spearman for paired in first.values())
    return Table(
        title="Differences from fp32 on the same examples",
        caption="Points of the variant minus those of fp32, with the paired 95% interval; p is that of McNemar's exact "
        "test for shares of right answers, and of a permutation test for other metrics. Worse or better is said where "
        "the test shows it at 5%; elsewhere no difference is seen, which does not prove that there is none.",
        head=("variant", *names, "rank correlation with fp32's" if numbers else "same answers as fp32"),
        rows=tuple(
            (
                row.name,
                *(_difference(row.difference(name), confidence) for name in names),
                _same(first[row.name], numbers=numbers),
            )
            for row in compared
        ),
    )


def _difference(paired: PairedDifference | None, confidence: float) -> str:
    if paired is not None and paired.undefined is not None:
        return "worse: not defined"
    if paired is None or not math.isfinite(paired.difference.value):
        return NONE
    seen = ""
    if shows_difference(paired, confidence):
        seen = "worse: " if loses(paired, confidence) else "better: "
    return f"{seen}{interval(paired.difference, '+.2f', factor=POINTS)} p = {paired.p_value:.2g}"


def _same(paired: PairedDifference | None, *, numbers: bool) -> str:
    """Return how alike the predictions are."""
    if paired is None:
        return NONE
    return interval(paired.spearman, ".4f") if numbers else percent(paired.agreement, ".2f")


def _labels(rows: Sequence[Row]) -> Table:
    by_row = {row.name: row.labelled.figures.labels for row in rows if row.labelled and row.labelled.figures.labels}
    support = {label: figures.support for labels in by_row.values() for label, figures in labels.items()}
    names = sorted(support, key=lambda label: -support[label])
    left = len(names) - MOST_LABELS
    counted = "entities" if any(row.labelled and row.labelled.figures.kind == TAGS for row in rows) else "examples"
    return Table(
        title="Label by label",
        caption=f"Precision / recall / F1 in points of each label, those of most {counted} first."
        + (f" {left:,} rarer labels are in report.json." if left > 0 else ""),
        head=("label", counted, *by_row),
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
    return "\u00a0/\u00a0".join(  # no line is broken there
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
