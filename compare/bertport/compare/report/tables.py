"""The tables of the report, once for every format: a title, a caption, headings, and cells of text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertport.compare.report.formatting import (
    NONE,
    capitalized,
    divergence,
    figure,
    interval,
    mebibytes,
    megabytes,
    milliseconds,
    percent,
)
from bertport.compare.report.metrics import POINTS, main_metric
from bertport.measure.budget import UNDECIDED
from bertport.measure.quality.heads import HEADS, HIDDEN, limit_named
from bertport.measure.quality.task_results import Classes
from bertport.measure.speed.tasks import TIMED, decodes
from bertport.measure.speed.workload import OFFLINE, SINGLE_STREAM
from bertport.measure.statistics import Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertport.compare.report.document import Bound, Report, Row, ShapeTimes
    from bertport.measure.budget import Judgement
    from bertport.measure.quality.results import HeadFigures, Movement
    from bertport.measure.quality.rows import Column, Head

__all__ = ["Table", "headline_columns", "overview", "quality_tables", "speed_tables"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table."""

    title: str
    """Its heading."""
    caption: str
    """Sentences on how to read it."""
    head: tuple[str, ...]
    """Headings of the columns; the first names rows."""
    rows: tuple[tuple[str, ...], ...]
    """Cells."""


def headline_columns(report: Report) -> list[tuple[Head, Column]]:
    """Return the figures of quality that stand for the rest: those of heads, or of hidden states where none has any."""
    measured = [
        (head, column)
        for head in HEADS.values()
        for column in head.reported
        if column.headline and any(row.head(head.name) for row in report.rows)
    ]
    return [pair for pair in measured if pair[0].name != HIDDEN] or measured


def overview(report: Report) -> Table:
    """Return one line per row: what most readers want."""
    quality, metric = headline_columns(report), main_metric(report)
    rows = [
        (
            row.name + (" (reference)" if row.reference else ""),
            megabytes(row.size_bytes),
            milliseconds(row.speed.single_stream.times.p90 if row.speed.single_stream else None),
            _speedup(row, SINGLE_STREAM),
            interval(row.speed.offline.texts_per_second if row.speed.offline else None),
            *([_metric(row, metric), _lost(row, metric)] if metric else []),
            *(_cell(report, row, row.head(head.name), column) for head, column in quality),
            "failed" if row.failed else "" if row.speed.offline else "not finished",
        )
        for row in report.rows
    ]
    head = (
        "variant",
        "size, MB",
        "SingleStream p90, ms",
        "times as fast as fp32",
        "Offline, texts/s",
        *([f"{metric}, points", "from fp32, points"] if metric else []),
        *(column.title for _, column in quality),
        "state",
    )
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    return Table(
        title="At a glance",
        caption="95% intervals in brackets. SingleStream p90: nine of ten texts are answered in this time, one after "
        "the other. Offline: all texts in one call."
        + (f" {capitalized(metric)}: on the labelled data, and its paired difference from fp32." if metric else "")
        + "".join(f" {column.meaning}" for _, column in quality if column.meaning),
        head=head,
        rows=tuple(rows),
    )


def _metric(row: Row, metric: str) -> str:
    return interval(row.metric(metric), ".1f", factor=POINTS)


def _lost(row: Row, metric: str) -> str:
    paired = row.difference(metric)
    return interval(paired.difference if paired else None, "+.2f", factor=POINTS)


def _speedup(row: Row, workload: str) -> str:
    if row.reference:
        return "1"
    speedup = row.times_faster.get(workload)
    return interval(speedup.ratio if speedup else None, ".2f")


def _cell(report: Report, row: Row, figures: HeadFigures | None, column: Column) -> str:
    """Return a figure of a head; a dash where it means nothing: the reference agrees with itself."""
    if figures is None or (row.reference and not column.labelled):
        return NONE
    if column.labelled and not report.bundle(row.bundle).trained:
        return NONE
    value = figures.read(column.key)
    if not isinstance(value, Estimate):
        known = isinstance(value, float | int) and math.isfinite(value)  # scores that are all the same have no spread
        return f"{value:{column.form}}" if known else NONE
    return divergence(value) if column.divergence else figure(value, column.form)


def budget_table(report: Report) -> list[Table]:
    """Lay out the verdict on each bound of the budget, from this run and from quantization; none without verdicts."""
    rows = [
        (
            judged.row,
            limit_named(bound.limit).meaning,
            limit_named(bound.limit).asked(bound.bound),
            _judged(bound.limit, bound.run),
            _judged(bound.limit, bound.record),
            bound.verdict + (" (at quantization)" if bound.by == "record" else ""),
            _more(bound),
        )
        for judged in report.verdicts
        for bound in judged.bounds
    ]
    if not rows:
        return []
    caption = (
        "Held or broken where the whole 95% interval is on one side of the bound, undecided where the bound is in it. "
        "A verdict is this run's; where this run cannot tell, and the text is the sample that ships, it is that of the "
        "figure that was measured at quantization, when the variant was made. More needed: so many more samples would "
        "decide, about, if the figure stays as it is."
    )
    head = ("variant", "figure", "asked", "this run", "at quantization", "verdict", "more needed")
    return [Table(title="Accuracy budget", caption=caption, head=head, rows=tuple(rows))]


