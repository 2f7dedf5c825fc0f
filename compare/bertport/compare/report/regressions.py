"""What changed between two reports beyond noise, and whether it is a regression: for use in CI."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.compare.report.recommend import verdicts
from bertport.measure.budget import BROKEN
from bertport.measure.quality.heads import limit_named
from bertport.runtime.errors import PathError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["FIGURES", "KINDS", "differences", "parse_tolerance", "read_report"]

KINDS = ("speed", "quality", "size", "memory")
"""What a tolerance can be given for."""
DEFAULT = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row: a figure that is compared."""

    name: str
    """For people."""
    kind: str
    """One of `KINDS`."""
    path: tuple[str, ...]
    """Where it is in a row of the report."""
    up: bool
    """Whether more is better."""
    factor: float = 1.0
    """From the report's unit to that of sentences."""
    unit: str = ""
    """Of sentences."""

    def write(self, value: float) -> str:
        """Write a value for people."""
        return f"{self.factor * value:.4g}{self.unit}"


FIGURES = (
    Figure(
        name="SingleStream p90", kind="speed", path=("speed", "single_stream", "p90"), up=False, factor=1e3, unit=" ms"
    ),
    Figure(
        name="Offline throughput", kind="speed", path=("speed", "offline", "texts_per_second"), up=True, unit=" texts/s"
    ),
    Figure(name="cold start", kind="speed", path=("speed", "start", "cold_start"), up=False, unit=" s"),
    Figure(
        name="MLM top-1 accuracy",
        kind="quality",
        path=("quality", "mlm", "accuracy_candidate"),
        up=True,
        factor=100,
        unit="%",
    ),
    Figure(
        name="MLM top-1 agreement",
        kind="quality",
        path=("quality", "mlm", "top1_agreement"),
        up=True,
        factor=100,
        unit="%",
    ),
    Figure(name="pseudo-perplexity", kind="quality", path=("quality", "mlm", "perplexity_candidate"), up=False),
    Figure(
        name="NSP accuracy",
        kind="quality",
        path=("quality", "nsp", "accuracy_candidate"),
        up=True,
        factor=100,
        unit="%",
    ),
    Figure(name="hidden-state cosine", kind="quality", path=("quality", "hidden", "cosine"), up=True),
    Figure(name="size", kind="size", path=("size_bytes",), up=False, factor=1e-6, unit=" MB"),
    Figure(
        name="peak memory",
        kind="memory",
        path=("speed", "single_stream", "peak_bytes"),
        up=False,
        factor=2**-20,
        unit=" MiB",
    ),
)
"""In the order of the report."""


def parse_tolerance(text: str) -> dict[str, float]:
    """Read a share such as `0.05`, or one for each kind of figure, such as `speed=0.1,quality=0.01`.

    Raises:
        UnknownNameError: for a kind that there is not.
        UsageError: for what is not a share from 0 up.
    """
    found = dict.fromkeys(KINDS, DEFAULT)
    for part in text.split(","):
        name, equals, value = part.rpartition("=")
        name = name.strip()
        try:
            share = float(value)
        except ValueError:
            share = math.nan
        if not math.isfinite(share) or share < 0:
            raise UsageError(
                f"{part.strip()!r} is not a tolerance: write a share such as 0.05, or speed=0.1,quality=0.01"
            )
        if equals and name not in KINDS:
            kind = "kind of figure"
            raise UnknownNameError(kind, name, KINDS)
        found |= {name: share} if equals else dict.fromkeys(KINDS, share)
    return found


