"""Figures of predictions on labelled data, and paired differences between those of two variants."""

from __future__ import annotations

import math
from collections.abc import Mapping  # noqa: TC003 — reports are read by these annotations
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bertport.measure.labelled.differences import paired_share_interval
from bertport.measure.labelled.kinds import (
    CHOICE,
    CLASSIFICATION,
    MULTI_LABEL,
    RANKING,
    REGRESSION,
    RETRIEVAL,
    SIMILARITY,
    SPANS,
    TAGS,
)
from bertport.measure.labelled.labels import shown
from bertport.measure.labelled.metrics import (
    METRICS,
    Judged,
    entity_counts,
    label_counts,
    rank_correlation,
    require_packages,
)
from bertport.measure.labelled.resampling import difference_draws, draws, interval, permutation_p
from bertport.measure.quality.entities import entities
from bertport.measure.statistics import DEFAULTS, Estimate, Number, mcnemar, share
from bertport.runtime.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertport.measure.labelled.data import LabelledData
    from bertport.measure.labelled.metrics import Metric
    from bertport.measure.labelled.predictions import Predictions
    from bertport.measure.statistics import Settings

__all__ = [
    "Calibration",
    "Chosen",
    "LabelFigures",
    "PairedDifference",
    "TaskFigures",
    "choose_metrics",
    "metrics_of",
    "paired_difference",
    "paired_differences",
    "task_figures",
]

NEGATED = ("not_", "not ", "non_", "non-", "no_", "un", "in")
"""Beginnings of a label that says that another one does not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFigures:
    """How well one label, or one type of entities, is told from the others."""

    precision: Number
    """Share of those predicted that are right; not known where none is predicted."""
    recall: Number
    """Share of those that are there that are predicted; not known where none is there."""
    f1: Number
    """Harmonic mean of the two; not known where none is there and none predicted."""
    support: int
    """Number that are there."""
    predicted: int
    """Number predicted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Whether probabilities are what they say."""

    ece: Estimate
    """Expected calibration error: mean distance of accuracy from confidence over 15 equal bins (Guo et al. 2017)."""
    confidence: float
    """Mean probability of the label taken."""
    accuracy: float
    """Share of labels taken that are right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFigures:
    """Figures of one variant on labelled data."""

    task: str
    """The task."""
    kind: str
    """The kind of data."""
    data: str
    """The data's name."""
    fingerprint: str
    """`sha256:` and the SHA-256 of the data's bytes."""
    examples: int
    """Number of examples."""
    metrics: Mapping[str, Estimate]
    """Each metric with its 95% interval, by name, the main one first; NaN where it is not defined."""
    labels: Mapping[str, LabelFigures]
    """Figures by label, or by type of entities; empty where there are none."""
    calibration: Calibration | None
    """Whether probabilities are what they say; None where there are none."""
    notes: tuple[str, ...]
    """Sentences on what is not defined, or taken in one of several ways."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """How much a candidate's metric differs from a reference's on the same examples, candidate minus reference."""

    metric: str
    """The metric."""
    difference: Estimate
    """Its size in the metric's own unit, with its paired 95% interval."""
    p_value: Number
    """Two-sided: how often chance alone gives a difference as large."""
    test: str
    """`mcnemar` (exact, of shares of right answers) or `permutation` (the two variants' answers swapped)."""
    agreement: Estimate | None
    """Share of predictions that are the same: labels, words' tags, answers, the first document; None of numbers."""
    spearman: Estimate | None
    """Rank correlation of the two variants' numbers; None where predictions are not numbers."""
    undefined: str | None = field(default=None, metadata={"left out": True})  # of its JSON, where it is None
    """Why the metric is not defined for the candidate's predictions while it is for the reference's, which is a loss
    without a size; left out elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The metrics to compute, checked against the data."""

    metrics: tuple[Metric, ...]
    """The metrics, the main one first."""
    positive: int | None
    """Column of the label that F1 is of; None where there is none."""
    notes: tuple[str, ...]
    """Sentences on what was taken in one of several ways."""


