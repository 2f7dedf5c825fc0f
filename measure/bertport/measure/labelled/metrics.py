"""The table of metrics: for which kinds of data, how they are computed, and as which function of sums over examples."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.measure.labelled.answers import answer_f1, exact_match
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
from bertport.measure.labelled.ranks import ndcg, recall, reciprocal_rank
from bertport.measure.labelled.resampling import Sums
from bertport.measure.quality.entities import entities
from bertport.runtime.errors import MissingDependencyError
from bertport.runtime.installation import first_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from bertport.measure.labelled.data import LabelledData
    from bertport.measure.labelled.predictions import Predictions

    Floats = NDArray[np.float64]

__all__ = [
    "BINS",
    "METRICS",
    "Judged",
    "Metric",
    "entity_counts",
    "label_counts",
    "rank_correlation",
    "require_packages",
]

BINS = 15
"""Bins of confidence for the calibration error (Guo et al. 2017)."""
PACKAGES = {"sklearn": "scikit-learn", "scipy": "scipy"}
"""Packages that measuring needs beside the base installation, by the name of the module."""


def require_packages(what: str) -> None:
    """See that what measuring needs is installed, before anything is measured.

    Args:
        what: what needs it, for example "evaluate".

    Raises:
        MissingDependencyError: where it is not.
    """
    if missing := first_missing(PACKAGES):
        raise MissingDependencyError(what, PACKAGES[missing], "cpu,evaluate")


@dataclass(frozen=True, slots=True)
class Judged:
    """One variant's predictions beside the truth."""

    data: LabelledData
    """The data."""
    predictions: Predictions
    """The predictions of it."""
    positive: int | None = None
    """Column of the label that F1 is of; None where there is none."""

    @property
    def truth(self) -> NDArray[Any]:
        """The truths as an array `[examples]` of columns or numbers."""
        return np.asarray(self.data.truths)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One row: a metric."""

    name: str
    """Name for users."""
    kinds: tuple[str, ...]
    """The kinds of data that it is for."""
    higher_is_better: bool = True
    """Whether more is better."""
    value: Callable[[Judged], float]
    """Returns the metric; NaN where it is not defined."""
    sums: Callable[[Judged], Sums]
    """Returns the metric as a function of sums over examples, for intervals and tests."""
    right: Callable[[Judged], NDArray[np.bool_]] | None = None
    """Returns which examples are right, `[examples]`, of a metric that is their share; None of others."""
    undefined: str = ""
    """Reason why it may not be defined, as the end of a sentence."""


def _mean_of(values: Floats) -> Sums:
    """Return the mean of values `[examples]`, of which NaN are left out."""
    there = np.isfinite(values)
    contributions = np.stack([np.where(there, values, 0), there], axis=1).astype(np.float64)
    return Sums(
        contributions=contributions,
        figure=lambda sums: _ratio(sums[0], sums[1]),
        count=int(there.sum()),
        codes=_codes(values),
    )


def _codes(values: Floats) -> NDArray[np.int64]:
    codes: NDArray[np.int64] = np.unique(values, return_inverse=True)[1].reshape(-1)
    return codes


def _ratio(above: Floats, below: Floats) -> Floats:
    """Return a quotient; NaN where the divisor is 0."""
    quotient: Floats = np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below != 0)
    return quotient


# Right or not.


def _right(judged: Judged) -> NDArray[np.bool_]:
    """Return which examples have the right label, or all the right labels, or a right answer."""
    match judged.data.kind:
        case kind if kind == MULTI_LABEL:
            right: NDArray[np.bool_] = (judged.predictions.values == _truth_matrix(judged)).all(axis=1)
        case kind if kind == SPANS:
            pairs = zip(judged.predictions.values, judged.data.truths, strict=True)
            right = np.array([exact_match(answer, truths) for answer, truths in pairs])
        case _:
            right = judged.predictions.values == judged.truth
    return right


def _share_right(judged: Judged) -> float:
    return float(_right(judged).mean())


def _right_sums(judged: Judged) -> Sums:
    return _mean_of(_right(judged).astype(np.float64))


# Labels.


def _truth_matrix(judged: Judged) -> NDArray[np.bool_]:
    """Return which labels are true, `[examples, labels]`."""
    matrix = np.zeros((len(judged.data), len(judged.data.labels or ())), dtype=np.bool_)
    for index, truth in enumerate(judged.data.truths):
        matrix[index, list(truth)] = True
    return matrix


def _label_matrices(judged: Judged) -> tuple[Any, Any]:
    """Return what is true and what is predicted, as sparse arrays `[examples, labels]` of 0 and 1."""
    from scipy.sparse import csr_array

    if judged.data.kind == MULTI_LABEL:
        return csr_array(_truth_matrix(judged).astype(float)), csr_array(judged.predictions.values.astype(float))
    count, examples = len(judged.data.labels or ()), np.arange(len(judged.data))
    ones = np.ones(len(examples))
    truth, values = judged.truth, judged.predictions.values
    return (
        csr_array((ones, (examples, truth)), shape=(len(examples), count)),
        csr_array((ones, (examples, values)), shape=(len(examples), count)),
    )


def _label_codes(judged: Judged) -> NDArray[np.int64]:
    """Return a code per example, the same for examples of one truth and one prediction."""
    if judged.data.kind == MULTI_LABEL:
        both = np.concatenate([_truth_matrix(judged), judged.predictions.values], axis=1)
        codes: NDArray[np.int64] = np.unique(np.packbits(both, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
        return codes
    cells: NDArray[np.int64] = judged.truth * len(judged.data.labels or ()) + judged.predictions.values
    return cells


def label_counts(judged: Judged) -> Any:  # noqa: ANN401 — scipy's sparse arrays are not typed
    """Return by example the true positives of each label, then the predicted, then the true, `[examples, 3 * labels]`.

    The array is a sparse one of scipy.
    """
    from scipy.sparse import hstack

    truth, predicted = _label_matrices(judged)
    return hstack([truth * predicted, predicted, truth], format="csr")


def _label_sums(judged: Judged, figure: Callable[[Floats, Floats, Floats], Floats]) -> Sums:
    """Return a function of the true positives, the predicted and the true of each label, each `[labels, resamples]`."""
    return Sums(
        contributions=label_counts(judged),
        figure=lambda sums: figure(*np.split(sums, 3)),
        codes=_label_codes(judged),
    )


def _f1(hits: Floats, predicted: Floats, true: Floats) -> Floats:
    """Return F1 of counts; NaN where nothing is predicted and nothing true."""
    return _ratio(2 * hits, predicted + true)


def _macro(hits: Floats, predicted: Floats, true: Floats) -> Floats:
    """Return the mean of F1 over the labels that occur on either side."""
    by_label = _f1(hits, predicted, true)
    there = np.isfinite(by_label)
    return _ratio(np.where(there, by_label, 0).sum(axis=0), there.sum(axis=0).astype(np.float64))


def _micro(hits: Floats, predicted: Floats, true: Floats) -> Floats:
    return _f1(hits.sum(axis=0), predicted.sum(axis=0), true.sum(axis=0))


def _matthews(hits: Floats, predicted: Floats, true: Floats) -> Floats:
    """Return Matthews' correlation of any number of labels (Gorodkin 2004); 0 where one side is constant."""
    total = true.sum(axis=0)
    covariance = hits.sum(axis=0) * total - (predicted * true).sum(axis=0)
    spread = (total**2 - (predicted**2).sum(axis=0)) * (total**2 - (true**2).sum(axis=0))
    return np.nan_to_num(_ratio(covariance, np.sqrt(np.maximum(spread, 0))))


