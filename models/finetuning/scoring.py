"""Scores of a fine-tuned model by PyTorch in float32, and its outputs for each row."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics
from transformers import PreTrainedModel

from pretraining.machine import Hardware

from .data import UNLABELLED, Encoded
from .model import logits
from .tasks import Task

_BATCH = 32


def outputs(model: PreTrainedModel, data: Encoded, *, pad: int, hardware: Hardware) -> list[NDArray[np.float32]]:
    """Return the head's float32 outputs of each row: shape (labels,), or (labelled words, labels) for tags."""
    exact = Hardware(device=hardware.device, dtype=torch.float32)
    order = np.argsort([len(ids) for ids in data.input_ids], kind="stable")
    answers: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(data)
    model.to(hardware.device).eval()  # type: ignore[arg-type]  # mypy takes the decorated method for a function
    with torch.no_grad():
        for begin in range(0, len(order), _BATCH):
            rows = order[begin : begin + _BATCH]
            values = logits(model, data.batch(rows, pad=pad), exact).cpu().numpy()
            for row, value in zip(rows, values, strict=True):
                target = data.targets[row]
                answers[row] = value[: len(target)][target != UNLABELLED] if target.ndim else value
    return answers


def score(answers: list[NDArray[np.float32]], data: Encoded, task: Task) -> dict[str, float]:
    """Return the task's metrics by name, as shares or correlations."""
    truth: list[Any]
    if task.head == "token-classification":
        best = [[task.labels[index] for index in answer.argmax(-1)] for answer in answers]
        truth = [[task.labels[index] for index in each[each != UNLABELLED]] for each in data.targets]
        return {"entity_f1": entity_f1(truth, best)}
    truth = [each.item() for each in data.targets]
    if not task.labels:
        scores = [answer.item() for answer in answers]
        values = {"spearman": stats.spearmanr(truth, scores), "pearson": stats.pearsonr(truth, scores)}
        return {name: float(values[name].statistic) for name in task.metrics}
    labels = [int(answer.argmax()) for answer in answers]
    table = {
        "accuracy": lambda: metrics.accuracy_score(truth, labels),
        "matthews": lambda: metrics.matthews_corrcoef(truth, labels),
        "f1": lambda: metrics.f1_score(truth, labels, pos_label=task.labels.index(str(task.positive))),
    }
    return {name: float(table[name]()) for name in task.metrics}


def entity_f1(truth: list[list[str]], predicted: list[list[str]]) -> float:
    """Return the F1 of whole entities; an I- that no entity of its type precedes begins one, as in conlleval."""
    wanted, named = _entities(truth), _entities(predicted)
    both = len(wanted & named)
    return 2 * both / (len(wanted) + len(named)) if wanted or named else 0.0


def _entities(rows: list[list[str]]) -> set[tuple[int, int, int, str]]:
    entities: set[tuple[int, int, int, str]] = set()
    for number, tags in enumerate(rows):
        begin, kind = 0, ""
        for at, tag in enumerate([*tags, "O"]):
            prefix, _, name = tag.partition("-")
            if kind and (prefix != "I" or name != kind):
                entities.add((number, begin, at, kind))
                kind = ""
            if prefix != "O" and not kind:
                begin, kind = at, name
    return entities
