"""Figures on labelled data as a manifest records them: an open place, of which what is understood is read."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bertport.runtime.bundle.manifest import Manifest

__all__ = ["HEADINGS", "LabelledMetric", "labelled_metrics", "number"]

HEADINGS = ("variant", "labelled data", "metric", "fp32", "variant", "difference, 95% interval", "bound")
"""Headings of a table of such figures."""
OF_ONE_LABEL = "f1"
"""The metric that is of one label, which the record calls positive."""
LARGEST = sys.float_info.max
"""The largest float; JSON has integers beyond it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledMetric:
    """One metric of a variant beside fp32's, on the same labelled examples."""

    variant: str
    """Name of the variant."""
    data: str
    """Name of the data."""
    examples: int
    """Number of its examples."""
    metric: str
    """Name of the metric."""
    label: str | None = None
    """The label that it is of; None of a metric of all labels, and where it is not recorded."""
    reference: float | None
    """fp32's; None where it is not defined."""
    value: float | None
    """The variant's."""
    difference: tuple[float, float, float] | None
    """The variant's minus fp32's with the ends of its paired 95% interval."""
    bound: float | None
    """Largest drop that is allowed; None where it was not judged."""
    verdict: str | None
    """Verdict of the interval on the bound: `held`, `broken` or `undecided`."""

    def cells(self) -> tuple[str, ...]:
        """Return the row of a table with the headings `HEADINGS`."""
        difference = "-"
        if self.difference:
            value, low, high = self.difference
            difference = f"{value:+.4f} ({low:+.4f} to {high:+.4f})"
        judged = "not judged" if self.bound is None else f"drop at most {self.bound:g}: {self.verdict or 'not known'}"
        return (
            self.variant,
            f"{self.data} ({self.examples:,} examples)",
            self.metric if self.label is None else f"{self.metric} of {self.label}",
            "-" if self.reference is None else f"{self.reference:.4f}",
            "-" if self.value is None else f"{self.value:.4f}",
            difference,
            judged,
        )


def labelled_metrics(manifest: Manifest) -> tuple[LabelledMetric, ...]:
    """Return the metrics of all variants on labelled data; entries of another form are passed over."""
    return tuple(
        metric
        for name, variant in manifest.variants.items()
        for data, record in variant.task_metrics.items()
        if isinstance(record, Mapping)
        for metric in _of_record(name, data, record)
    )


def _of_record(variant: str, data: str, record: Mapping[str, Any]) -> Iterator[LabelledMetric]:
    metrics, examples, positive = record.get("metrics"), record.get("examples"), record.get("positive")
    if not isinstance(metrics, Mapping) or not isinstance(examples, int):
        return
    for name, figures in metrics.items():
        if not isinstance(figures, Mapping):
            continue
        ends = [number(figures.get("difference"), key) for key in ("value", "low", "high")]
        known = [end for end in ends if end is not None]
        verdict = figures.get("verdict")
        yield LabelledMetric(
            variant=variant,
            data=data,
            examples=examples,
            metric=name,
            label=positive if name == OF_ONE_LABEL and isinstance(positive, str) else None,
            reference=number(figures.get("reference"), "value"),
            value=number(figures.get("candidate"), "value"),
            difference=(known[0], known[1], known[2]) if len(known) == len(ends) else None,
            bound=number(figures, "drop_bound"),
            verdict=verdict if isinstance(verdict, str) else None,
        )


def number(figure: object, key: str) -> float | None:
    """Return a number of a figure; None where there is none, or none that a float can hold."""
    value = figure.get(key) if isinstance(figure, Mapping) else None
    # Of NaN no comparison holds.
    return float(value) if isinstance(value, int | float) and abs(value) <= LARGEST else None
