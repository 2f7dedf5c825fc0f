"""Sums of figures per text, and what follows from them: all that measuring keeps of a model's outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bertport.measure import statistics
from bertport.measure.quality.metrics import MLM_COLUMNS, NSP_COLUMNS, cosines, mlm_figures, nsp_figures
from bertport.measure.quality.model import HIDDEN, LOGITS, NSP_LOGITS
from bertport.measure.quality.results import Hidden, MaskedTokens, Movement, NextSentence
from bertport.measure.statistics import Difference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bertport.measure.quality.model import Outputs
    from bertport.measure.quality.samples import Sample
    from bertport.measure.statistics import Estimate, Settings

    Floats = NDArray[np.float64]

__all__ = ["Figures", "Tally"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of one sample."""

    text: int
    """Number of the text that the sample is from."""
    mlm: Floats | None
    """As `mlm_figures` gives them. Shape: (masked, columns)"""
    nsp: Floats | None
    """As `nsp_figures` gives them. Shape: (1, columns)"""
    hidden: Floats | None
    """Cosine of each token's hidden states. Shape: (tokens,)"""


class Tally:
    """Sums per text of one comparison.

    Args:
        positive: The column of the NSP logits that says that B follows A.
    """

    def __init__(self, positive: int) -> None:
        self.positive = positive
        self.measured = 0
        self._mlm: dict[int, Floats] = {}
        self._nsp: dict[int, Floats] = {}
        self._cosines: dict[int, Floats] = {}
        self._worst_cosine = math.inf
        self._largest_change = 0.0
        self._discordant = [0, 0]

    def figures(self, sample: Sample, reference: Outputs, candidate: Outputs) -> Figures:
        """Compute the figures of one sample's outputs; changes nothing, so that several threads may do it at once."""
        mlm = nsp = hidden = None
        if LOGITS in reference:
            mlm = mlm_figures(reference[LOGITS], candidate[LOGITS], sample.labels)
        if NSP_LOGITS in reference and sample.next_sentence is not None:
            labels = np.array([sample.next_sentence])
            nsp = nsp_figures(reference[NSP_LOGITS], candidate[NSP_LOGITS], labels, positive=self.positive)
        if HIDDEN in reference:
            hidden = cosines(reference[HIDDEN][0], candidate[HIDDEN][0])
        return Figures(text=sample.text, mlm=mlm, nsp=nsp, hidden=hidden)

    def add(self, figures: Figures) -> None:
        """Add one sample's figures."""
        self.measured += 1
        if figures.mlm is not None:
            _sum(self._mlm, figures.text, figures.mlm)
        if figures.nsp is not None:
            _sum(self._nsp, figures.text, figures.nsp)
            row = dict(zip(NSP_COLUMNS, figures.nsp[0], strict=True))
            self._largest_change = max(self._largest_change, float(row["change"]))
            self._discordant[0] += int(row["right_candidate"] > row["right_reference"])
            self._discordant[1] += int(row["right_candidate"] < row["right_reference"])
        if figures.hidden is not None:
            _sum(self._cosines, figures.text, figures.hidden[:, None])
            self._worst_cosine = min(self._worst_cosine, float(figures.hidden.min()))

    def per_text(self) -> dict[str, list[dict[str, float]]]:
        """Return the sums of each text by head: what the bootstrap resamples. `count` is the number of positions."""
        heads = (
            ("mlm", self._mlm, MLM_COLUMNS),
            ("nsp", self._nsp, NSP_COLUMNS),
            ("hidden", self._cosines, ("cosine",)),
        )
        return {
            head: [
                {
                    "text": text,
                    **{
                        name: float(f"{value:.6g}") for name, value in zip((*columns, "count"), sums[text], strict=True)
                    },
                }
                for text in sorted(sums)
            ]
            for head, sums, columns in heads
        }

    def masked_tokens(self, settings: Settings) -> MaskedTokens | None:
        """Return the figures of the MLM head."""
        if not self._mlm:
            return None
        sums, totals = _columns(self._mlm, MLM_COLUMNS)

        def perplexity(name: str) -> Estimate:
            return statistics.bootstrap_sums(
                np.stack([sums[name], totals], axis=1),
                lambda column: np.exp(column[0] / column[1]),
                settings,
                count=round(float(totals.sum())),
            )

        return MaskedTokens(
            top1_agreement=statistics.share(sums["top1"], totals, settings),
            top5_agreement=statistics.share(sums["top5"], totals, settings),
            kl=statistics.ratio(sums["kl"], totals, settings),
            nll_reference=statistics.ratio(sums["nll_reference"], totals, settings),
            nll_candidate=statistics.ratio(sums["nll_candidate"], totals, settings),
            nll_difference=statistics.paired_difference(sums["nll_candidate"], sums["nll_reference"], totals, settings),
            perplexity_reference=perplexity("nll_reference"),
            perplexity_candidate=perplexity("nll_candidate"),
            perplexity_difference=statistics.bootstrap_sums(
                np.stack([sums["nll_candidate"], sums["nll_reference"], totals], axis=1),
                lambda column: np.exp(column[0] / column[2]) - np.exp(column[1] / column[2]),
                settings,
                count=round(float(totals.sum())),
            ),
            accuracy_reference=statistics.share(sums["right_reference"], totals, settings),
            accuracy_candidate=statistics.share(sums["right_candidate"], totals, settings),
            accuracy_difference=statistics.paired_difference(
                sums["right_candidate"], sums["right_reference"], totals, settings
            ),
            top5_accuracy_reference=statistics.share(sums["among5_reference"], totals, settings),
            top5_accuracy_candidate=statistics.share(sums["among5_candidate"], totals, settings),
            top5_accuracy_difference=statistics.paired_difference(
                sums["among5_candidate"], sums["among5_reference"], totals, settings
            ),
        )

    def next_sentence(self, settings: Settings) -> NextSentence | None:
        """Return the figures of the NSP head."""
        if not self._nsp:
            return None
        sums, totals = _columns(self._nsp, NSP_COLUMNS)
        difference = statistics.ratio(sums["right_candidate"] - sums["right_reference"], totals, settings)
        return NextSentence(
            flips=statistics.share(sums["flip"], totals, settings),
            largest_change=self._largest_change,
            mean_change=statistics.ratio(sums["change"], totals, settings),
            kl=statistics.ratio(sums["kl"], totals, settings),
            accuracy_reference=statistics.share(sums["right_reference"], totals, settings),
            accuracy_candidate=statistics.share(sums["right_candidate"], totals, settings),
            accuracy_difference=Difference(
                difference=difference, p_value=statistics.mcnemar(*self._discordant), test="mcnemar"
            ),
        )

    def hidden(self, settings: Settings) -> Hidden | None:
        """Return the figures of the hidden states."""
        if not self._cosines:
            return None
        sums, totals = _columns(self._cosines, ("cosine",))
        return Hidden(cosine=statistics.ratio(sums["cosine"], totals, settings), worst=self._worst_cosine)

    def movement(self, settings: Settings) -> Movement:
        """Return the figures that make sense for one model against itself."""
        mlm, nsp = self.masked_tokens(settings), self.next_sentence(settings)
        return Movement(
            top1_agreement=mlm.top1_agreement if mlm else None,
            kl=mlm.kl if mlm else None,
            nsp_flips=nsp.flips if nsp else None,
            nsp_largest_change=nsp.largest_change if nsp else None,
            worst_cosine=self._worst_cosine if self._cosines else None,
        )


def _sum(sums: dict[int, Floats], text: int, rows: Floats) -> None:
    """Add rows of figures, and their number as a last column, to a text's sums."""
    added = np.append(rows.sum(axis=0), len(rows))
    sums[text] = sums[text] + added if text in sums else added


def _columns(sums: dict[int, Floats], names: tuple[str, ...]) -> tuple[dict[str, Floats], Floats]:
    table = np.stack([sums[text] for text in sorted(sums)])  # sorted: the resamples must not depend on the order
    return {name: table[:, index] for index, name in enumerate(names)}, table[:, -1]
