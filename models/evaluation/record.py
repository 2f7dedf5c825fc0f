"""Record of the default model's training and evaluation, kept beside its bundle."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretraining.checkpoint import read_log
from pretraining.errors import RecipeError

TRAINING = Path(__file__).parents[1] / "default-training"
EVALUATION = TRAINING / "evaluation.json"
CURVE = "learning-curve.svg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Everything that the model card states and that was measured."""

    run: dict[str, Any]
    """The run's settings, schedule, progress and machine (run.json of pretrain.py)."""
    log: list[dict[str, float]]
    """The rows of its log, oldest first."""
    evaluation: dict[str, Any]
    """Scores and answers (evaluation.json of evaluate.py)."""


def read_record(directory: Path) -> Record:
    """Read the record of a model.

    Raises:
        RecipeError: naming the file that is missing and the program that writes it.
    """
    makers = {
        "run.json": "export_default.py",
        "log.jsonl": "export_default.py",
        "evaluation.json": "evaluate.py --heldout",
    }
    for name, maker in makers.items():
        if not (directory / name).is_file():
            raise RecipeError(f"{directory} has no {name}: run models/{maker} first")
    return Record(
        run=json.loads((directory / "run.json").read_text(encoding="utf-8")),
        log=read_log(directory / "log.jsonl"),
        evaluation=json.loads((directory / "evaluation.json").read_text(encoding="utf-8")),
    )
