"""The choice of settings: each candidate is trained on nine tenths of the rows and scored on the last tenth."""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pretraining.checkpoint import Progress
from pretraining.errors import RecipeError

from .data import Row
from .tasks import Settings

SPLIT_SEED = 20_261_128
"""Seed of the held-out tenth: the same for every run, whatever its own seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The rows of train in two parts."""

    train: list[Row]
    """Nine tenths, or as many of them as trials are given."""
    heldout: list[Row]
    """A tenth."""


def split(rows: list[Row], *, most: int | None) -> Split:
    """Hold out a tenth of the rows, and keep `most` of the others at most.

    Raises:
        RecipeError: for a single row, which leaves none to train on.
    """
    if len(rows) < 2:  # noqa: PLR2004 — one in either part
        raise RecipeError("--select holds out a tenth of train, and train has a single row: add some, or leave it out")
    order = np.random.default_rng(SPLIT_SEED).permutation(len(rows))
    tenth = max(1, len(rows) // 10)
    return Split(
        train=[rows[index] for index in order[tenth:][:most]], heldout=[rows[index] for index in order[:tenth]]
    )


Trial = Callable[[Settings, Path], tuple[Progress, dict[str, float]] | None]
"""Trains with some settings in a directory; returns where it ended and its scores, none where it diverged, or None
when it was stopped."""


def choose(  # noqa: PLR0913, PLR0917 — a search is made of these
    candidates: Sequence[Settings],
    metric: str,
    trial: Trial,
    output: Path,
    made: Sequence[dict[str, Any]],
    keep: Callable[[dict[str, Any]], None],
) -> Settings | None:
    """Try every candidate that is not among those made yet, and return the best; of equal ones, the first.

    Args:
        candidates: what is tried, in this order.
        metric: name of the score that decides, the higher the better.
        trial: trains and scores one candidate.
        output: the directory below which trials keep their checkpoints until they end.
        made: entries of the trials that an earlier call made.
        keep: told of each new trial's entry, once it has ended.

    Returns:
        The best candidate, or none when a trial was stopped. One without scores is worse than any other: a correlation
        may be below 0.
    """
    entries = list(made)
    for number, candidate in enumerate(candidates):
        if any(entry["settings"] == asdict(candidate) for entry in entries):
            continue
        directory = output / f"trial-{number}"
        directory.mkdir(parents=True, exist_ok=True)
        ended = trial(candidate, directory)
        if ended is None:
            return None
        progress, scores = ended
        cost = {"tokens": progress.tokens, "seconds": round(progress.seconds, 1)}
        entries.append({"settings": asdict(candidate), "scores": scores} | cost)
        keep(entries[-1])
        shutil.rmtree(directory)
    return Settings(**max(entries, key=lambda entry: entry["scores"].get(metric, -math.inf))["settings"])
