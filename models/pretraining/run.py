"""The record of a run: its settings, which a resumed run must share, and what it cost."""

import importlib.metadata
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .checkpoint import Progress
from .errors import RecipeError
from .machine import Hardware
from .schedule import Schedule, TimedSchedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings that decide a run's result, beside its schedule: on one device, the same ones give the same weights."""

    start: str
    """Name of the encoder, of the checkpoint directory, or of the configuration file."""
    start_sha256: str
    """SHA-256 of the weights started from; of the configuration from scratch."""
    layers: int
    """Encoder layers."""
    vocab_size: int
    """Entries in the vocabulary."""
    tokens_per_batch: int
    """Tokens in one optimizer step."""
    peak_rate: float
    """Highest learning rate."""
    seed: int
    """Seed of fresh weights, pairs, masks and order."""
    dtype: str
    """Format of the matrix products."""
    corpus_sha256: str
    """SHA-256 of the training text's file."""
    heldout_sha256: str
    """SHA-256 of the held-out text's file."""


def begin(path: Path, settings: Settings, schedule: Schedule) -> None:
    """Record the settings, or compare them with those that are recorded.

    Only the number of tokens may change: then the rest of the run follows the new schedule, and the record says so.

    Raises:
        RecipeError: naming the first setting that differs; and for a run by the clock that has begun already.
    """
    record = read(path)
    if record and isinstance(schedule, TimedSchedule):
        raise RecipeError(f"{path.parent} has a run, and none is resumed by the clock: choose another --output")
    require_same(record, asdict(settings), path.parent)
    tokens = record.setdefault("schedule_tokens", [schedule.tokens])
    if tokens[-1] != schedule.tokens:
        tokens.append(schedule.tokens)
    record["schedule"] = asdict(schedule) | {"steps": schedule.steps}
    write(path, record)


def require_same(record: dict[str, Any], settings: dict[str, Any], directory: Path) -> None:
    """Put the settings into a record that has none, or compare them with its own.

    Raises:
        RecipeError: naming the first setting that differs.
    """
    before = record.setdefault("settings", settings)
    for name, value in settings.items():
        if before.get(name) != value:
            raise RecipeError(
                f"the run in {directory} began with {name} {before.get(name)!r}, not {value!r}: "
                "give it the options it began with, or choose another --output"
            )


def end(path: Path, progress: Progress, parameters: int, hardware: Hardware) -> None:
    """Record where the run stands, and on what it ran; a call that took no step leaves both as they are."""
    record = read(path)
    if record.get("progress") != asdict(progress):
        write(path, record | {"progress": asdict(progress), "parameters": parameters} | surroundings(hardware))


def surroundings(hardware: Hardware) -> dict[str, Any]:
    """Return the machine, and the versions of what computes on it, for a record."""
    tools = ("torch", "transformers", "tokenizers", "numpy")
    return {"machine": str(hardware), "tools": {name: importlib.metadata.version(name) for name in tools}}


def read(path: Path) -> dict[str, Any]:
    """Return the record, empty where there is none yet."""
    if not path.exists():
        return {}
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def write(path: Path, record: dict[str, Any]) -> None:
    """Write the record beside the old one and rename it into place."""
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)
