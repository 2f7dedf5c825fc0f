"""Subjects for a task, made from one checkpoint: its bundle with INT8 variants, and the stock tool's INT8."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import sys
import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from bench.tasks.tables import CHANGED
from bertport.measure.labelled.records import open_records
from bertport.quantize.job import Options
from bertport.quantize.quantizer import quantize
from bertport.runtime.bundle.directory import Bundle, file_sha256
from bertport.runtime.errors import ValidationError
from bertport.runtime.providers.table import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Made", "is_made", "make", "training_texts"]

RECORD = "made.json"
MOST_TEXTS = 4000
"""Lines of a task's training part that calibration may draw from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Bundle and stock INT8 that were made from a checkpoint."""

    place: Path
    """The directory of what was made."""
    weights_sha256: str
    """Fingerprint of the checkpoint's weights."""
    refused: dict[str, str]
    """For each variant that did not hold its budget the sentence that says so."""
    seconds: dict[str, float]
    """Seconds of each step, by its name."""
    positions: int
    """Held-out texts on which the budgets were judged."""

    @property
    def bundle(self) -> Path:
        """The bundle's directory."""
        return self.place / "bundle"

    def keep(self) -> None:
        """Write what the next run needs to know."""
        record = {key: value for key, value in dataclasses.asdict(self).items() if key != "place"}
        record["changes"] = CHANGED
        unfinished = (self.place / RECORD).with_suffix(".tmp")
        unfinished.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(self.place / RECORD)

    @property
    def stock(self) -> Path:
        """The graph that the stock tool made."""
        return self.place / "stock.onnx"


def _calibrates_on_task(recipe: str) -> bool:
    """Return whether a recipe is given the task's training texts: its activations have fixed ranges."""
    return recipe.startswith("int8-static")


def training_texts(training: Path, target: Path) -> Path:
    """Write the texts of a task's training part, without labels, as `--calibration` reads them; return the target.

    Args:
        training: JSON lines with `text` and perhaps `text_pair`, or with `tokens`; plain or compressed.
        target: The file to write.
    """
    with target.open("w", encoding="utf-8") as texts:
        for record in islice(open_records(training), MOST_TEXTS):
            given: Mapping[str, Any] = record.values
            text = given["text"] if "text" in given else " ".join(given["tokens"])
            pair = {"text_pair": given["text_pair"]} if "text_pair" in given else {}
            texts.write(json.dumps({"text": text, **pair}) + "\n")
    return target


def make(
    checkpoint: Path, place: Path, recipes: Sequence[str], *, positions: int, training: Path | None = None
) -> Made:
    """Export and quantize a checkpoint, as far as that was not done before with the same weights.

    Args:
        checkpoint: The checkpoint's directory.
        place: Where what is made of it is kept.
        recipes: Names of the variants to make.
        positions: Held-out texts, and pairs of them, on which the budget is judged.
        training: The task's training part, for recipes that are calibrated on it; None where there is none.

    Raises:
        SystemExit: with a sentence, for a recipe that is calibrated on a training part where there is none.
    """
    weights = file_sha256(checkpoint / "model.safetensors")
    made = _kept(place, weights, positions) or _exported(checkpoint, place, weights, positions)
    left = [name for name in recipes if name not in made.refused]
    left = [name for name in left if name not in Bundle.open(made.bundle).manifest.variants]
    on_task = [name for name in left if _calibrates_on_task(name)]
    if on_task and training is None:
        sys.exit(
            f"{on_task[0]} is calibrated on texts of the task's training part, and there is none for {place.name}: put "
            "it beside the dev part, or name other variants by --recipe"
        )
    if left:
        began = time.monotonic()
        others = [name for name in left if name not in on_task]
        made.refused.update(add_variants(made.bundle, others, positions=positions))
        if on_task and training:
            texts = training_texts(training, place / "calibration.jsonl")
            made.refused.update(add_variants(made.bundle, on_task, positions=positions, calibration=texts))
        made.seconds["+".join(left)] = time.monotonic() - began
        made.keep()
    return made


def is_made(checkpoint: Path, place: Path, positions: int) -> bool:
    """Return whether `make` would go on with what is kept, rather than begin anew."""
    return _kept(place, file_sha256(checkpoint / "model.safetensors"), positions) is not None


def _kept(place: Path, weights: str, positions: int) -> Made | None:
    """Return what was made before of the same weights, judged on as many texts, by the recipes of today."""
    if not (place / RECORD).exists():
        return None
    record = json.loads((place / RECORD).read_text(encoding="utf-8"))
    of_today = record.pop("changes", None) == CHANGED
    asked = {"weights_sha256": weights, "positions": positions}
    return Made(place=place, **record) if of_today and asked.items() <= record.items() else None


def _exported(checkpoint: Path, place: Path, weights: str, positions: int) -> Made:
    """Export a checkpoint, and have the stock tool quantize it."""
    from bertport.export import export

    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    began = time.monotonic()
    bundle = export(checkpoint, place / "bundle", name=place.name)
    exported = time.monotonic()
    seconds = {"export": exported - began}
    made = Made(place=place, weights_sha256=weights, refused={}, seconds=seconds, positions=positions)
    quantize_as_stock(bundle, made.stock)
    made.seconds["stock"] = time.monotonic() - exported
    made.keep()
    return made


def add_variants(
    bundle: Path, recipes: Sequence[str], *, positions: int, calibration: Path | None = None
) -> dict[str, str]:
    """Quantize by each recipe with the default budget; return why those that did not hold it were refused."""
    refused: dict[str, str] = {}
    left = list(recipes)
    while left:
        told, reason = _add(bundle, left, positions, calibration)
        if reason is not None:
            if not told:
                sys.exit(reason)  # of no recipe's measurement
            refused[told[-1]] = reason
        left = left[len(told) :]
    return refused


def _add(
    bundle: Path, recipes: Sequence[str], positions: int, calibration: Path | None
) -> tuple[list[str], str | None]:
    """Quantize by one recipe after the other; return those that were measured, and why the last of them was refused."""
    told: list[str] = []
    options = Options(
        positions=positions,
        pairs=positions,
        calibration=calibration,
        force=True,
        told=lambda outcome: told.append(outcome.name),
    )
    try:
        quantize(bundle, recipes, options=options)
    except ValidationError as error:
        return told, str(error)
    return told, None


def quantize_as_stock(bundle: Bundle, target: Path) -> None:
    """Write what ONNX Runtime's quantize_dynamic makes of the portable graph with the settings of Optimum's preset."""
    onnxruntime()
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with bundle.opening("portable") as path:
        graph = onnx.load(path)  # of a file, the tool would write another one beside it, into the bundle
    logging.disable(logging.WARNING)  # its advice to prepare the graph, which Optimum does not follow either
    try:
        quantize_dynamic(graph, target, weight_type=QuantType.QInt8, per_channel=True, reduce_range=False)
    finally:
        logging.disable(logging.NOTSET)
