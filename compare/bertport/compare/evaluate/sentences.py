"""Findings of an evaluation in sentences: each difference, how many examples would show one, what to deploy."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

from bertport.compare.entries import REFERENCE
from bertport.compare.evaluate.document import RecordedSpeed
from bertport.compare.report.metrics import POINTS, is_worse, judging, loses, more_is_better, shows_difference
from bertport.measure.drops import drop_of
from bertport.measure.statistics import CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
NORMAL = NormalDist()
"""The normal distribution, in standard errors."""
RULE_OF_THREE = 3.0
"""Rule of three: if none of n examples differs, the upper 95% bound on the share that do is 3 / n (Hanley 1983)."""


def difference_sentence(variant: str, reference: str, paired: PairedDifference, examples: int) -> str:
    """Return a sentence on one metric's difference of a variant from the reference."""
    size = paired.difference
    title = paired.metric
    if paired.undefined is not None:
        return f"{variant} loses {reference}'s {title}, which is not defined for its answers: {paired.undefined}"
    if not math.isfinite(size.value):
        return f"{variant}: {title} is not defined on these {examples:,} examples, so its difference is not known"
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
    reach = NORMAL.inv_cdf((1 + CONFIDENCE) / 2)
    if answers:
        half = max(half, reach * math.sqrt(RULE_OF_THREE) / size.count)
    needed = count * ((1 + NORMAL.inv_cdf(POWER) / reach) * half / least) ** 2
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

    Args:
        reference: Name of the variant that the others are compared with.
        variants: All that were measured.
        comparisons: Each but the reference against it.
    """
    if not comparisons:
        return f"{reference} was measured alone: there is nothing to choose from"
    if not any(_tells(paired) for one in comparisons for paired in judging(one.differences).values()):
        measured = ", ".join(dict.fromkeys(name for one in comparisons for name in one.differences))
        return (
            f"no variant is advised: {measured} alone cannot tell on these examples whether answers become worse: "
            "measure another metric as well"
        )
    losing = {comparison.variant for comparison in comparisons if _loses(comparison)}
    kept = [variant for variant in variants if variant.name not in losing and variant.name != reference]
    if not kept:
        return f"every other variant is shown to lose against {reference}: deploy {reference}, or accept what they cost"
    names = ", ".join(variant.name for variant in kept)
    base = next(variant for variant in variants if variant.name == reference)
    faster = {variant.name: least for variant in kept if (least := _surely_faster(variant, base)) is not None}
    if not faster:
        return (
            f"no loss is shown for {names}, and the manifest records no speed to set beside {reference}'s: measure "
            "it with bertport compare before you choose"
        )
    name = max(faster, key=lambda one: faster[one])
    if faster[name] <= 1:
        return (
            f"no loss is shown for {names}, and the manifest records none as faster than {reference} beyond doubt: "
            f"deploy {reference}, or what is smaller"
        )
    fastest = next(variant for variant in kept if variant.name == name)
    recorded = [_recorded(fastest), f"{reference}: {_recorded(base)}" if base.recorded_speed else ""]
    return (
        f"deploy {name}: no loss is shown, and it is the fastest such variant by the manifest's record "
        f"({'; '.join(filter(None, recorded))}; speed was not measured here)"
        f"{_not_excluded(next(one for one in comparisons if one.variant == name))}"
    )


def _tells(paired: PairedDifference) -> bool:
    """Return whether a difference says anything of a variant: it is defined, or defined for the reference alone."""
    return math.isfinite(paired.difference.value) or paired.undefined is not None


def _recorded(variant: EvaluatedVariant) -> str:
    """Return what the manifest records of a variant's speed, in words; nothing where it records none."""
    if not variant.recorded_speed:
        return ""
    (shape, first), *others = variant.recorded_speed.items()
    more = "".join(f", {speed.speedup:.2f} times at {other}" for other, speed in others)
    return f"{first.speedup:.2f} times as fast as {REFERENCE} at {shape}{more}, on {variant.recorded_on}"


def _not_excluded(comparison: Comparison) -> str:
    """Return the end of a sentence that says how large a loss may be; nothing where none may be.

    That no answer differs, by which a bootstrap has no width, excludes no loss on further examples.
    """
    drops = {name: drop_of(paired).high for name, paired in judging(comparison.differences).items()}
    known = {name: drop for name, drop in drops.items() if math.isfinite(drop) and drop > 0}
    if not known:
        return ""
    worst = max(known, key=lambda name: known[name])
    return f"; a loss of up to {points(known[worst])} points of {worst} is not excluded"


def _loses(comparison: Comparison) -> bool:
    """Return whether a loss is shown in any metric."""
    return any(loses(paired, CONFIDENCE) for paired in judging(comparison.differences).values())


def _surely_faster(variant: EvaluatedVariant, base: EvaluatedVariant) -> float | None:
    """Return how many times as fast as another a variant is at least.

    None where the manifest does not record both, or records them on CPUs of two kinds. It is the geometric mean over
    shapes of the lower end of its speed-up by the upper end of the other's.
    """
    if REFERENCE not in {variant.name, base.name} and variant.recorded_on != base.recorded_on:
        return None
    own, others = _speeds(variant, base), _speeds(base, variant)
    logs = [math.log(own[shape].low / others[shape].high) for shape in own.keys() & others.keys()]
    return math.exp(math.fsum(logs) / len(logs)) if logs else None


def _speeds(variant: EvaluatedVariant, beside: EvaluatedVariant) -> Mapping[str, RecordedSpeed]:
    """Return the recorded speed-ups of a variant over fp32, which are 1 for fp32 itself, in the shapes of another."""
    if variant.name == REFERENCE:
        return dict.fromkeys(beside.recorded_speed, RecordedSpeed(speedup=1.0, low=1.0, high=1.0))
    return variant.recorded_speed
