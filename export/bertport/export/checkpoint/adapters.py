"""PEFT adapters: a LoRA adapter merged by PEFT into the model that it was trained on, and written as a checkpoint."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.families import promises
from bertport.export.checkpoint.foreign import ADAPTER
from bertport.export.checkpoint.heads import HEADS
from bertport.export.checkpoint.labels import labels_in, unnamed
from bertport.export.checkpoint.memory import as_inputs, is_tied, write_tensors
from bertport.export.checkpoint.source import copy_small_files, read_json
from bertport.export.checkpoint.tokenizer_loading import quiet
from bertport.export.checkpoint.weights import WeightFiles, read_shapes, read_tensors
from bertport.runtime.errors import CheckpointError, MissingDependencyError, PathError
from bertport.runtime.excerpts import excerpt, one_line
from bertport.runtime.heads import QUESTION_ANSWERING, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION
from bertport.runtime.installation import first_missing

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from transformers import PreTrainedModel

    from bertport.export.checkpoint.read import Checkpoint

__all__ = ["Adapter", "find_adapter", "write_merged"]

KINDS = ("LORA",)
"""Kinds of adapters that are read, DoRA and rank-stabilised LoRA among them."""
PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva", "true", "false")
"""Values of init_lora_weights that leave the model alone; the others take something out of its weights."""
UNREAD = {
    "megatron_config": "layers of Megatron",
    "layer_replication": "layers that are there more than once",
}
"""Settings whose models are no longer those of config.json."""
CLASSES = {
    "SEQ_CLS": HEADS[SEQUENCE_CLASSIFICATION].own_class,
    "TOKEN_CLS": HEADS[TOKEN_CLASSIFICATION].own_class,
    "QUESTION_ANS": HEADS[QUESTION_ANSWERING].own_class,
}
"""Class that an adapter was trained on, whatever its base was saved as, by PEFT's task type."""
INSIDE = "base_model.model."
"""The prefix of an adapter's tensor names."""
ATOL = 1e-4
"""Largest difference between the model with its adapter and the merged one: float32's rounding, as an export's own."""


class Adapter:
    """An adapter's directory, its settings and the shapes of its tensors read.

    Args:
        directory: where its files are.
        settings: adapter_config.json.
        weights: adapter_model.safetensors.
    """

    def __init__(self, directory: Path, settings: dict[str, Any], weights: WeightFiles) -> None:
        self.directory = directory
        self.settings = settings
        self.weights = weights
        self.shapes = read_shapes(weights)
        self.names = tuple(self.shapes)

    @property
    def name(self) -> str:
        """The name of its directory."""
        return self.directory.resolve().name

    @property
    def summary(self) -> str:
        """Description for people."""
        return f"the adapter in {self.directory} (rank {self.settings.get('r')})"


def find_adapter(directory: Path) -> Adapter:
    """Read an adapter's settings and the headers of its weights, which are never unpickled.

    Raises:
        MissingDependencyError: when PEFT is not installed.
        PathError: when there is no such directory.
        CheckpointError: when it holds no LoRA adapter, or one whose weights are no safetensors.
    """
    if missing := first_missing(("peft",)):
        raise MissingDependencyError("--adapter", missing, missing)
    config, safe, pickled = ADAPTER
    if not directory.is_dir():
        raise PathError(f"no adapter at {directory}: give the directory that holds {config}")
    if not (directory / config).is_file():
        raise CheckpointError(f"{directory} holds no adapter: it has no {config}; give the directory that does")
    settings = read_json(directory / config)
    if not (directory / safe).is_file():
        held = f"weights as a pickle ({pickled})" if (directory / pickled).is_file() else "no weights"
        raise CheckpointError(
            f"the adapter in {directory} has {held}, and {safe} is read: save it again with PEFT's save_pretrained"
        )
    kind = settings.get("peft_type")
    if kind not in KINDS:
        raise CheckpointError(
            f"the adapter in {directory} is of the kind {excerpt(kind)}; {', '.join(KINDS)} can be merged: merge it "
            "yourself where PEFT can, and export the model"
        )
    strange = next((what for name, what in UNREAD.items() if settings.get(name)), None)
    if settings.get("init_lora_weights", True) not in PLAIN_STARTS:
        strange = f"init_lora_weights {excerpt(settings['init_lora_weights'])}, which changes the model's own weights"
    if strange:
        raise CheckpointError(
            f"the adapter in {directory} has {strange}: merge it yourself with PEFT, and export the model"
        )
    return Adapter(directory, settings, WeightFiles(paths=(directory / safe,)))


