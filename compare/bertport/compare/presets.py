"""Presets of how much is measured: one for a look, one for a report, one for a report that others will doubt."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bertport.runtime.errors import UnknownNameError, UsageError
from bertport.runtime.excerpts import excerpt

__all__ = ["FULL", "MEDIUM", "PRESETS", "QUICK", "Preset", "check_whole", "preset_named"]

LEAST = {
    **dict.fromkeys(("positions", "inputs", "rounds", "passes", "requests", "server_rounds", "starts"), 1),
    **dict.fromkeys(("pairs", "stability", "most_positions", "most_pairs"), 0),
}
"""The smallest whole number of each size."""


def check_whole(name: str, value: object, least: int) -> None:
    """Refuse what is not a whole number from the least up.

    Raises:
        UsageError: for such a value.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UsageError(f"{name} is a whole number from {least} up, not {excerpt(value)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One row: the sizes of everything that is sampled or repeated."""

    name: str
    """Name in the report."""
    positions: int
    """Masked positions for the MLM head, about."""
    most_positions: int = 0
    """The most masked positions, where the first leave a bound of the budget undecided and more would decide it."""
    pairs: int
    """Sentence pairs for the NSP head, at most."""
    most_pairs: int = 0
    """The most pairs, where the first leave a bound undecided and more would decide it."""
    patience: float = 600.0
    """Seconds that a variant's further samples may take, about; they are not taken where they would take more."""
    stability: int
    """Samples of each kind on which batch invariance is measured."""
    inputs: int
    """Texts that the scenarios answer, drawn from the text given."""
    together: bool
    """Whether one process of each model goes through SingleStream, Offline and the shapes: fewer starts, but nothing of
    them to resume before all are done."""
    rounds: int
    """Turns of each model at each workload: what the intervals of speed rest on."""
    passes: int
    """Passes through the texts, or runs of a shape, in one turn."""
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

    def __post_init__(self) -> None:
        """Check every size.

        Raises:
            UsageError: for one of which nothing can be measured.
        """
        for name, least in LEAST.items():
            check_whole(f"the effort's {name}", getattr(self, name), least)
        if not all(isinstance(share, int | float) and 0 < share < math.inf for share in self.server_shares):
            raise UsageError(f"the effort's server_shares are shares above 0, not {excerpt(self.server_shares)}")
        for shape in self.shapes:
            if len(shape) != 2 or not all(isinstance(size, int) and size >= 1 for size in shape):  # noqa: PLR2004 — rows and tokens
                raise UsageError(f"the effort's shapes are pairs of rows and tokens, not {excerpt(shape)}")


FULL = Preset(
    name="full",
    positions=3000,
    most_positions=10_000,
    pairs=1000,
    most_pairs=5000,
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

MEDIUM = Preset(
    name="medium",
    positions=1000,
    most_positions=4000,
    pairs=200,
    most_pairs=2000,
    patience=120.0,
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

QUICK = Preset(
    name="quick",
    positions=500,
    most_positions=2000,
    pairs=60,
    most_pairs=1000,
    patience=30.0,
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
"""For a look: about a minute for the default model with a few variants, on two idle cores. Its intervals are wide."""

PRESETS = {row.name: row for row in (QUICK, MEDIUM, FULL)}
"""By name, the shortest first."""


def preset_named(effort: Preset | str) -> Preset:
    """Return the row of a name, or the row that is given.

    Raises:
        UnknownNameError: for an unknown name.
        UsageError: for what is neither.
    """
    if isinstance(effort, Preset):
        return effort
    if not isinstance(effort, str):
        raise UsageError(f"effort is a row of the table of efforts or its name, not {excerpt(effort)}")
    if effort not in PRESETS:
        raise UnknownNameError("effort", effort, PRESETS)
    return PRESETS[effort]
