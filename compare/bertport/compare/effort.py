"""How much is measured: two rows, one for a look and one for a report."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FULL", "QUICK", "Effort"]


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
    rounds: int
    """Turns of each model at each workload: what the intervals of speed rest on."""
    passes: int
    """How often a turn goes through the texts."""
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
    shape_rounds: int
    """Turns at each shape."""
    shape_runs: int
    """Runs in a turn at a shape."""


FULL = Effort(
    name="full",
    positions=4000,
    pairs=2000,
    stability=64,
    inputs=64,
    rounds=12,
    passes=1,
    server_shares=(0.4, 0.8),
    requests=128,
    server_rounds=5,
    starts=9,
    shapes=((1, 16), (1, 32), (1, 128), (1, 512), (8, 128)),
    shape_rounds=10,
    shape_runs=5,
)
"""For a report that others read: minutes for a small model, an hour for BERT-base with baselines."""

QUICK = Effort(
    name="quick",
    positions=500,
    pairs=60,
    stability=6,
    inputs=16,
    rounds=5,
    passes=1,
    server_shares=(0.5,),
    requests=40,
    server_rounds=2,
    starts=2,
    shapes=((1, 16), (1, 128)),
    shape_rounds=5,
    shape_runs=3,
)
"""For a look: under a minute for the default model with a few variants, on two idle cores. Its intervals are wide."""
