"""The checkpoint in transformers: its logits for each example, without anything of bertport."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["class_logits", "word_labels"]

BATCH = 16
"""Texts of like length that are run at once, padded to the longest; in fp32 what is beside a text changes nothing."""


def class_logits(checkpoint: Path, inputs: Iterable[Any]) -> NDArray[np.float32]:
    """Return the logits `[examples, labels]` of transformers' sequence classifier.

    Args:
        checkpoint: The checkpoint's directory.
        inputs: Texts, or pairs `{"text": A, "text_pair": B}`.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    tokenizer, model = _opened(checkpoint, AutoModelForSequenceClassification)
    texts = [(given["text"], given["text_pair"]) if isinstance(given, dict) else (given,) for given in inputs]
    order = sorted(range(len(texts)), key=lambda index: sum(map(len, texts[index])))
    logits: list[Any] = [None] * len(texts)
    with torch.inference_mode():
        for begin in range(0, len(order), BATCH):
            batch = order[begin : begin + BATCH]
            columns = [list(column) for column in zip(*(texts[index] for index in batch), strict=True)]
            encoded = tokenizer(*columns, truncation=True, padding=True, return_tensors="pt")
            for index, row in zip(batch, model(**encoded).logits.numpy(), strict=True):
                logits[index] = row
    return np.stack(logits)


def word_labels(checkpoint: Path, inputs: Iterable[dict[str, list[str]]]) -> list[tuple[str, ...]]:
    """Return a label for each word by transformers' token classifier: that of the word's first token.

    Args:
        checkpoint: The checkpoint's directory.
        inputs: `{"words": [WORD, …]}`. A word that the tokenizer makes nothing of has the label `O`.
    """
    import torch
    from transformers import AutoModelForTokenClassification

    tokenizer, model = _opened(checkpoint, AutoModelForTokenClassification)
    names = model.config.id2label
    tagged = []
    with torch.inference_mode():
        for given in inputs:
            words = given["words"]
            encoded = tokenizer(words, is_split_into_words=True, truncation=True, return_tensors="pt")
            best = model(**encoded).logits[0].argmax(dim=-1).tolist()
            labels = ["O"] * len(words)
            for token, word in reversed(list(enumerate(encoded.word_ids()))):
                if word is not None:
                    labels[word] = names[best[token]]
            tagged.append(tuple(labels))
    return tagged


def _opened(checkpoint: Path, kind: Any) -> tuple[Any, Any]:  # noqa: ANN401 — transformers' classes are partly typed
    """Return the tokenizer and the model of a checkpoint."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    return tokenizer, kind.from_pretrained(checkpoint, dtype=torch.float32).eval()
