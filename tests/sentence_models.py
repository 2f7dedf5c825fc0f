"""Seeded models of sentence-transformers, written without that package, which only opens them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.export.checkpoint.sentence_transformers import write_modules
from bertport.runtime.bundle.manifest import Embedding, EmbeddingModule

if TYPE_CHECKING:
    from pathlib import Path

HIDDEN = 32
"""Width of the states of the tiny encoders."""
DIMENSION = 12
"""Numbers of the vectors of `whole`."""
MEAN = (EmbeddingModule(kind="pooling", modes=("mean",)),)
NORMALIZED_MEAN = (*MEAN, EmbeddingModule(kind="normalize"))
"""Modules that most models of sentence-transformers have."""
EVERY_KIND = (
    EmbeddingModule(kind="pooling", modes=("cls", "mean")),
    EmbeddingModule(kind="dense", activation="Tanh"),
    EmbeddingModule(kind="layer-norm"),
    EmbeddingModule(kind="dense", activation="GELU"),
)
"""A module of each kind but for the last, each of which would show if it were lost."""
PROMPTS = {"query": "the query ", "document": ""}


def sentence_model(
    directory: Path,
    checkpoint: Path,
    modules: tuple[EmbeddingModule, ...] = NORMALIZED_MEAN,
    *,
    max_length: int = 64,
    **facts: Any,
) -> Path:
    """Write a checkpoint with modules of sentence-transformers behind its encoder, and return the directory.

    Args:
        directory: where it is written; it is made.
        checkpoint: the encoder's.
        modules: what runs behind it; dense layers halve a vector, the last one to `DIMENSION` numbers.
        max_length: the tokens at which sentence-transformers cuts texts.
        facts: further settings, as `Embedding` has them.
    """
    shutil.copytree(checkpoint, directory)
    rng = np.random.default_rng(11)
    size, weights = HIDDEN, {}
    dense = [place for place, module in enumerate(modules) if module.kind == "dense"]
    for place, module in enumerate(modules):
        if module.kind == "pooling":
            size *= len(module.modes or ())
        elif module.kind == "dense":
            made = DIMENSION if place == dense[-1] else size // 2
            weights[f"embedding.{place}.linear.weight"] = rng.normal(size=(made, size)).astype(np.float32) / 4
            if place != dense[-1]:  # one layer has a bias, and the other none
                weights[f"embedding.{place}.linear.bias"] = rng.normal(size=made).astype(np.float32)
            size = made
        elif module.kind == "layer-norm":
            weights[f"embedding.{place}.norm.weight"] = 1 + rng.normal(size=size).astype(np.float32) / 8
            weights[f"embedding.{place}.norm.bias"] = rng.normal(size=size).astype(np.float32) / 8
    whole = {"similarity": "cosine"} | facts
    stated = Embedding(dimension=size, normalized=modules[-1].kind == "normalize", modules=modules, **whole)
    write_modules(directory, stated, weights, hidden_size=HIDDEN, max_length=max_length)
    return directory