def write_merged(checkpoint: Checkpoint, adapter: Adapter, directory: Path) -> None:
    """Write a checkpoint with an adapter merged into it; what the adapter does not change is written as it was read.

    Args:
        checkpoint: the model that the adapter was trained on.
        adapter: the adapter.
        directory: an empty one.

    Raises:
        CheckpointError: when the adapter has no place in the model, or PEFT cannot merge it.
    """
    import transformers

    name = _class_of(checkpoint, adapter)
    labels = _labels(checkpoint, adapter, name)
    settings = copy.deepcopy(checkpoint.config)
    if labels:
        settings.num_labels = len(labels)
    kind: Any = getattr(transformers, name)
    model = kind(settings).eval()
    tensors = replace(checkpoint, modules=None).tensors()  # theirs stay where they are
    if model.base_model is model:
        tensors = {name.removeprefix(checkpoint.family.prefix): tensor for name, tensor in tensors.items()}
    places = model.state_dict().keys()
    loaded = model.load_state_dict({name: tensor for name, tensor in tensors.items() if name in places}, strict=False)
    _merge(model, adapter)
    trained = {name.removeprefix(INSIDE) for name in adapter.names}
    write_tensors(
        model,
        directory,
        beside={name: tensor for name, tensor in tensors.items() if name not in places},
        without=set(loaded.missing_keys) - trained,  # a head that the checkpoint lacks is not one of random numbers
    )
    config = checkpoint.raw_config | {"tie_word_embeddings": is_tied(model)}  # PEFT unties what an adapter parts
    if name != checkpoint.model_class:
        config |= {"architectures": [name]}
    if labels and labels != labels_in(checkpoint.raw_config):
        config = {key: value for key, value in config.items() if key not in {"label2id", "num_labels"}}
        config |= {"id2label": dict(enumerate(labels))}
    copy_small_files(checkpoint.directory, directory, config, without=ADAPTER[0])


def _class_of(checkpoint: Checkpoint, adapter: Adapter) -> str:
    """Return transformers' class that an adapter was trained on: its base's, or one whose head only the adapter has."""
    family = checkpoint.family
    name = f"{family.class_prefix}{CLASSES.get(str(adapter.settings.get('task_type')), '')}"
    heads = promises(family, name)
    brought = any(
        f"{INSIDE}{tensor}" in adapter.shapes for head in heads for tensor in checkpoint.layout.heads[head].shapes
    )
    return name if brought and not heads <= set(checkpoint.plan.heads) else checkpoint.model_class


def _labels(checkpoint: Checkpoint, adapter: Adapter, model_class: str) -> tuple[str, ...]:
    """Return the labels of a class, as many as the adapter has rows for; none where it has none.

    An adapter does not say what they are called: they are the base's where it has as many, and transformers' otherwise.
    """
    labels: tuple[str, ...] = ()
    for head in promises(checkpoint.family, model_class):
        for tensor in checkpoint.layout.heads[head].rows:
            labels = labels_in(checkpoint.raw_config)
            rows, *_ = adapter.shapes.get(f"{INSIDE}{tensor}", (len(labels),))
            labels = labels if rows == len(labels) else unnamed(rows)
    return labels


