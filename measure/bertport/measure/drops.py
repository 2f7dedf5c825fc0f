"""Bounds on what a variant loses on labelled data, in the metric's own unit: `accuracy.drop=0.005` is half a point.

A drop is the reference's metric minus the candidate's, on the same examples. Its paired interval decides: held or
broken where all of it lies on one side of the bound, or else undecided.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from bertport.measure.budget import DROP, FEW, NORMAL, UNDECIDED, judge_interval, still_needed
from bertport.measure.quality.rows import Limit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertport.measure.budget import Judgement
    from bertport.measure.labelled.figures import PairedDifference
    from bertport.measure.statistics import Estimate

__all__ = ["broken_drops", "drop_limit", "drop_of", "judge_drop", "judge_drops", "reach_of_none", "share_left"]

LABELLED = "labelled"
"""First part of the path of a drop's figure, which is not among the figures of a head."""
ALIKE = 1 + 1e-6
"""Ratio of two numbers that are one but for rounding."""


def drop_limit(metric: str) -> Limit:
    """Return what a budget bounds of a metric on labelled data."""
    return Limit(
        name=f"{metric}{DROP}",
        meaning=f"the drop of {metric}",
        path=(LABELLED, metric),
        at_least=False,
        form=".4f",
        fine=".4f",
        counts=False,
        unit="examples",
    )


def drop_of(difference: PairedDifference) -> Estimate:
    """Return by how much a metric drops: above 0 the candidate is worse.

    Where predictions are the same or not, a bootstrap of few that differ is too narrow, and one of none has no width at
    all. The interval is then made to reach as far as that of examples of which none differs.
    """
    given = difference.difference
    least = 0.0
    if difference.agreement is not None and given.count:
        least = reach_of_none(given.count)
    return dataclasses.replace(
        given,
        value=-given.value,
        low=-max(given.high, given.value + least),
        high=-min(given.low, given.value - least),
    )


def reach_of_none(count: int) -> float:
    """Return how far from 0 the interval of a paired difference reaches where none of so many answers differs.

    It is that of Tango 1998 ("Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design"), z² / (n + z²).
    """
    return NORMAL**2 / (count + NORMAL**2)


def judge_drop(bound: float, difference: PairedDifference) -> Judgement | None:
    """Judge the drop of a metric by its bound; None where the metric is not defined on the data."""
    drop = drop_of(difference)
    if not all(map(math.isfinite, (drop.value, drop.low, drop.high))):
        return None
    judged = judge_interval(drop_limit(difference.metric), bound, dataclasses.asdict(drop), drop.low, drop.high)
    if judged.verdict == UNDECIDED and bound > 0 and difference.agreement is not None and _is_of_none(drop):
        judged = dataclasses.replace(judged, more=still_needed(NORMAL**2 / bound - NORMAL**2, drop.count))
    if difference.agreement is None and drop.low == drop.high and drop.clusters < FEW:
        # The ranks of few examples often stay what they are, and resamples of them then tell nothing.
        more = FEW - drop.clusters
        judged = dataclasses.replace(judged, verdict=UNDECIDED, low=-math.inf, high=math.inf, more=more)
    return judged


def _is_of_none(drop: Estimate) -> bool:
    """Return whether an interval is that of examples of which none differs: it shrinks with their number itself."""
    return drop.value == 0 and drop.high <= ALIKE * reach_of_none(drop.count)


def judge_drops(drops: Mapping[str, float], differences: Mapping[str, PairedDifference]) -> dict[str, Judgement]:
    """Judge the drop of each metric that is bounded, by the name of its limit.

    Args:
        drops: The bounds, by metric.
        differences: Of a candidate from the reference, by metric.
    """
    judged = {drop_limit(metric).name: judge_drop(bound, differences[metric]) for metric, bound in drops.items()}
    return {name: judgement for name, judgement in judged.items() if judgement}


def broken_drops(drops: Mapping[str, float], differences: Mapping[str, PairedDifference]) -> tuple[str, ...]:
    """Return a sentence for each metric that drops by more than its bound, whatever its interval says.

    A metric that is not defined for the candidate's predictions keeps to none.
    """
    sentences = []
    for metric, bound in drops.items():
        limit, judged = drop_limit(metric), judge_drop(bound, differences[metric])
        if judged is None:
            sentences.append(f"{metric} is not defined for what is predicted")
        elif not judged.inside:
            sentences.append(
                f"{limit.meaning} is {judged.value:{limit.fine}} on {judged.count:,} {limit.unit}, "
                f"{judged.low:{limit.fine}} to {judged.high:{limit.fine}}, {limit.asked(bound, limit.fine)} was asked"
            )
    return tuple(sentences)


def share_left(drops: Mapping[str, float], differences: Mapping[str, PairedDifference]) -> float | None:
    """Return about what share of its distance from the reference a head may keep so that broken bounds hold.

    Answers change where the noise of rounding exceeds the lead of the best one, so a drop grows with the noise, and KL
    with its square.

    Returns:
        The share; None where no bound is broken.
    """
    shares = []
    for metric, bound in drops.items():
        judged = judge_drop(bound, differences[metric])
        if judged is None:
            shares.append(0.0)
        elif not judged.inside:
            shares.append((bound / judged.value) ** 2)
    return min(shares, default=None)
