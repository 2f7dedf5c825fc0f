"""The figures of heads that are trained for a task: classes, scores, labels of tokens, spans, choices and vectors."""

# No `from __future__ import annotations`: reports are read by these annotations.
from collections.abc import Mapping
from dataclasses import dataclass

from bertport.measure.quality.results import HeadFigures
from bertport.measure.statistics import Estimate, Number

__all__ = ["Choices", "Classes", "Scores", "Spans", "TokenLabels", "Vectors"]

HARDLY = 0.1
"""Lead of the best answer below which a head hardly decides: heads with random weights have less, and trained ones, of
small encoders too, many times that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes(HeadFigures):
    """A head that gives a text, or each token of one, a label, or the labels that are likelier than not."""

    agreement: Estimate
    """Share of inputs that both models give the same label; of several labels, the same set of them."""
    by_label: Mapping[str, Estimate]
    """By label, of the inputs that the reference gives it, the share that the candidate gives it too: the labels that
    the reference gives most often."""
    kl: Estimate
    """KL(reference || candidate) over the labels, in nats, mean over inputs; of several labels their sum."""
    mean_change: Estimate
    """Largest absolute difference of a label's probability, mean over inputs."""
    largest_change: float
    """The largest of them."""
    lead: Estimate
    """By how much the probability of the reference's best label exceeds the second best, mean over inputs; of several
    labels, twice the distance of the least certain one from one half. An untrained head hardly decides."""

    @property
    def distance(self) -> float:
        """KL, in nats."""
        return self.kl.value

    @property
    def labelled(self) -> Mapping[str, Estimate]:
        """The agreement by label."""
        return self.by_label

    @property
    def doubts(self) -> tuple[str, ...]:
        """Warnings about a head that hardly decides, or that gives everything one label."""
        one = [
            f"fp32 gives no other label than {label!r} here, so that nothing is known of others"
            for label in self.by_label
        ]
        return (*_hardly_decided(self.lead), *(one if len(one) == 1 else ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLabels(Classes):
    """A head that gives each token a label, and the entities that its words make up."""

    entities: Estimate
    """F1 of the candidate's entities, where the reference's are taken as right: label, first and last word must be the
    same. A word has the label of its first token. Counted in entities; 0 of them where neither finds one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores(HeadFigures):
    """A head of one value, or of several that are no classes: a regression, or the relevance of a document."""

    change: Estimate
    """Absolute difference of a value, in standard deviations of the reference's own values, mean over inputs."""
    largest_change: Number
    """The largest of them."""
    square_change: Number
    """Their mean square."""
    largest_difference: float
    """Largest absolute difference of a value, as the head gives it."""
    correlation: Number
    """Spearman's rank correlation of the two models' values over all inputs of one kind, mean over kinds and values."""
    rank: Estimate
    """Spearman's rank correlation of the documents of a query, mean over queries."""
    top1_agreement: Estimate
    """Share of queries of which both models put the same document first."""

    @property
    def distance(self) -> float:
        """The mean square of the changes."""
        return self.square_change


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans(HeadFigures):
    """A head that answers questions by spans of a context."""

    agreement: Estimate
    """Share of questions to which both models give the same span, or both none."""
    overlap: Estimate
    """F1 of the tokens of the candidate's span, where the reference's are taken as right, mean over questions."""
    kl_start: Estimate
    """KL(reference || candidate) in nats of where the answer starts, mean over questions."""
    kl_end: Estimate
    """The same of where it ends."""
    unanswered: Estimate
    """Share of questions that the reference gives no answer to."""

    @property
    def distance(self) -> float:
        """KL of start and end, in nats, their mean."""
        return (self.kl_start.value + self.kl_end.value) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices(HeadFigures):
    """A head that chooses among several texts."""

    agreement: Estimate
    """Share of questions of which both models choose the same text."""
    kl: Estimate
    """KL(reference || candidate) over the choices, in nats, mean over questions."""
    mean_change: Estimate
    """Largest absolute difference of a choice's probability, mean over questions."""
    largest_change: float
    """The largest of them."""
    largest_difference: float
    """Largest absolute difference of a choice's value, as the head gives it."""
    lead: Estimate
    """By how much the probability of the reference's choice exceeds the second best, mean over questions."""

    @property
    def distance(self) -> float:
        """KL, in nats."""
        return self.kl.value

    @property
    def doubts(self) -> tuple[str, ...]:
        """Warnings about a head that hardly decides."""
        return _hardly_decided(self.lead)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors(HeadFigures):
    """A head that makes one vector of a text."""

    cosine: Estimate
    """Cosine of the two models' vectors, mean over texts."""
    worst: float
    """The smallest of them."""
    neighbours: Estimate
    """Share of a text's ten nearest neighbours among all texts that both models find, mean over texts; counted in
    texts, 0 of them where there are too few."""

    @property
    def distance(self) -> float:
        """1 - cosine."""
        return 1 - self.cosine.value


def _hardly_decided(lead: Estimate) -> tuple[str, ...]:
    """Return a sentence on a head whose best answer leads by next to nothing."""
    if not lead.value < HARDLY:
        return ()
    by = f"{lead.value:.3f} of probability in the mean"
    return (f"fp32 hardly decides itself, like a head without training (its best answer leads by {by})",)
