"""How far a graph's outputs are from fp32's, head by head, in torch: what training lowers and what decides about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertport.measure.quality.heads import HEADS, HIDDEN, measured_rows
from bertport.measure.quality.task_rows import SCORES
from bertport.runtime.heads import (
    MLM,
    MULTI_LABEL,
    MULTIPLE_CHOICE,
    NSP,
    QUESTION_ANSWERING,
    RTD,
    SEQUENCE_CLASSIFICATION,
    SOP,
    TOKEN_CLASSIFICATION,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

    from bertport.measure.quality.rows import Head
    from bertport.measure.quality.samples import Sample
    from bertport.runtime.bundle.manifest import HeadEntry

    Distance = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

__all__ = ["Distances"]

SMALLEST = 1e-12
"""Squared length below which a vector counts as this long: a relative error must not divide by 0."""


def _of_classes(reference: torch.Tensor, candidate: torch.Tensor, real: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    """Return KL(reference || candidate) over the last axis, in nats."""
    expected, found = reference.log_softmax(-1), candidate.log_softmax(-1)
    return (expected.exp() * (expected - found)).sum(-1)


def _of_labels(reference: torch.Tensor, candidate: torch.Tensor, real: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    """Return the KL of each value by itself, as a yes or no, summed over the last axis."""
    import torch

    sides = [
        torch.stack([values, torch.zeros_like(values)], dim=-1).log_softmax(-1) for values in (reference, candidate)
    ]
    return (sides[0].exp() * (sides[0] - sides[1])).sum((-1, -2))


def _of_tokens(inner: Distance) -> Distance:
    """Return a distance of each token that is no padding."""

    def run(reference: torch.Tensor, candidate: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        return inner(reference[real], candidate[real], real)

    return run


def _of_spans(reference: torch.Tensor, candidate: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Return the KL over a text's tokens, summed over where an answer starts and where it ends."""
    sides = [values.masked_fill(~real[..., None], -1e9).transpose(1, 2) for values in (reference, candidate)]
    return _of_classes(sides[0], sides[1], real).sum(-1)


def _of_values(reference: torch.Tensor, candidate: torch.Tensor, real: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    """Return the squared error, summed over the last axis."""
    return (reference - candidate).square().sum(-1)


def _of_vectors(reference: torch.Tensor, candidate: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Return the squared error as a share of the reference's squared length."""
    return _of_values(reference, candidate, real) / reference.square().sum(-1).clamp_min(SMALLEST)


DISTANCES: dict[str, Distance] = {
    MLM: _of_classes,
    NSP: _of_classes,
    SOP: _of_classes,
    RTD: _of_tokens(_of_labels),
    SEQUENCE_CLASSIFICATION: _of_classes,
    SCORES: _of_values,
    TOKEN_CLASSIFICATION: _of_tokens(_of_classes),
    QUESTION_ANSWERING: _of_spans,
    MULTIPLE_CHOICE: _of_values,
    HIDDEN: _of_tokens(_of_vectors),
}
"""By row of the table of measured heads; any other one's outputs are vectors, a row each."""


class Distances:
    """The distances of one bundle's heads, and of its hidden states.

    Args:
        heads: What its manifest says of its heads, by name.
        outputs: Names of its serving graph's outputs.
    """

    def __init__(self, heads: Mapping[str, HeadEntry], outputs: Sequence[str]) -> None:
        names = dict.fromkeys((*measured_rows(heads), HIDDEN))
        self._rows = {name: HEADS[name] for name in names if HEADS[name].output in outputs}
        self._several = {
            name
            for name, row in self._rows.items()
            if (head := heads.get(row.key)) and head.problem_type == MULTI_LABEL
        }

    def outputs(self, samples: Sequence[Sample]) -> tuple[str, ...]:
        """Return the names of the outputs that samples of one kind are compared by."""
        return tuple(dict.fromkeys(row.output for row in self._asked(samples).values()))

    def between(
        self,
        reference: Mapping[str, torch.Tensor],
        candidate: Mapping[str, torch.Tensor],
        samples: Sequence[Sample],
        real: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Return the distance of each position, text or token that samples of one kind ask for, by row.

        Args:
            reference: fp32's outputs, by name.
            candidate: The other's.
            samples: The samples that they are of.
            real: What is no padding. Shape: (rows, length)
        """
        return {
            name: self._of(name)(reference[row.output], candidate[row.output], real)
            for name, row in self._asked(samples).items()
        }

    def _of(self, name: str) -> Distance:
        return _of_labels if name in self._several else DISTANCES.get(name, _of_vectors)

    def _asked(self, samples: Sequence[Sample]) -> dict[str, Head]:
        return {name: row for name, row in self._rows.items() if any(map(row.asks, samples))}
