"""Limits on what a change may make worse, against the last entry and the last release: never a time in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertport.measure.binomial import clopper_pearson

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.history.entries import Entry

__all__ = ["agreement_complaints", "bundle_complaints", "speed_complaints"]

LESS_AGREEMENT, MORE_KL, MORE_FLIPS = 0.002, 1.1, 0.002
"""Largest losses of fidelity that are accepted: a share lost, a factor of the KL, a share more. On the 10,010 positions
and 2,000 pairs of the record, intervals are wider: a change of fidelity that is no more than this is none."""
MORE_BYTES = 1.02
"""Largest growth of a file, as a factor: names and attributes change a little when a graph is written anew."""
SLOWER = 0.9
"""Slower than the release is a ratio whose whole interval lies below: machines that others share move medians of few
rounds by a few per cent."""
SAME_WORDS = 0.95
"""Least share of texts whose best word is the release's."""
CONFIDENCE = 0.99
"""Of the interval of a measured agreement, which has to reach the recorded one."""
AGAIN = "where that is meant, append an entry: python -m bench.history append"


def bundle_complaints(entry: Entry, last: Entry) -> list[str]:
    """Return a sentence for each figure of fidelity, size and count of nodes that is worse than in the last entry."""
    found = []
    for variant, figures in last.fidelity.items():
        if variant not in entry.fidelity:
            found.append(f"{variant} is not in the bundle, and was: {AGAIN}")
            continue
        for name, before in figures.items():
            now = entry.fidelity[variant].get(name)
            if now is None or _worse(name, now, before):
                found.append(f"{variant}'s {name} is {now} and was {before}: {AGAIN}")
    found += _larger(entry.sizes, last.sizes, MORE_BYTES, "bytes")
    found += _larger(entry.nodes, last.nodes, 1.0, "nodes")
    return found


def _worse(name: str, now: float, before: float) -> bool:
    if name.endswith("kl"):
        return now > before * MORE_KL
    if name.endswith("flips"):
        return now > before + MORE_FLIPS
    return now < before - LESS_AGREEMENT


def _larger(now: Mapping[str, int], before: Mapping[str, int], factor: float, unit: str) -> list[str]:
    return [
        f"{name} has {now[name]:,} {unit} and had {most:,}: {AGAIN}"
        for name, most in before.items()
        if name in now and now[name] > most * factor
    ]


def speed_complaints(entry: Entry, release: str) -> list[str]:
    """Return a sentence for each workload that is slower than the release's, and one where its words differ."""
    found = [
        f"{each.workload}: {each.value:.2f} times as fast as {release} ({each.low:.2f} to {each.high:.2f}), and "
        f"{SLOWER} is the least: find what made it slower"
        for each in entry.times
        if each.than == release and each.high < SLOWER
    ]
    if entry.same_words is not None and entry.same_words < SAME_WORDS:
        found.append(
            f"the best word is {release}'s for {entry.same_words:.0%} of texts, and {SAME_WORDS:.0%} is the least"
        )
    return found


def agreement_complaints(same: int, texts: int, recorded: float) -> list[str]:
    """Return a sentence where the agreement that is measured is below the one that is recorded.

    Args:
        same: Number of texts whose best word is that of fp32.
        texts: Number of texts.
        recorded: Share of positions where it was, as the manifest has it.
    """
    _, high = clopper_pearson(same, texts, CONFIDENCE)
    if high >= recorded - LESS_AGREEMENT:
        return []
    found = (
        f"the best word is fp32's for {same} of {texts} texts, at most {high:.1%}, and the manifest says "
        f"{recorded:.1%}: find what changed the answers, or measure again: bertport quantize BUNDLE --remeasure"
    )
    return [found]
