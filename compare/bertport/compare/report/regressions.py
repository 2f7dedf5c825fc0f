"""Changes between two reports beyond noise, each judged a regression or not: for use in CI."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

from bertport.compare.report.document import Against, Change
from bertport.compare.report.metrics import POINTS, metrics_of, more_is_better
from bertport.compare.report.recommend import verdicts
from bertport.measure.budget import BROKEN
from bertport.measure.quality.heads import HEADS, limit_named
from bertport.measure.statistics import Estimate
from bertport.runtime.errors import UnknownNameError, UsageError
from bertport.runtime.excerpts import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bertport.compare.measurements import DataInfo
    from bertport.compare.report.document import Report, Row

__all__ = ["KINDS", "differences", "figures", "parse_tolerance"]

Kind = Literal["speed", "quality", "size", "memory", "labelled"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Kinds of figures that a tolerance can be given for."""
DEFAULT = 0.05
"""Tolerance of figures unless another is given: a share of the old figure."""
LABELLED: Kind = "labelled"
"""Metrics on labelled data: their tolerance is in their own unit, 0.01 for a point, and no share of the old figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row: a figure that is compared."""

    name: str
    """For people."""
    kind: Kind
    """Kind of figure that its tolerance is given for."""
    read: Callable[[Row], Estimate | float | None]
    """Takes it out of a row; None where it was not measured."""
    up: bool
    """Whether more is better."""
    factor: float = 1.0
    """From the report's unit to that of sentences."""
    unit: str = ""
    """Unit of the figure in sentences."""

    def write(self, value: float) -> str:
        """Return a value for people."""
        return f"{self.factor * value:.4g}{self.unit}"


def _p90(row: Row) -> Estimate | None:
    return row.speed.single_stream.times.p90 if row.speed.single_stream else None


def _throughput(row: Row) -> Estimate | None:
    return row.speed.offline.texts_per_second if row.speed.offline else None


def _cold_start(row: Row) -> Estimate | None:
    return row.speed.start.cold_start if row.speed.start else None


def _memory(row: Row) -> float | None:
    # 0 where the operating system does not say
    return row.speed.single_stream.peak_bytes or None if row.speed.single_stream else None


def _of_head(head: str, key: str, row: Row) -> Estimate | None:
    figures = row.head(head)
    return figures.estimate(key) if figures else None


SPEED = (
    Figure(name="SingleStream p90", kind="speed", read=_p90, up=False, factor=1e3, unit=" ms"),
    Figure(name="Offline throughput", kind="speed", read=_throughput, up=True, unit=" texts/s"),
    Figure(name="cold start", kind="speed", read=_cold_start, up=False, unit=" s"),
)
REST = (
    Figure(name="size", kind="size", read=lambda row: row.size_bytes, up=False, factor=1e-6, unit=" MB"),
    Figure(name="peak memory", kind="memory", read=_memory, up=False, factor=2**-20, unit=" MiB"),
)


def figures() -> tuple[Figure, ...]:
    """Return the figures that are compared, in the order of the report."""
    quality = [
        Figure(
            name=column.title,
            kind="quality",
            read=partial(_of_head, head.name, column.key),
            up=column.more_is_better,
            factor=100 if column.form.endswith("%") else 1,
            unit="%" if column.form.endswith("%") else "",
        )
        for head in HEADS.values()
        for column in sorted(head.reported, key=lambda column: not column.headline)
        if column.more_is_better is not None
    ]
    return (*SPEED, *quality, *REST)


def _metric(name: str, row: Row) -> Estimate | None:
    return row.metric(name)


def _difference(name: str, row: Row) -> Estimate | None:
    paired = row.difference(name)
    return paired.difference if paired else None


def _labelled_figures(report: Report) -> tuple[Figure, ...]:
    """Return each metric on labelled data, and its paired difference from fp32, which tells smaller changes apart."""
    return tuple(
        Figure(
            name=f"{name}{what}",
            kind=LABELLED,
            read=partial(read, name),
            up=more_is_better(name),
            factor=POINTS,
            unit=" points",
        )
        for name in metrics_of(report)
        for what, read in ((" on labelled data", _metric), (", difference from fp32", _difference))
    )


