"""Directories of sentence-transformers: the encoder is one of several modules, at the top or in a folder of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.embedding import CONFIG, LIBRARY, MODES
from bertport.export.checkpoint.source import Part, fetch_below, parsed
from bertport.export.checkpoint.weights import SINGLE
from bertport.runtime.errors import CheckpointError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import EMBEDDING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from bertport.export.checkpoint.source import Located
    from bertport.runtime.bundle.manifest import Embedding, EmbeddingModule

__all__ = ["encoder_of", "write_modules"]

MODULES = "modules.json"
"""The file that lists the modules, in the order in which they run."""
ENCODER = "Transformer"
"""The class of the module that is a model of transformers, in whatever package of sentence-transformers it is."""
WITHOUT_FILES = ("Normalize", "Dropout")
"""Classes of modules that may have no file."""
CLASSES = {"pooling": "Pooling", "dense": "Dense", "layer-norm": "LayerNorm", "normalize": "Normalize"}
"""The class of each kind of module."""
TENSORS = {"dense": ("linear.weight",), "layer-norm": ("norm.weight", "norm.bias")}
"""The tensors that a kind of module always has."""
OPTIONAL = {"dense": ("linear.bias",)}
"""The tensors that it may have."""


def encoder_of(located: Located) -> Located:
    """Return the encoder's directory of a sentence-transformers model; any other checkpoint as it is.

    Raises:
        CheckpointError: when modules.json is none, leads elsewhere, or does not begin with an encoder.
    """
    path = located.directory / MODULES
    if not path.is_file():
        return located
    modules = _modules(path)
    parts = [
        Part(type=module["type"], directory=located.directory / _below(module["path"], path)) for module in modules
    ]
    if parts[0].kind != ENCODER:
        raise CheckpointError(
            f"{located.name} is a sentence-transformers model that begins with {excerpt(parts[0].kind)} ({MODULES}); "
            f"one that begins with {ENCODER} is expected, which holds the encoder"
        )
    for part in parts:
        below = str(part.directory.relative_to(located.directory))
        if part.directory != located.directory and located.revision is not None:
            fetch_below(located, below)
        # The Hub has no empty folders, and a module may have no file.
        if not part.directory.is_dir() and (part is parts[0] or part.kind not in WITHOUT_FILES):
            raise CheckpointError(
                f"{located.directory} lacks the directory {below} that {MODULES} names: copy or download it again"
            )
    return replace(located, directory=parts[0].directory, card=located.directory, parts=tuple(parts))


def _modules(path: Path) -> list[dict[str, Any]]:
    modules = parsed(path)
    if not (isinstance(modules, list) and modules and all(isinstance(module, dict) for module in modules)) or not all(
        isinstance(module.get(name), str) for module in modules for name in ("path", "type")
    ):
        raise CheckpointError(
            f"{path} should be a list of modules with their types and paths: restore the checkpoint's file"
        )
    return modules


def _below(stated: str, path: Path) -> str:
    """Return the path of a module below the model's directory.

    Raises:
        CheckpointError: when it leads out of it.
    """
    place = PurePosixPath(stated)
    top = path.parent.resolve()
    if place.is_absolute() or ".." in place.parts or not (top / place).resolve().is_relative_to(top):
        raise CheckpointError(f"{path} names {excerpt(stated)}, which is not a directory beside it: do not use it")
    return "" if place == PurePosixPath() else str(place)


def write_modules(
    directory: Path, facts: Embedding, weights: Mapping[str, NDArray[np.float32]], *, hidden_size: int, max_length: int
) -> None:
    """Write what makes a checkpoint a model of sentence-transformers, of any version from 2.

    Args:
        directory: the checkpoint, whose encoder is at the top.
        facts: what a manifest says of the modules.
        weights: tensors by their names in a graph.
        hidden_size: width of the encoder's states.
        max_length: the longest input in tokens.

    Raises:
        KeyError: when a tensor that a module always has is not there.
    """
    from safetensors.numpy import save_file

    listed = [_listed(0, "", ENCODER)]
    size = hidden_size
    for place, module in enumerate(facts.modules):
        kind = CLASSES[module.kind]
        folder = directory / f"{place + 1}_{kind}"
        tensors = _tensors(module.kind, f"{EMBEDDING}.{place}.", weights)
        settings, size = _settings(module, size, tensors)
        folder.mkdir()
        _write_json(folder / "config.json", settings)
        if tensors:
            save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
        listed.append(_listed(place + 1, folder.name, kind))
    cut = {} if facts.truncate_dim is None else {"truncate_dim": facts.truncate_dim}
    stated = {"prompts": facts.prompts, "default_prompt_name": facts.default_prompt}
    _write_json(directory / MODULES, listed)
    _write_json(directory / CONFIG, stated | {"similarity_fn_name": facts.similarity} | cut)
    _write_json(directory / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})


def _listed(place: int, path: str, kind: str) -> dict[str, Any]:
    """Return an entry of modules.json."""
    return {"idx": place, "name": str(place), "path": path, "type": f"{LIBRARY}models.{kind}"}


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _tensors(kind: str, prefix: str, weights: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Return the tensors of a module, each with memory of its own; KeyError where one is lacking."""
    import numpy as np

    always, perhaps = TENSORS.get(kind, ()), OPTIONAL.get(kind, ())
    names = [*always, *(name for name in perhaps if prefix + name in weights)]
    return {name: np.array(weights[prefix + name], order="C") for name in names}


def _settings(
    module: EmbeddingModule, size: int, tensors: Mapping[str, NDArray[np.float32]]
) -> tuple[dict[str, Any], int]:
    """Return the config.json of a module as versions from 2 read it, and the dimension of the vector that it makes.

    Args:
        module: the module.
        size: dimension of what it reads.
        tensors: its tensors.
    """
    settings: dict[str, Any] = {}
    if module.kind == "pooling":
        modes = list(module.modes or ())
        if modes == [mode for mode in MODES if mode in modes]:
            settings = {"word_embedding_dimension": size} | {flag: mode in modes for mode, flag in MODES.items()}
        else:  # an order that flags do not have, and so versions before 6 do not either
            settings = {"embedding_dimension": size, "pooling_mode": modes}
        return settings | {"include_prompt": module.include_prompt is not False}, size * len(modes)
    if module.kind == "dense":
        rows, columns = tensors["linear.weight"].shape
        package = "linear" if module.activation == "Identity" else "activation"
        settings = {"in_features": columns, "out_features": rows, "bias": "linear.bias" in tensors}
        return settings | {"activation_function": f"torch.nn.modules.{package}.{module.activation}"}, rows
    return {"dimension": size} if module.kind == "layer-norm" else settings, size
