"""One run measured: every subject answers the task's examples, and its figures stand beside fp32's."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.checkout import provenance
from bench.tasks import peer
from bench.tasks.graphs import open_stock, open_variant
from bench.tasks.tables import CHANGED, FP32, PYTORCH, STOCK, SUBJECTS, VARIANTS
from bertport.measure.labelled.figures import choose_metrics, paired_differences, task_figures
from bertport.measure.labelled.kinds import CLASSIFICATION, REGRESSION, TAGS
from bertport.measure.labelled.metrics import Judged
from bertport.measure.labelled.predictions import Predictions, predict_labelled
from bertport.measure.machine import describe_machine
from bertport.measure.quality.model import size_of
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.tasks.labels import probabilities

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.tasks.made import Made
    from bench.tasks.tables import Task
    from bertport.measure.labelled.data import LabelledData
    from bertport.measure.labelled.figures import PairedDifference, TaskFigures

__all__ = ["is_measured", "measure", "of_the_commonest", "read_answers"]

FIGURES, ANSWERS = "figures.json", "answers.json"


def is_measured(place: Path) -> bool:
    """Return whether a run was measured before, perhaps with other weights, and by the recipes of today."""
    if not (place / FIGURES).exists():
        return False
    figures: dict[str, Any] = json.loads((place / FIGURES).read_text(encoding="utf-8"))
    return bool(figures["made_of"].get("changes") == CHANGED)


def measure(task: Task, checkpoint: Path, made: Made, data: LabelledData) -> dict[str, Any]:
    """Have every subject answer the examples; return the figures of each, and when and where they were measured.

    They are kept, and taken from there where nothing has changed.
    """
    kept = made.place / FIGURES
    variants = [name for name in (FP32, *VARIANTS) if name in Bundle.open(made.bundle).manifest.variants]
    stamp = {
        "weights_sha256": made.weights_sha256,
        "fingerprint": data.fingerprint,
        "variants": variants,
        "instruction_set": describe_machine().instruction_set,  # kernels of 8 bits differ in what they answer
        "changes": CHANGED,
    }
    figures: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    if figures.get("made_of") != stamp or "measured" not in figures:
        subjects = _answered(task, checkpoint, made, data, variants)
        figures = {"made_of": stamp, "measured": provenance(), "subjects": subjects}
        unfinished = kept.with_suffix(".tmp")
        unfinished.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(kept)
    # A variant may be refused long after the others were measured.
    subjects = figures["subjects"] | {name: {"refused": reason} for name, reason in made.refused.items()}
    ordered = {name: subjects[name] for name in SUBJECTS if name in subjects}
    return {"measured": figures["measured"], "subjects": ordered}


def _answered(task: Task, checkpoint: Path, made: Made, data: LabelledData, variants: Sequence[str]) -> dict[str, Any]:
    """Have every subject answer the examples, keep the answers, and return the figures of each."""
    predictions = predict(checkpoint, made, data, variants)
    chosen = choose_metrics(data, task.metrics, positive=task.positive)
    subjects: dict[str, Any] = {}
    reference = predictions[FP32]
    for name, predicted in predictions.items():
        subjects[name] = _as_json(
            task_figures(predicted, data, chosen=chosen),
            {} if name == FP32 else paired_differences(predicted, reference, data, chosen=chosen),
        )
    bundle = Bundle.open(made.bundle)
    for name in (FP32, *VARIANTS):
        if name in predictions:
            subjects[name] |= {"bytes": size_of(bundle, name)} | _search(bundle, name)
    subjects[PYTORCH]["bytes"] = (checkpoint / "model.safetensors").stat().st_size
    subjects[STOCK]["bytes"] = made.stock.stat().st_size
    values = {name: list(row.values) if data.kind == TAGS else row.values.tolist() for name, row in predictions.items()}
    (made.place / ANSWERS).write_text(json.dumps(values), encoding="utf-8")
    return subjects


def predict(checkpoint: Path, made: Made, data: LabelledData, variants: Sequence[str]) -> dict[str, Predictions]:
    """Return the predictions of each subject: transformers', those of the bundle's variants, the stock tool's."""
    predictions = {PYTORCH: _by_transformers(checkpoint, data)}
    for name in variants:
        predictions[name] = predict_labelled(open_variant(made.bundle, name), data)
    predictions[STOCK] = predict_labelled(open_stock(made.stock, made.bundle), data)
    return predictions


def _by_transformers(checkpoint: Path, data: LabelledData) -> Predictions:
    """Return the predictions of the checkpoint itself."""
    inputs = [example.inputs for example in data.examples()]
    scores = None
    values: Any
    if data.kind == TAGS:
        values = peer.word_labels(checkpoint, inputs)
    else:
        logits = peer.class_logits(checkpoint, inputs)
        scores = None if data.kind == REGRESSION else probabilities(logits)
        values = logits[:, 0].astype(np.float64) if scores is None else scores.argmax(axis=1)
    return _predictions(data, PYTORCH, values, scores)


def _predictions(data: LabelledData, subject: str, values: Any, scores: Any = None) -> Predictions:  # noqa: ANN401
    return Predictions(
        task=data.task, kind=data.kind, variant=subject, fingerprint=data.fingerprint, values=values, scores=scores
    )


def _as_json(figures: TaskFigures, paired: Mapping[str, PairedDifference]) -> dict[str, Any]:
    """Return a subject's figures as JSON values."""
    ends = ("value", "low", "high")
    result: dict[str, Any] = {
        "metrics": {name: {end: getattr(estimate, end) for end in ends} for name, estimate in figures.metrics.items()}
    }
    if not paired:
        return result
    result["against_fp32"] = {
        name: {
            "difference": row.difference.value,
            "low": row.difference.low,
            "high": row.difference.high,
            "p": row.p_value,
            "test": row.test,
        }
        for name, row in paired.items()
    }
    first = next(iter(paired.values()))
    result["agreement"] = None if first.agreement is None else dataclasses.asdict(first.agreement)
    result["rank_correlation"] = None if first.spearman is None else first.spearman.value
    return result


def _search(bundle: Bundle, name: str) -> dict[str, Any]:
    """Return the budget that a variant holds, and how many layers were left in higher precision for it."""
    record = bundle.manifest.variants[name].fidelity or {}
    return {"budget": record["budget"], "higher_precision": len(record["higher_precision"])} if record else {}


def of_the_commonest(task: Task, data: LabelledData) -> dict[str, float]:
    """Return what the commonest label alone scores, by metric; of tags and of numbers there is no such answer."""
    if data.kind != CLASSIFICATION:
        return {}
    chosen = choose_metrics(data, task.metrics, positive=task.positive)
    commonest = np.full(len(data), np.bincount(np.asarray(data.truths)).argmax())
    judged = Judged(data, _predictions(data, "", commonest), chosen.positive)
    return {metric.name: metric.value(judged) for metric in chosen.metrics}


def read_answers(made: Made, data: LabelledData) -> dict[str, Predictions]:
    """Return what `measure` kept of the predictions, by subject."""
    kept: dict[str, list[Any]] = json.loads((made.place / ANSWERS).read_text(encoding="utf-8"))
    return {
        name: _predictions(data, name, list(map(tuple, values)) if data.kind == TAGS else np.asarray(values))
        for name, values in kept.items()
    }
