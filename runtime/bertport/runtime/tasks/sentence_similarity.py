"""sentence-similarity: how alike one text is to each of several, in the form of the Hub's task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bertport.runtime.errors import InputTextError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.tasks import embeddings
from bertport.runtime.tasks.inputs import MOST_ROWS, Parts
from bertport.runtime.tasks.vectors import SIMILARITY_FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from bertport.runtime.bundle.manifest import Manifest
    from bertport.runtime.text.encoder import Encoded
    from bertport.runtime.text.tokenizer import Tokens

__all__ = ["Options", "finish", "read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(embeddings.Shared):
    """Parameters of sentence-similarity."""


def read(options: Options, tokens: Tokens, manifest: Manifest) -> Callable[[object], Parts]:  # noqa: ARG001 — every task's `read` takes the tokenizer
    """Return the function that reads `{"source_sentence": A, "sentences": [B, …]}`, whose answer is a score for each B.

    Raises:
        MissingHeadError: for a bundle that does not record how its vectors are compared.
        UnknownNameError, UsageError: for a parameter out of range.
    """
    prompt = embeddings.beginning(options, manifest)
    compare = SIMILARITY_FUNCTIONS[embeddings.facts(manifest).similarity]

    def scores(vectors: list[NDArray[np.float32]]) -> list[float]:
        source, *others = vectors
        answer: list[float] = compare(source[None], np.stack(others))[0].tolist()
        return answer

    def parts(value: object) -> Parts:
        match value:
            case {"source_sentence": str(source), "sentences": [_, *_] as sentences, **other} if not other:
                if len(sentences) >= MOST_ROWS:
                    raise InputTextError(
                        f"sentence-similarity compares a text with {MOST_ROWS - 1:,} others at most, and "
                        f"{len(sentences):,} were given: give fewer at once"
                    )
                if all(isinstance(sentence, str) for sentence in sentences):
                    return Parts(texts=tuple(prompt + text for text in (source, *sentences)), combine=scores)
        raise InputTextError(
            'sentence-similarity takes {"source_sentence": "A", "sentences": ["B", …]}, one sentence at least, not '
            f"{excerpt(value)}"
        )

    return parts


def finish(
    options: Options, tokens: Tokens, manifest: Manifest
) -> Callable[[NDArray[np.float32], Encoded], NDArray[np.float32]]:
    """Return the function that makes one text's vector, which is compared with the others' in full precision.

    Raises:
        MissingHeadError: for a bundle that does not record what its vectors are.
        UsageError: for a parameter out of range.
    """
    return embeddings.finish(embeddings.Options(truncate_dim=options.truncate_dim), tokens, manifest)