def metrics_of(data: LabelledData) -> tuple[str, ...]:
    """Return the names of the metrics for the data, the main one first; F1 of one label only where there are two."""
    names = [name for name, metric in METRICS.items() if data.kind in metric.kinds]
    if data.kind == CLASSIFICATION and len(data.labels or ()) != 2:  # noqa: PLR2004 — one label and its contrary
        names.remove("f1")
    if data.kind == SIMILARITY:  # by convention, where cosines are compared
        names.sort(key="spearman".__ne__)
    return tuple(names)


def choose_metrics(data: LabelledData, names: Sequence[str] | None = None, *, positive: str | None = None) -> Chosen:
    """Return the metrics to compute on the data, before anything is predicted.

    Args:
        data: The data.
        names: Names of metrics; all that are for the data when not given.
        positive: The label that F1 is of. When not given, of two labels the one that is not said by the other's
            negation, or else the second; a note says which.

    Raises:
        UnknownNameError: for a metric that is not for the data, or an unknown label.
        UsageError: for a positive label without use, or a metric by name that says nothing with the data's truth.
        MissingDependencyError: where scikit-learn or scipy is not installed.
    """
    require_packages("measuring labelled data")
    known = list(metrics_of(data))
    if positive is not None:
        if data.kind != CLASSIFICATION:
            raise UsageError(
                f"a positive label is for F1 of one label, which {data.task} ({data.kind}) does not have: leave it out"
            )
        known = [name for name in METRICS if name in {*known, "f1"}]
    for name in names or ():
        if name == "f1" and name not in known and data.kind == CLASSIFICATION:
            raise UsageError(
                f"f1 is of one label, and the bundle has {len(data.labels or ()):,}: name that label with --positive, "
                "or take f1_macro"
            )
        if name not in known:
            raise UnknownNameError(f"metric of {data.task} ({data.kind})", name, known)
    chosen = [METRICS[name] for name in dict.fromkeys(names or known)]
    column, notes = None, []
    if any(metric.name == "f1" for metric in chosen):
        column, note = _positive(data, positive)
        notes = [note] if note else []
    elif positive is not None:
        raise UsageError("a positive label is for f1, which is not among the metrics asked for: leave it out")
    for name in names or ():
        _refuse_idle(name, data, column)
    return Chosen(metrics=tuple(chosen), positive=column, notes=tuple(notes))


def _refuse_idle(metric: str, data: LabelledData, positive: int | None) -> None:
    """Refuse a metric that says nothing of any predictions, because of the truth alone.

    What it would be is 0, or not defined, for fp32 and for a variant that answers at random. Of numbers and documents
    `read_labelled` refuses such data.

    Raises:
        UsageError: for such a metric.
    """
    labels = data.labels or ()
    if metric == "f1" and positive is not None and positive not in data.truths:
        raise UsageError(
            f"F1 of {labels[positive]!r} is not defined: no example of {data.name} has that label: "
            "choose another metric, or another positive label"
        )
    if metric == "matthews" and len(set(data.truths)) == 1:
        raise UsageError(
            f"matthews is 0 whatever is predicted: every example of {data.name} has the label "
            f"{labels[data.truths[0]]!r}: choose another metric, or give data with several labels"
        )
    if metric.startswith("f1_") and data.kind == MULTI_LABEL and not any(data.truths):
        raise UsageError(
            f"{metric} is not defined: no example of {data.name} has a label: choose another metric, or give data "
            "with labels"
        )
    if metric == "entity_f1" and not any(entities(truth) for truth in data.truths):
        raise UsageError(f"entity_f1 is not defined: no example of {data.name} has an entity: give data with entities")


