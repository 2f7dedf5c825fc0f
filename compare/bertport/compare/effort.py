"""How much is measured: one row for a look, one for a report, one for a report that others will doubt."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EFFORTS", "FULL", "MEDIUM", "QUICK", "Effort"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """One row: the sizes of everything that is sampled or repeated."""

    name: str
    """What the report calls it."""
    positions: int
    """Masked positions for the MLM head, about."""
    pairs: int
    """Sentence pairs for the NSP head, at most."""
    stability: int
    """Samples of each kind on which the effect of batch mates and padding is measured."""
    inputs: int
    """Texts that the scenarios answer, drawn from the text given."""
    together: bool
    """Whether one process of each model goes through SingleStream, Offline and the shapes: fewer starts, but nothing of
    them to resume before all are done."""
    rounds: int
    """Turns of each model at each workload: what the intervals of speed rest on."""
    passes: int
    """How often a turn goes through the texts, or runs a shape."""
    server_shares: tuple[float, ...]
    """Arrival rates of the Server scenario, as shares of what the reference answers in a second."""
    requests: int
    """Requests in one turn of the Server scenario."""
    server_rounds: int
    """Turns of the Server scenario."""
    starts: int
    """Fresh processes of each model for the cold start."""
    shapes: tuple[tuple[int, int], ...]
    """Rows and tokens of the batches of one length."""


FULL = Effort(
    name="full",
    positions=3000,
    pairs=1000,
    stability=24,
    inputs=48,
    together=False,
    rounds=8,
    passes=1,
    server_shares=(0.5,),
    requests=100,
    server_rounds=4,
    starts=7,
    shapes=((1, 16), (1, 32), (1, 128), (1, 512), (8, 128)),
)
"""For a report that others will doubt: ten minutes for a small model, an hour for BERT-base with baselines."""

MEDIUM = Effort(
    name="medium",
    positions=1000,
    pairs=200,
    stability=4,
    inputs=16,
    together=True,
    rounds=8,
    passes=1,
    server_shares=(0.5,),
    requests=40,
    server_rounds=2,
    starts=4,
    shapes=((1, 16), (1, 32), (1, 128)),
)
"""For a report: minutes for a small model with five variants and both baselines, a quarter of an hour for BERT-base."""

QUICK = Effort(
    name="quick",
    positions=500,
    pairs=60,
    stability=2,
    inputs=10,
    together=True,
    rounds=6,
    passes=1,
    server_shares=(0.5,),
    requests=30,
    server_rounds=2,
    starts=2,
    shapes=((1, 16), (1, 128)),
)
"""For a look: under a minute for the default model with a few variants, on two idle cores. Its intervals are wide."""

EFFORTS = {row.name: row for row in (QUICK, MEDIUM, FULL)}
"""By name, the shortest first."""
