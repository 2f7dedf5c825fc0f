"""Recommendation of a variant to deploy for each goal, with its reason, and verdicts by the accuracy budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bertport.compare.codec import encode_object
from bertport.compare.report.document import Bound, Recommendation, Verdict
from bertport.compare.report.formatting import interval, megabytes, milliseconds
from bertport.compare.report.labelled import standing
from bertport.compare.report.metrics import lacks_metrics, losses
from bertport.measure.budget import BROKEN, HELD, UNDECIDED, applicable, judge_all, overall
from bertport.measure.quality.heads import HEADS, limit_named
from bertport.measure.speed.workload import OFFLINE, SINGLE_STREAM

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bertport.compare.measurements import Recorded
    from bertport.compare.report.document import BundleInfo, Report, Row
    from bertport.measure.budget import Judgement, Outcome
    from bertport.measure.quality.rows import Limit

__all__ = ["GOALS", "NOT_MEASURED", "Goal", "recommend", "verdicts"]

NOT_MEASURED: Literal["not measured"] = "not measured"
"""Verdict on a budget of which no bound is broken or undecided, and one was not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Figure of a row that a goal is judged by."""

    value: float
    """The smallest is best."""
    text: str
    """The figure with its interval, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One row: what a variant is chosen for."""

    name: str
    """For people."""
    better: str
    """Comparative for a variant that would be chosen instead, such as `faster`."""
    read: Callable[[Row], Reading | None]
    """Takes it out of a row; None where it was not measured."""
    workload: str | None
    """Workload whose ratio to the reference says how sure it is; None for what is exact."""


def _latency(row: Row) -> Reading | None:
    if row.speed.single_stream is None:
        return None
    p90 = row.speed.single_stream.times.p90
    return Reading(value=p90.value, text=f"{milliseconds(p90)} ms (SingleStream p90)")


def _throughput(row: Row) -> Reading | None:
    if row.speed.offline is None:
        return None
    rate = row.speed.offline.texts_per_second
    return Reading(value=-rate.value, text=f"{interval(rate)} texts a second (Offline)")


def _size(row: Row) -> Reading | None:
    if row.size_bytes is None:
        return None
    return Reading(value=row.size_bytes, text=f"{megabytes(row.size_bytes)} MB")


GOALS = (
    Goal(name="Lowest latency within the budget", better="faster", read=_latency, workload=SINGLE_STREAM),
    Goal(name="Highest throughput within the budget", better="faster", read=_throughput, workload=OFFLINE),
    Goal(name="Smallest within the budget", better="smaller", read=_size, workload=None),
)


def verdicts(report: Report) -> tuple[Verdict, ...]:
    """Judge every variant whose quality was measured by the accuracy budget.

    A bound has the verdict of this run, or, where this run cannot tell, that of the manifest's record, if the text is
    the one that ships: of a user's own text the record says nothing. Where none is broken or undecided, a budget of
    which a bound was not measured is not held: more samples of the others would not decide it.

    Returns:
        One for each variant; none for a bundle whose accuracy means nothing.
    """
    return tuple(
        _verdict(report, row)
        for row in report.rows
        if row.is_variant and row.quality and not row.reference and not row.failed and report.bundle(row.bundle).trained
    )


def _verdict(report: Report, row: Row) -> Verdict:
    bounds = _bounds(report, row)
    unmeasured = _unmeasured(report, row, bounds)
    verdict: Outcome | Literal["not measured"] = overall(bound.verdict for bound in bounds) if bounds else HELD
    if verdict == HELD and (unmeasured or (report.settings.budget and not bounds)):
        verdict = NOT_MEASURED
    return Verdict(
        bundle=row.bundle,
        row=row.name,
        verdict=verdict,
        bounds=bounds,
        holds=verdict != BROKEN,
        breaks=tuple(bound.sentence for bound in bounds if bound.verdict == BROKEN),
        near=(*(bound.sentence for bound in bounds if bound.verdict == UNDECIDED), *unmeasured),
    )


def _unmeasured(report: Report, row: Row, bounds: Sequence[Bound]) -> tuple[str, ...]:
    """Return a sentence for each bound on a head of the bundle whose figure this run does not have."""
    budget = applicable(report.settings.budget, report.bundle(row.bundle).heads)
    judged = {bound.limit for bound in bounds}
    measured = {head.key for head in HEADS.values() if row.head(head.name)}
    # A head of the manifest is measured by one of its rows alone: the other's bounds are not asked of it.
    limits = [
        limit
        for limit in map(limit_named, budget)
        if limit.name not in judged and (row.head(limit.path[0]) or HEADS[limit.path[0]].key not in measured)
    ]
    return tuple(
        f"{limit.meaning}, {limit.asked(budget[limit.name])} asked: not measured in this run" for limit in limits
    )


def _bounds(report: Report, row: Row) -> tuple[Bound, ...]:
    budget = applicable(report.settings.budget, report.bundle(row.bundle).heads)
    run, recorded = judge_all(budget, encode_object(row.quality)), {}
    if row.recorded:
        recorded = judge_all(budget, encode_object(row.recorded.figures))
    return tuple(
        _bound(limit_named(name), budget[name], judged, recorded.get(name), row.recorded, shipped=report.text.shipped)
        for name, judged in run.items()
    )


def _bound(  # noqa: PLR0913 — all that is known of a bound
    limit: Limit, bound: float, run: Judgement, before: Judgement | None, recorded: Recorded | None, *, shipped: bool
) -> Bound:
    by_record = run.verdict == UNDECIDED and before is not None and before.verdict != UNDECIDED and shipped
    text = f"{limit.meaning}, {limit.asked(bound)} asked: {_measured(limit, run)} here"
    if run.verdict != UNDECIDED:
        text += f": {run.verdict}"
    elif by_record:
        text += ", which cannot tell"
    else:
        text += f", {_side(run)} by its value, but this run cannot tell; {_needed(limit, run)}"
    if before and recorded and (run.verdict == UNDECIDED or before.verdict != run.verdict):
        where = " on ".join(words for words in ("at quantization", recorded.text) if words)
        says = f"{_side(before)} by its value" if before.verdict == UNDECIDED else before.verdict
        text += f"; {where} ({recorded.instruction_set}) {_measured(limit, before)}: {says}"
    return Bound(
        limit=limit.name,
        bound=bound,
        verdict=before.verdict if by_record and before else run.verdict,
        by="record" if by_record else "run",
        run=run,
        record=before,
        sentence=text,
    )


def _side(judged: Judgement) -> str:
    return "inside" if judged.inside else "outside"


def _measured(limit: Limit, judged: Judgement) -> str:
    form = limit.fine
    if not math.isfinite(judged.low):
        return f"{judged.value:{form}} in {judged.clusters:,} texts, too few for an interval,"
    low, high = (f"{end:{form}}" for end in (judged.low, judged.high))
    return f"{judged.value:{form}} of {judged.count:,} {limit.unit} ({low} to {high})"


def _needed(limit: Limit, judged: Judgement) -> str:
    if judged.more is None:
        return f"it is so near to the bound that no number of {limit.unit} within reach would tell"
    return f"about {judged.more:,} more {limit.unit} would tell"


def recommend(report: Report) -> tuple[Recommendation, ...]:
    """Choose a variant for each goal and bundle, out of those that are not known to break the accuracy budget."""
    judged = {verdict.row: verdict for verdict in verdicts(report)}
    return tuple(_recommend(report, bundle, goal, judged) for bundle in report.bundles for goal in GOALS)


def _recommend(report: Report, bundle: BundleInfo, goal: Goal, judged: Mapping[str, Verdict]) -> Recommendation:
    if not bundle.trained:
        reason = f"no recommendation: accuracy means nothing here ({bundle.weights_reason})"
        return Recommendation(bundle=bundle.label, goal=goal.name, choice=None, reason=reason)
    allowed = [
        row
        for row in report.rows
        if row.bundle == bundle.label
        and row.is_variant
        and row.quality
        and not row.failed
        and (row.name not in judged or judged[row.name].verdict != BROKEN)
    ]
    kept = [row for row in allowed if not (losses(row, report.settings.confidence) or lacks_metrics(report, row))]
    choice, reason = _choose(goal, kept, losing=kept != allowed)
    of_choice = next((standing(report, row) for row in kept if row.name == choice), "")
    if of_choice:
        reason += f"; {of_choice}"
    verdict = judged.get(choice or "")
    if verdict and verdict.verdict in {UNDECIDED, NOT_MEASURED}:
        reason += f"; {_doubt(verdict)}"
    return Recommendation(bundle=bundle.label, goal=goal.name, choice=choice, reason=reason)


def _doubt(verdict: Verdict) -> str:
    """Return what the figures of a variant say that is neither within the budget nor beyond it.

    They are those of the larger sample, here or recorded.
    """
    bounds = verdict.bounds
    if verdict.verdict == NOT_MEASURED:
        return (
            "within the budget as far as it was measured" if bounds else "nothing that the budget bounds was measured"
        )
    measured = len(verdict.near) == sum(bound.verdict == UNDECIDED for bound in bounds)
    known = [max((bound.run, bound.record or bound.run), key=lambda judged: judged.count) for bound in bounds]
    if bounds and measured and all(judged.inside for judged in known):
        return "within the budget by its figures, but not beyond doubt"
    return "whether it is within the budget is undecided"


def _choose(goal: Goal, rows: Sequence[Row], *, losing: bool) -> tuple[str | None, str]:
    """Return the best row for a goal, and why.

    Args:
        goal: What it is chosen for.
        rows: Those that may be chosen.
        losing: Whether others within the budget are left out, because they lose on the labelled data, or have no
            answers to it.
    """
    without = " without a loss on the labelled data" if losing else ""
    known = [(reading, row) for row in rows if (reading := goal.read(row)) and math.isfinite(reading.value)]
    if not known:
        return None, f"no recommendation: nothing that holds the budget{without} was measured for it"
    reading, row = min(known, key=lambda pair: pair[0].value)
    of_reference, reference = next((pair for pair in known if pair[1].reference), (None, None))
    speedup = row.times_faster.get(goal.workload) if goal.workload else None
    if speedup and speedup.no_difference_seen and reference and of_reference:
        return reference.name, (
            f"{of_reference.text}; {row.name} is {interval(speedup.ratio)} times as fast, so no difference is seen, "
            "and fp32 is nearer to itself"
        )
    reason = reading.text
    if speedup:
        reason += f", {interval(speedup.ratio)} times as fast as fp32"
    elif row.reference:
        alone = len(known) == 1
        reason += "; nothing else holds" if alone else "; nothing within"
        reason += f" the budget{without}" + ("" if alone else f" is {goal.better}")
    elif of_reference:
        reason += f" instead of {of_reference.text}"
    return row.name, reason
