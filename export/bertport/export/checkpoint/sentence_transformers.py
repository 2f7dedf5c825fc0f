"""Directories of sentence-transformers: the encoder is one of several modules, at the top or in a folder of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.source import fetch_below, parsed, read_json
from bertport.runtime.errors import CheckpointError
from bertport.runtime.excerpts import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bertport.export.checkpoint.source import Located

__all__ = ["encoder_of"]

MODULES = "modules.json"
"""The file that lists the modules, in the order in which they run."""
ENCODER = "Transformer"
"""The class of the module that is a model of transformers, in whatever package of sentence-transformers it is."""
SETTINGS = "sentence_*_config.json"
"""Settings of the encoder that sentence-transformers follows, and transformers does not."""


def encoder_of(located: Located) -> Located:
    """Return the encoder's directory of a sentence-transformers model; any other checkpoint as it is.

    Raises:
        CheckpointError: when modules.json is none, leads elsewhere, or does not begin with an encoder.
    """
    path = located.directory / MODULES
    if not path.is_file():
        return located
    modules = _modules(path)
    kinds = [str(each["type"]).rpartition(".")[2] for each in modules]
    if kinds[0] != ENCODER:
        raise CheckpointError(
            f"{located.name} is a sentence-transformers model that begins with {excerpt(kinds[0])} ({MODULES}); one "
            f"that begins with {ENCODER} is expected, which holds the encoder"
        )
    below = _below(modules[0]["path"], path)
    if below and located.revision is not None:
        fetch_below(located, below)
    directory = located.directory / below
    if not directory.is_dir():
        raise CheckpointError(
            f"{located.directory} lacks the directory {below} that {MODULES} names: copy or download it again"
        )
    notes = tuple(_notes(directory, kinds[1:]))
    return replace(located, directory=directory, card=located.directory, notes=(*located.notes, *notes))


def _modules(path: Path) -> list[dict[str, Any]]:
    modules = parsed(path)
    if not (isinstance(modules, list) and modules and all(isinstance(each, dict) for each in modules)) or not all(
        isinstance(each.get(name), str) for each in modules for name in ("path", "type")
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


def _notes(directory: Path, others: list[str]) -> Iterator[str]:
    if others:
        yield (
            f"left out: {', '.join(others)} of the sentence-transformers model: the bundle gives the vectors of "
            "tokens, pooled as `features` is asked to"
        )
    for path in sorted(directory.glob(SETTINGS))[:1]:
        settings = read_json(path)
        if isinstance(longest := settings.get("max_seq_length"), int):
            yield f"left out: the {longest} tokens at which {path.name} cuts texts"
        if settings.get("do_lower_case"):
            yield f"left out: do_lower_case of {path.name}, which lower-cases texts before the tokenizer reads them"
