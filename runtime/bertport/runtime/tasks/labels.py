"""Labels: from the logits of a head that classifies to scores under the labels that the bundle records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bertport.runtime.errors import BundleError, MissingHeadError, UnknownNameError
from bertport.runtime.heads import HEADS, MULTI_LABEL, REGRESSION

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from bertport.runtime.bundle.manifest import HeadEntry, Manifest
    from bertport.runtime.text.encoder import Encoded

__all__ = [
    "ACTIVATIONS",
    "activation_named",
    "activation_of",
    "columns",
    "labelled",
    "logits_alone",
    "probabilities",
    "sigmoid",
]


def labelled(head: str, manifest: Manifest) -> tuple[HeadEntry, tuple[str, ...]]:
    """Return a bundle's entry of a head, and its label per column.

    Raises:
        MissingHeadError: for a bundle that does not record the labels.
    """
    entry = manifest.heads.get(head)
    labels = entry.labels if entry else None
    if entry is None or labels is None:
        raise MissingHeadError(
            f"{manifest.name} does not record what its {HEADS[head].title} labels mean: export it again"
        )
    return entry, labels


def columns(logits: NDArray[np.float32], labels: tuple[str, ...], manifest: Manifest) -> NDArray[np.float32]:
    """Return logits `[…, labels]` as they are.

    Raises:
        BundleError: where they have not a column for each label that the bundle records.
    """
    if logits.shape[-1] != len(labels):
        raise BundleError(
            f"manifest.json of {manifest.name} gives {len(labels):,} labels to a head of {logits.shape[-1]:,} columns: "
            "the bundle is damaged; export again"
        )
    return logits


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the softmax over the last axis; shapes are equal."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: NDArray[np.float32] = weights / weights.sum(axis=-1, keepdims=True)
    return shares


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logistic function of each element, without overflow; shapes are equal."""
    small = np.exp(-np.abs(logits))
    shares: NDArray[np.float32] = np.where(logits >= 0, 1, small) / (1 + small)
    return shares.astype(logits.dtype)


ACTIVATIONS: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "softmax": probabilities,
    "sigmoid": sigmoid,
    "none": lambda logits: logits,
}
"""Activations, which turn logits into scores, by the names that transformers has for them."""


def activation_named(name: object) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Return the function that makes scores of logits, by its name in `ACTIVATIONS`.

    Raises:
        UnknownNameError: for an unknown function.
    """
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise UnknownNameError("function_to_apply", name, ACTIVATIONS)
    return ACTIVATIONS[name]


def activation_of(entry: HeadEntry, count: int) -> str:
    """Return which of `ACTIVATIONS` transformers' pipeline takes for a head of so many labels, by its problem type."""
    if entry.problem_type == REGRESSION:
        return "none"
    return "sigmoid" if entry.problem_type == MULTI_LABEL or count == 1 else "softmax"


def logits_alone(*_: object) -> Callable[[NDArray[np.float32], Encoded], NDArray[np.float32]]:
    """Return the `finish` of a task that makes an answer of several rows' logits: it gives those of a row."""
    return lambda logits, _: logits
