"""The modules of sentence-transformers that make one vector of a text, read from their folders.

Every class is known by its name here; nothing that a file names is imported, and no code of a checkpoint is run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.source import UNMATCHED, read_json
from bertport.export.checkpoint.weights import find_weights, read_shapes, read_tensors
from bertport.runtime.bundle.manifest import SIMILARITIES, Embedding, EmbeddingModule
from bertport.runtime.errors import CheckpointError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import EMBEDDING
from bertport.runtime.text.encoder import lone_surrogate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import torch

    from bertport.export.checkpoint.source import Located, Part
    from bertport.export.checkpoint.weights import WeightFiles

__all__ = [
    "CONFIG",
    "LIBRARY",
    "MODES",
    "Module",
    "Modules",
    "longest_input",
    "lowers_text",
    "read_modules",
    "unread_prompt",
]

CONFIG = "config_sentence_transformers.json"
"""Settings of the whole model: prompts, and how vectors are compared."""
LIBRARY = "sentence_transformers."
"""Prefix of the classes of modules that are the library's own, in any of its versions."""
SETTINGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Settings of the encoder that sentence-transformers follows and transformers does not: the first of these is read."""
INSTEAD = "export it with --as features for the encoder alone, whose vectors of tokens `features` can pool"
MODES = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
"""The poolings by their names in sentence-transformers 6, and in files of versions before. Several at once stand in the
order in which its file names them, and of flags in this one."""
ACTIVATIONS = (
    "ELU",
    "GELU",
    "Hardtanh",
    "Identity",
    "LeakyReLU",
    "Mish",
    "ReLU",
    "ReLU6",
    "SELU",
    "Sigmoid",
    "SiLU",
    "Softplus",
    "Softsign",
    "Tanh",
)
"""PyTorch's functions behind a dense layer, as they are without arguments, which is how the library makes them."""
MOST_MODULES = 64
"""Modules behind an encoder; models of today have four at most."""
PLACE = "sentence_embedding"
"""The name of the vector that the modules behind the pooling read and write."""
TASK = "feature-extraction"
"""Task, in sentence-transformers 6, of an encoder without heads."""
KNOWN = {"max_seq_length", "do_lower_case", "transformer_task", "modality_config", "module_output_name"}
KNOWN |= {"unpad_inputs", "model_args", "model_kwargs"}
"""Settings of the encoder that are followed, or that do not change what it computes; a note names any other."""