def _merge(model: PreTrainedModel, adapter: Adapter) -> None:
    """Merge an adapter into a model in place, and compare it with the model that has the adapter beside its weights.

    The modules of the merged model are those of transformers again.

    Args:
        model: the model that the adapter was trained on, or one that has it as its encoder, in evaluation mode.
        adapter: the adapter.

    Raises:
        CheckpointError: when the adapter has no place in the model, or PEFT cannot merge it.
    """
    part = _part(model, adapter)
    before = _names(model)
    with quiet():
        changed = _with_adapter(part, adapter)
        expected = _outputs(model)
        try:
            merged = changed.merge_and_unload(safe_merge=True)
        except Exception as error:  # PEFT's own, of every kind; one of them is that values are not finite
            raise CheckpointError(f"PEFT cannot merge {adapter.summary}: {_said(error)}") from error
        if part is not model:
            setattr(model, model.base_model_prefix, merged)
        merged_outputs = _outputs(model)
    if _names(model) != before:
        raise CheckpointError(f"{adapter.summary} changes which tensors its model has: merge it yourself with PEFT")
    worst = max(float((one - other).abs().max()) for one, other in zip(expected, merged_outputs, strict=True))
    if not worst <= ATOL:
        raise CheckpointError(
            f"merged into the model, {adapter.summary} gives other outputs (one differs by {worst:.2g}), as an "
            "adapter of a word embedding that is also the decoder does: train one without that embedding"
        )


def _names(model: PreTrainedModel) -> set[str]:
    return {name for name, _ in model.named_parameters(remove_duplicate=False)}


def _part(model: PreTrainedModel, adapter: Adapter) -> PreTrainedModel:
    """Return the model, or its encoder, whichever has the modules that the names of an adapter's tensors begin with."""
    inner: PreTrainedModel = model.base_model  # type: ignore[assignment]  # of a class with heads, the encoder
    first = {name.removeprefix(INSIDE).partition(".")[0] for name in adapter.names}
    places = [module for module in (model, inner) if first <= {name for name, _ in module.named_children()}]
    if not places:
        other = sorted(first - {name for module in (model, inner) for name, _ in module.named_children()})
        raise CheckpointError(
            f"{adapter.summary} has weights for {', '.join(map(excerpt, (other or sorted(first))[:5]))}, which a "
            f"{type(model).__name__} does not have: give the model that it was trained on"
        )
    return places[0]


def _with_adapter(model: PreTrainedModel, adapter: Adapter) -> Any:  # noqa: ANN401 — PEFT's own model
    """Return a model with an adapter beside its weights, every tensor of which has found its place."""
    import peft

    try:
        config = peft.PeftConfig.from_pretrained(str(adapter.directory))
        config.inference_mode = True
        changed = peft.get_peft_model(model, config)
        tensors = read_tensors(adapter.weights, {name: name for name in adapter.names})
        loaded: Any = peft.set_peft_model_state_dict(changed, tensors)
    except CheckpointError:
        raise
    except Exception as error:  # PEFT's own, of every kind
        raise CheckpointError(
            f"PEFT cannot put {adapter.summary} on a {type(model).__name__}: {_said(error)}"
        ) from error
    own = peft.get_peft_model_state_dict(changed).keys()
    lost = sorted({*loaded.unexpected_keys, *(own - set(adapter.names))})
    if lost:
        raise CheckpointError(
            f"{adapter.summary} and a {type(model).__name__} do not belong together: {lost[0]} is in only one of them"
        )
    changed.eval()
    return changed


def _outputs(model: Any) -> list[torch.Tensor]:  # noqa: ANN401 — a model of transformers
    """Return what a model computes of some ids that are the same at every call."""
    import torch

    length = min(16, int(model.config.max_position_embeddings) // 2)
    ids = torch.randint(0, model.config.vocab_size, (2, length), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        outputs = model(**as_inputs(model, ids))
    return [output.float() for output in outputs.values() if isinstance(output, torch.Tensor)]


def _said(error: Exception) -> str:
    return excerpt(one_line(error) or type(error).__name__, 300)