def _judged(limit: str, judged: Judgement | None) -> str:
    return f"{figure(judged, limit_named(limit).fine)} of {judged.count:,}" if judged else NONE


def _more(bound: Bound) -> str:
    if bound.verdict != UNDECIDED:
        return NONE
    return f"{bound.run.more:,} {limit_named(bound.limit).unit}" if bound.run.more else "beyond reach"


def quality_tables(report: Report) -> list[Table]:
    """Return the table of the budget, and one per head, of the rows whose quality was measured."""
    tables = budget_table(report)
    for head in HEADS.values():
        rows = [
            (row, figures)
            for row in report.rows
            if (figures := row.head(head.name))
            and (not row.reference or any(column.labelled for column in head.reported))
        ]
        if rows:
            tables.append(
                _invariance_table(report, head, rows) if head.name == HIDDEN else _head_table(report, head, rows)
            )
            tables += _label_tables(head, rows)
    return tables


def _head_table(report: Report, head: Head, rows: Sequence[tuple[Row, HeadFigures]]) -> Table:
    estimates = [figures.estimate(head.reported[0].key) for _, figures in rows]
    positions, texts = (_range([getattr(estimate, name) for estimate in estimates]) for name in ("count", "clusters"))
    return Table(
        title=head.title,
        caption=head.caption.format(positions=positions, texts=texts),
        head=("variant", *(column.heading for column in head.reported)),
        rows=tuple(
            (row.name, *(_cell(report, row, figures, column) for column in head.reported)) for row, figures in rows
        ),
    )


def _label_tables(head: Head, rows: Sequence[tuple[Row, HeadFigures]]) -> list[Table]:
    """Return the table of agreement label by label of a head that has labels; none without a variant beside fp32."""
    compared = [
        (row.name, figures.by_label) for row, figures in rows if isinstance(figures, Classes) and not row.reference
    ]
    labels = list(dict.fromkeys(label for _, by_label in compared for label in by_label))
    if not labels:
        return []
    counts = {label: [by_label[label].count for _, by_label in compared if label in by_label] for label in labels}
    return [
        Table(
            title=f"{head.title}, label by label",
            caption="Of what fp32 gives a label, the share that the variant gives it too: the labels that fp32 gives "
            "most often.",
            head=("label", "given by fp32", *(name for name, _ in compared)),
            rows=tuple(
                (label, _range(counts[label]), *(percent(by_label.get(label)) for _, by_label in compared))
                for label in labels
            ),
        )
    ]


