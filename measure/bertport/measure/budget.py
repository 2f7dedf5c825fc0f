"""Accuracy budgets: how far from fp32 a variant may be, to be recommended or, in quantization, to be added."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from bertport.measure.binomial import clopper_pearson, t_quantile
from bertport.measure.labelled.metrics import METRICS
from bertport.measure.quality.heads import HIDDEN, known_limits, limit_named
from bertport.measure.quality.results import finite
from bertport.measure.statistics import CONFIDENCE, Estimate, Number
from bertport.runtime.errors import MissingHeadError, UnknownNameError, UsageError
from bertport.runtime.excerpts import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from bertport.measure.quality.results import Fidelity
    from bertport.measure.quality.rows import Limit

__all__ = [
    "BROKEN",
    "DROP",
    "DROPS",
    "FEW",
    "HELD",
    "NORMAL",
    "NO_BUDGET",
    "UNDECIDED",
    "Budget",
    "Judgement",
    "Outcome",
    "applicable",
    "beyond_doubt",
    "budget_for",
    "default_budget",
    "default_without_heads",
    "format_budget",
    "judge",
    "judge_all",
    "judge_interval",
    "overall",
    "parse_budget",
    "refuse_idle",
    "still_needed",
]

Outcome = Literal["held", "broken", "undecided"]
"""Verdict of a figure's interval on a bound."""
HELD: Outcome = "held"
BROKEN: Outcome = "broken"
UNDECIDED: Outcome = "undecided"
NORMAL = 1.959964
"""Standard errors that such an interval reaches to either side, of a normal distribution."""
FIRST_LOOK = math.log(0.0005) / math.log(0.025)
"""Ratio of the length of a 99.9% interval to that of a 95% one, at most: that of exact intervals of few hits."""
FEW = 30
"""Texts below which an interval without width proves nothing."""
ABOUT = 1.02
"""Ratio that a number of samples is found to."""
MOST = 1_000_000
"""Samples beyond which a number is out of reach."""


NO_BUDGET = "none"
"""Word that users write for no budget."""
DROP = ".drop"
"""Suffix, after a metric's name, of the name of the bound on its drop."""
HALF_A_POINT = 0.005
"""Bound on a drop, as an example."""
DROPS = tuple(name for name, metric in METRICS.items() if metric.higher_is_better)
"""Metrics whose drop can be bounded."""


def default_budget(separator: str = ",") -> str:
    """Return the default budget, as users write it: what the table of heads says of each figure.

    Args:
        separator: What stands between two bounds: for a help text one with a space, where a line may end.
    """
    return _written({name: limit.default for name, limit in known_limits().items()}, separator)


def default_without_heads() -> str:
    """Return the default budget of a bundle that has nothing of what `default_budget` bounds."""
    return _written({name: limit.default_without_heads for name, limit in known_limits().items()})


def _written(bounds: Mapping[str, float | None], separator: str = ",") -> str:
    return separator.join(f"{name}={bound:g}" for name, bound in bounds.items() if bound is not None)


def parse_budget(text: str) -> dict[str, float]:
    """Read a budget such as `top1=0.98,nsp=0.005`, or `none`, which bounds nothing, into bounds by name.

    Raises:
        UnknownNameError: for an unknown limit.
        UsageError: for what is not a list of limits with their bounds, a bound that nothing can reach, or one on what
            is measured on labelled data.
    """
    budget = Budget.parse(text)
    if budget.drops:
        raise UsageError(
            f"{next(iter(budget.drops))}{DROP} bounds what is measured on labelled data, and this command holds no "
            "variant to that: leave it out, or give it to bertport quantize --data FILE"
        )
    return budget.bounds


def _parse(text: str) -> tuple[dict[str, float], dict[str, float]]:
    """Read a budget into bounds by name of the limit, and bounds on the drops of metrics by name of the metric."""
    bounds: dict[str, float] = {}
    drops: dict[str, float] = {}
    if not isinstance(text, str):
        raise UsageError(f"a budget is a text such as {default_budget()}, or {NO_BUDGET}, not {excerpt(text)}")
    if text.strip() == NO_BUDGET:
        return bounds, drops
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        try:
            bound = float(value)
        except ValueError:
            bound = math.nan
        metric = name.removesuffix(DROP)
        limits = known_limits()
        dropping = name != metric and metric in DROPS
        if not equals or not math.isfinite(bound) or bound < 0:
            form = f"it as {name}={HALF_A_POINT}" if dropping else f"the budget as {default_budget()}, or {NO_BUDGET}"
            raise UsageError(f"{part.strip()!r} is not a limit: write {form}")
        if not dropping and name not in limits:
            raise UnknownNameError("limit", name, [*limits, *(f"{known}{DROP}" for known in DROPS)])
        if bound > 1 and (dropping or limits[name].counts or limits[name].at_least):
            raise UsageError(
                f"{part.strip()!r} is above 1, the largest value of {name}: write {bound:g}% as {name}={bound / 100:g}"
            )
        if (metric in drops) if dropping else (name in bounds):
            raise UsageError(f"the budget bounds {name} twice: give one bound for it")
        if dropping:
            drops[metric] = bound
        else:
            bounds[name] = bound
    return bounds, drops