def parse_tolerance(text: str) -> dict[Kind, float]:
    """Read a share such as `0.05`, or one for each kind of figure, such as `speed=0.1,quality=0.01`.

    A share alone is none of `labelled`, whose tolerance is 0 unless it is given: what is beyond noise there is worse.

    Raises:
        UnknownNameError: for an unknown kind.
        UsageError: for what is not a share from 0 up.
    """
    tolerance = dict.fromkeys(KINDS, DEFAULT) | {LABELLED: 0.0}
    given: set[str] = set()
    for part in sorted(text.split(","), key=lambda part: "=" in part):  # that for all before those for kinds
        name, equals, value = part.rpartition("=")
        name = name.strip()
        if name in given:
            raise UsageError(f"{excerpt(text)} gives a tolerance twice: give one for all, and one for each kind")
        given.add(name)
        try:
            share = float(value)
        except ValueError:
            share = math.nan
        if not math.isfinite(share) or share < 0:
            raise UsageError(
                f"{part.strip()!r} is not a tolerance: write a share such as 0.05, or speed=0.1,quality=0.01"
            )
        kinds = [kind for kind in KINDS if (kind == name if equals else kind != LABELLED)]
        if not kinds:
            raise UnknownNameError("kind of figure", name, KINDS)
        tolerance |= dict.fromkeys(kinds, share)
    return tolerance


def differences(old: Report, new: Report, tolerance: Mapping[Kind, float]) -> Against:
    """Compare two reports, row by row.

    A change is beyond noise when the two intervals do not meet; figures without an interval (sizes) are exact, and
    peak memory is taken to be. It is a regression when it is for the worse and by more than the tolerance, as a share
    of the old figure. A bound of the accuracy budget that is broken now and was not is one whatever the tolerance; one
    that is undecided is none. Both reports are judged by the new one's budget.
    """
    before = {row.name: row for row in old.rows}
    after = {row.name: row for row in new.rows}
    skipped = _incomparable(old, new)
    changes: list[Change] = []
    for name, row in after.items():
        if name not in before:
            continue
        if row.failed and not before[name].failed:
            changes.append(_failure(name, row.failed))
            continue
        for figure in (*figures(), *_labelled_figures(new)):
            if figure.kind not in skipped:
                changes += _compare(figure, before[name], row, tolerance[figure.kind])
        if LABELLED not in skipped:
            changes += _undefined(before[name], row)
            if new.complete and before[name].labelled and not row.labelled:
                changes.append(_failure(name, "the new report says why under what was not measured", "labelled data"))
    if "quality" not in skipped:
        changes += _verdicts(old, new)
    changes += [_failure(name, "it is not in the new report") for name in before if name not in after]
    added = (f"{name} is new: the old report does not have it" for name in after if name not in before)
    return Against(
        created=old.created,
        tolerance={str(kind): share for kind, share in tolerance.items()},
        changes=tuple(changes),
        not_compared=(*dict.fromkeys(skipped.values()), *added),
    )


def _verdicts(old: Report, new: Report) -> Iterator[Change]:
    """Yield the bounds of the budget that are broken now and were not, and those that were and are not."""
    settings = dataclasses.replace(old.settings, budget=new.settings.budget)
    judged = verdicts(dataclasses.replace(old, settings=settings))
    before = {(verdict.row, bound.limit): bound for verdict in judged for bound in verdict.bounds}
    for verdict in verdicts(new):
        for bound in verdict.bounds:
            was = before.get((verdict.row, bound.limit))
            if was is None or (was.verdict == BROKEN) == (bound.verdict == BROKEN):
                continue
            worse = bound.verdict == BROKEN
            yield Change(
                row=verdict.row,
                figure=f"accuracy budget, {limit_named(bound.limit).meaning}",
                old=was.run.value,
                new=bound.run.value,
                change=None,
                worse=worse,
                regression=worse,
                sentence=f"{verdict.row}: the accuracy budget was {was.verdict} and is {bound.verdict} now: "
                f"{bound.sentence}",
            )