def _range(sizes: Sequence[int]) -> str:
    """Return how many samples rows were measured on: a range where verdicts needed more of some."""
    least, most = min(sizes), max(sizes)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _invariance_table(report: Report, head: Head, rows: Sequence[tuple[Row, HeadFigures]]) -> Table:
    """Return the table of the hidden states, and of how answers move with the batch."""
    moved = [shown for row in HEADS.values() for shown in _shown_movement(report, row)]
    table = _head_table(report, head, rows)
    stabilities = [row.quality.stability if row.quality else None for row, _ in rows]
    return Table(
        title=table.title,
        caption=table.caption,
        head=(
            *table.head,
            *(
                f"{shown.title} {by}, {shown.unit}" if shown.unit else f"{shown.title} {beside}"
                for by, beside in (
                    ("moved by the batch", "alone and in a batch"),
                    ("moved by padding", "alone and padded"),
                )
                for shown in moved
            ),
        ),
        rows=tuple(
            (
                *cells,
                *(
                    _moved(movement, shown)
                    for movement in ((stability.batch_mates, stability.padding) if stability else (None, None))
                    for shown in moved
                ),
            )
            for cells, stability in zip(table.rows, stabilities, strict=True)
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """One figure of batch invariance in the table."""

    name: str
    """Its key."""
    title: str
    """Name for people."""
    unit: str
    """Its unit; empty without one."""
    form: str
    """Format specification of its values."""


def _shown_movement(report: Report, head: Head) -> list[_Shown]:
    """Return what the table shows of how a head's answers move: its divergence, or else all that is kept of them.

    Nothing of a head that was not measured, nor of one that does not stand for a bundle.
    """
    standing = head.name != HIDDEN and any(column.headline for column in head.reported)
    if not standing or not any(row.head(head.name) for row in report.rows):
        return []
    columns = {column.key: column for column in head.reported}
    shown = [kind for kind in head.moved if kind.unit] or head.moved
    return [
        _Shown(
            name=kind.name,
            title=kind.title or (columns[kind.key].title if kind.key in columns else kind.name),
            unit=kind.unit,
            form=".5f" if kind.unit or kind.key not in columns else columns[kind.key].form,
        )
        for kind in shown
    ]


def _moved(movement: Movement | None, shown: _Shown) -> str:
    moved = (movement or {}).get(shown.name)
    if isinstance(moved, Estimate):
        return "0" if moved.high == 0 or math.isnan(moved.high) else figure(moved, shown.form)
    return f"{moved:{shown.form}}" if isinstance(moved, float | int) else NONE


def speed_tables(report: Report) -> list[Table]:
    """Return one table per scenario, one for the batches of one length, and one for the start."""
    tables = (_single_stream(report), _offline(report), _server(report), _shapes(report), _start(report))
    return [table for table in tables if table.rows]


def _single_stream(report: Report) -> Table:
    rows = [(row, row.speed.single_stream) for row in report.rows if row.speed.single_stream]
    times = rows[0][1].times if rows else None
    task = report.text.inputs.task
    compared = TIMED[task].compared if task in TIMED else ""
    same = f" Same answer: texts of which a baseline's {compared} is fp32's." if compared else ""
    return Table(
        title="SingleStream: one text after the other",
        caption=f"{times.runs:,} timed answers in {len(times.rounds)} rounds, after {times.warmup_runs} of warm-up; "
        f"milliseconds from text to answer of {task}. MLPerf's figure is the 90th percentile.{same}"
        if times
        else "",
        head=(
            *("variant", "median", "p90", "p99", "times as fast as fp32", "tokenize / run / finish", "peak, MiB"),
            "same answer",
        ),
        rows=tuple(
            (
                row.name,
                *(
                    milliseconds(quantile)
                    for quantile in (single_stream.times.median, single_stream.times.p90, single_stream.times.p99)
                ),
                _speedup(row, SINGLE_STREAM),
                " / ".join(f"{share:.0%}" for share in single_stream.times.stages.values()) or NONE,
                mebibytes(single_stream.peak_bytes),
                NONE if row.is_variant else percent(row.same_answers),
            )
            for row, single_stream in rows
        ),
    )


def _offline(report: Report) -> Table:
    rows = [(row, row.speed.offline) for row in report.rows if row.speed.offline]
    rounds = len(rows[0][1].times.rounds) if rows else 0
    return Table(
        title="Offline: all texts at once",
        caption=f"{report.text.inputs.texts} texts in one call, {rounds} rounds. Tokens counted are real ones; padded "
        "ones are what the model computed.",
        head=(
            *("variant", "texts/s", "tokens/s", "times as fast as fp32", "real tokens", "padded tokens"),
            "of matmul peak",
        ),
        rows=tuple(
            (
                row.name,
                interval(offline.texts_per_second),
                interval(offline.tokens_per_second, ",.0f"),
                _speedup(row, OFFLINE),
                f"{offline.real_tokens:,}",
                f"{offline.padded_tokens:,}",
                f"{offline.share_of_peak:.0%}" if offline.share_of_peak else NONE,
            )
            for row, offline in rows
        ),
    )


def _server(report: Report) -> Table:
    return Table(
        title="Server: requests at random times",
        caption="Poisson arrivals at a rate set by the reference's SingleStream speed, the same for all, answered "
        "first come first served; milliseconds from arrival to answer. MLPerf's figure is the 99th percentile.",
        head=("variant", "requests/s", "median", "p90", "p99", "note"),
        rows=tuple(
            (
                row.name,
                f"{server.requests_per_second:.3g}",
                *(milliseconds(quantile) for quantile in (server.times.median, server.times.p90, server.times.p99)),
                "overloaded: it answers more slowly than requests come" if server.overloaded else NONE,
            )
            for row in report.rows
            for server in row.speed.server
        ),
    )


def _shapes(report: Report) -> Table:
    sizes = {name: (shape.rows, shape.length) for row in report.rows for name, shape in row.speed.shapes.items()}
    names = sorted(sizes, key=lambda name: sizes[name])
    decoded = ", one position decoded in each row" if all(decodes(bundle.heads) for bundle in report.bundles) else ""
    return Table(
        title="Batches of one length",
        caption=f"The graph alone on random tokens{decoded}; median milliseconds, and the "
        "share of the machine's fp32 matmul peak (8-bit arithmetic can exceed it).",
        head=("variant", *(f"{sizes[name][0]} x {sizes[name][1]}" for name in names)),
        rows=tuple(
            (row.name, *(_shape(row.speed.shapes.get(name)) for name in names))
            for row in report.rows
            if row.speed.shapes
        ),
    )


def _shape(shape: ShapeTimes | None) -> str:
    if shape is None:
        return NONE
    peak = f", {shape.share_of_peak:.0%} of peak" if shape.share_of_peak else ""
    return f"{milliseconds(shape.times.median)}{peak}"


def _start(report: Report) -> Table:
    return Table(
        title="Start",
        caption="Fresh processes: from the start of Python to the first answer, and of that the loading of the model; "
        "seconds. Memory is the most that was resident up to the first answers.",
        head=("variant", "cold start, s", "load, s", "peak, MiB", "size, MB"),
        rows=tuple(
            (
                row.name,
                interval(row.speed.start.cold_start, ".2f"),
                interval(row.speed.start.load, ".2f"),
                mebibytes(row.speed.start.peak_bytes_of_one_answer),
                megabytes(row.size_bytes),
            )
            for row in report.rows
            if row.speed.start
        ),
    )