def format_budget(bounds: Mapping[str, float]) -> str:
    """Return a budget in words."""
    limits = {name: limit_named(name) for name in bounds}
    words = [f"{limit.meaning} {limit.asked(bounds[name])}" for name, limit in limits.items()]
    return ", ".join(words) or "no bounds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A figure against its bound, by the figure's whole interval."""

    verdict: Outcome
    """`HELD`, `BROKEN` or `UNDECIDED`."""
    inside: bool
    """Whether the figure itself keeps to the bound."""
    value: float
    """The figure."""
    low: Number
    """Lower end of the interval that it is judged by."""
    high: Number
    """Upper end."""
    count: int
    """What it is a figure of: positions, pairs or tokens."""
    clusters: int
    """Independent texts."""
    more: int | None
    """How many more of them would decide, about, if the figure stays what it is; 0 where it is decided, None where no
    number within reach would."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values: null stands for an end of an interval that is not known."""
        return {key: finite(value) for key, value in dataclasses.asdict(self).items()}


def judge(limit: Limit, bound: float, estimate: Mapping[str, Any] | None) -> Judgement | None:
    """Judge a figure by a bound: held or broken where its whole interval of 95% lies on one side, or else undecided.

    A false verdict, held where the bound is broken or the other way round, then comes in at most 1 of 40 samples: only
    one end of the interval can be wrong in that direction.

    Args:
        limit: What is bounded.
        bound: The bound.
        estimate: The figure, as the JSON of a report or a manifest has it: `value`, `low`, `high`, `count`, `clusters`.

    Returns:
        The judgement; None where there is no figure.
    """
    if not isinstance(estimate, Mapping) or not isinstance(estimate.get("value"), int | float):
        return None
    value, count, clusters = float(estimate["value"]), int(estimate["count"]), int(estimate["clusters"])
    if not math.isfinite(value) or count < 1 or clusters < 1:
        return None
    low, high = _interval(limit, estimate)
    return judge_interval(limit, bound, estimate, low, high)


def judge_interval(limit: Limit, bound: float, estimate: Mapping[str, Any], low: float, high: float) -> Judgement:
    """Judge a figure by a bound and by the interval that it has: held or broken where all of that is on one side.

    Args:
        limit: What is bounded.
        bound: The bound.
        estimate: As `judge` has it; all of it known.
        low: Lower end of the interval.
        high: Upper end.
    """
    value, keeps = float(estimate["value"]), [limit.holds(end, bound) for end in (low, high)]
    verdict: Outcome = HELD if all(keeps) else UNDECIDED if any(keeps) else BROKEN
    return Judgement(
        verdict=verdict,
        inside=limit.holds(value, bound),
        value=value,
        low=low,
        high=high,
        count=int(estimate["count"]),
        clusters=int(estimate["clusters"]),
        more=0 if verdict != UNDECIDED else _more(limit, bound, estimate, low, high),
    )


def beyond_doubt(limit: Limit, bound: float, judged: Judgement) -> bool:
    """Return whether a look before the last decides: by an interval of 99.9%, about, in place of 95%.

    Exact intervals of few hits grow by the ratio of the logarithms of the tails, those of normal distributions by less.
    """
    ends = (judged.value + FIRST_LOOK * (end - judged.value) for end in (judged.low, judged.high))
    return len({limit.holds(end, bound) for end in ends}) == 1


def _interval(limit: Limit, estimate: Mapping[str, Any]) -> tuple[float, float]:
    """Return the interval that a figure is judged by: its own, or a wider one where that is known to be too narrow."""
    value, count, clusters = float(estimate["value"]), int(estimate["count"]), int(estimate["clusters"])
    ends = (estimate.get("low"), estimate.get("high"))
    low, high = (
        float(each) if isinstance(each, int | float) else wild
        for each, wild in zip(ends, (-math.inf, math.inf), strict=True)
    )
    if limit.counts:
        # Versions before 0.2 recorded percentile intervals, which are too narrow where there are few hits.
        trials = float(count if 0 < value < 1 else min(count, clusters))
        exact = clopper_pearson(value * trials, trials, CONFIDENCE)
        return min(low, exact[0]), max(high, exact[1])
    if clusters == 1 or (low == high and clusters < FEW):
        return -math.inf, math.inf
    # Percentile intervals of a mean are short by what Student's t adds to the normal distribution, and have a third of
    # the asymmetry that a skewed mean's has (Hesterberg 2015, "What teachers should know about the bootstrap"): the
    # longer side gets the rest. How skewed few texts are cannot be seen in them, so theirs are longer still.
    level = (1 + CONFIDENCE) / 2
    wider = t_quantile(level, clusters - 1) / NORMAL * math.sqrt(clusters / (clusters - 1)) * (1 + FEW / clusters)
    below, above = wider * (value - low), wider * (high - value)
    return value - below - max(0.0, below - above), value + above + max(0.0, above - below)