def _incomparable(old: Report, new: Report) -> dict[Kind, str]:
    """Return the kinds of figures that the two reports cannot be compared in, and why."""
    skipped: dict[Kind, str] = {}
    machines = [(report.machine.cpu, report.machine.usable_cores, report.settings.threads) for report in (old, new)]
    if machines[0] != machines[1]:
        skipped["speed"] = skipped["memory"] = "speed and peak memory: the machine or the threads differ"
    elif old.text.inputs.lengths != new.text.inputs.lengths:
        skipped["speed"] = skipped["memory"] = "speed and peak memory: the texts that were timed have other lengths"
    if old.text.sha256 != new.text.sha256:
        skipped["quality"] = "quality: the text differs"
    if _measured_on(old.data) != _measured_on(new.data):
        missing = "old" if old.data is None else "new" if new.data is None else ""
        skipped[LABELLED] = f"labelled data: {f'the {missing} report has none' if missing else 'it differs'}"
    return skipped


def _measured_on(data: DataInfo | None) -> tuple[object, ...] | None:
    """Return what metrics on labelled data depend on."""
    if data is None:
        return None
    prompts = {side: text for side, text in (data.prompts or {}).items() if text}
    labels = dict(data.columns), dict(data.label_map), data.positive, prompts
    return data.fingerprint, data.task, data.kind, data.examples, *labels, data.truncation


def _failure(name: str, why: str, on: str = "") -> Change:
    """Return that a row was measured, or measured on something, and is not any more."""
    return Change(
        row=name,
        figure=f"measured on {on}" if on else "measured at all",
        old=None,
        new=None,
        change=None,
        worse=True,
        regression=True,
        sentence=f"{name} was measured{f' on the {on}' if on else ''} before and is not now: {why}",
    )


def _undefined(old: Row, new: Row) -> Iterator[Change]:
    """Yield the metrics on labelled data that a row had, and has no more while fp32 has them."""
    for name, paired in (new.labelled.differences if new.labelled else {}).items():
        had = old.metric(name)
        if paired.undefined is None or had is None or not math.isfinite(had.value):
            continue
        yield Change(
            row=new.name,
            figure=f"{name} on labelled data",
            old=had.value,
            new=None,
            change=None,
            worse=True,
            regression=True,
            sentence=f"{new.name}: {name} on labelled data was {POINTS * had.value:.4g} points and is not defined now: "
            f"{paired.undefined}",
        )


def _compare(figure: Figure, old: Row, new: Row, tolerance: float) -> Iterator[Change]:
    one, other = _interval(figure.read(old)), _interval(figure.read(new))
    if one is None or other is None or (one.low <= other.high and other.low <= one.high):
        return
    change = (other.value - one.value) / abs(one.value) if one.value else math.copysign(math.inf, other.value)
    worse = (other.value < one.value) == figure.up
    size = abs(other.value - one.value) if figure.kind == LABELLED else abs(change)
    regression = worse and size > tolerance
    verdict = "worse, beyond the tolerance" if regression else "worse, within the tolerance" if worse else "better"
    by = "" if figure.kind == LABELLED or not math.isfinite(change) else f" ({change:+.1%})"
    yield Change(
        row=new.name,
        figure=figure.name,
        old=one.value,
        new=other.value,
        change=change if math.isfinite(change) else None,
        worse=worse,
        regression=regression,
        sentence=f"{new.name}: {figure.name} went from {figure.write(one.value)} to {figure.write(other.value)}{by}: "
        f"{verdict}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Interval:
    value: float
    low: float
    high: float


def _interval(figure: Estimate | float | None) -> _Interval | None:
    """Return a figure with the ends of its interval; the figure itself for an end that is not known."""
    if figure is None:
        return None
    if not isinstance(figure, Estimate):
        return _Interval(value=float(figure), low=float(figure), high=float(figure))
    if not math.isfinite(figure.value):
        return None
    low, high = (end if math.isfinite(end) else figure.value for end in (figure.low, figure.high))
    return _Interval(value=float(figure.value), low=float(low), high=float(high))