def _f1_sums(judged: Judged) -> Sums:
    column = judged.positive
    if column is None:
        return _mean_of(np.full(len(judged.data), np.nan))
    true, predicted = judged.truth == column, judged.predictions.values == column
    return Sums(
        contributions=np.stack([true & predicted, predicted, true], axis=1).astype(np.float64),
        figure=lambda sums: _f1(*sums),
        codes=true * 2 + predicted,
    )


def _sklearn_f1(judged: Judged, average: str) -> float:
    from sklearn.metrics import f1_score

    predicted = judged.predictions.values
    if judged.data.kind == MULTI_LABEL:
        truth = _truth_matrix(judged)
        if truth.shape[1] == 1:  # scikit-learn takes one column for the numbers of two labels, and counts both
            truth, predicted, average = truth[:, 0], predicted[:, 0], "binary"
    else:
        truth = judged.truth
        if average == "binary":
            truth, predicted = truth == judged.positive, predicted == judged.positive
    return float(f1_score(truth, predicted, average=average, zero_division=np.nan))


def _binary_f1(judged: Judged) -> float:
    return float("nan") if judged.positive is None else _sklearn_f1(judged, "binary")


def _sklearn_matthews(judged: Judged) -> float:
    from sklearn.metrics import matthews_corrcoef

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A single label was found", UserWarning)  # a note of the figures says it
        return float(matthews_corrcoef(judged.truth, judged.predictions.values))


# Numbers.


def _moments(one: Floats, other: Floats) -> Sums:
    """Return Pearson's correlation as a function of moments, both sides brought to mean 0 and deviation 1 first."""
    x, y = _standard(one), _standard(other)
    ones = np.ones_like(x)
    return Sums(contributions=np.stack([ones, x, y, x * x, y * y, x * y], axis=1), figure=_correlation)


def _standard(values: Floats) -> Floats:
    deviation = values.std()
    standard: Floats = (values - values.mean()) / (deviation or 1.0)
    return standard


