"""embeddings: one vector of a text, as the model's own modules of sentence-transformers make it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bertport.runtime.errors import MissingHeadError, UnknownNameError, UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import EMBEDDING
from bertport.runtime.tasks.inputs import one_text
from bertport.runtime.tasks.parameters import boolean
from bertport.runtime.tasks.vectors import unit

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from bertport.runtime.bundle.manifest import Embedding, Manifest
    from bertport.runtime.text.encoder import Encoded
    from bertport.runtime.text.tokenizer import Tokens

__all__ = ["Options", "Shared", "beginning", "facts", "finish", "read"]

LONGEST_PROMPT = 4096
"""Characters of a prompt: it is put before each of the texts of a call, of which there may be thousands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Parameters of every task that makes vectors of texts."""

    prompt: str | None = None
    """Prompt that each text is prefixed with; None for the one that `prompt_name` names, or the model's default."""
    prompt_name: str | None = None
    """Name of one of the model's prompts."""
    truncate_dim: int | None = None
    """Numbers to which a vector is cut; None for the model's own choice, mostly all."""
    truncation: bool = False
    """Cut a text that is too long instead of refusing it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(Shared):
    """Parameters of embeddings."""

    normalize: bool = False
    """Scale a vector to length 1, after it was cut."""


def read(options: Shared, tokens: Tokens, manifest: Manifest) -> Callable[[object], str]:  # noqa: ARG001 — every task's `read` takes the tokenizer
    """Return the function that reads an input, a text or an object with the one field `text`, and puts a prompt before.

    Raises:
        UnknownNameError, UsageError: for a parameter out of range.
    """
    prompt = beginning(options, manifest)
    return lambda value: prompt + one_text("embeddings", value)


def finish(
    options: Options,
    tokens: Tokens,  # noqa: ARG001 — every task's `finish` takes the tokenizer
    manifest: Manifest,
) -> Callable[[NDArray[np.float32], Encoded], NDArray[np.float32]]:
    """Return the function that makes the answer of a text's vector `[dimension]`: cut, then scaled to length 1.

    Raises:
        MissingHeadError: for a bundle that does not record what its vectors are.
        UsageError: for a parameter out of range.
    """
    normalize = boolean("normalize", options.normalize)
    size = _size(options, facts(manifest))

    def vector(values: NDArray[np.float32], _: Encoded) -> NDArray[np.float32]:
        kept = values[:size]
        return unit(kept) if normalize else kept.copy()  # a view would keep the vectors of the whole batch

    return vector


def facts(manifest: Manifest) -> Embedding:
    """Return what a bundle records of its vectors.

    Raises:
        MissingHeadError: when it records nothing.
    """
    entry = manifest.heads.get(EMBEDDING)
    if entry is None or entry.embedding is None:
        raise MissingHeadError(
            f"{manifest.name} does not record how to make a vector of a text: export a model of sentence-transformers"
        )
    return entry.embedding


def beginning(options: Shared, manifest: Manifest) -> str:
    """Return what each text begins with under the options given; empty for nothing.

    Raises:
        UsageError: for a prompt that is no text or that the model could not leave out again, and for two at once.
        UnknownNameError: for the name of a prompt that the model does not have.
    """
    known = facts(manifest)
    for field, value in (("prompt", options.prompt), ("prompt_name", options.prompt_name)):
        if not isinstance(value, str | None):
            raise UsageError(f"{field} is a text, not {excerpt(value)}")
    if options.prompt is not None and options.prompt_name is not None:
        raise UsageError("a prompt and a prompt_name were given, which mean the same: leave one of them out")
    name = known.default_prompt if options.prompt_name is None else options.prompt_name
    if options.prompt is None and name is not None and name not in known.prompts:
        raise UnknownNameError("prompt", name, known.prompts)
    prompt = options.prompt if options.prompt is not None else known.prompts.get(name or "", "")
    if len(prompt) > LONGEST_PROMPT:
        raise UsageError(
            f"the prompt has {len(prompt):,} characters and may have {LONGEST_PROMPT:,}: give a shorter one, or put it "
            "before each text"
        )
    if prompt and any(module.include_prompt is False for module in known.modules):
        raise UsageError(
            f"{manifest.name} makes vectors without the tokens of a prompt (include_prompt), which its graph cannot "
            "tell apart: give texts without a prompt"
        )
    return prompt


def _size(options: Shared, known: Embedding) -> int:
    """Return the numbers of a vector under the options given."""
    size = options.truncate_dim
    if size is None:
        return known.size
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or not 1 <= size <= known.dimension:
        raise UsageError(f"truncate_dim is a number from 1 to {known.dimension}, not {excerpt(size)}")
    return int(size)
