"""Whether what a graph gave are numbers at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bertport.runtime.top_k import TopKResult

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["finite", "first_not_finite"]


def finite(value: object) -> bool:
    """Return whether an array, or the likeliest words, are without NaN and infinity; True for what is no array."""
    if isinstance(value, TopKResult):
        value = value.log_probabilities
    return not isinstance(value, np.ndarray) or value.dtype.kind not in "fc" or bool(np.isfinite(value).all())


def first_not_finite(values: Mapping[str, object]) -> str | None:
    """Return the name of the first output that has NaN or infinity; None where all are finite."""
    return next((name for name, value in values.items() if not finite(value)), None)
