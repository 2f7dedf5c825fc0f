"""Formatting of the report's numbers: one function for each kind of figure, whatever shows it."""

from __future__ import annotations

import math
from typing import Protocol

__all__ = [
    "MB",
    "MIB",
    "NONE",
    "Interval",
    "capitalized",
    "divergence",
    "figure",
    "interval",
    "mebibytes",
    "megabytes",
    "milliseconds",
    "number",
    "percent",
    "sentence",
]

MB, MIB = 1e6, 2**20
NONE = "–"  # noqa: RUF001 — an en dash, for a cell without a figure
STEPS = ((100, ",.0f"), (10, ".1f"), (1, ".2f"), (0.1, ".3f"))
"""Format that gives three significant digits, by the least size that it is for, the largest first."""
LEAST = 1e-4
"""A divergence below which five decimals show next to nothing."""


class Interval(Protocol):
    """A figure with its interval: an `Estimate` or a `Judgement`. An end that is not finite is not known."""

    @property
    def value(self) -> float:
        """The figure."""

    @property
    def low(self) -> float:
        """Lower end of the interval."""

    @property
    def high(self) -> float:
        """Upper end of the interval."""


def number(value: float, form: str = "") -> str:
    """Return a number with three significant digits, or with whole ones from 100 on, or as the format says."""
    if not form:
        form = next((fitting for least, fitting in STEPS if abs(value) >= least), ".3g")
    return f"{value:{form}}"


def interval(estimate: Interval | None, form: str = "", *, factor: float = 1.0, unit: str = "") -> str:
    """Return an estimate times a factor with its interval, or a dash where there is none.

    Args:
        estimate: The figure.
        form: A format; three significant digits without one.
        factor: From the report's unit to the one that is shown.
        unit: Written after the figure, but not after the ends of its interval.
    """
    if estimate is None or not math.isfinite(estimate.value):
        return NONE
    value, low, high = (factor * end for end in (estimate.value, estimate.low, estimate.high))
    text = f"{number(value, form)}{unit}"
    if not (math.isfinite(low) and math.isfinite(high)):
        return text
    return f"{text} ({number(low, form)} to {number(high, form)})"


def percent(estimate: Interval | None, form: str = ".1f") -> str:
    """Return a share in percent with its interval."""
    return interval(estimate, form, factor=100, unit="%")


def milliseconds(estimate: Interval | None) -> str:
    """Return seconds in milliseconds with their interval."""
    return interval(estimate, factor=1e3)


def divergence(estimate: Interval) -> str:
    """Return a divergence with five decimals, or with two digits where nothing of it would be left."""
    return interval(estimate, ".5f" if math.isfinite(estimate.value) and estimate.value >= LEAST else ".2g")


def figure(estimate: Interval | None, form: str) -> str:
    """Return an estimate by a format, that of a percentage included."""
    return percent(estimate, f"{form[:-1]}f") if form.endswith("%") else interval(estimate, form)


def mebibytes(size: float) -> str:
    """Return a number of bytes of memory in MiB; a dash for 0, where the operating system does not say."""
    return f"{size / MIB:,.0f}" if size else NONE


def megabytes(size: float | None) -> str:
    """Return a number of bytes in MB."""
    return f"{size / MB:,.1f}" if size else NONE


def capitalized(text: str) -> str:
    """Return a text that begins with a capital letter."""
    return text[:1].upper() + text[1:]


def sentence(text: str) -> str:
    """Return a text that begins with a capital letter and ends with a full stop."""
    return capitalized(text).rstrip(".") + "."
