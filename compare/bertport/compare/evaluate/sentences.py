"""Findings of an evaluation in sentences: each difference, how many examples would show one, what to deploy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bertport.compare.report.metrics import POINTS, is_worse, judging, loses, more_is_better, shows_difference
from bertport.measure.binomial import t_quantile
from bertport.measure.statistics import CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertport.compare.evaluate.document import Comparison, EvaluatedVariant
    from bertport.measure.labelled.figures import PairedDifference
    from bertport.measure.statistics import Estimate

__all__ = ["conclusion", "difference_sentence", "examples_to_show", "points"]

LEAST_SHOWN = 0.01
"""The smallest size in points that two decimals show."""
SHOWN_LOSS = 0.005
"""The difference for which sentences say how many examples would show it: half a point."""
POWER = 0.8
"""Power of the test: the share of data sets of that size in which it shows such a difference."""
LARGE = 1e6
"""Degrees of freedom at which Student's t is the normal distribution."""
RULE_OF_THREE = 3.0
"""Rule of three: if none of n examples differs, the upper 95% bound on the share that do is 3 / n (Hanley 1983)."""


def difference_sentence(variant: str, reference: str, paired: PairedDifference, examples: int) -> str:
    """Return a sentence on one metric's difference of a variant from the reference."""
    size = paired.difference
    title = paired.metric
    if not math.isfinite(size.value):
        return f"{variant}: {title} is not defined on these {examples:,} examples, so nothing is said of its difference"
    interval = f"{points(size.low, sign=True)} to {points(size.high, sign=True)}"
    if size.value == size.low == size.high == 0:
        begin = f"{variant} has {reference}'s {title} to the last example"
    elif size.value == 0:
        begin = f"{variant} has {reference}'s {title} (difference {interval})"
    elif more_is_better(title):
        does = "costs" if size.value < 0 else "gains"
        begin = f"{variant} {does} {_amount(size.value)} points of {title} (difference {interval})"
    else:
        does = "lowers" if size.value < 0 else "raises"
        begin = f"{variant} {does} {title} by {_amount(size.value)} points (difference {interval})"
    if shows_difference(paired, CONFIDENCE):
        kind = "loss" if is_worse(paired) else "gain"
        return f"{begin}: the {kind} is shown on {examples:,} examples (p = {paired.p_value:.2g}, {paired.test})"
    # Calibration is of probabilities, which all differ.
    answers = paired.agreement is not None and more_is_better(title)
    needed = examples_to_show(size, answers=answers)
    if needed is None:
        return f"{begin}: no difference can be shown on {examples:,} examples"
    if needed <= examples:
        enough = f"a difference of {points(SHOWN_LOSS)} points would show on as many"
    else:
        enough = f"to see {points(SHOWN_LOSS)} points you need about {needed:,}"
    return f"{begin}: no difference can be shown on {examples:,} examples; {enough}"


def examples_to_show(size: Estimate, least: float = SHOWN_LOSS, *, answers: bool = True) -> int | None:
    """Return about how many examples show a difference, in four data sets of five.

    The interval shrinks with the square root of the number of examples. For answers it is taken to be no narrower than
    by the rule of three: where few answers differ, a bootstrap interval is too narrow.

    Args:
        size: A paired difference with its interval.
        least: The difference that is to be shown, in the metric's own unit.
        answers: Whether predictions are answers, which are the same or not, and no numbers.

    Returns:
        The number, with two digits; None where the interval is not known.
    """
    count = size.clusters
    half = (size.high - size.low) / 2
    if not count or not math.isfinite(half):
        return None
    reach = t_quantile((1 + CONFIDENCE) / 2, LARGE)
    if answers:
        half = max(half, reach * math.sqrt(RULE_OF_THREE / count) / math.sqrt(count))
    needed = count * ((1 + t_quantile(POWER, LARGE) / reach) * half / least) ** 2
    digits: int = 10 ** max(0, len(str(math.ceil(needed))) - 2)
    return math.ceil(needed / digits) * digits


def points(value: float, *, sign: bool = False) -> str:
    """Return a figure in points: hundredths of a metric's whole, with two decimals where one would not show it."""
    size = abs(value) * POINTS
    if size < LEAST_SHOWN:
        return "0.0"
    decimals = 1 if size >= 10 * LEAST_SHOWN else 2
    return f"{value * POINTS:{'+' if sign else ''}.{decimals}f}"


def _amount(value: float) -> str:
    """Return the size of a difference in points."""
    return points(abs(value)) if abs(value) * POINTS >= LEAST_SHOWN else f"less than {LEAST_SHOWN}"


def conclusion(reference: str, variants: Sequence[EvaluatedVariant], comparisons: Sequence[Comparison]) -> str:
    """Return which variant to deploy, as far as figures and recorded speeds tell.

    A variant is given up where a loss is shown. That none is shown is no proof that there is none: the sentence says
    how large it may be.
    """
    if not comparisons:
        return f"{reference} was measured alone: there is nothing to choose from"
    losing = {comparison.variant for comparison in comparisons if _loses(comparison)}
    kept = [variant for variant in variants if variant.name not in losing and variant.name != reference]
    if not kept:
        return f"every other variant is shown to lose against {reference}: deploy {reference}, or accept what they cost"
    names = ", ".join(variant.name for variant in kept)
    recorded = [variant for variant in kept if variant.recorded_speed]
    if not recorded:
        return (
            f"no loss is shown for {names}, of which the manifest records no speed: measure that with bertport compare "
            "before you choose"
        )
    fastest = max(recorded, key=_surely_faster)
    if _surely_faster(fastest) <= 1:
        return (
            f"no loss is shown for {names}, and the manifest records none as faster than fp32 beyond doubt: deploy "
            f"{reference}, or what is smaller"
        )
    speeds = ", ".join(f"{speed.speedup:.2f} times at {shape}" for shape, speed in fastest.recorded_speed.items())
    return (
        f"deploy {fastest.name}: no loss is shown, and it is the fastest such variant by the manifest's record "
        f"(fp32's speed {speeds}, on {fastest.recorded_on}; speed was not measured here)"
        f"{_not_excluded(next(one for one in comparisons if one.variant == fastest.name))}"
    )


def _not_excluded(comparison: Comparison) -> str:
    """Return the end of a sentence that says how large a loss may be; nothing where none may be."""
    lows = {name: paired.difference.low for name, paired in judging(comparison.differences).items()}
    known = {name: low for name, low in lows.items() if math.isfinite(low) and low < 0}
    if not known:
        return ""
    worst = min(known, key=lambda name: known[name])
    return f"; a loss of up to {points(-known[worst])} points of {worst} is not excluded"


def _loses(comparison: Comparison) -> bool:
    """Return whether a loss is shown in any metric."""
    return any(loses(paired, CONFIDENCE) for paired in judging(comparison.differences).values())


def _surely_faster(variant: EvaluatedVariant) -> float:
    """Return the geometric mean of the lower ends of a variant's recorded speed-ups."""
    logs = [math.log(speed.low) for speed in variant.recorded_speed.values()]
    return math.exp(math.fsum(logs) / len(logs))