def read_report(path: Path) -> dict[str, Any]:
    """Read a report's JSON.

    Raises:
        PathError: when there is no such file.
        UsageError: when it is not a report, or one of a newer schema.
    """
    from bertport.compare.report.document import SCHEMA, SCHEMA_VERSION

    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PathError(
            f"cannot read the report {path} ({error.strerror or error}): name a report.json of bertport compare"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON in UTF-8 ({error}): name a report.json of bertport compare") from error
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise UsageError(f"{path} is not a report of bertport compare: name its report.json")
    if value.get("schema_version") != SCHEMA_VERSION:
        raise UsageError(
            f"{path} has version {value.get('schema_version')!r} of the schema, and {SCHEMA_VERSION} is read here: "
            "use the bertport that wrote it, or measure again"
        )
    return value


def differences(old: Mapping[str, Any], new: Mapping[str, Any], tolerance: Mapping[str, float]) -> dict[str, Any]:
    """Compare two reports, row by row.

    A change is beyond noise when the two intervals do not meet; figures without an interval (sizes) are exact, and
    peak memory is taken to be. It is a regression when it is for the worse and by more than the tolerance, as a share
    of the old figure. A bound of the accuracy budget that is broken now and was not is one whatever the tolerance; one
    that is undecided is none. Both reports are judged by the new one's budget.

    Returns:
        `changes`, each with `row`, `figure`, `old`, `new`, `change` (a share), `worse`, `regression`, `sentence`; and
        `not_compared`, sentences.
    """
    before = {row["name"]: row for row in old["rows"]}
    after = {row["name"]: row for row in new["rows"]}
    skipped = _incomparable(old, new)
    changes = []
    for name, row in after.items():
        if name not in before:
            continue
        if row["failed"] and not before[name]["failed"]:
            changes.append(_failure(name, row["failed"]))
            continue
        for figure in FIGURES:
            if figure.kind not in skipped:
                changes += _compare(name, figure, before[name], row, tolerance[figure.kind])
    if "quality" not in skipped:
        changes += _verdicts(old, new)
    changes += [_failure(name, "it is not in the new report") for name in before if name not in after]
    return {
        "created": old["created"],
        "tolerance": dict(tolerance),
        "changes": changes,
        "not_compared": [
            *skipped.values(),
            *(f"{name} is new: the old report does not have it" for name in after if name not in before),
        ],
    }


def _verdicts(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the bounds of the budget that are broken now and were not, and those that were and are not."""
    settings = {**old["settings"], "budget": new["settings"]["budget"]}
    before = {
        (judged["row"], each["limit"]): each
        for judged in verdicts({**old, "settings": settings})
        for each in judged["bounds"]
    }
    for judged in verdicts(new):
        for each in judged["bounds"]:
            was = before.get((judged["row"], each["limit"]))
            if was is None or (was["verdict"] == BROKEN) == (each["verdict"] == BROKEN):
                continue
            worse = each["verdict"] == BROKEN
            yield {
                "row": judged["row"],
                "figure": f"accuracy budget, {limit_named(each['limit']).meaning}",
                "old": was["run"]["value"],
                "new": each["run"]["value"],
                "change": None,
                "worse": worse,
                "regression": worse,
                "sentence": f"{judged['row']}: the accuracy budget was {was['verdict']} and is {each['verdict']} now: "
                f"{each['sentence']}",
            }


def _incomparable(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """Say which kinds of figures the two reports cannot be compared in, and why."""
    found = {}
    machine = [
        (each["machine"]["cpu"], each["machine"]["usable_cores"], each["settings"]["threads"]) for each in (old, new)
    ]
    if machine[0] != machine[1]:
        found["speed"] = "speed: the machine or the threads differ"
    elif old["text"]["inputs"]["lengths"] != new["text"]["inputs"]["lengths"]:
        found["speed"] = "speed: the texts that were timed have other lengths"
    if old["text"]["sha256"] != new["text"]["sha256"]:
        found["quality"] = "quality: the text differs"
    return found


def _failure(name: str, why: str) -> dict[str, Any]:
    return {
        "row": name,
        "figure": "measured at all",
        "old": None,
        "new": None,
        "change": None,
        "worse": True,
        "regression": True,
        "sentence": f"{name} was measured before and is not now: {why}",
    }


def _compare(
    name: str, figure: Figure, old: Mapping[str, Any], new: Mapping[str, Any], tolerance: float
) -> Iterator[dict[str, Any]]:
    one, other = _ends(_read(old, figure)), _ends(_read(new, figure))
    if one is None or other is None:
        return
    if one[1] <= other[2] and other[1] <= one[2]:  # the intervals meet
        return
    change = other[0] / one[0] - 1 if one[0] else math.copysign(math.inf, other[0])
    worse = (change < 0) == figure.up
    regression = worse and abs(change) > tolerance
    verdict = "worse, beyond the tolerance" if regression else "worse, within the tolerance" if worse else "better"
    yield {
        "row": name,
        "figure": figure.name,
        "old": one[0],
        "new": other[0],
        "change": change if math.isfinite(change) else None,
        "worse": worse,
        "regression": regression,
        "sentence": f"{name}: {figure.name} went from {figure.write(one[0])} to {figure.write(other[0])} "
        f"({change:+.1%}): {verdict}",
    }


def _read(row: Mapping[str, Any], figure: Figure) -> Any:  # noqa: ANN401 — an estimate, a number or None
    value: Any = row
    for key in figure.path:
        value = value.get(key) if value else None
    return value


def _ends(value: Any) -> tuple[float, float, float] | None:  # noqa: ANN401 — as above
    """Return a figure and the ends of its interval."""
    if value is None:
        return None
    if not isinstance(value, dict):
        return float(value), float(value), float(value)
    if value["value"] is None:
        return None
    low, high = (value["value"] if value[end] is None else value[end] for end in ("low", "high"))
    return float(value["value"]), float(low), float(high)
