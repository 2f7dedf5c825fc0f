"""Results of measuring fidelity: frozen values that turn into JSON."""

# No `from __future__ import annotations`: reports are read by these annotations.
import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bertport.measure.statistics import Difference, Estimate
from bertport.runtime.bundle.manifest import HeadEntry

Value = Estimate | Difference | float
"""One figure of a head."""
Movement = dict[str, Value | None]
"""Figures by the names that the table of heads gives; None for a head that the graph lacks."""

__all__ = [
    "BatchInvariance",
    "Conventions",
    "Fidelity",
    "HeadFigures",
    "Hidden",
    "Judgements",
    "MaskedTokens",
    "Movement",
    "Value",
    "finite",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conventions:
    """Properties of a model that measuring depends on."""

    max_length: int = 512
    """Longest input that it takes, in tokens."""
    pad: int = 0
    """Id of the padding token."""
    heads: Mapping[str, HeadEntry] = field(default_factory=dict)
    """Manifest entries of its heads, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadFigures(ABC):
    """The figures of one head: what a row of the table of heads draws from its sums."""

    @property
    @abstractmethod
    def distance(self) -> float:
        """Distance of the candidate from the reference: 0 where they answer alike."""

    def read(self, key: str) -> Value:
        """Return the figure of a key."""
        value: Value = getattr(self, key)
        return value

    @property
    def labelled(self) -> Mapping[str, Estimate]:
        """The agreement of a head that gives labels by each of them; empty where it gives none."""
        return {}

    @property
    def doubts(self) -> tuple[str, ...]:
        """Sentences on why the figures say less than they seem to; none where they say what they seem to."""
        return ()

    def estimate(self, key: str) -> Estimate:
        """Return the figure of a key that has an interval."""
        value = self.read(key)
        if not isinstance(value, Estimate):
            raise TypeError(key)
        return value

    def difference(self, key: str) -> Difference:
        """Return the figure of a key that is a paired difference."""
        value = self.read(key)
        if not isinstance(value, Difference):
            raise TypeError(key)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedTokens(HeadFigures):
    """The MLM head at masked positions, each text as if alone in its batch."""

    top1_agreement: Estimate
    """Share of positions where both models have the same best token."""
    top5_agreement: Estimate
    """Share of the five best tokens that both models have, mean over positions."""
    kl: Estimate
    """KL(reference || candidate) over the whole vocabulary, in nats, mean over positions."""
    nll_reference: Estimate
    """-log p of the original token, in nats, mean over positions."""
    nll_candidate: Estimate
    """The same of the candidate."""
    nll_difference: Difference
    """Candidate minus reference, paired: above 0 the candidate is worse."""
    perplexity_reference: Estimate
    """exp(nll_reference): the pseudo-perplexity over these positions."""
    perplexity_candidate: Estimate
    """exp(nll_candidate)."""
    perplexity_difference: Estimate
    """Their difference, candidate minus reference."""
    accuracy_reference: Estimate
    """Share of positions where the reference's best token is the original one."""
    accuracy_candidate: Estimate
    """The same of the candidate."""
    accuracy_difference: Difference
    """Candidate minus reference, paired: below 0 the candidate is worse."""
    top5_accuracy_reference: Estimate
    """Share of positions where the original token is among the reference's five best."""
    top5_accuracy_candidate: Estimate
    """The same of the candidate."""
    top5_accuracy_difference: Difference
    """Candidate minus reference, paired."""

    @property
    def distance(self) -> float:
        """KL, in nats."""
        return self.kl.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgements(HeadFigures):
    """A head that answers yes or no: of pairs, half of which are so, or of tokens."""

    flips: Estimate
    """Share of answers in which the two models differ."""
    largest_change: float
    """Largest absolute difference of the probability of yes."""
    mean_change: Estimate
    """Mean of the same."""
    kl: Estimate
    """KL(reference || candidate) in nats, mean over answers."""
    accuracy_reference: Estimate
    """Share of answers that the reference has right."""
    accuracy_candidate: Estimate
    """The same of the candidate."""
    accuracy_difference: Difference
    """Candidate minus reference: with McNemar's exact test of pairs, paired over texts of tokens."""

    @property
    def distance(self) -> float:
        """KL, in nats."""
        return self.kl.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden(HeadFigures):
    """The last hidden state, token by token."""

    cosine: Estimate
    """Cosine of the two models' vectors, mean over tokens."""
    worst: float
    """The smallest cosine of any token."""

    @property
    def distance(self) -> float:
        """1 - cosine."""
        return 1 - self.cosine.value


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchInvariance:
    """Whether an answer depends on what else is in the batch."""

    texts: int
    """Texts and pairs that were run."""
    rows: int
    """Rows of the batch with mates."""
    batch_mates: Movement
    """Alone against together with other texts of the same length, without padding: by the names that the table of
    heads gives, None for a head that the graph lacks."""
    padding: Movement | None
    """Alone against padded to twice the length; None where no text leaves room for padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """Everything measured of a candidate against a reference."""

    samples: int
    """Inputs that were run, pairs included."""
    seed: int
    """Seed of the resamples and of the choice of batch mates."""
    resamples: int
    """Bootstrap resamples behind each interval."""
    confidence: float
    """Confidence level of each interval."""
    heads: dict[str, HeadFigures | None]
    """Figures by name of the head, in the order of the table of heads; None where a graph lacks it or no sample asks
    for it."""
    stability: BatchInvariance | None
    """Batch invariance of the candidate; None when not asked for."""

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values: null stands for what is not a finite number."""
        values = dataclasses.asdict(self)
        heads, stability = values.pop("heads"), values.pop("stability")
        return {key: finite(value) for key, value in {**values, **heads, "stability": stability}.items()}


def finite(value: object) -> object:
    """Return a JSON value with null for every number that is not finite, which JSON has no way to write."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: finite(item) for key, item in value.items()}
        case list() | tuple():
            return [finite(item) for item in value]
    return value
