"""Figures of heads that are trained for a task, from sums per text and rows kept of outputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.measure import statistics
from bertport.measure.quality.task_metrics import compare_classes, nearest, rank_correlation
from bertport.measure.quality.task_results import Choices, Classes, Scores, Spans, TokenLabels, Vectors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from bertport.measure.quality.sums import HeadSums
    from bertport.measure.statistics import Estimate, Settings

    Floats = NDArray[np.float64]

__all__ = ["MOST_LABELS", "NEIGHBOURS", "choices", "classes", "scores", "spans", "token_labels", "vectors"]

MOST_LABELS = 50
"""Labels of which the agreement is told, at most: those that the reference gives most often."""
NEIGHBOURS = 10
"""Neighbours of a text that are compared."""
LEAST_TEXTS = 5 * NEIGHBOURS
"""Texts below which neighbours are not compared: chance alone would find many of them."""


def classes(sums: HeadSums, settings: Settings) -> Classes:
    """Return the figures of a head that gives a text labels, from the sums of `task_metrics.CLASS_COLUMNS`."""
    counts = sums.counts
    return Classes(
        agreement=statistics.share(sums.sums("same"), counts, settings),
        by_label=_by_label(sums, settings),
        kl=statistics.ratio(sums.sums("kl"), counts, settings),
        mean_change=statistics.ratio(sums.sums("change"), counts, settings),
        largest_change=sums.highest("change"),
        lead=statistics.ratio(sums.sums("lead"), counts, settings),
    )


def token_labels(sums: HeadSums, settings: Settings) -> TokenLabels:
    """Return the figures of a head that gives tokens labels, from the sums of `task_metrics.TOKEN_LABEL_COLUMNS`."""
    of_tokens = classes(sums, settings)
    return TokenLabels(
        agreement=of_tokens.agreement,
        by_label=of_tokens.by_label,
        kl=of_tokens.kl,
        mean_change=of_tokens.mean_change,
        largest_change=of_tokens.largest_change,
        lead=of_tokens.lead,
        entities=statistics.ratio(sums.sums("common"), sums.sums("found"), settings),
    )


def _by_label(sums: HeadSums, settings: Settings) -> dict[str, Estimate]:
    """Return the agreement on each label that the reference gives, the most frequent first."""
    texts, kept = sums.kept
    given = kept[:, 0].astype(np.int64)
    numbers, counts = np.unique(given, return_counts=True)
    shares = {}
    for number in numbers[np.argsort(-counts, kind="stable")][:MOST_LABELS].tolist():
        of_label = given == number
        name = sums.labels[number] if number < len(sums.labels) else str(number)
        shares[name] = _share(texts[of_label], kept[of_label, 1], settings)
    return shares


def scores(sums: HeadSums, settings: Settings) -> Scores:
    """Return the figures of a head of values, from what `task_rows` keeps of each.

    A value's changes are in units of how far the reference's values are spread over all samples of one kind: sentences
    and ranked documents may be scored differently.
    """
    texts, kept = sums.kept
    ranked, groups, numbers, reference, candidate = kept.astype(np.float64).T
    _, values = np.unique(np.stack([ranked, numbers]), axis=1, return_inverse=True)
    changes, correlations = np.abs(candidate - reference), []
    for value in range(int(values.max()) + 1):
        of_value = values == value
        with np.errstate(divide="ignore", invalid="ignore"):  # a head that says the same of all texts, or nearly so
            changes[of_value] = np.nan_to_num(changes[of_value] / reference[of_value].std(), posinf=math.inf)
        correlations.append(rank_correlation(reference[of_value], candidate[of_value]))
    queries = [
        (texts[of_query[0]], *_order_kept(one, two))
        for of_query in _groups(groups, np.flatnonzero(ranked))
        for one, two in [(reference[of_query], candidate[of_query])]
    ]
    of_query, in_order, same = np.array([query for query in queries if not math.isnan(query[1])]).reshape(-1, 3).T
    return Scores(
        change=_ratio(texts, changes, settings),
        largest_change=float(changes.max()),
        square_change=float(np.square(changes).mean()),
        largest_difference=sums.highest("difference"),
        correlation=float(np.mean(correlations)),
        rank=_ratio(of_query, in_order, settings),
        top1_agreement=_share(of_query, same, settings),
    )


def _order_kept(reference: Floats, candidate: Floats) -> tuple[float, bool]:
    """Return the rank correlation of a query's documents, and whether the best is the same.

    Where the candidate scores all of them alike and the reference does not, their order is lost: both are 0. Where the
    reference alone has none, there is nothing to keep: the correlation is NaN.
    """
    if not np.ptp(candidate) and np.ptp(reference):
        return 0.0, False
    return rank_correlation(reference, candidate), bool(reference.argmax() == candidate.argmax())


def spans(sums: HeadSums, settings: Settings) -> Spans:
    """Return the figures of a head that answers questions by spans, from the sums of `task_metrics.SPAN_COLUMNS`."""
    counts = sums.counts
    return Spans(
        agreement=statistics.share(sums.sums("same"), counts, settings),
        overlap=statistics.ratio(sums.sums("overlap"), counts, settings),
        kl_start=statistics.ratio(sums.sums("kl_start"), counts, settings),
        kl_end=statistics.ratio(sums.sums("kl_end"), counts, settings),
        unanswered=statistics.share(sums.sums("unanswered"), counts, settings),
    )


def choices(sums: HeadSums, settings: Settings) -> Choices:
    """Return the figures of a head that chooses among texts, from what `task_rows` keeps of each of them."""
    texts, kept = sums.kept
    compared = [
        (texts[of_group][0], *compare_classes(kept[of_group, 1][None], kept[of_group, 2][None])[0])
        for of_group in _groups(kept[:, 0], np.arange(len(kept)))
    ]
    of_question, same, divergence, change, lead = np.array(compared).T
    return Choices(
        agreement=_share(of_question, same, settings),
        kl=_ratio(of_question, divergence, settings),
        mean_change=_ratio(of_question, change, settings),
        largest_change=float(change.max()),
        largest_difference=sums.highest("difference"),
        lead=_ratio(of_question, lead, settings),
    )


def vectors(sums: HeadSums, settings: Settings) -> Vectors:
    """Return the figures of a head that makes vectors, from the sums of `metrics.COSINE_COLUMNS` and both vectors."""
    texts, kept = sums.kept
    common = np.empty(0)
    if len(kept) >= LEAST_TEXTS:
        one, two = (nearest(kept[:, side], NEIGHBOURS) for side in (0, 1))
        common = (one[:, :, None] == two[:, None, :]).any(axis=-1).mean(axis=-1)
    return Vectors(
        cosine=statistics.ratio(sums.sums("cosine"), sums.counts, settings),
        worst=sums.lowest("cosine"),
        neighbours=_ratio(texts[: len(common)], common, settings),
    )


def _groups(groups: NDArray[np.floating], rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of each group, in their order, of those that are asked for."""
    order = rows[np.argsort(groups[rows], kind="stable")]
    if len(order):
        yield from np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)


def _ratio(texts: NDArray[Any], values: NDArray[np.floating], settings: Settings) -> Estimate:
    """Estimate the mean of values, by the text that each is from."""
    return statistics.ratio(*_per_text(texts, values), settings)


def _share(texts: NDArray[Any], hits: NDArray[np.floating], settings: Settings) -> Estimate:
    """Estimate the share of rows that are hits, by the text that each is from."""
    return statistics.share(*_per_text(texts, hits), settings)


def _per_text(texts: NDArray[Any], values: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Return the sum of each text's values, and their number. Shape of each: (texts,)."""
    _, places, counts = np.unique(texts, return_inverse=True, return_counts=True)
    sums: Floats = np.bincount(places, weights=values, minlength=len(counts)).astype(np.float64)
    return sums, counts.astype(np.float64)
