"""A model in memory, written as a checkpoint: its parameters by their names, its config and its tokenizer.

Not by `save_pretrained`, which changes the model's config, writes an adapter alone where the model has one, and drops
a copy of what config.json calls tied, whether the copy is equal or not.
"""

from __future__ import annotations

import copy
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.families import FAMILIES, classes, family_of_class, promises
from bertport.export.checkpoint.heads import HEADS
from bertport.export.checkpoint.tokenizer_loading import quiet, without_stdout
from bertport.export.checkpoint.weights import SINGLE
from bertport.runtime.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    import torch
    from transformers import PreTrainedModel

__all__ = [
    "as_inputs",
    "check_model",
    "is_tied",
    "parameters_of",
    "write_model",
    "write_tensors",
    "write_tokenizer",
]

OWN = frozenset({"torch", "transformers"})
"""Packages whose modules are what a checkpoint's config.json and tensors say of them."""
HOLDERS = {
    "peft": "a model with an adapter: give model.merge_and_unload()",
    "sentence_transformers": "a model with pooling: save it with model.save(DIR), and give DIR",
    "_orig_mod": "a compiled model: give model._orig_mod",
    "module": "a model in a wrapper: give model.module",
}
"""Advice on objects that hold a model, by the package of their class or an attribute."""
MERGE = "merge its adapter with merge_and_unload() of PEFT first"
LENGTH = 8
"""Tokens of the text by which a model is compared with what was written of it."""
WIDE, NARROW = 1e-4, 0.1
"""Largest difference of their answers, as a share of the largest number: in 32 bits or more, and in 16."""
QUANTIZED = "torch.ao."
"""The package of PyTorch's quantized modules, which are other ones than those of config.json."""


def check_model(model: object) -> None:
    """Refuse an object that is not, through and through, one of transformers' own models.

    Raises:
        UsageError: for an object that is no model of transformers, or holds one.
        CheckpointError: for a class of no family, and for a model that has parts with code of their own, or whose
            parameters are elsewhere.
    """
    import torch
    import transformers

    kind = type(model)
    if not isinstance(model, transformers.PreTrainedModel):
        tells = [kind.__module__.partition(".")[0], *(name for name in HOLDERS if hasattr(model, name))]
        held = next((HOLDERS[tell] for tell in tells if tell in HOLDERS), "and should be a model of transformers")
        raise UsageError(f"the source is a {kind.__module__}.{kind.__qualname__}, {held}")
    family = family_of_class(kind.__name__)
    if family is None or getattr(transformers, kind.__name__, None) is not kind:
        near = next(
            (family for family in FAMILIES.values() if isinstance(model, _classes_of(family.class_prefix))), None
        )
        named = ", ".join(classes(near) if near else (family.title for family in FAMILIES.values()))
        raise CheckpointError(
            f"the model is a {kind.__module__}.{kind.__qualname__}, which cannot be exported; supported: {named}, as "
            f"transformers has them{'; or give its encoder, model.base_model' if near else ''}"
        )
    for name, module in model.named_modules():
        package = type(module).__module__.partition(".")[0]
        stated = "forward" in vars(module) and not hasattr(module, "_hf_hook")  # which accelerate sets
        if package not in OWN or stated or type(module).__module__.startswith(QUANTIZED):
            code = "a forward method of its own" if stated else f"a {type(module).__module__}.{type(module).__name__}"
            raise CheckpointError(
                f"the model has {code} at {name or 'its top'}, whose code a checkpoint does not hold: "
                f"{MERGE if package == 'peft' else 'give it with the modules of transformers alone'}"
            )
    away = next(
        (name for name, parameter in model.named_parameters() if parameter.device == torch.device("meta")), None
    )
    if away:
        raise CheckpointError(
            f"the model's {away} has no values here (its device is meta): load it whole, without offloading"
        )
    for name, parameter in model.named_parameters():
        if type(parameter) is not torch.nn.Parameter:  # torchao's and DTensor keep their own type
            form = type(parameter)
            raise CheckpointError(
                f"the model's {name} is a {form.__module__}.{form.__qualname__}, which a checkpoint cannot hold as it "
                "is: load the model whole and in floating point, without quantization and sharding"
            )


def write_model(model: PreTrainedModel, directory: Path) -> tuple[str, ...]:
    """Write model.safetensors and config.json of a model, which stays as it is.

    config.json says whether decoder and word embedding are one, as the model has them.

    Args:
        model: one that `check_model` accepts, on any device, in any mode.
        directory: the checkpoint's.

    Returns:
        Sentences about what is not written.

    Raises:
        CheckpointError: when the model answers otherwise than what was written: its modules were changed after they
            were made.
    """
    write_tensors(model, directory)
    config: Any = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.tie_word_embeddings = is_tied(model)
    with quiet():
        config.save_pretrained(str(directory))
    hooked = [name or "its top" for name, module in model.named_modules() if _is_hooked(module)]
    if not hooked:
        _check_written(model, config)
        return ()
    return (f"left out: forward hooks of the model (at {', '.join(hooked[:3])}{' …' if hooked[3:] else ''})",)


