"""Sources: what can be exported, each as a directory in Hugging Face's layout."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.memory import check_model, write_model, write_tokenizer
from bertport.export.checkpoint.source import Located, locate
from bertport.runtime.bundle.writer import workspace
from bertport.runtime.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["MEMORY", "opened"]

MEMORY = "a model in memory"
"""What a manifest calls the source of such a bundle."""


@contextmanager
def opened(
    source: str | os.PathLike[str] | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    target: Path,
    *,
    revision: str | None,
    overwrite: bool,
) -> Iterator[Located]:
    """Return the directory of a source, which is there until the block ends.

    What is not in Hugging Face's layout is written so beside the output: on its disk, where there must be room anyway.

    Args:
        source: a directory, a Hub id, or a model.
        tokenizer: that of a model; None where the source has its own.
        target: the output.
        revision: branch, tag or commit of a Hub repository.
        overwrite: whether the output may be replaced.

    Raises:
        UsageError: for a model without tokenizer, a tokenizer without model, and what else does not go together.
        PathError: when the source is not there, or nothing can be written beside the output.
        CheckpointError: when the source cannot be read.
    """
    model: Any = source
    if isinstance(source, str) or hasattr(source, "__fspath__"):
        if tokenizer is not None:
            raise UsageError(f"a tokenizer was given beside {source}, which has its own: leave it out")
        yield locate(str(model), revision)
        return
    if revision is not None:
        raise UsageError(f"revision {revision!r} was given for a model in memory, which has none: leave it out")
    check_model(model)
    if tokenizer is None:
        raise UsageError("a model in memory was given without its tokenizer: export(model, tokenizer, output)")
    with _scratch(target, MEMORY, overwrite=overwrite) as scratch:
        write_tokenizer(tokenizer, scratch)
        notes = write_model(model, scratch)
        yield Located(
            directory=scratch,
            name=MEMORY,
            revision=None,
            notes=notes,
            title=target.resolve().name,
            tokenizer=tokenizer,
        )


@contextmanager
def _scratch(target: Path, name: str, *, overwrite: bool) -> Iterator[Path]:
    """Return an empty directory beside the output; an error about it names the source in its place."""
    with workspace(target, overwrite=overwrite) as scratch:
        try:
            yield scratch
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(str(scratch), name)) from error
