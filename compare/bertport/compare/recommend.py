"""Which variant to deploy, for each goal, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.compare.budget import broken, format_budget
from bertport.compare.findings import interval, meaningless

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["GOALS", "recommend"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One row: what somebody wants."""

    name: str
    """For people."""
    figure: str
    """What is compared."""
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
    return f"{interval(found)} ms"


GOALS = (
    Goal(
        name="Lowest latency within the budget",
        figure="SingleStream p90",
        read=_p90,
        write=_milliseconds,
        workload="SingleStream",
    ),
    Goal(
        name="Highest throughput within the budget",
        figure="Offline throughput",
        read=_rate,
        write=lambda row: f"{interval(row['speed']['offline']['texts_per_second'])} texts a second",
        workload="Offline",
    ),
    Goal(
        name="Smallest within the budget",
        figure="size",
        read=lambda row: row["size_bytes"],
        write=lambda row: f"{row['size_bytes'] / 1e6:,.1f} MB",
        workload=None,
    ),
)


def recommend(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Choose a variant for each goal and bundle, out of those that hold the accuracy budget.

    Returns:
        `bundle`, `goal`, `choice` (the row's name, or None) and `reason`.
    """
    found = []
    bounds = document["settings"]["budget"]
    for bundle in document["bundles"]:
        label = bundle["label"]
        if meaningless(document, label):
            reason = f"no recommendation: accuracy means nothing here ({bundle['weights_reason']})"
            found += [{"bundle": label, "goal": goal.name, "choice": None, "reason": reason} for goal in GOALS]
            continue
        rows = [
            row
            for row in document["rows"]
            if row["bundle"] == label and row["kind"] == "variant" and not row["failed"] and row["quality"]
        ]
        out = {row["name"]: broken(bounds, row["quality"])[0] for row in rows if not row["reference"]}
        held = [row for row in rows if not out.get(row["name"])]
        refused = [f"{name} is out ({'; '.join(why)})" for name, why in out.items() if why]
        for goal in GOALS:
            choice, reason = _choose(goal, held, bounds)
            sentences = [reason, *refused]
            found.append({"bundle": label, "goal": goal.name, "choice": choice, "reason": ". ".join(sentences) + "."})
    return found


def _choose(goal: Goal, rows: list[Mapping[str, Any]], bounds: Mapping[str, float]) -> tuple[str | None, str]:
    known = [(value, row) for row in rows if (value := goal.read(row)) is not None]
    if not known:
        return None, f"nothing that was measured for {goal.figure} holds the budget ({format_budget(bounds)})"
    best, row = min(known, key=lambda each: each[0])
    del best
    ratio = row["times_faster"].get(goal.workload) if goal.workload else None
    if ratio and ratio["no_difference_seen"]:
        others = [other for _, other in known if other["reference"]]
        if others:
            return others[0]["name"], (
                f"{row['name']} has {goal.figure} {goal.write(row)}, but no difference from fp32 was seen "
                f"({interval(ratio)} times as fast): fp32 is as fast, and nearer to itself"
            )
    reason = f"{goal.figure} {goal.write(row)}"
    if ratio:
        reason += f", {interval(ratio)} times as fast as fp32"
    if row["reference"]:
        reason += "; fp32 is the reference, and nothing that holds the budget is better"
        if len(known) == 1:
            reason = f"{goal.figure} {goal.write(row)}; it is all that was measured within the budget"
    else:
        near = broken(bounds, row["quality"])[1]
        reason += f"; it holds the budget ({format_budget(bounds)})"
        reason += f"; but {'; '.join(near)}" if near else ""
    return row["name"], reason
