"""Which variant to deploy, for each goal, and why; and which ones the accuracy budget leaves out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.compare.report.findings import interval, meaningless
from bertport.measure.budget import BROKEN, HELD, UNDECIDED, applicable, judge_all, overall
from bertport.measure.quality.heads import limit_named

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bertport.measure.budget import Judgement
    from bertport.measure.quality.heads import Limit

__all__ = ["GOALS", "recommend", "verdicts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One row: what somebody wants."""

    name: str
    """For people."""
    better: str
    """What a variant would have to be to be chosen instead."""
    read: Callable[[Mapping[str, Any]], float | None]
    """Takes it out of a row; the smallest is best."""
    write: Callable[[Mapping[str, Any]], str]
    """Writes it with its interval."""
    workload: str | None
    """Whose ratio to the reference says how sure it is; None for what is exact."""


def _p90(row: Mapping[str, Any]) -> float | None:
    found = row["speed"]["single_stream"]
    return found["p90"]["value"] if found else None


def _rate(row: Mapping[str, Any]) -> float | None:
    found = row["speed"]["offline"]
    return -found["texts_per_second"]["value"] if found else None


def _milliseconds(row: Mapping[str, Any]) -> str:
    found = {name: 1e3 * row["speed"]["single_stream"]["p90"][name] for name in ("value", "low", "high")}
    return f"{interval(found)} ms (SingleStream p90)"


def _megabytes(row: Mapping[str, Any]) -> str:
    return f"{row['size_bytes'] / 1e6:,.1f} MB"


GOALS = (
    Goal(
        name="Lowest latency within the budget",
        better="faster",
        read=_p90,
        write=_milliseconds,
        workload="SingleStream",
    ),
    Goal(
        name="Highest throughput within the budget",
        better="faster",
        read=_rate,
        write=lambda row: f"{interval(row['speed']['offline']['texts_per_second'])} texts a second (Offline)",
        workload="Offline",
    ),
    Goal(
        name="Smallest within the budget",
        better="smaller",
        read=lambda row: row["size_bytes"],
        write=_megabytes,
        workload=None,
    ),
)