def task_figures(
    predictions: Predictions,
    data: LabelledData,
    settings: Settings = DEFAULTS,
    *,
    chosen: Chosen | None = None,
) -> TaskFigures:
    """Return the figures of a variant's predictions.

    Args:
        predictions: What the variant answers.
        data: What it answers to.
        settings: Seed, resamples and confidence level of the intervals.
        chosen: The metrics; all when not given.

    Raises:
        MissingDependencyError: where scikit-learn or scipy is not installed.
    """
    chosen = chosen or choose_metrics(data)
    judged = Judged(data, predictions, chosen.positive)
    metrics, notes = {}, [*data.notes, *chosen.notes]
    for metric in chosen.metrics:
        metrics[metric.name] = _estimate(metric, judged, settings)
        if math.isnan(metrics[metric.name].value):
            notes.append(f"{metric.name} is not defined: {metric.undefined}")
    if "matthews" in metrics:
        sides = {"predictions": predictions.values, "truths": judged.truth}
        constant = [name for name, values in sides.items() if len(np.unique(values)) == 1]
        notes += [f"matthews is 0 by convention: all {name} are the same" for name in constant]
    return TaskFigures(
        task=data.task,
        kind=data.kind,
        data=data.name,
        fingerprint=data.fingerprint,
        examples=len(data),
        metrics=metrics,
        labels=_label_figures(judged),
        calibration=_calibration(judged, metrics.get("ece"), settings),
        notes=tuple(dict.fromkeys(notes)),
    )


def paired_differences(
    candidate: Predictions,
    reference: Predictions,
    data: LabelledData,
    settings: Settings = DEFAULTS,
    *,
    chosen: Chosen | None = None,
) -> Mapping[str, PairedDifference]:
    """Return the paired difference of each metric of two variants' predictions, by name; arguments as `task_figures`'.

    Raises:
        MissingDependencyError: where scikit-learn or scipy is not installed.
    """
    chosen = chosen or choose_metrics(data)
    agreement, spearman = _agreement(candidate, reference, settings), _spearman(candidate, reference, settings)
    one, other = Judged(data, candidate, chosen.positive), Judged(data, reference, chosen.positive)
    differences = {}
    for metric in chosen.metrics:
        difference, p_value, test = paired_difference(metric, one, other, settings)
        differences[metric.name] = PairedDifference(
            metric=metric.name,
            difference=difference,
            p_value=p_value,
            test=test,
            agreement=agreement,
            spearman=spearman,
            undefined=None if math.isfinite(difference.value) else _undefined(metric, one, other),
        )
    return differences


def paired_difference(
    metric: Metric, candidate: Judged, reference: Judged, settings: Settings
) -> tuple[Estimate, float, str]:
    """Return the difference of a metric of two variants with its interval, the p-value, and the test's name.

    A share of right answers has McNemar's exact test and Tango's score interval; other metrics have a permutation test
    and the paired percentile bootstrap.
    """
    if metric.right is not None:
        one, other = metric.right(candidate), metric.right(reference)
        gained, lost = int((one & ~other).sum()), int((other & ~one).sum())
        low, high = paired_share_interval(gained, lost, len(one), settings.confidence)
        value = (gained - lost) / len(one)
        estimate = Estimate(value=value, low=low, high=high, count=len(one), clusters=len(one))
        return estimate, mcnemar(gained, lost), "mcnemar"
    value = metric.value(candidate) - metric.value(reference)
    one_sums, other_sums = metric.sums(candidate), metric.sums(reference)
    figures = difference_draws(one_sums, other_sums, settings)
    estimate = interval(value, figures, settings, examples=len(candidate.data), count=one_sums.count)
    return estimate, permutation_p(one_sums, other_sums, settings), "permutation"


def _undefined(metric: Metric, candidate: Judged, reference: Judged) -> str | None:
    """Return why a metric is not defined for a candidate where it is for the reference; None where that is no loss.

    F1 of what never occurs is 0 for a variant that predicts it, and not defined for one that rightly does not.
    """
    known = metric.value(reference)
    lost = math.isfinite(known) and known != 0 and not math.isfinite(metric.value(candidate))
    return metric.undefined if lost else None


