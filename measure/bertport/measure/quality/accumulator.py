"""Accumulator of fidelity metrics: one comparison's sums per text and head, and the figures drawn from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bertport.measure.quality.heads import HEADS
from bertport.measure.quality.sums import HeadSums

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from bertport.measure.quality.model import Outputs
    from bertport.measure.quality.results import HeadFigures, Movement
    from bertport.measure.quality.samples import Sample
    from bertport.measure.statistics import Settings
    from bertport.runtime.bundle.manifest import HeadEntry

    Floats = NDArray[np.float64]

__all__ = ["Accumulator", "SampleMetrics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleMetrics:
    """The metrics of one sample."""

    text: int
    """Number of the text that the sample is from."""
    rows: dict[str, Floats]
    """Metrics by head, of the heads that were compared. Shape: (positions, columns)"""
    kept: dict[str, NDArray[np.floating]] = field(default_factory=dict)
    """Rows kept for a head's figures beside the metrics, by head; only of heads that keep some."""


class Accumulator:
    """Sums per text and head of one comparison.

    Args:
        heads: What the manifest says of its heads, by name.
    """

    def __init__(self, heads: Mapping[str, HeadEntry]) -> None:
        self.measured = 0
        self._heads = heads
        self._rows = {name: head for name, head in HEADS.items() if head.applies(heads.get(head.key))}
        self._sums = {name: HeadSums(head.columns, _labels(heads.get(head.key))) for name, head in HEADS.items()}

    def compare(self, sample: Sample, reference: Outputs, candidate: Outputs) -> SampleMetrics:
        """Compute the metrics of one sample's outputs; changes nothing, so that several threads may do it at once."""
        rows, kept = {}, {}
        for name, head in self._rows.items():
            if head.output in reference and head.asks(sample):
                compared = reference[head.output], candidate[head.output], sample, self._heads.get(head.key)
                rows[name] = head.compare(*compared)
                if head.keep:
                    kept[name] = head.keep(*compared)
        return SampleMetrics(text=sample.text, rows=rows, kept=kept)

    def add(self, metrics: SampleMetrics) -> None:
        """Add one sample's metrics."""
        self.measured += 1
        for name, rows in metrics.rows.items():
            self._sums[name].add(metrics.text, rows)
        for name, kept in metrics.kept.items():
            self._sums[name].keep(metrics.text, kept)

    def per_text(self) -> dict[str, list[dict[str, float]]]:
        """Return the sums of each text by head: what the bootstrap resamples. `count` is the number of positions."""
        return {name: sums.per_text(without=HEADS[name].unrecorded) for name, sums in self._sums.items()}

    def heads(self, settings: Settings) -> dict[str, HeadFigures | None]:
        """Return the figures of every head, in the order of the table; None for one that was not compared."""
        return {name: HEADS[name].summarize(sums, settings) if sums else None for name, sums in self._sums.items()}

    def movement(self, settings: Settings) -> Movement:
        """Return the figures that make sense for one model against itself, of all heads side by side."""
        measured = self.heads(settings)
        return {
            moved.name: figures.read(moved.key) if figures else None
            for name, figures in measured.items()
            for moved in HEADS[name].moved
        }


def _labels(head: HeadEntry | None) -> tuple[str, ...]:
    return (head.labels if head else None) or ()
