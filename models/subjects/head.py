"""The head: trained on features of the frozen encoder, and written as a checkpoint that has the same encoder."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertport.runtime.model import Model
from pretraining.errors import RecipeError
from subjects.passages import Passage

INVERSE_PENALTY = 0.01
"""scikit-learn's C, of features that are scaled to variance 1: in cross-validation over chapters, as good as three and
ten times as much, and better than a third."""
STEPS = 500
"""Iterations of L-BFGS, at most."""
SMALLEST = 1e-6
"""The least standard deviation that a feature is divided by: that of a constant feature is 0."""
WEIGHTS = "model.safetensors"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")

Head = tuple[NDArray[np.float32], NDArray[np.float32]]
"""The weights `[labels, hidden]` and the bias `[labels]` of a linear layer."""


def train_head(model: Model, passages: Sequence[Passage], subjects: Sequence[str]) -> Head:
    """Return a linear layer from the pooled vector of a text to the logit of each subject.

    The vector is the pooler's output, since that is what `BertForSequenceClassification` judges by.
    """
    from sklearn.linear_model import LogisticRegression

    texts = [passage.text for passage in passages]
    features = np.asarray(model.features(texts, pooling="pooler", truncation=True), dtype=np.float64)
    truth = np.array([subjects.index(passage.subject) for passage in passages])
    mean, deviation = features.mean(axis=0), np.maximum(features.std(axis=0), SMALLEST)
    regression = LogisticRegression(C=INVERSE_PENALTY, max_iter=STEPS).fit((features - mean) / deviation, truth)
    weights, bias = regression.coef_, regression.intercept_
    if len(weights) == 1:  # two subjects: the logit of the second alone
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    weights = weights / deviation  # the graph sees features as they are
    return weights.astype(np.float32), (bias - weights @ mean).astype(np.float32)


def write_checkpoint(encoder: Path, head: Head, subjects: Sequence[str], output: Path, card: str) -> None:
    """Write a checkpoint of `BertForSequenceClassification` whose encoder is that of another, tensor by tensor.

    Args:
        encoder: a BERT checkpoint with a pooler.
        head: the layer.
        subjects: its labels in order.
        output: directory of the new checkpoint.
        card: its README.md.

    Raises:
        RecipeError: for a checkpoint of another family or without a pooler.
    """
    from safetensors.numpy import load_file, save_file

    config: dict[str, Any] = json.loads((encoder / "config.json").read_text(encoding="utf-8"))
    tensors: Mapping[str, NDArray[np.float32]] = load_file(encoder / WEIGHTS)
    shared = {name: tensor for name, tensor in tensors.items() if name.startswith("bert.")}
    if config.get("model_type") != "bert" or "bert.pooler.dense.weight" not in shared:
        raise RecipeError(f"{encoder} is no BERT with a pooler, by which the head judges: start from one that is")
    output.mkdir()
    labels = dict(enumerate(subjects))
    config |= {
        "architectures": ["BertForSequenceClassification"],
        "id2label": labels,
        "label2id": {subject: column for column, subject in labels.items()},
        "problem_type": "single_label_classification",
    }
    (output / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    weights, bias = head
    save_file(
        shared | {"classifier.weight": np.ascontiguousarray(weights), "classifier.bias": bias},
        output / WEIGHTS,
        metadata={"format": "pt"},
    )
    for name in TOKENIZER:
        if (encoder / name).is_file():
            shutil.copy(encoder / name, output / name)
    (output / "README.md").write_text(card, encoding="utf-8")
