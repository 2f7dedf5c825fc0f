"""Scores of a fine-tuned model by PyTorch in float32, and its outputs for each row."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics
from transformers import PreTrainedModel

from bertport.measure.labelled.answers import answer_f1, exact_match
from bertport.measure.quality.entities import entities
from pretraining.machine import Hardware

from .data import UNLABELLED, Encoded, Row
from .model import logits
from .tasks import Task

_BATCH = 32
_LONGEST_ANSWER = 30
"""Tokens of an answer at most, as in BERT's recipe for SQuAD."""


def outputs(model: PreTrainedModel, data: Encoded, *, pad: int, hardware: Hardware) -> list[NDArray[np.float32]]:
    """Return the head's float32 outputs of each row, without padding.

    Returns:
        Shape of each: (labels,); of tags (labelled words, labels); of answers (2, tokens).
    """
    exact = Hardware(device=hardware.device, dtype=torch.float32)
    order = np.argsort([len(ids) for ids in data.input_ids], kind="stable")
    answers: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(data)
    model.to(hardware.device).eval()  # type: ignore[arg-type]  # mypy takes the decorated method for a function
    with torch.no_grad():
        for begin in range(0, len(order), _BATCH):
            rows = order[begin : begin + _BATCH]
            values = logits(model, data.batch(rows, pad=pad), exact).cpu().numpy()
            for row, value in zip(rows, values, strict=True):
                answers[row] = _without_padding(value, data, int(row))
    return answers


def _without_padding(value: NDArray[np.float32], data: Encoded, row: int) -> NDArray[np.float32]:
    target = data.targets[row]
    if data.offsets:
        return value[:, : len(data.offsets[row])]
    return value[: len(target)][target != UNLABELLED] if target.ndim else value


def score(answers: list[NDArray[np.float32]], data: Encoded, rows: list[Row], task: Task) -> dict[str, float]:
    """Return the task's metrics by name, as shares or correlations."""
    truth: list[Any]
    if task.head == "question-answering":
        texts = [answer_text(*parts) for parts in zip(answers, data.offsets, rows, strict=True)]
        measures = {"answer_f1": answer_f1, "exact_match": exact_match}
        return {
            name: float(np.mean([measures[name](text, row.answers) for text, row in zip(texts, rows, strict=True)]))
            for name in task.metrics
        }
    if task.head == "token-classification":
        best = [[task.labels[index] for index in answer.argmax(-1)] for answer in answers]
        truth = [[task.labels[index] for index in each[each != UNLABELLED]] for each in data.targets]
        return {"entity_f1": entity_f1(truth, best)}
    truth = [each.item() for each in data.targets]
    if not task.labels:
        scores = [answer.item() for answer in answers]
        # Nothing to correlate: all are one number, or none is one, as after a rate that made the weights useless.
        if not all(np.ptp(numbers) > 0 for numbers in (truth, scores)):
            return dict.fromkeys(task.metrics, 0.0)
        values = {"spearman": stats.spearmanr(truth, scores), "pearson": stats.pearsonr(truth, scores)}
        return {name: float(values[name].statistic) for name in task.metrics}
    labels = [int(answer.argmax()) for answer in answers]
    table = {
        "accuracy": lambda: metrics.accuracy_score(truth, labels),
        "matthews": lambda: metrics.matthews_corrcoef(truth, labels),
        "f1": lambda: metrics.f1_score(truth, labels, pos_label=task.labels.index(str(task.positive))),
    }
    return {name: float(table[name]()) for name in task.metrics}


def answer_text(answer: NDArray[np.float32], offsets: NDArray[np.int64], row: Row) -> str:
    """Return the part of the context, of 30 tokens at most, whose beginning and end have the highest sum."""
    (inside,) = np.nonzero(offsets[:, 0] >= 0)
    if not len(inside):  # a question that fills the sequence
        return ""
    begins, ends = answer[0, inside], answer[1, inside]
    sums = begins[:, None] + ends
    further = np.arange(len(ends)) - np.arange(len(begins))[:, None]  # tokens from an answer's first to its last
    allowed = (further >= 0) & (further < _LONGEST_ANSWER)
    begin, end = np.unravel_index(np.where(allowed, sums, -np.inf).argmax(), sums.shape)
    return str(row.text_pair)[offsets[inside[begin], 0] : offsets[inside[end], 1]]


def entity_f1(truth: list[list[str]], predicted: list[list[str]]) -> float:
    """Return the F1 of whole entities; 0 where there are none."""
    wanted, named = (
        {(row, *entity) for row, tags in enumerate(rows) for entity in entities(tags)} for rows in (truth, predicted)
    )
    both = len(wanted & named)
    return 2 * both / (len(wanted) + len(named)) if wanted or named else 0.0