def _more(limit: Limit, bound: float, estimate: Mapping[str, Any], low: float, high: float) -> int | None:
    """Return how many more samples would decide, about, if the figure stays what it is."""
    value, count = float(estimate["value"]), int(estimate["count"])
    if not limit.counts:
        arm, gap = (high - value, bound - value) if value < bound else (value - low, value - bound)
        needed = count * (arm / gap) ** 2 if gap and math.isfinite(arm) else math.inf
    else:
        # A trial is as many samples as make the interval what it is.
        trials = _least(lambda size: _width(value, size) <= high - low, float(count))
        if not _decides(value, float(MOST), bound):
            return None
        needed = _least(lambda size: _decides(value, size, bound), float(MOST)) * count / trials
    return still_needed(needed, count)


def still_needed(needed: float, count: int) -> int | None:
    """Return how many samples are to be added, with two digits; None where so many are out of reach.

    Args:
        needed: Number of samples that decide.
        count: Number of those that there are.
    """
    if needed > MOST:
        return None
    more = max(1, math.ceil(needed) - count)
    digits: int = 10 ** max(0, len(str(more)) - 2)
    return math.ceil(more / digits) * digits


def _least(enough: Callable[[float], bool], most: float) -> float:
    """Return the smallest size that is enough, within some percent: it is said as "about"."""
    low, high = 1.0, most
    while high > low * ABOUT:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _width(value: float, trials: float) -> float:
    low, high = clopper_pearson(value * trials, trials, CONFIDENCE)
    return high - low


def _decides(value: float, trials: float, bound: float) -> bool:
    low, high = clopper_pearson(value * trials, trials, CONFIDENCE)
    return not low <= bound <= high


def applicable(bounds: Mapping[str, float], heads: Collection[str]) -> dict[str, float]:
    """Return the bounds on what a bundle with these heads has; every one has hidden states.

    Of the default budget, or of what other bundles have of it, which bounds answers, a bundle that gives none has
    nothing: its hidden states are bounded.
    """
    kept = {name: bound for name, bound in bounds.items() if limit_named(name).path[0] in (HIDDEN, *heads)}
    if bounds and not kept and bounds.items() <= parse_budget(default_budget()).items():
        return parse_budget(default_without_heads())
    return kept


def refuse_idle(bounds: Mapping[str, float], heads: Collection[str]) -> None:
    """Refuse bounds on what nothing has that is measured.

    Raises:
        MissingHeadError: for such a bound.
    """
    kept = applicable(bounds, heads)
    idle = [name for name in bounds if name not in kept]
    if idle:
        limit = limit_named(idle[0])
        raise MissingHeadError(
            f"the budget bounds {limit.meaning} ({limit.name}), and there is no head {limit.path[0]!r} to measure it "
            "on: leave it out, or bound what there is, such as cosine=0.99"
        )


def judge_all(bounds: Mapping[str, float], accuracy: Mapping[str, Any] | None) -> dict[str, Judgement]:
    """Judge the figures of an accuracy by every bound; those of heads that are not there are left out.

    Args:
        bounds: By name of the limit.
        accuracy: The JSON of a `Fidelity`, as a report's row and a manifest's `fidelity.accuracy` hold it.
    """
    judgements = {}
    for name, bound in bounds.items():
        limit = limit_named(name)
        head, figure = limit.path
        figures = accuracy.get(head) if isinstance(accuracy, Mapping) else None
        judged = judge(limit, bound, figures.get(figure) if isinstance(figures, Mapping) else None)
        if judged:
            judgements[name] = judged
    return judgements


