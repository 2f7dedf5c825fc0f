"""Rows of the table of heads: what is said of each head, of its figures, and of what a budget can bound of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertport.runtime.heads import decoded_outputs

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from bertport.measure.quality.results import HeadFigures
    from bertport.measure.quality.samples import Sample
    from bertport.measure.quality.sums import HeadSums
    from bertport.measure.statistics import Settings
    from bertport.runtime.bundle.manifest import HeadEntry

    Floats = NDArray[np.float64]
    Logits = NDArray[np.floating]

__all__ = ["Column", "Figure", "Head", "Limit", "Moved", "Test"]


def always(_: HeadEntry | None) -> bool:
    """Return that a head is measured by a row, whatever the manifest says of it."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of a head, as a terminal shows it."""

    key: str
    """Its key among the head's figures, of an `Estimate` or a number."""
    title: str
    """Name for people."""
    form: str
    """Format specification of its value."""
    unit: str = ""
    """Unit of its count; empty for a number without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One figure of a head, as a report shows it."""

    key: str
    """Its key among the head's figures, of an `Estimate` or a number."""
    title: str
    """Name for people."""
    heading: str
    """Heading of its column in the head's table."""
    form: str
    """Format specification of its value; a percentage for a share."""
    labelled: bool = False
    """Whether it is of the right answers, and not of the distance from the reference: where the weights know nothing
    it means nothing, and the reference has one too."""
    divergence: bool = False
    """Whether it is a divergence: a small one is printed with two significant digits, not with five decimals."""
    headline: bool = False
    """Whether it stands for the head among the figures of speed: in the first table, and plotted against latency."""
    meaning: str = ""
    """A sentence on it for the first table."""
    cost: str = ""
    """Words of the summary after its value, for a variant that is recommended; empty for a figure left out of the
    summary."""
    more_is_better: bool | None = None
    """Whether a larger value is better; None where reports are not compared by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """One labelled metric of a head, by which the candidate is tested against the reference."""

    key: str
    """Key of its `Difference` among the head's figures."""
    reference: str
    """Key of the reference's figure."""
    candidate: str
    """Key of the candidate's figure."""
    title: str
    """Name of the metric for people."""
    form: str
    """Format specification of the difference."""
    unit: str
    """Unit of its count."""
    more_is_better: bool
    """Whether the candidate is better where the difference is above 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """One figure by which batch invariance is measured: a model's answers alone against those in a batch."""

    key: str
    """Its key among the head's figures."""
    name: str
    """Its key in the results of batch invariance, where the figures of all heads stand side by side."""
    title: str = ""
    """Name in a terminal; empty for a figure that is not shown there."""
    unit: str = ""
    """Unit of its columns in a report; empty for what it does not show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One figure that a budget can bound."""

    name: str
    """Word that users write."""
    meaning: str
    """Name for people, for the middle of a sentence."""
    path: tuple[str, str]
    """Path of its figure in a fidelity: the name of the head, and the figure's key."""
    at_least: bool
    """Whether the bound is a lower one."""
    form: str
    """Format specification of its bound."""
    fine: str
    """Finer format specification, of its value and bound in verdicts and refusals."""
    counts: bool
    """Whether it is a share of answers that change or stay, and not a distance."""
    unit: str
    """Unit of its count."""
    default: float | None = None
    """Its bound in the default budget; None for none."""
    of_noise: bool = False
    """Whether it grows with the noise of rounding as shares of answers do, and not with the square of it as KL does."""
    default_without_heads: float | None = None
    """Its bound in the budget of a bundle that has nothing of what the default budget bounds."""

    def holds(self, value: float, bound: float) -> bool:
        """Return whether a value keeps to a bound, itself included; what is not a number keeps to none."""
        return value >= bound if self.at_least else value <= bound

    def asked(self, bound: float, form: str | None = None) -> str:
        """Return a bound in words: "at least 98.0%"."""
        return f"at {'least' if self.at_least else 'most'} {bound:{form or self.form}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One row: how a head's outputs are compared, and what follows from it."""

    name: str
    """Name in results: the head's key in a manifest, but where a head is measured in one of two ways."""
    head: str = ""
    """Key of the head in a manifest; empty for the name."""
    applies: Callable[[HeadEntry | None], bool] = always
    """Whether a head is measured by this row, from what the manifest says of it."""
    output: str
    """Name of the graph's output."""
    samples: frozenset[str]
    """Kinds of samples that it is measured on: `samples.TEXTS`, `samples.PAIRS` and the like."""
    columns: tuple[str, ...]
    """Names of the metrics that `compare` computes."""
    unrecorded: frozenset[str] = frozenset()
    """Columns that the sums per text in a report leave out."""
    compare: Callable[[Logits, Logits, Sample, HeadEntry | None], Floats]
    """Returns the rows of metrics for the reference's and the candidate's output for a sample, and the head's manifest
    entry. Shape of the outputs: (masked, classes) where serving graphs decode positions, or else (1, ...); of the
    result: (rows, columns)."""
    keep: Callable[[Logits, Logits, Sample, HeadEntry | None], NDArray[np.floating]] | None = None
    """Returns the rows kept for `summarize`, from the same arguments; None where sums per text are enough. Shape of the
    result: (rows, …), alike for all samples but for the rows."""
    summarize: Callable[[HeadSums, Settings], HeadFigures]
    """Returns the figures of the head, from the sums of the metrics per text and the kept rows."""
    results: type[HeadFigures]
    """Class of the figures that `summarize` returns."""
    figures: tuple[Figure, ...]
    """Figures that a terminal shows, in order."""
    title: str
    """Title of its table in a report."""
    caption: str = ""
    """Guide to reading that table; `{positions}` and `{texts}` stand for the numbers of those that were measured."""
    meaning: str = ""
    """Description of the head and of what its budget bounds, for readers who meet it in a report first."""
    reported: tuple[Column, ...]
    """Columns of its table in a report, in order."""
    tests: tuple[Test, ...] = ()
    """The labelled metrics, in order."""
    moved: tuple[Moved, ...] = ()
    """Figures of the head that are kept where batch invariance is measured."""
    limits: tuple[Limit, ...] = ()
    """Figures that a budget can bound."""

    @property
    def key(self) -> str:
        """Key of the head in a manifest."""
        return self.head or self.name

    def asks(self, sample: Sample) -> bool:
        """Return whether the head is measured on a sample."""
        decoded = decoded_outputs([self.output])
        return sample.kind in self.samples and (not decoded or len(sample.positions) > 0)
