"""Unsupported formats of weights: recognised by their files, with the conversion to one that is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertport.export.checkpoint.source import read_json
from bertport.runtime.errors import CheckpointError
from bertport.runtime.excerpts import excerpt

if TYPE_CHECKING:
    from pathlib import Path

    from bertport.export.checkpoint.source import Located

__all__ = ["ADAPTER", "MERGE", "explain", "refuse_adapter"]

ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
"""Files of a PEFT adapter."""
MERGE = "PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(OUT)"
"""Code that merges a model and an adapter into one checkpoint."""
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
"""Files that a checkpoint has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """A format of weights that is not read."""

    patterns: tuple[str, ...]
    """File names that tell it."""
    what: str
    """Its name, for people."""
    way: str
    """Advice to the user, as the end of a sentence."""


OF_TRAINING = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state(_\d+)?)\.\w+")
"""Files of transformers' Trainer that hold nothing of the model."""
WITH_TRANSFORMERS = (
    "CLASS.from_pretrained(DIR, {}=True).save_pretrained(OUT) in transformers 4 with {}, where CLASS is the one that "
    "config.json names"
)
"""Code that converts weights; another class would save heads of random numbers."""
FOREIGN = (
    Foreign(
        patterns=("*.ckpt.index", "*.ckpt.data-*", "*.ckpt.meta", "checkpoint", "saved_model.pb"),
        what="a TensorFlow checkpoint",
        way="one of Google's BERT code is read where its bert_config.json and vocab.txt lie beside it (and the extra "
        "tensorflow is installed)",
    ),
    Foreign(
        patterns=("tf_model*.h5", "*.h5"),
        what="weights of TensorFlow",
        way=f"convert them with {WITH_TRANSFORMERS.format('from_tf', 'tensorflow')}",
    ),
    Foreign(
        patterns=("flax_model*.msgpack", "*.msgpack"),
        what="weights of Flax",
        way=f"convert them with {WITH_TRANSFORMERS.format('from_flax', 'flax')}",
    ),
    Foreign(
        patterns=("*.onnx", "onnx/*.onnx"),
        what="an ONNX graph",
        way="get the PyTorch checkpoint that it was made from",
    ),
    Foreign(
        patterns=("*.gguf",),
        what="weights in GGUF",
        way="get the checkpoint that they were made from, in safetensors",
    ),
    Foreign(
        patterns=("model.*.safetensors", "pytorch_model.*.bin"),
        what="weights under another name",
        way="rename them to model.safetensors or pytorch_model.bin",
    ),
    Foreign(
        patterns=("*.safetensors",),
        what="safetensors under another name",
        way="rename the file to model.safetensors if it holds the whole model",
    ),
    Foreign(
        patterns=("*.bin", "*.pt", "*.pth", "*.ckpt"),
        what="PyTorch weights under another name",
        way="save them with save_pretrained, or rename a file that holds a state dict to pytorch_model.bin",
    ),
)
"""Foreign forms of checkpoints, in the order in which they are looked for."""


def explain(directory: Path, missing: str) -> CheckpointError:
    """Return the error for a directory that is no checkpoint, in the terms of what it holds.

    Args:
        directory: where a checkpoint was looked for.
        missing: what it lacks, for a directory of nothing known.
    """
    if adapter := adapter_in(directory):
        base = _base(directory)
        return CheckpointError(
            f"{directory} holds a PEFT adapter ({adapter}) and no whole model: export the model that it was trained on"
            f"{f' ({excerpt(base)})' if base else ''} with --adapter {directory}"
        )
    for form in FOREIGN:
        files = (path for pattern in form.patterns for path in directory.glob(pattern) if path.is_file())
        weights = sorted(path for path in files if not OF_TRAINING.fullmatch(path.name))
        if weights:
            named = weights[0].relative_to(directory)
            return CheckpointError(f"{directory} holds {form.what} ({named}), which is not read: {form.way}")
    inner = sorted(path.parent for pattern in WEIGHTS for path in directory.glob(f"*/{pattern}"))
    advice = f"; there is one in it: give {inner[0]}" if inner else ""
    return CheckpointError(f"{directory} is not a checkpoint that can be read: {missing}{advice}")


def adapter_in(directory: Path) -> str | None:
    """Return the name of the first file of a PEFT adapter; None where there is none."""
    return next((name for name in ADAPTER if (directory / name).is_file()), None)


def refuse_adapter(located: Located, *, added: bool = False) -> None:
    """Refuse a checkpoint beside whose weights an adapter lies: transformers would put it on them where PEFT is there.

    Args:
        located: the checkpoint.
        added: whether it is one whose heads are added to another, into which no adapter is merged.

    Raises:
        CheckpointError: when it is so.
    """
    directory = located.directory
    adapter = adapter_in(directory)
    if adapter and any(path.is_file() for pattern in WEIGHTS for path in directory.glob(pattern)):
        way = f"add what {MERGE} writes" if added else f"give --adapter {directory} to merge it"
        raise CheckpointError(
            f"{located.name} holds a PEFT adapter ({adapter}) beside a whole model: {way}, or remove its files if it "
            "is not wanted or is merged already"
        )


def _base(directory: Path) -> str | None:
    """Return the name of the model that an adapter was trained on, where its settings tell."""
    try:
        name = read_json(directory / ADAPTER[0]).get("base_model_name_or_path")
    except CheckpointError:
        return None
    return name if isinstance(name, str) and name else None
