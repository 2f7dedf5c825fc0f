"""Figures of predictions on labelled data, and paired differences between those of two variants."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 — reports are read by these annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bertport.measure.labelled.kinds import CLASSIFICATION
from bertport.measure.statistics import DEFAULTS, Estimate, Number, mcnemar, mean, share

if TYPE_CHECKING:
    from bertport.measure.labelled.data import LabelledData
    from bertport.measure.labelled.predictions import Predictions
    from bertport.measure.statistics import Settings

__all__ = ["Calibration", "LabelFigures", "PairedDifference", "TaskFigures", "paired_differences", "task_figures"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFigures:
    """How well one label is told from the others."""

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
    """Each metric with its 95% interval, by name, the task's first metric first; NaN where it is not defined."""
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
    """`mcnemar` (exact) or `permutation` (the two variants' answers swapped)."""
    agreement: Estimate | None
    """Share of predictions that are the same; None where predictions are numbers."""
    spearman: Estimate | None
    """Rank correlation of the two variants' numbers; None where predictions are no numbers."""


def task_figures(predictions: Predictions, data: LabelledData, settings: Settings = DEFAULTS) -> TaskFigures:
    """Return the figures of a variant's predictions."""
    metrics = {}
    if data.kind == CLASSIFICATION:
        right = predictions.values == np.asarray(data.truths)
        metrics["accuracy"] = share(right, np.ones(len(right)), settings)
    return TaskFigures(
        task=data.task,
        kind=data.kind,
        data=data.name,
        fingerprint=data.fingerprint,
        examples=len(data),
        metrics=metrics,
        labels={},
        calibration=None,
        notes=data.notes,
    )


def paired_differences(
    candidate: Predictions, reference: Predictions, data: LabelledData, settings: Settings = DEFAULTS
) -> Mapping[str, PairedDifference]:
    """Return the paired difference of each metric of two variants' predictions, by name."""
    differences = {}
    if data.kind == CLASSIFICATION:
        truth = np.asarray(data.truths)
        one, other = candidate.values == truth, reference.values == truth
        change = one.astype(np.float64) - other
        differences["accuracy"] = PairedDifference(
            metric="accuracy",
            difference=mean(change, settings),
            p_value=mcnemar(int((one & ~other).sum()), int((other & ~one).sum())),
            test="mcnemar",
            agreement=share(candidate.values == reference.values, np.ones(len(truth)), settings),
            spearman=None,
        )
    return differences
