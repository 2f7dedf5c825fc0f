"""Seeded tiny checkpoints of fine-tuned models: any family with any of its heads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.families import FAMILIES, possible_heads
from bertport.export.checkpoint.heads import HEADS
from bertport.runtime.heads import MULTIPLE_CHOICE, QUESTION_ANSWERING, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION
from tests.conftest import built_once
from tests.families import tiny
from tests.invented import rewrite

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

TUNED = (SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION, QUESTION_ANSWERING, MULTIPLE_CHOICE)
"""The heads that a checkpoint is fine-tuned with."""
LABELS = {
    SEQUENCE_CLASSIFICATION: ("negative", "neutral", "positive"),
    TOKEN_CLASSIFICATION: ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
}
"""The labels of a checkpoint for which none are given."""


def class_of(family: str, head: str) -> str:
    """Return transformers' class of a family for a head."""
    return f"{FAMILIES[family].class_prefix}{HEADS[head].own_class}"


def combinations() -> list[tuple[str, str]]:
    """Return every family with each of these heads that it can have."""
    return [(family, head) for family, row in FAMILIES.items() for head in TUNED if head in possible_heads(row)]


def labelled(labels: Sequence[str]) -> dict[str, Any]:
    """Return the settings of config.json that name labels."""
    return {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}


def head_checkpoint(  # noqa: PLR0913 — what a checkpoint is made of, all but the first three by name
    factory: pytest.TempPathFactory,
    family: str,
    head: str,
    *,
    labels: Sequence[str] | None = None,
    problem_type: str | None = None,
    seed: int = 7,
    **changes: object,
) -> Path:
    """Return the directory of a seeded tiny checkpoint of a family with a head, made once; not to be changed.

    Args:
        factory: pytest's.
        family: transformers' model type, a key of `TINY`.
        head: one of `TUNED`.
        labels: the labels in order; those of `LABELS` when not given, none where the head has none.
        problem_type: as config.json states it; not stated when not given.
        seed: of every weight.
        changes: further settings of config.json.
    """
    named = LABELS.get(head, ()) if labels is None else tuple(labels)
    settings = (labelled(named) if named else {}) | ({"problem_type": problem_type} if problem_type else {}) | changes
    key = "-".join((class_of(family, head), *named, *(f"{name}={settings[name]}" for name in sorted(changes))))
    name = f"heads/{key}-{problem_type}-{seed}".replace(" ", "")

    def build(path: Path) -> None:
        tiny(family, path, model_class=class_of(family, head), seed=seed, **settings)

    return built_once(factory, name, build)


def head_bundle(factory: pytest.TempPathFactory, family: str, head: str, **settings: Any) -> tuple[Path, Path]:
    """Return the directories of such a checkpoint and of its bundle, each made once; not to be changed.

    Args:
        factory: pytest's.
        family: transformers' model type.
        head: one of `TUNED`.
        settings: those of `head_checkpoint`.
    """
    from bertport.export import export

    checkpoint = head_checkpoint(factory, family, head, **settings)
    return checkpoint, built_once(factory, f"bundles/heads/{checkpoint.name}", lambda path: export(checkpoint, path))


def frozen(checkpoint: Path, base: Path, target: Path, *, dtype: str = "float32") -> Path:
    """Copy a checkpoint with the encoder of another one under its head, as if it had been trained on that.

    Args:
        checkpoint: where the head is from.
        base: a checkpoint of the same family, whose encoder and pooler are taken.
        target: where the copy is written.
        dtype: the type that weights are stored in.
    """
    import torch
    from safetensors.torch import load_file

    prefix = FAMILIES[json.loads((base / "config.json").read_text())["model_type"]].prefix
    encoder = load_file(base / "model.safetensors")

    def change(tensors: dict[str, Any]) -> dict[str, Any]:
        kept = {name: encoder.get(name, each) if name.startswith(prefix) else each for name, each in tensors.items()}
        return {name: each.to(getattr(torch, dtype)) for name, each in kept.items()}

    return rewrite(checkpoint, target, change)
