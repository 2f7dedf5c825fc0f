"""Checkpoints of seeded random weights with the default model's tokenizer: times and memory do not depend on values."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from bertport.runtime.bundle.default import default_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

__all__ = ["save_bert_base", "save_seeded"]


def save_seeded(model: PreTrainedModel, checkpoint: Path) -> None:
    """Fill a model's matrices with seeded normal numbers, of variance 1 / columns, and write it as a checkpoint."""
    import torch

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:  # noqa: PLR2004 — a matrix
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5)
    model.save_pretrained(checkpoint)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(default_bundle() / name, checkpoint / name)


def save_bert_base(checkpoint: Path) -> None:
    """Write a BERT-base with both heads."""
    from transformers import BertConfig, BertForPreTraining

    save_seeded(BertForPreTraining(BertConfig(vocab_size=30522)), checkpoint)
