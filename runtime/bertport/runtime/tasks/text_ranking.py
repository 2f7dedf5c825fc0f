"""text-ranking: documents by how well they fit a query, as the CrossEncoder of sentence-transformers ranks them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bertport.runtime.errors import BundleError, InputTextError, UnknownNameError, UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION
from bertport.runtime.tasks.inputs import Parts, texts_in
from bertport.runtime.tasks.labels import activation_named
from bertport.runtime.tasks.parameters import boolean, is_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from bertport.runtime.bundle.manifest import Manifest
    from bertport.runtime.tasks.answers import RankedText
    from bertport.runtime.text.encoder import Encoded
    from bertport.runtime.text.tokenizer import Tokens

__all__ = ["FUNCTIONS", "Options", "finish", "lacking", "read"]

FUNCTIONS = ("sigmoid", "none")
"""Activations that a caller may choose: the softmax of one logit is 1, whatever the document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Parameters of text-ranking."""

    top_k: int | None = None
    """Number of documents returned, best first; None for all."""
    return_documents: bool = False
    """Return the text of each document too."""
    function_to_apply: str | None = None
    """Activation that turns the logit into a score: `sigmoid` or `none`; None for the bundle's own, or else sigmoid."""
    truncation: bool = False
    """Cut the longer of a query and a document that are too long together instead of refusing them."""


def read(options: Options, tokens: Tokens, manifest: Manifest) -> Callable[[object], tuple[str, str] | Parts]:  # noqa: ARG001 — every task's `read` takes the tokenizer and the manifest
    """Return the function that reads a query with its documents, a row for each, or a pair of query and document.

    Raises:
        UsageError: for a parameter out of range.
    """
    top_k = options.top_k
    if top_k is not None and (not is_whole(top_k) or top_k < 1):
        raise UsageError(f"top_k is a number from 1 up, or None for all documents, not {excerpt(top_k)}")
    shown = boolean("return_documents", options.return_documents)

    def parts(value: object) -> tuple[str, str] | Parts:
        match value:
            case [str(query), str(document)]:
                return query, document
            case {"text": str(query), "text_pair": str(document), **other} if not other:
                return query, document
            case {"query": str(query), "documents": given, **other} if not other:
                documents = texts_in("documents", given, InputTextError)
            case {"query": str(query), "texts": given, **other} if not other:
                documents = texts_in("texts", given, InputTextError)
            case _:
                raise InputTextError(
                    'text-ranking takes {"query": …, "documents": […]}, or a pair of a query and a document, not '
                    f"{excerpt(value)}"
                )
        texts = tuple((query, document) for document in documents)
        return Parts(texts=texts, combine=partial(_ranked, documents if shown else None, top_k))

    return parts


def finish(
    options: Options,
    tokens: Tokens,  # noqa: ARG001 — every task's `finish` takes the tokenizer
    manifest: Manifest,
) -> Callable[[NDArray[np.float32], Encoded], float]:
    """Return the function that turns the logit of a pair, `[1]`, into its score.

    Raises:
        UnknownNameError: for an unknown function.
        BundleError: when the function is called, for logits of other than one column.
    """
    entry, named = manifest.heads[SEQUENCE_CLASSIFICATION], options.function_to_apply
    if named is not None and named not in FUNCTIONS:
        raise UnknownNameError("function_to_apply", named, FUNCTIONS)
    activation = activation_named(named or entry.activation or "sigmoid")

    def score(logits: NDArray[np.float32], _: Encoded) -> float:
        if logits.shape[-1] != 1:
            raise BundleError(
                f"text-ranking needs the value of a classifier of one label, and that of {manifest.name} gives "
                f"{logits.shape[-1]:,}: use a bundle that has one"
            )
        return float(activation(logits)[0])

    return score


def lacking(manifest: Manifest) -> str | None:
    """Return what classifier is needed, and what there is instead; None for one of one label, and one without any."""
    labels = manifest.heads[SEQUENCE_CLASSIFICATION].labels
    if labels is None or len(labels) == 1:
        return None
    return (
        "a classifier of one label, which says how well a text fits, and that of "
        f"{manifest.name} has {len(labels):,}: {excerpt(list(labels), 200)}"
    )


def _ranked(documents: tuple[str, ...] | None, top_k: int | None, scores: list[float]) -> list[RankedText]:
    """Return documents, best first, the earlier first among equals; with their texts where these are given."""
    order = sorted(range(len(scores)), key=lambda place: -scores[place])[:top_k]
    ranked: list[RankedText] = [{"corpus_id": place, "score": scores[place]} for place in order]
    if documents is not None:
        for document in ranked:
            document["text"] = documents[document["corpus_id"]]
    return ranked