def _correlation(sums: Floats) -> Floats:
    count, x, y, xx, yy, xy = sums
    spread = _spread(count, x, xx) * _spread(count, y, yy)
    return np.clip(_ratio(count * xy - x * y, np.sqrt(spread)), -1, 1)


def _spread(count: Floats, total: Floats, squares: Floats) -> Floats:
    """Return a variance times the square of the count: of a constant 0, of which rounding leaves a little."""
    spread = count * squares - total * total
    return np.where(spread > CONSTANT * count * squares, spread, 0)


CONSTANT = 1e-12
"""Share of the squares below which their difference from the squared sum is rounding: float64 has 16 digits."""


def _ranks(values: Floats) -> Floats:
    from scipy.stats import rankdata

    ranks: Floats = rankdata(values).astype(np.float64)
    return ranks


def _scipy(name: str, one: Floats, other: Floats) -> float:
    """Return scipy's correlation of that name; NaN where one side is constant."""
    from scipy import stats

    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        return float(getattr(stats, name)(one, other).statistic)


def _number_sums(judged: Judged) -> Sums:
    return _moments(judged.predictions.values, judged.truth)


def _rank_sums(judged: Judged) -> Sums:
    """Return Spearman's correlation: ranks among the examples as they are in sums, and those of a resample anew."""
    return rank_correlation(judged.predictions.values, judged.truth)


def rank_correlation(one: Floats, other: Floats) -> Sums:
    """Return Spearman's correlation of two lists of numbers, `[examples]` each."""
    first, second = _Ranks.of(one), _Ranks.of(other)
    sums = _moments(_ranks(one), _ranks(other))
    return replace(sums, weighted=lambda weights: _weighted_ranks(first, second, weights))


@dataclass(frozen=True, slots=True)
class _Ranks:
    """Numbers in order, to rank resamples of them."""

    order: NDArray[np.int64]
    """The examples in the order of their numbers, `[examples]`."""
    starts: NDArray[np.int64]
    """Index in that order of the first example of each distinct number."""
    group: NDArray[np.int64]
    """The different number, counted from the least, of each example, `[examples]`."""

    @classmethod
    def of(cls, values: Floats) -> _Ranks:
        """Return the order of numbers."""
        _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
        return cls(np.argsort(values, kind="stable"), np.cumsum(counts) - counts, group.reshape(-1))

    def midranks(self, weights: Floats) -> Floats:
        """Return the mean rank of each example among those drawn so often, `[examples, resamples]`."""
        drawn = weights[self.order]
        if len(self.starts) < len(drawn):  # else each number is there once
            drawn = np.add.reduceat(drawn, self.starts, axis=0)
        ranks: Floats = (np.cumsum(drawn, axis=0) - (drawn - 1) / 2)[self.group]
        return ranks


def _weighted_ranks(one: _Ranks, other: _Ranks, weights: Floats) -> Floats:
    """Return Spearman's correlation of resamples; NaN where all that are drawn are the same on one side."""
    middle = (len(weights) + 1) / 2
    x, y = one.midranks(weights) - middle, other.midranks(weights) - middle
    weighted = weights * x
    covariance = np.einsum("er,er->r", weighted, y)
    spread = np.einsum("er,er->r", weighted, x) * np.einsum("er,er,er->r", weights, y, y)
    return np.clip(_ratio(covariance, np.sqrt(spread)), -1, 1)


# Entities and answers.


def entity_counts(judged: Judged) -> dict[str, Floats]:
    """Return by type the entities that are right, predicted and true in each example, `[examples, 3]`."""
    counts: dict[str, Floats] = {}
    total = len(judged.data)
    for index, (tags, truth) in enumerate(zip(judged.predictions.values, judged.data.truths, strict=True)):
        predicted, true = Counter(entities(tags)), Counter(entities(truth))
        for column, spans in enumerate((predicted & true, predicted, true)):
            for kind, _, _ in spans:
                if kind not in counts:
                    counts[kind] = np.zeros((total, 3))
                counts[kind][index, column] += 1
    return counts


def _entity_sums(judged: Judged) -> Sums:
    counts = sum(entity_counts(judged).values(), np.zeros((len(judged.data), 3)))
    codes: NDArray[np.int64] = np.unique(counts, axis=0, return_inverse=True)[1].reshape(-1)
    return Sums(contributions=counts, figure=lambda sums: _f1(*sums), codes=codes)


def _answer_sums(judged: Judged) -> Sums:
    pairs = zip(judged.predictions.values, judged.data.truths, strict=True)
    return _mean_of(np.array([answer_f1(answer, truths) for answer, truths in pairs]))


# Ranked documents.


