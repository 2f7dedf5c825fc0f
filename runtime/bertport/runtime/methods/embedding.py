"""Methods for vectors of texts, of models that were trained to make them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bertport.runtime.errors import UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.methods.asking import Asking
from bertport.runtime.tasks.embeddings import facts
from bertport.runtime.tasks.vectors import SIMILARITY_FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["EmbeddingMethods"]

MATRIX = 2
"""Axes of several vectors."""


class EmbeddingMethods(Asking):
    """Embeddings, and how alike two of them are."""

    def embed(  # noqa: PLR0913 — the task's parameters
        self,
        texts: str | Sequence[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        normalize: bool = False,
        truncate_dim: int | None = None,
        truncation: bool = False,
    ) -> NDArray[np.float32]:
        """Return the vectors of texts, as `encode` of sentence-transformers gives them.

        Args:
            texts: a text, or a list of texts.
            prompt: what each text begins with; None for the prompt that `prompt_name` names, or the model's default.
            prompt_name: name of one of the model's prompts, for example `query`.
            normalize: scale vectors to length 1, after they were cut.
            truncate_dim: numbers to which a vector is cut; None for the model's own choice, mostly all.
            truncation: cut a text that is too long instead of refusing it.

        Returns:
            float32: for a text `[dimension]`, for a list of texts `[texts, dimension]`.

        Raises:
            MissingHeadError: when the bundle makes no vectors of texts; `features` can pool those of tokens.
            InputTextError: for a text that is too long, prompt included.
            UnknownNameError: for a prompt that the model does not have.
            UsageError: for a parameter out of range.
        """
        one = isinstance(texts, str)
        call = self.resolve(
            "embeddings",
            prompt=prompt,
            prompt_name=prompt_name,
            normalize=normalize,
            truncate_dim=truncate_dim,
            truncation=truncation,
        )
        vectors: list[NDArray[np.float32]] = list(self._answers(call, [texts] if one else texts))
        if one:
            return vectors[0]
        known = facts(self.bundle.manifest)
        return np.stack(vectors) if vectors else np.zeros((0, truncate_dim or known.size), np.float32)

    def similarity(self, a: ArrayLike, b: ArrayLike) -> NDArray[np.float32]:
        """Return how alike each of some vectors is to each of others, by the function that the model was trained for.

        Args:
            a: vectors that `embed` gave, `[n, dimension]`, or one of them.
            b: vectors of the same dimension, `[m, dimension]`, or one of them.

        Returns:
            float32 `[n, m]`: the larger, the more alike; of the Euclidean and the Manhattan distance the negative.

        Raises:
            MissingHeadError: when the bundle makes no vectors of texts.
            UsageError: for what is no vectors of one dimension.
        """
        compare = SIMILARITY_FUNCTIONS[facts(self.bundle.manifest).similarity]
        try:
            first, second = (np.atleast_2d(np.asarray(vectors, np.float32)) for vectors in (a, b))
        except (TypeError, ValueError) as error:  # texts, or rows of several lengths
            raise UsageError(
                f"similarity compares vectors, not {excerpt(a)} and {excerpt(b)}: give what embed returns"
            ) from error
        if first.ndim != MATRIX or second.ndim != MATRIX or first.shape[1] != second.shape[1]:
            raise UsageError(
                f"similarity compares vectors of one dimension, and those given have the shapes {list(np.shape(a))} "
                f"and {list(np.shape(b))}: give what embed returns"
            )
        return compare(first, second)
