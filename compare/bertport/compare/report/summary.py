"""The top of the report in words: what to deploy for each goal, what that costs and saves, and what is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertport.compare.report.findings import interval
from bertport.measure.budget import HELD

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["choices", "notes", "sentence", "verdict"]


def sentence(text: str) -> str:
    """Begin with a capital letter and end with a full stop."""
    return capitalized(text).rstrip(".") + "."


def choices(document: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    """Return each goal with the variant that is chosen for it, and the reason."""
    several = len(document["bundles"]) > 1
    return tuple(
        (
            f"{each['bundle']}: {each['goal'].lower()}" if several else each["goal"],
            each["choice"],
            sentence(each["reason"]),
        )
        for each in document["recommendations"]
        if each["choice"] is not None
    )


def notes(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Say once, for all goals, what the choices cost and save, which variants are out, and what is uncertain."""
    rows = {row["name"]: row for row in document["rows"]}
    found = []
    missing: dict[tuple[str, str], list[str]] = {}
    for each in document["recommendations"]:
        if each["choice"] is None:
            missing.setdefault((each["bundle"], each["reason"]), []).append(each["goal"])
    for (bundle, reason), goals in missing.items():
        every = len(goals) == sum(each["bundle"] == bundle for each in document["recommendations"])
        found.append(f"{bundle}: {sentence(reason)}" if every else f"{bundle}, {', '.join(goals)}: {sentence(reason)}")
    chosen = dict.fromkeys(each["choice"] for each in document["recommendations"] if each["choice"])
    for name in chosen:
        [bundle] = [each for each in document["bundles"] if each["label"] == rows[name]["bundle"]]
        reference = rows.get(bundle["reference"])
        if reference and name != reference["name"]:
            found += [text for text in (_costs(rows[name]), _saves(rows[name], reference)) if text]
    for each in document["verdicts"]:
        if each["verdict"] != HELD or each["row"] in chosen:
            found.append(f"{'. '.join(verdict(each))}.")
    return tuple(found)


def verdict(judged: Mapping[str, Any]) -> tuple[str, ...]:
    """Say what is known of a variant and the budget: why it is broken, or undecided, or by what it is held."""
    start = f"Accuracy budget of {judged['row']}: {judged['verdict']}"
    if not judged["bounds"]:
        return (start if judged["verdict"] == HELD else f"{start}, because nothing that it bounds was measured",)
    return start, *(capitalized(each["sentence"]) for each in judged["bounds"] if each["verdict"] == judged["verdict"])


def capitalized(text: str) -> str:
    """Begin with a capital letter."""
    return text[:1].upper() + text[1:]


def _costs(row: Mapping[str, Any]) -> str:
    quality, parts = row["quality"], []
    if mlm := quality["mlm"]:
        parts.append(f"{_percent(mlm['top1_agreement'])} of masked tokens get the answer that fp32 gives")
        parts.append(f"MLM top-1 accuracy {_accuracy(mlm)}")
    if nsp := quality["nsp"]:
        parts.append(f"{_percent(nsp['flips'])} of sentence pairs are answered otherwise than by fp32")
        parts.append(f"NSP accuracy {_accuracy(nsp)}")
    return f"What {row['name']} costs: {'; '.join(parts)}." if parts else ""


def _accuracy(head: Mapping[str, Any]) -> str:
    values = f"{head['accuracy_candidate']['value']:.1%}, fp32 {head['accuracy_reference']['value']:.1%}"
    test = head["accuracy_difference"]
    chance = 0.05  # 1 less the confidence of every interval
    seen = f"p = {test['p_value']:.2g}" if test["p_value"] < chance else "no difference seen"
    return f"{values} ({seen})"


def _percent(estimate: Mapping[str, Any]) -> str:
    found = {name: 100 * estimate[name] for name in ("value", "low", "high")}
    text = interval(found, ".1f").replace(" (", "% (", 1)
    return text if "(" in text else f"{text}%"


def _saves(row: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    parts = []
    if row["size_bytes"] and reference["size_bytes"]:
        parts.append(f"{row['size_bytes'] / 1e6:,.1f} MB on disk instead of {reference['size_bytes'] / 1e6:,.1f}")
    one, other = row["speed"]["start"], reference["speed"]["start"]
    if one and other:
        key, mib = "peak_bytes_of_one_answer", 2**20
        parts.append(f"{one[key] / mib:,.0f} MiB of memory for one answer instead of {other[key] / mib:,.0f}")
        seconds = [each["cold_start"]["value"] for each in (one, other)]
        parts.append(f"{seconds[0]:.2f} s from the start of Python to it instead of {seconds[1]:.2f}")
    return f"What {row['name']} saves: {'; '.join(parts)}." if parts else ""