def _by_query(judged: Judged, measure: Callable[[Floats, Floats], float]) -> Sums:
    """Return the mean of a measure over the queries; those without a relevant document are left out.

    Args:
        judged: orders of documents.
        measure: of the relevance of the documents in the order predicted, and of all of them.
    """
    values = np.full(len(judged.data), np.nan)
    for index, (order, truth) in enumerate(zip(judged.predictions.values, judged.data.truths, strict=True)):
        if judged.data.kind == RETRIEVAL:
            ideal = np.ones(len(truth))
            gains = np.isin(order, truth).astype(np.float64)
        else:
            ideal = np.asarray(truth, dtype=np.float64)
            gains = ideal[order]
        if (ideal > 0).any():
            values[index] = measure(gains, ideal)
    return _mean_of(values)


# Probabilities.


def _calibration_sums(judged: Judged) -> Sums:
    """Return the calibration error as a function of number, confidence and right answers in each bin."""
    from scipy.sparse import csr_array

    confidence, right = judged.predictions.confidence, _right(judged)
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    count = len(right)
    columns = np.stack([bins, BINS + bins, np.full(count, 2 * BINS)], axis=1)
    values = np.stack([confidence, right, np.ones(count)], axis=1).astype(np.float64)
    starts = np.arange(count + 1) * columns.shape[1]
    # An example is in three of 31 sums: a product with a dense array would be mostly with 0.
    contributions = csr_array((values.ravel(), columns.ravel(), starts), shape=(count, 2 * BINS + 1))
    return Sums(
        contributions=contributions,
        figure=lambda sums: np.abs(sums[:BINS] - sums[BINS:-1]).sum(axis=0) / sums[-1],
    )


def _of_sums(sums: Callable[[Judged], Sums]) -> Callable[[Judged], float]:
    """Return a function that computes a metric from its sums."""
    return lambda judged: sums(judged).value


def _by_sums(name: str, kinds: tuple[str, ...], sums: Callable[[Judged], Sums], **further: Any) -> Metric:  # noqa: ANN401 — the other fields
    return Metric(name=name, kinds=kinds, value=_of_sums(sums), sums=sums, **further)


NO_RELEVANT = "no query has a relevant document"
ONE_LABEL = "no label occurs"

METRICS: Mapping[str, Metric] = {
    row.name: row
    for row in (
        Metric(
            name="accuracy",
            kinds=(CLASSIFICATION, MULTI_LABEL, CHOICE),
            value=_share_right,
            sums=_right_sums,
            right=_right,
        ),
        Metric(
            name="f1",
            kinds=(CLASSIFICATION,),
            value=_binary_f1,
            sums=_f1_sums,
            undefined="the positive label neither occurs nor is predicted",
        ),
        Metric(
            name="f1_micro",
            kinds=(MULTI_LABEL,),
            value=lambda judged: _sklearn_f1(judged, "micro"),
            sums=lambda judged: _label_sums(judged, _micro),
            undefined=ONE_LABEL,
        ),
        Metric(
            name="f1_macro",
            kinds=(CLASSIFICATION, MULTI_LABEL),
            value=lambda judged: _sklearn_f1(judged, "macro"),
            sums=lambda judged: _label_sums(judged, _macro),
            undefined=ONE_LABEL,
        ),
        Metric(
            name="matthews",
            kinds=(CLASSIFICATION,),
            value=_sklearn_matthews,
            sums=lambda judged: _label_sums(judged, _matthews),
        ),
        Metric(
            name="pearson",
            kinds=(REGRESSION, SIMILARITY),
            value=lambda judged: _scipy("pearsonr", judged.predictions.values, judged.truth),
            sums=_number_sums,
            undefined="all predictions are the same",
        ),
        Metric(
            name="spearman",
            kinds=(REGRESSION, SIMILARITY),
            value=lambda judged: _scipy("spearmanr", judged.predictions.values, judged.truth),
            sums=_rank_sums,
            undefined="all predictions are the same",
        ),
        _by_sums("entity_f1", (TAGS,), _entity_sums, undefined="no entity occurs, and none is predicted"),
        Metric(name="exact_match", kinds=(SPANS,), value=_share_right, sums=_right_sums, right=_right),
        _by_sums("answer_f1", (SPANS,), _answer_sums),
        _by_sums("ndcg@10", (RANKING, RETRIEVAL), lambda judged: _by_query(judged, ndcg), undefined=NO_RELEVANT),
        _by_sums(
            "mrr@10",
            (RANKING, RETRIEVAL),
            lambda judged: _by_query(judged, lambda gains, _: reciprocal_rank(gains)),
            undefined=NO_RELEVANT,
        ),
        _by_sums("recall@10", (RANKING, RETRIEVAL), lambda judged: _by_query(judged, recall), undefined=NO_RELEVANT),
        _by_sums("ece", (CLASSIFICATION, CHOICE), _calibration_sums, higher_is_better=False),
    )
}
"""The metrics by name; of each kind of data the first is its main one."""