Shapes = dict[str, tuple[int, ...]]
"""Shapes of a module's tensors, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One module behind an encoder."""

    facts: EmbeddingModule
    """Its entry in a manifest."""
    size: int
    """Dimension of the vector that it makes."""
    shapes: Shapes
    """Its tensors."""
    files: WeightFiles | None = None
    """Files of its tensors; None where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Modules:
    """Modules that run on the hidden states of an encoder, their tensors not yet read."""

    facts: Embedding
    """Their entry in a manifest."""
    modules: tuple[Module, ...]
    """The modules, in order."""
    notes: tuple[str, ...]
    """Sentences on what was left out."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files of their weights."""
        return tuple(path for module in self.modules if module.files is not None for path in module.files.paths)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Read the tensors as float32, under the names that the model's `load_state_dict` expects.

        Raises:
            CheckpointError: when a file is damaged.
        """
        tensors: dict[str, torch.Tensor] = {}
        for place, module in enumerate(self.modules):
            if module.files is not None:
                names = {name: f"{EMBEDDING}.{place}.{name}" for name in module.shapes}
                tensors |= read_tensors(module.files, names)
        return tensors


def read_modules(located: Located, *, hidden_size: int) -> Modules | None:
    """Read the modules behind an encoder; None for a checkpoint that has none.

    Args:
        located: the encoder, with the modules that modules.json lists.
        hidden_size: width of the encoder's states.

    Raises:
        CheckpointError: for a module that cannot be in a graph, or that is damaged, naming it.
    """
    if not located.parts:
        return None
    path = (located.card or located.directory) / CONFIG
    stated = read_json(path) if path.is_file() else {}
    kind = stated.get("model_type", "SentenceTransformer")
    first, *others = located.parts
    if len(others) > MOST_MODULES:
        raise _not_taken(f"{located.name} has {len(others):,} modules behind its encoder")
    if kind == "CrossEncoder" and not others:
        return None  # one of transformers' classes with its own head
    if kind != "SentenceTransformer":
        raise _not_taken(f"{located.name} is a {excerpt(kind)} of sentence-transformers")
    _check_encoder(first, located.directory)
    prompts = _prompts(stated, path)
    modules = _behind(located, others, hidden_size)
    if not modules:
        raise _not_taken(f"{located.name} has no Pooling behind its encoder (modules.json)")
    if any(prompts.values()) and modules[0].facts.include_prompt is False:
        raise _not_taken(f"{located.name} has prompts whose tokens its pooling leaves out (include_prompt)")
    dimension = modules[-1].size
    facts = Embedding(
        dimension=dimension,
        normalized=modules[-1].facts.kind == "normalize",
        similarity=_similarity(stated, path),
        modules=tuple(module.facts for module in modules),
        prompts=prompts,
        default_prompt=_default(stated, prompts, path),
        truncate_dim=_cut(stated, dimension, path),
    )
    return Modules(facts=facts, modules=tuple(modules), notes=_unheeded(located.directory))


def unread_prompt(located: Located) -> tuple[str, ...]:
    """Return a note on the prompt that a cross-encoder puts before each query, as no task does; none without one."""
    path = (located.card or located.directory) / CONFIG
    stated = read_json(path) if path.is_file() else {}
    if stated.get("model_type") != "CrossEncoder":
        return ()
    prompts = _prompts(stated, path)
    name = _default(stated, prompts, path)
    if name is None or not prompts[name]:
        return ()
    note = (
        f"left out: the prompt {excerpt(prompts[name])} of {path.name}, which sentence-transformers puts before each "
        "query: begin your queries with it"
    )
    return (note,)


def _behind(located: Located, parts: Iterable[Part], hidden_size: int) -> list[Module]:
    """Return the modules behind the encoder.

    Raises:
        CheckpointError: as for `read_modules`.
    """
    modules: list[Module] = []
    for part in parts:
        own = part.type.startswith(LIBRARY)
        if own and part.kind == "Dropout":
            continue  # it does nothing once a model is trained
        read = READERS.get(part.kind) if own else None
        if read is None:
            raise _not_taken(f"{located.name} has the module {excerpt(part.type)} (modules.json)")
        if (part.kind == "Pooling") is bool(modules):
            raise _not_taken(f"{located.name} has {part.kind} as module {len(modules) + 1} behind its encoder")
        path = part.directory / "config.json"
        settings = read_json(path) if path.is_file() or part.kind != "Normalize" else {}
        module = read(settings, modules[-1].size if modules else hidden_size, path)
        modules.append(replace(module, files=_weights(part.directory, module.shapes)) if module.shapes else module)
    return modules


def longest_input(directory: Path) -> int | None:
    """Return the tokens at which sentence-transformers cuts texts, by the settings beside an encoder; None for none.

    Raises:
        CheckpointError: when that is no number of tokens.
    """
    path, settings = _settings(directory)
    longest = settings.get("max_seq_length")
    if longest is None:
        return None
    if type(longest) is not int or longest < 1:
        raise CheckpointError(
            f"{path}: max_seq_length is {excerpt(longest)} and should be a number of tokens: correct it, or remove it"
        )
    return longest


def lowers_text(directory: Path) -> bool:
    """Return whether sentence-transformers lower-cases texts, by the settings beside an encoder."""
    return bool(_settings(directory)[1].get("do_lower_case"))


def _not_taken(what: str) -> CheckpointError:
    """Return the error for a model whose vectors of texts cannot be made in a graph."""
    return CheckpointError(f"{what}, which cannot be in a graph: {INSTEAD}")


def _settings(directory: Path) -> tuple[Path, dict[str, Any]]:
    """Return the file of an encoder's settings, and what it holds; an empty object where there is none."""
    path = next((directory / name for name in SETTINGS if (directory / name).is_file()), directory / SETTINGS[0])
    return path, read_json(path) if path.is_file() else {}


def _check_encoder(part: Part, directory: Path) -> None:
    """Refuse an encoder that gives anything but its hidden states.

    Raises:
        CheckpointError: naming what it is.
    """
    if not part.type.startswith(LIBRARY):
        raise _not_taken(f"{part.directory} is a {excerpt(part.type)} (modules.json)")
    path, settings = _settings(directory)
    task = settings.get("transformer_task", TASK)
    given = settings.get("module_output_name", "token_embeddings")
    match settings.get("modality_config"):
        case None | {"text": {"method_output_name": "last_hidden_state"}}:
            read = True
        case _:
            read = False
    if task != TASK or given != "token_embeddings" or not read:
        raise _not_taken(
            f"{path} asks for {excerpt(task)}, as {excerpt(given)} by {excerpt(settings.get('modality_config'))}"
        )


def _unheeded(directory: Path) -> tuple[str, ...]:
    """Return a note about the settings of an encoder that have no effect here; empty if there are none."""
    path, settings = _settings(directory)
    left = sorted(name for name, value in settings.items() if value and name not in KNOWN)
    return (f"left out: {', '.join(map(excerpt, left))} of {path.name}",) if left else ()


def _prompts(stated: Mapping[str, Any], path: Path) -> dict[str, str]:
    prompts = stated.get("prompts") or {}
    texts = [text for item in prompts.items() for text in item] if isinstance(prompts, dict) else [1]
    if not all(isinstance(text, str | None) and not lone_surrogate(text or "") for text in texts):
        raise CheckpointError(f"{path}: prompts is {excerpt(prompts)} and should give each name a text: correct it")
    return {name: prompt or "" for name, prompt in prompts.items()}


def _default(stated: Mapping[str, Any], prompts: Mapping[str, str], path: Path) -> str | None:
    name = stated.get("default_prompt_name")
    if name is not None and (not isinstance(name, str) or name not in prompts):
        raise CheckpointError(
            f"{path}: default_prompt_name is {excerpt(name)}, which is none of its prompts "
            f"({', '.join(map(excerpt, prompts)) or 'none'}): correct it, or remove it"
        )
    return name