def verdicts(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Judge every variant whose quality was measured by the accuracy budget.

    A bound has the verdict of this run, or, where this run cannot tell, that of the manifest's record, if the text is
    the one that ships: of a user's own text the record says nothing.

    Returns:
        `bundle`, `row`, `verdict` (held, broken, undecided) and `bounds`, one for each limit that was measured: its
        `limit`, `bound`, `verdict`, `by` (`run` or `record`, whose verdict it is), `run` and `record` (their
        judgements) and `sentence`. Beside them `holds` (no bound is broken), `breaks`, the sentences of broken bounds,
        and `near`, those of undecided ones. Empty for a bundle whose accuracy means nothing.
    """
    found = []
    for row in document["rows"]:
        if row["kind"] != "variant" or row["reference"] or row["failed"] or not row["quality"]:
            continue
        if meaningless(document, row["bundle"]):
            continue
        bounds = _bounds(document, row)
        verdict = overall(each["verdict"] for each in bounds) if document["settings"]["budget"] else HELD
        found.append(
            {
                "bundle": row["bundle"],
                "row": row["name"],
                "verdict": verdict,
                "bounds": bounds,
                "holds": verdict != BROKEN,
                "breaks": [each["sentence"] for each in bounds if each["verdict"] == BROKEN],
                "near": [each["sentence"] for each in bounds if each["verdict"] == UNDECIDED],
            }
        )
    return found


def _bounds(document: Mapping[str, Any], row: Mapping[str, Any]) -> list[dict[str, Any]]:
    [heads] = [each["heads"] for each in document["bundles"] if each["label"] == row["bundle"]]
    budget, record = applicable(document["settings"]["budget"], heads), row.get("recorded")  # reports of 0.1 have none
    run = judge_all(budget, row["quality"])
    recorded = judge_all(budget, record["figures"]) if record else {}
    found = []
    for name, judged in run.items():
        before = recorded.get(name)
        verdict, by = judged.verdict, "run"
        if verdict == UNDECIDED and before and before.verdict != UNDECIDED and document["text"].get("shipped"):
            verdict, by = before.verdict, "record"
        found.append(
            {
                "limit": name,
                "bound": budget[name],
                "verdict": verdict,
                "by": by,
                "run": judged.to_json(),
                "record": before.to_json() if before else None,
                "sentence": _sentence(limit_named(name), budget[name], judged, before, record, by),
            }
        )
    return found


def _sentence(  # noqa: PLR0913, PLR0917 — all that is known of a bound
    limit: Limit,
    bound: float,
    judged: Judgement,
    before: Judgement | None,
    record: Mapping[str, Any] | None,
    by: str,
) -> str:
    """Say what is known of a bound: what was asked, what this run says, and what was measured at quantization."""
    text = f"{limit.meaning}, {limit.asked(bound)} asked: {_judged(limit, judged)} here"
    if judged.verdict != UNDECIDED:
        text += f": {judged.verdict}"
    elif by == "record":
        text += ", which cannot tell"
    else:
        where = "inside" if judged.inside else "outside"
        text += f", {where} by its value, but this run cannot tell; {_needed(limit, judged)}"
    if before and record and (judged.verdict == UNDECIDED or before.verdict != judged.verdict):
        where = " on ".join(each for each in ("at quantization", record["text"]) if each)
        says = f"{'inside' if before.inside else 'outside'} by its value"
        if before.verdict != UNDECIDED:
            says = before.verdict
        text += f"; {where} ({record['instruction_set']}) {_judged(limit, before)}: {says}"
    return text


def _judged(limit: Limit, judged: Judgement) -> str:
    form = limit.fine
    if not math.isfinite(judged.low):
        return f"{judged.value:{form}} in {judged.clusters:,} texts, too few for an interval,"
    low, high = (f"{each:{form}}" for each in (judged.low, judged.high))
    return f"{judged.value:{form}} of {judged.count:,} {limit.unit} ({low} to {high})"


def _needed(limit: Limit, judged: Judgement) -> str:
    if judged.more is None:
        return f"it is so near to the bound that no number of {limit.unit} within reach would tell"
    return f"about {judged.more:,} more {limit.unit} would tell"


def recommend(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Choose a variant for each goal and bundle, out of those of which the accuracy budget is not known to be broken.

    Returns:
        `bundle`, `goal`, `choice` (the row's name, or None) and `reason`.
    """
    found = []
    judged = {each["row"]: each for each in verdicts(document)}
    broken = {name for name, each in judged.items() if each["verdict"] == BROKEN}
    for bundle in document["bundles"]:
        label = bundle["label"]
        rows = [
            row
            for row in document["rows"]
            if row["bundle"] == label and row["kind"] == "variant" and not row["failed"] and row["quality"]
        ]
        for goal in GOALS:
            if meaningless(document, label):
                choice, reason = None, f"no recommendation: accuracy means nothing here ({bundle['weights_reason']})"
            else:
                choice, reason = _choose(goal, [row for row in rows if row["name"] not in broken])
                if choice in judged and judged[choice]["verdict"] == UNDECIDED:
                    reason += f"; {_doubt(judged[choice]['bounds'])}"
            found.append({"bundle": label, "goal": goal.name, "choice": choice, "reason": reason})
    return found


def _doubt(bounds: list[Mapping[str, Any]]) -> str:
    """Say of a variant whose verdict is open what its figures are: those of the larger sample, here or recorded."""
    known = [max((each["run"], each["record"] or each["run"]), key=lambda found: found["count"]) for each in bounds]
    if bounds and all(each["inside"] for each in known):
        return "within the budget by its figures, but not beyond doubt"
    return "whether it is within the budget is undecided"


def _choose(goal: Goal, rows: list[Mapping[str, Any]]) -> tuple[str | None, str]:
    known = [(value, row) for row in rows if (value := goal.read(row)) is not None]
    if not known:
        return None, "no recommendation: nothing that holds the budget was measured for it"
    _, row = min(known, key=lambda each: each[0])
    reference = next((other for _, other in known if other["reference"]), None)
    ratio = row["times_faster"].get(goal.workload) if goal.workload else None
    if ratio and ratio["no_difference_seen"] and reference:
        return reference["name"], (
            f"{goal.write(reference)}; {row['name']} is {interval(ratio)} times as fast, which is no difference seen, "
            "and fp32 is nearer to itself"
        )
    reason = goal.write(row)
    if ratio:
        reason += f", {interval(ratio)} times as fast as fp32"
    elif row["reference"]:
        alone = len(known) == 1
        reason += "; nothing else holds the budget" if alone else f"; nothing within the budget is {goal.better}"
    elif reference:
        reason += f" instead of {goal.write(reference)}"
    return row["name"], reason