def _estimate(metric: Metric, judged: Judged, settings: Settings) -> Estimate:
    """Return a metric with its interval: exact of a share of right answers, else the percentile bootstrap's."""
    if metric.right is not None:
        return share(metric.right(judged), np.ones(len(judged.data)), settings)
    sums = metric.sums(judged)
    return interval(metric.value(judged), draws(sums, settings), settings, examples=len(judged.data), count=sums.count)


def _positive(data: LabelledData, name: str | None) -> tuple[int, str | None]:
    """Return the column of the label that F1 is of, and a note where no label was named."""
    labels = data.labels or ()
    if name is not None:
        if name not in labels:
            raise UnknownNameError("positive label", name, [shown(labels)])
        return labels.index(name), None
    column = 1
    first, second = (label.lower() for label in labels[:2])
    if second in {f"{beginning}{first}" for beginning in NEGATED}:
        column = 0
    return column, f"f1 is that of the label {labels[column]}"


def _label_figures(judged: Judged) -> dict[str, LabelFigures]:
    """Return precision, recall and F1 by label, or by type of entities."""
    data = judged.data
    if data.kind == TAGS:
        counts = {kind: by_example.sum(axis=0) for kind, by_example in sorted(entity_counts(judged).items())}
        return {kind: _of_counts(*(int(count) for count in total)) for kind, total in counts.items()}
    if data.kind not in {CLASSIFICATION, MULTI_LABEL}:
        return {}
    by_label = label_counts(judged).sum(axis=0).astype(int).reshape(3, -1).T.tolist()
    return {label: _of_counts(*counts) for label, counts in zip(data.labels or (), by_label, strict=True)}


def _of_counts(hits: int, predicted: int, true: int) -> LabelFigures:
    return LabelFigures(
        precision=hits / predicted if predicted else math.nan,
        recall=hits / true if true else math.nan,
        f1=2 * hits / (predicted + true) if predicted + true else math.nan,
        support=true,
        predicted=predicted,
    )


def _calibration(judged: Judged, ece: Estimate | None, settings: Settings) -> Calibration | None:
    if judged.data.kind not in {CLASSIFICATION, CHOICE}:
        return None
    return Calibration(
        ece=ece or _estimate(METRICS["ece"], judged, settings),
        confidence=float(judged.predictions.confidence.mean()),
        accuracy=METRICS["accuracy"].value(judged),
    )


def _agreement(candidate: Predictions, reference: Predictions, settings: Settings) -> Estimate | None:
    """Return the share of predictions that are the same; of tags that of words, resampled by text; None of numbers."""
    one, other = candidate.values, reference.values
    match candidate.kind:
        case kind if kind in {REGRESSION, SIMILARITY}:
            return None
        case kind if kind == TAGS:
            pairs = list(zip(one, other, strict=True))
            same = [sum(a == b for a, b in zip(*tags, strict=True)) for tags in pairs]
            return share(same, [len(tags) for tags, _ in pairs], settings)
        case kind if kind == MULTI_LABEL:
            alike = (one == other).all(axis=1)
        case kind if kind in {RANKING, RETRIEVAL}:
            alike = np.array([a[0] == b[0] for a, b in zip(one, other, strict=True)])
        case kind if kind == SPANS:
            alike = np.array([a == b for a, b in zip(one, other, strict=True)])
        case _:
            alike = one == other
    return share(alike, np.ones(len(alike)), settings)


def _spearman(candidate: Predictions, reference: Predictions, settings: Settings) -> Estimate | None:
    """Return the rank correlation of two variants' numbers."""
    if candidate.kind not in {REGRESSION, SIMILARITY}:
        return None
    sums = rank_correlation(candidate.values, reference.values)
    return interval(sums.value, draws(sums, settings), settings, examples=len(candidate))