def _similarity(stated: Mapping[str, Any], path: Path) -> str:
    name = stated.get("similarity_fn_name") or SIMILARITIES[0]
    if name not in SIMILARITIES:
        raise CheckpointError(
            f"{path}: similarity_fn_name is {excerpt(name)} and should be one of {', '.join(SIMILARITIES)}: correct it"
        )
    return str(name)


def _cut(stated: Mapping[str, Any], dimension: int, path: Path) -> int | None:
    cut = stated.get("truncate_dim")
    if cut is not None and (type(cut) is not int or cut < 1):
        raise CheckpointError(
            f"{path}: truncate_dim is {excerpt(cut)} and should be a number from 1 to {dimension}: correct it"
        )
    return None if cut is None else min(cut, dimension)


def _pooling(settings: Mapping[str, Any], width: int, path: Path) -> Module:
    stated = settings.get("embedding_dimension", settings.get("word_embedding_dimension", width))
    if stated != width:
        raise CheckpointError(
            f"{path} says that states have {excerpt(stated)} numbers and the encoder's have {width}: {UNMATCHED}"
        )
    modes = settings.get("pooling_mode", [name for name, flag in MODES.items() if settings.get(flag)] or "mean")
    names = (modes,) if isinstance(modes, str) else tuple(modes) if isinstance(modes, list) else ()
    unknown = next((mode for mode in names if not isinstance(mode, str) or mode not in MODES), None)
    if not names or unknown is not None:
        raise CheckpointError(
            f"{path}: the pooling is {excerpt(unknown or modes)}, and {', '.join(MODES)} can be exported: {INSTEAD}"
        )
    whole = settings.get("include_prompt", True)
    facts = EmbeddingModule(kind="pooling", modes=names, include_prompt=None if whole else False)
    return Module(facts=facts, size=width * len(names), shapes={})


def _dense(settings: Mapping[str, Any], width: int, path: Path) -> Module:
    _require_place(settings, path)
    if settings.get("use_residual"):
        raise _not_taken(f"{path} adds a dense layer's input to its output (use_residual)")
    given, size = settings.get("in_features", width), settings.get("out_features")
    if given != width or type(size) is not int or size < 1:
        raise CheckpointError(
            f"{path} makes vectors of {excerpt(size)} numbers out of {excerpt(given)}, and those before it have "
            f"{width}: {UNMATCHED}"
        )
    stated = settings.get("activation_function", "torch.nn.modules.activation.Tanh")
    name = str(stated).rpartition(".")[2]
    if not str(stated).startswith("torch.nn.") or name not in ACTIVATIONS:
        raise CheckpointError(
            f"{path}: the activation is {excerpt(stated)}, and PyTorch's {', '.join(ACTIVATIONS)} can be exported: "
            f"{INSTEAD}"
        )
    shapes: Shapes = {"linear.weight": (size, width)} | ({"linear.bias": (size,)} if settings.get("bias", True) else {})
    return Module(facts=EmbeddingModule(kind="dense", activation=name), size=size, shapes=shapes)


def _layer_norm(settings: Mapping[str, Any], width: int, path: Path) -> Module:
    if settings.get("dimension", width) != width:
        raise CheckpointError(
            f"{path} says that vectors have {excerpt(settings['dimension'])} numbers and "
            f"those before it have {width}: {UNMATCHED}"
        )
    shapes: Shapes = {"norm.weight": (width,), "norm.bias": (width,)}
    return Module(facts=EmbeddingModule(kind="layer-norm"), size=width, shapes=shapes)


def _normalize(settings: Mapping[str, Any], width: int, path: Path) -> Module:
    _require_place(settings, path)
    return Module(facts=EmbeddingModule(kind="normalize"), size=width, shapes={})


def _require_place(settings: Mapping[str, Any], path: Path) -> None:
    """Refuse a module that reads or writes anything but the vector of a text."""
    for name in ("module_input_name", "module_output_name"):
        if settings.get(name) not in (None, PLACE):  # no set, in which a list cannot be looked for
            raise _not_taken(f"{path} has {name} {excerpt(settings[name])}")


READERS = {
    "Pooling": _pooling,
    "Dense": _dense,
    "LayerNorm": _layer_norm,
    "Normalize": _normalize,
}
"""Readers of a module's settings, by its class."""


def _weights(directory: Path, shapes: Shapes) -> WeightFiles:
    """Return the weight files of a module.

    Raises:
        CheckpointError: when they hold other tensors than its config.json says.
    """
    files = find_weights(directory)
    stored = read_shapes(files)
    if stored != shapes:
        name = next(tensor for tensor in sorted(stored | shapes) if stored.get(tensor) != shapes.get(tensor))
        have, want = (list(known[name]) if name in known else "none" for known in (stored, shapes))
        raise CheckpointError(
            f"{files.paths[0]} has {name} of the shape {have} and config.json beside it says {want}: {UNMATCHED}"
        )
    return files