def overall(verdicts: Iterable[Outcome]) -> Outcome:
    """Return one verdict for several bounds: broken where one is, held where all are, or else undecided."""
    verdicts = set(verdicts)
    return BROKEN if BROKEN in verdicts else HELD if verdicts == {HELD} else UNDECIDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Bounds that a variant is held to."""

    bounds: dict[str, float]
    """Bounds by name of the limit; empty where no figure of a head is bounded."""
    drops: dict[str, float] = field(default_factory=dict)
    """Bounds on how much a metric may drop on labelled data, by name of the metric (`bertport.measure.drops`)."""

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read a budget as `parse_budget` does.

        Raises:
            UnknownNameError: for an unknown limit.
            UsageError: for what is not a list of limits with their bounds, or a bound that nothing can reach.
        """
        bounds, drops = _parse(text)
        return cls(bounds=bounds, drops=drops)

    @classmethod
    def default(cls) -> Budget:
        """Return what variants are held to unless users say otherwise."""
        return cls.parse(default_budget())

    def __str__(self) -> str:
        """Return the budget as users write it, bounds on metrics of labelled data last."""
        drops = {f"{metric}{DROP}": bound for metric, bound in self.drops.items()}
        return _written(self.bounds | drops) or NO_BUDGET

    def broken(self, fidelity: Fidelity) -> tuple[str, ...]:
        """Return a sentence for each bound that a figure does not keep to; a head that was not measured breaks none."""
        return tuple(
            f"{limit.meaning} is {figure.value:{limit.fine}}, {limit.asked(bound, limit.fine)} was asked"
            for limit, bound, figure in self._measured(fidelity)
            if not limit.holds(figure.value, bound)
        )

    def undecided(self, fidelity: Fidelity) -> dict[str, float]:
        """Return how many times as many samples would decide, about, where a figure breaks its bound within its noise.

        Returns:
            By name of the head, infinity where no number within reach would; empty where no bound is broken, or one is
            by the figure's whole interval, so that more samples would change nothing.
        """
        times: dict[str, float] = {}
        for limit, bound, figure in self._measured(fidelity):
            if limit.holds(figure.value, bound):
                continue
            judged = judge(limit, bound, dataclasses.asdict(figure))
            if judged is None or judged.verdict == BROKEN:
                return {}
            head, _ = limit.path
            needed = math.inf if judged.more is None else 1 + judged.more / judged.count
            times[head] = max(needed, times.get(head, 1.0))
        return times

    def of_nothing(self, fidelity: Fidelity) -> tuple[Limit, ...]:
        """Return the limits of this budget whose head was measured, but whose figure is counted on no sample."""
        limits = (limit_named(name) for name in self.bounds)
        judged = {limit.name for limit, _, _ in self._measured(fidelity)}
        return tuple(limit for limit in limits if fidelity.heads.get(limit.path[0]) and limit.name not in judged)

    def verdicts(self, fidelity: Fidelity) -> dict[str, dict[str, Any]]:
        """Judge each bound by its figure's whole interval, as `judge_all` does and `broken` does not.

        A variant is added where its figures keep to the budget, though their intervals may not: the search ends with
        the first that does, so that a figure near its bound is the rule. What the intervals say is recorded.
        """
        return {name: judged.to_json() for name, judged in judge_all(self.bounds, fidelity.to_json()).items()}

    def shares(self, fidelity: Fidelity) -> dict[str, float]:
        """Return the share of its distance from fp32 that each head may keep, about, if broken bounds are to hold.

        Answers change where the rounding noise exceeds the lead of the best one, so their share grows with the noise,
        and KL with its square.

        Returns:
            By name of the head; only those of which a bound is broken.
        """
        shares: dict[str, float] = {}
        for limit, bound, figure in self._measured(fidelity):
            if limit.holds(figure.value, bound):
                continue
            head, _ = limit.path
            allowed, reached = (1 - bound, 1 - figure.value) if limit.at_least else (bound, figure.value)
            # A bound that nothing can hold, and a figure that is no number, leave nothing.
            share = max(0.0, allowed / reached) ** (2 if limit.counts or limit.of_noise else 1) if allowed > 0 else 0.0
            shares[head] = min(share, shares.get(head, 1.0))
        return shares

    def _measured(self, fidelity: Fidelity) -> Iterator[tuple[Limit, float, Estimate]]:
        """Yield each limit with its bound and the figure that was measured; none for a head that was not."""
        for name, bound in self.bounds.items():
            limit = limit_named(name)
            head, key = limit.path
            figures = fidelity.heads.get(head)
            figure = figures.read(key) if figures else None
            if isinstance(figure, Estimate) and figure.count:  # a text without entities tells nothing of them
                yield limit, bound, figure


def budget_for(asked: Budget | None, heads: Collection[str]) -> Budget:
    """Return the budget of a bundle: the one that was asked for, or what of the default is measured there.

    Args:
        asked: None for the default.
        heads: The heads that are measured.

    Raises:
        MissingHeadError: for a bound that was asked for on a head that is not measured.
    """
    if asked is None:
        return Budget(bounds=applicable(Budget.default().bounds, heads))
    refuse_idle(asked.bounds, heads)
    return asked
