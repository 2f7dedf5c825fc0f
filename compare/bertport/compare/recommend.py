"""Which variant to deploy, for each goal, and why; and which ones the accuracy budget leaves out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.compare.budget import broken
from bertport.compare.findings import interval, meaningless

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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

    Returns:
        `bundle`, `row`, `holds`; `breaks`, a sentence for each limit that it breaks; and `near`, one for each limit
        that its figure holds and its interval reaches beyond. Empty for a bundle whose accuracy means nothing.
    """
    found = []
    for row in document["rows"]:
        if row["kind"] != "variant" or row["reference"] or row["failed"] or not row["quality"]:
            continue
        if not meaningless(document, row["bundle"]):
            breaks, near = broken(document["settings"]["budget"], row["quality"])
            found.append(
                {
                    "bundle": row["bundle"],
                    "row": row["name"],
                    "holds": not breaks,
                    "breaks": list(breaks),
                    "near": list(near),
                }
            )
    return found


def recommend(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Choose a variant for each goal and bundle, out of those that hold the accuracy budget.

    Returns:
        `bundle`, `goal`, `choice` (the row's name, or None) and `reason`.
    """
    found = []
    out = {each["row"] for each in verdicts(document) if not each["holds"]}
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
                choice, reason = _choose(goal, [row for row in rows if row["name"] not in out])
            found.append({"bundle": label, "goal": goal.name, "choice": choice, "reason": reason})
    return found


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
