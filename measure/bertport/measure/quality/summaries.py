"""Figures of a head, with their intervals, from sums per text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bertport.measure import statistics
from bertport.measure.quality.results import Hidden, Judgements, MaskedTokens
from bertport.measure.statistics import Difference

if TYPE_CHECKING:
    from bertport.measure.quality.sums import HeadSums
    from bertport.measure.statistics import Estimate, Settings

__all__ = ["hidden_states", "judged_pairs", "judged_tokens", "masked_tokens"]


def masked_tokens(sums: HeadSums, settings: Settings) -> MaskedTokens:
    """Return the figures of the head for masked words, from the sums of `metrics.TOKEN_COLUMNS`."""
    counts = sums.counts

    def perplexity(column: str) -> Estimate:
        return statistics.bootstrap_sums(
            np.stack([sums.sums(column), counts], axis=1),
            lambda totals: np.exp(totals[0] / totals[1]),
            settings,
            count=round(float(counts.sum())),
        )

    return MaskedTokens(
        top1_agreement=statistics.share(sums.sums("top1"), counts, settings),
        top5_agreement=statistics.share(sums.sums("top5"), counts, settings),
        kl=statistics.ratio(sums.sums("kl"), counts, settings),
        nll_reference=statistics.ratio(sums.sums("nll_reference"), counts, settings),
        nll_candidate=statistics.ratio(sums.sums("nll_candidate"), counts, settings),
        nll_difference=_difference(sums, "nll", settings),
        perplexity_reference=perplexity("nll_reference"),
        perplexity_candidate=perplexity("nll_candidate"),
        perplexity_difference=statistics.bootstrap_sums(
            np.stack([sums.sums("nll_candidate"), sums.sums("nll_reference"), counts], axis=1),
            lambda totals: np.exp(totals[0] / totals[2]) - np.exp(totals[1] / totals[2]),
            settings,
            count=round(float(counts.sum())),
        ),
        accuracy_reference=statistics.share(sums.sums("right_reference"), counts, settings),
        accuracy_candidate=statistics.share(sums.sums("right_candidate"), counts, settings),
        accuracy_difference=_difference(sums, "right", settings),
        top5_accuracy_reference=statistics.share(sums.sums("among5_reference"), counts, settings),
        top5_accuracy_candidate=statistics.share(sums.sums("among5_candidate"), counts, settings),
        top5_accuracy_difference=_difference(sums, "among5", settings),
    )


def judged_pairs(sums: HeadSums, settings: Settings) -> Judgements:
    """Return the figures of a head for pairs, from the sums of `metrics.PAIR_COLUMNS`."""
    right_reference, right_candidate = sums.sums("right_reference"), sums.sums("right_candidate")
    gained, lost = (round(float(sums.sums(column).sum())) for column in ("gained", "lost"))
    difference = Difference(
        difference=statistics.ratio(right_candidate - right_reference, sums.counts, settings),
        p_value=statistics.mcnemar(gained, lost),
        test="mcnemar",
    )
    return _judgements(sums, settings, difference)


def judged_tokens(sums: HeadSums, settings: Settings) -> Judgements:
    """Return the figures of a head that judges tokens, from the sums of `metrics.PAIR_COLUMNS`.

    The tokens of a text are not independent, as McNemar's test has it: the difference is paired over texts.
    """
    return _judgements(sums, settings, _difference(sums, "right", settings))


def _judgements(sums: HeadSums, settings: Settings, difference: Difference) -> Judgements:
    counts = sums.counts
    return Judgements(
        flips=statistics.share(sums.sums("flip"), counts, settings),
        largest_change=sums.highest("change"),
        mean_change=statistics.ratio(sums.sums("change"), counts, settings),
        kl=statistics.ratio(sums.sums("kl"), counts, settings),
        accuracy_reference=statistics.share(sums.sums("right_reference"), counts, settings),
        accuracy_candidate=statistics.share(sums.sums("right_candidate"), counts, settings),
        accuracy_difference=difference,
    )


def hidden_states(sums: HeadSums, settings: Settings) -> Hidden:
    """Return the figures of the hidden states, from the sums of `metrics.COSINE_COLUMNS`."""
    return Hidden(cosine=statistics.ratio(sums.sums("cosine"), sums.counts, settings), worst=sums.lowest("cosine"))


def _difference(sums: HeadSums, column: str, settings: Settings) -> Difference:
    """Test a metric of which there is one column for each model."""
    candidate, reference = (sums.sums(f"{column}_{side}") for side in ("candidate", "reference"))
    return statistics.paired_difference(candidate, reference, sums.counts, settings)
