"""Tokenizers of a family: as transformers has one, and the files of which the runtime makes its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.families import TINY

if TYPE_CHECKING:
    from pathlib import Path


def saved_tokenizer(directory: Path, family: str, longest: int, **settings: Any) -> tuple[Any, str, dict[str, Any]]:
    """Return a family's tokenizer, the text of its tokenizer.json, and its settings.

    Args:
        directory: where it is written.
        family: name of the family.
        longest: its longest input, in tokens.
        settings: what `from_pretrained` takes beside it.
    """
    from transformers import AutoTokenizer

    TINY[family].write(directory)
    theirs = AutoTokenizer.from_pretrained(directory, model_max_length=longest, **settings)
    theirs.save_pretrained(directory)
    stated = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    return theirs, (directory / "tokenizer.json").read_text(encoding="utf-8"), stated


def tagging_pipeline(tokenizer: Any, labels: tuple[str, ...]) -> Any:
    """Return transformers' token-classification pipeline with labels; its tiny model is never run."""
    from transformers import BertConfig, BertForTokenClassification, pipeline

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = BertConfig(vocab_size=8, max_position_embeddings=8, id2label=dict(enumerate(labels)), **sizes)
    model = BertForTokenClassification(config)
    return pipeline("token-classification", model=model, tokenizer=tokenizer, device="cpu")
