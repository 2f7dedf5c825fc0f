"""Fidelities with made-up figures, for tests of what reads them."""

from bertport.measure.quality.results import Fidelity, HeadFigures
from bertport.measure.statistics import Estimate


class MadeUp(HeadFigures):
    """The figures of a head: those given as numbers without an interval."""

    __slots__ = ("values",)

    def __init__(self, **values):
        object.__setattr__(self, "values", values)

    def read(self, key):
        value = self.values[key]
        if isinstance(value, Estimate):
            return value
        return Estimate(value=value, low=value, high=value, count=1, clusters=1)

    @property
    def distance(self):
        return self.values["kl"] if "kl" in self.values else 1 - self.values["cosine"]


def fidelity(**heads):
    """A fidelity of which only the figures of heads mean anything, in the order given; None for a head left out."""
    return Fidelity(
        samples=1,
        seed=0,
        resamples=1,
        confidence=0.95,
        heads={name: None if figures is None else MadeUp(**figures) for name, figures in heads.items()},
        stability=None,
    )


def kl(found, head="mlm"):
    """KL of a head in such a fidelity."""
    return found.heads[head].values["kl"]
