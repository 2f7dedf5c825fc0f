"""Sources: what can be exported, each as a directory in Hugging Face's layout."""

from __future__ import annotations

import glob
import os
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bertport.export.checkpoint.adapters import find_adapter, write_merged
from bertport.export.checkpoint.foreign import refuse_adapter
from bertport.export.checkpoint.memory import check_model, write_model, write_tokenizer
from bertport.export.checkpoint.read import read_checkpoint
from bertport.export.checkpoint.sentence_transformers import encoder_of
from bertport.export.checkpoint.source import Located, locate
from bertport.export.checkpoint.tensorflow import find_variables, write_converted
from bertport.export.metadata import read_front_matter
from bertport.runtime.bundle.writer import workspace
from bertport.runtime.errors import CheckpointError, UsageError
from bertport.runtime.excerpts import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from bertport.export.checkpoint.adapters import Adapter

__all__ = ["MEMORY", "opened"]

MEMORY = "a model in memory"
"""The name of the source in the manifest of a bundle that is exported from a model in memory."""


@contextmanager
def opened(  # noqa: PLR0913 — a source, and what goes with each kind
    source: str | os.PathLike[str] | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    target: Path,
    *,
    revision: str | None,
    adapter: str | os.PathLike[str] | None,
    overwrite: bool,
) -> Iterator[Located]:
    """Return the directory of a source, which is there until the block ends.

    What is not in Hugging Face's layout is written so beside the output: on its disk, where there must be room anyway.

    Args:
        source: a directory, a Hub id, or a model.
        tokenizer: that of a model; None where the source has its own.
        target: the output.
        revision: branch, tag or commit of a Hub repository.
        adapter: directory of a PEFT adapter to merge; None for none.
        overwrite: whether the output may be replaced.

    Raises:
        UsageError: for a model without tokenizer, a tokenizer without model, and what else does not go together.
        PathError: when the source is not there, or nothing can be written beside the output.
        CheckpointError: when the source cannot be read.
    """
    if isinstance(source, str | os.PathLike):
        if tokenizer is not None:
            raise UsageError(f"a tokenizer was given beside {source}, which has its own: leave it out")
        located = encoder_of(locate(os.fspath(source), revision))
        with ExitStack() as stack:
            if (variables := find_variables(located.directory)) is not None:
                scratch = stack.enter_context(_scratch(target, located.name, overwrite=overwrite))
                located = _converted(located, variables, scratch)
            if adapter is None:
                refuse_adapter(located)
            else:
                scratch = stack.enter_context(_scratch(target, located.name, overwrite=overwrite))
                located = _merged(located, find_adapter(Path(adapter)), scratch)
            yield located
        return
    for name, value in (("revision", revision), ("adapter", adapter)):
        if value is not None:
            raise UsageError(f"{name} {value!r} was given for a model in memory, which has none: leave it out")
    check_model(source)
    if tokenizer is None:
        raise UsageError("a model in memory was given without its tokenizer: export(model, tokenizer, output)")
    with _scratch(target, MEMORY, overwrite=overwrite) as scratch:
        write_tokenizer(tokenizer, scratch)
        yield Located(
            directory=scratch,
            name=MEMORY,
            revision=None,
            notes=write_model(source, scratch),
            title=target.resolve().name,
            tokenizer=tokenizer,
        )


def _converted(located: Located, variables: Path, scratch: Path) -> Located:
    """Write a TensorFlow checkpoint as one of transformers, and return where."""
    converted = write_converted(variables, scratch)
    files = sorted(variables.parent.glob(f"{glob.escape(variables.name)}.*"))
    return replace(located, directory=scratch, origins=tuple(files), notes=(*located.notes, *converted.notes))


def _merged(base: Located, adapter: Adapter, scratch: Path) -> Located:
    """Write a checkpoint with an adapter merged into it, and return where."""
    checkpoint = read_checkpoint(base)
    # The merged checkpoint has nothing of what is left out here, and so cannot tell of it.
    lost = (*(note for note in checkpoint.plan.notes if note not in checkpoint.plan.lacks), *checkpoint.decoder_notes())
    write_merged(checkpoint, adapter, scratch)
    own = adapter.directory / "tokenizer.json"
    left = [f"left out: the tokenizer beside the adapter; that of {base.name} is used"] if own.is_file() else []
    licences = [read_front_matter(place)[1] for place in (adapter.directory, base.card or base.directory)]
    if licences[0] is not None and licences[0] != licences[1]:
        stated = "none" if licences[1] is None else excerpt(licences[1])
        left.append(
            f"the adapter's card states the licence {excerpt(licences[0])}, and the bundle's has that of {base.name} "
            f"alone ({stated}): add it there"
        )
    at = f"{base.name}@{base.revision}" if base.revision else base.name
    return Located(
        directory=scratch,
        name=f"{at} with {adapter.name}",
        revision=None,
        origins=(*(base.origins or checkpoint.weights.paths), *adapter.weights.paths),
        notes=(*base.notes, *lost, f"merged: {adapter.summary}", *left),
        title=adapter.name,
        card=base.card,
        parts=base.parts,
    )


@contextmanager
def _scratch(target: Path, name: str, *, overwrite: bool) -> Iterator[Path]:
    """Return an empty directory beside the output; an error about it names the source in its place."""
    with workspace(target, overwrite=overwrite) as scratch:
        try:
            yield scratch
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(str(scratch), name)) from error