def write_tensors(
    model: PreTrainedModel,
    directory: Path,
    *,
    beside: Mapping[str, torch.Tensor] = MappingProxyType({}),
    without: Collection[str] = (),
) -> None:
    """Write model.safetensors: a model's tensors in their type, of those that are tied the first.

    Args:
        model: the model, on any device.
        directory: the checkpoint's.
        beside: tensors of the checkpoint that the model has no place for.
        without: names of tensors that are not the checkpoint's.
    """
    from safetensors.torch import save_file

    every = dict(model.named_parameters(remove_duplicate=False))
    buffers = {name: tensor for name, tensor in model.state_dict().items() if name not in every}
    tensors = dict(beside) | parameters_of(model) | buffers
    kept = {name: tensor for name, tensor in tensors.items() if name not in without}
    save_file(_apart(kept), directory / SINGLE, metadata={"format": "pt"})


def parameters_of(model: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """Return the parameters of a model, each by one name: the encoder's own where a head has it under another.

    Some of transformers' classes list their head before the encoder.
    """
    every = dict(model.named_parameters(remove_duplicate=False))
    encoder = f"{model.base_model_prefix}."
    names = sorted(every, key=lambda name: not name.startswith(encoder))  # of one kind, in the order that they had
    first: dict[int, str] = {}
    for name in names:
        first.setdefault(id(every[name]), name)
    return {name: every[name] for name in every if first[id(every[name])] == name}


def as_inputs(model: PreTrainedModel, ids: torch.Tensor) -> dict[str, Any]:
    """Return the arguments with which a class of transformers reads ids; for multiple choice, a text has one choice.

    Args:
        model: the model.
        ids: int64 [batch, sequence], without padding.
    """
    import torch

    name = type(model).__name__
    family = family_of_class(name)
    if family is not None and any(HEADS[head].choices for head in promises(family, name)):
        ids = ids.unsqueeze(1)
    # Whatever the config says: with torchscript or without return_dict it would be a tuple.
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "return_dict": True}


def is_tied(model: PreTrainedModel) -> bool:
    """Return whether decoder and word embedding of a model are one, or what its config says where it has no decoder."""
    words: Any = model.get_input_embeddings()
    decoder: Any = model.get_output_embeddings()
    if decoder is None:
        return bool(getattr(model.config, "tie_word_embeddings", True))
    return decoder.weight is words.weight


def _check_written(model: PreTrainedModel, config: Any) -> None:  # noqa: ANN401 — each class has its own
    """Compare the answers of a model with those of one that is made of its config and has its tensors.

    Raises:
        CheckpointError: when they differ by more than their type rounds.
    """
    import torch

    own: Any = model
    modes = [(module, module.training) for module in model.modules()]
    with quiet(), torch.random.fork_rng(devices=[]):  # what it begins with is random
        written: Any = type(own)(config)
    written.to(device=own.device, dtype=own.dtype).eval()
    try:
        written.load_state_dict(own.state_dict(), strict=False)
    except RuntimeError:  # of other shapes: where the checkpoint is read, they are named
        return
    own.eval()
    try:
        rows = own.get_input_embeddings().num_embeddings
        ids = torch.linspace(0, rows - 1, LENGTH, device=own.device).long().unsqueeze(0)
        given = as_inputs(own, ids)
        with torch.no_grad():
            pairs = zip(own(**given).items(), written(**given).values(), strict=True)
            further = {
                name: (one.float() - other.float()).abs().max().item() / max(1.0, other.float().abs().max().item())
                for (name, one), other in pairs
                if isinstance(one, torch.Tensor)
            }
    finally:
        for module, training in modes:
            module.training = training
    narrow = any(parameter.dtype not in {torch.float32, torch.float64} for parameter in model.parameters())
    name, most = max(further.items(), key=lambda item: item[1])
    if not most <= (NARROW if narrow else WIDE):
        raise CheckpointError(
            f"the model answers otherwise than its config and its tensors make a model answer ({name} by {most:.2g} of "
            "the largest), so its modules were changed after they were made, such as an activation or an eps: set that "
            "in its config, and make the model from it"
        )


def _is_hooked(module: torch.nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)  # noqa: SLF001 — PyTorch has no other way to ask


def write_tokenizer(tokenizer: object, directory: Path) -> None:
    """Write the files of a tokenizer, which stays as it is.

    Raises:
        UsageError: when it is none of transformers'.
    """
    import transformers

    if not isinstance(tokenizer, transformers.PreTrainedTokenizerBase):
        kind = type(tokenizer)
        raise UsageError(
            f"the tokenizer is a {kind.__module__}.{kind.__qualname__}; one of transformers is expected, as "
            "AutoTokenizer.from_pretrained returns it"
        )
    copied: Any = copy.deepcopy(tokenizer)
    copied.chat_template = None  # an encoder has none, and transformers before 5.10 makes paths of their names
    with quiet(), without_stdout():
        copied.save_pretrained(str(directory))


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors on the CPU, each in storage of its own: safetensors takes no two that share any."""
    separate: dict[str, torch.Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu()
        storage = value.untyped_storage()
        shared = storage.nbytes() != value.nbytes or storage.data_ptr() in places
        separate[name] = value.clone().contiguous() if shared or not value.is_contiguous() else value
        places.add(storage.data_ptr())
    return separate


def _classes_of(prefix: str) -> tuple[type, ...]:
    """Return the base class of a family's models in transformers; nothing where it has none."""
    import transformers

    with quiet():  # older versions compile parts of DeBERTa as it is imported, which PyTorch warns of
        base = getattr(transformers, f"{prefix}PreTrainedModel", None)
    return (base,) if isinstance(base, type) else ()
