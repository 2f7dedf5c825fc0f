"""Each variant tested against its reference: what differs from fp32, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertport.compare.report.document import Finding
from bertport.compare.report.formatting import interval
from bertport.compare.report.metrics import POINTS, more_is_better
from bertport.measure.quality.heads import HEADS
from bertport.measure.statistics import Difference, says_no_difference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bertport.compare.report.document import Report, Row

__all__ = ["LABELLED", "findings"]


LABELLED = "labelled."
"""Prefix of the ids of tests on labelled data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """One difference between a variant and its reference, with what a sentence on it needs."""

    id: str
    """Differs from that of every other test of the row."""
    title: str
    """Name of the metric for people."""
    difference: Difference
    """Variant minus reference."""
    form: str
    """Format specification of the difference."""
    more_is_better: bool
    """Whether the variant is better where it is above 0."""
    unit: str
    """Unit of its count."""
    clusters: str
    """Unit that the bootstrap resampled."""
    factor: float = 1.0
    """From the figure's unit to that in which it is printed."""


def findings(report: Report) -> tuple[Finding, ...]:
    """Return a finding for each test of each variant, in the order of the rows."""
    every: list[Finding] = []
    confidence = report.settings.confidence
    for row in report.rows:
        if row.reference or row.failed or not row.is_variant:
            continue
        if report.bundle(row.bundle).trained:
            every += [
                _finding(row, tested, confidence)
                for tested in _tests(row)
                if math.isfinite(tested.difference.difference.value)
            ]
        every += _speed(row)
    return tuple(every)


def _tests(row: Row) -> Iterator[Tested]:
    for name, paired in row.labelled.differences.items() if row.labelled else ():
        yield Tested(
            id=f"{LABELLED}{name}",
            title=f"{name} on labelled data, points",
            difference=Difference(difference=paired.difference, p_value=paired.p_value, test=paired.test),
            form="+.2f",
            more_is_better=more_is_better(name),
            unit="examples",
            clusters="examples",
            factor=POINTS,
        )
    for head in HEADS.values():
        figures = row.head(head.name)
        if figures is None:
            continue
        for test in head.tests:
            yield Tested(
                id=f"{head.name}.{test.key}",
                title=test.title,
                difference=figures.difference(test.key),
                form=test.form,
                more_is_better=test.more_is_better,
                unit=test.unit,
                clusters="texts",
            )
    if row.bias and row.bias.change:
        yield Tested(
            id="bias.distance",
            title="Distance between groups in the bias probe (bits)",
            difference=row.bias.change,
            form="+.4f",
            more_is_better=False,
            unit="pairs",
            clusters="templates",
        )
    if row.label_bias and row.label_bias.change:
        yield Tested(
            id="label_bias.distance",
            title="Largest change of a label's score between groups in the bias probe",
            difference=row.label_bias.change,
            form="+.4f",
            more_is_better=False,
            unit="pairs",
            clusters="templates",
        )


def _finding(row: Row, tested: Tested, confidence: float) -> Finding:
    estimate, p_value = tested.difference.difference, tested.difference.p_value
    none = says_no_difference(tested.difference, confidence)
    better = "better" if (estimate.value > 0) == tested.more_is_better else "worse"
    seen = "no difference seen" if none else f"{better} than fp32"
    size = interval(estimate, tested.form, factor=tested.factor)
    return Finding(
        row=row.name,
        id=tested.id,
        figure=tested.title,
        no_difference_seen=none,
        verdict=seen,
        size=f"{size}, p = {p_value:.2g}",
        sentence=f"{tested.title}: {seen}; difference {size}, p = {p_value:.2g} ({tested.difference.test}), "
        f"{estimate.count:,} {tested.unit}"
        + (f" in {estimate.clusters:,} {tested.clusters}" if tested.clusters != tested.unit else ""),
    )


def _speed(row: Row) -> Iterator[Finding]:
    for workload, speedup in row.times_faster.items():
        none = speedup.no_difference_seen
        seen = "no difference seen" if none else f"{'faster' if speedup.ratio.value > 1 else 'slower'} than fp32"
        size = f"{interval(speedup.ratio)} times as fast"
        yield Finding(
            row=row.name,
            id=f"speed.{workload}",
            figure=f"Speed, {workload}",
            no_difference_seen=none,
            verdict=seen,
            size=size,
            sentence=f"Speed, {workload}: {seen}; {size}, {speedup.ratio.clusters:,} rounds",
        )
