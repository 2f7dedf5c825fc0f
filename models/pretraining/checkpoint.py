"""Files that a run keeps on disk: the checkpoint it resumes from, and its log."""

import json
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from .errors import RecipeError


@dataclass(slots=True)
class Progress:
    """Progress of a run; stored in every checkpoint."""

    step: int = 0
    """Optimizer steps taken."""
    anchors: int = 0
    """Sentences used as the beginning of A; 0 where there are none."""
    tokens: int = 0
    """Tokens trained on, special tokens included."""
    seconds: float = 0.0
    """Time spent in steps: without evaluation, pauses and what a kill threw away."""


def resume(path: Path, model: nn.Module, optimizer: Optimizer) -> Progress:
    """Load a checkpoint into the model and the optimizer; without one, leave both alone.

    Raises:
        RecipeError: when the file is damaged or holds another model.
    """
    if not path.exists():
        return Progress()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return Progress(**state["progress"])
    except (RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise RecipeError(
            f"{path} is not a checkpoint of this model ({reason}): choose another --output, or remove it to restart"
        ) from error


def save(path: Path, model: nn.Module, optimizer: Optimizer, progress: Progress) -> None:
    """Write a checkpoint beside the old one and rename it into place, so that a kill leaves a whole one."""
    unfinished = path.with_suffix(".tmp")
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "progress": asdict(progress)}
    torch.save(state, unfinished)
    unfinished.replace(path)


def append_log(path: Path, row: dict[str, float]) -> None:
    """Add one JSON object to a log."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def read_log(path: Path) -> list[dict[str, float]]:
    """Read a log; a line cut short by a kill is left out, since its step will be taken again."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def rewind_log(path: Path, step: int) -> None:
    """Remove the rows of steps after `step`, which a resumed run takes, and logs, once more."""
    rows = read_log(path)
    kept = [row for row in rows if row["step"] <= step]
    if len(kept) < len(rows):
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        unfinished.replace(path)
