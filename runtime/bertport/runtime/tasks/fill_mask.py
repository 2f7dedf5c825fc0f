"""fill-mask: the answers of transformers' pipeline, field for field, in numpy."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.runtime.errors import UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import DEFAULT_TOP_K
from bertport.runtime.tasks.inputs import one_text
from bertport.runtime.tasks.parameters import whole_number
from bertport.runtime.text.encoder import lone_surrogate
from bertport.runtime.text.steps import drained
from bertport.runtime.top_k import TopKResult

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from bertport.runtime.bundle.manifest import Manifest
    from bertport.runtime.tasks.answers import FilledMask
    from bertport.runtime.text.encoder import Encoded
    from bertport.runtime.text.steps import Steps
    from bertport.runtime.text.tokenizer import Tokens

__all__ = ["Options", "TargetIds", "finding_targets", "finish", "needed_top_k", "read", "target_ids"]

STEP = 64
"""Targets that are looked up at once: some milliseconds."""
GROUP = 64
"""Scores in a group when the largest are searched for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Parameters of fill-mask."""

    top_k: int | None = DEFAULT_TOP_K
    """Number of answers per mask; None is the default too, as in transformers."""
    targets: str | Sequence[str] | TargetIds | None = None
    """Only these words compete; their scores stay those of the full vocabulary."""
    truncation: bool = False
    """Cut a text that is too long instead of refusing it."""


def read(value: object) -> str:
    """Return the text of an input: a text, or an object with the one field `text`."""
    return one_text("fill-mask", value)


def finish(
    options: Options, tokens: Tokens, manifest: Manifest
) -> Callable[[NDArray[np.float32] | TopKResult, Encoded], list[Any]]:
    """Return the function that turns logits, or the top-k of them, into answers; targets are looked up once, here."""
    targets = None if options.targets is None else target_ids(options.targets, tokens)
    top_k = whole_number("top_k", options.top_k, DEFAULT_TOP_K)
    size = _words(tokens, manifest, top_k) if targets is None else len(targets)
    if targets is None and top_k > size:
        raise UsageError(f"top_k is {excerpt(top_k)} and the vocabulary has {size} words: ask for {size} at most")
    count = min(top_k, size)

    def answers(scores: NDArray[np.float32] | TopKResult, encoded: Encoded) -> list[Any]:
        positions = np.flatnonzero(encoded.ids == tokens.mask_id)
        chosen = (
            _named(scores, count, tokens)
            if isinstance(scores, TopKResult)
            else [_likeliest(logits, count, targets, tokens) for logits in scores]
        )
        filled = [
            _filled(words, position, encoded.ids, single=len(positions) == 1)
            for words, position in zip(chosen, positions, strict=True)
        ]
        return filled[0] if len(filled) == 1 else filled

    def _filled(
        words: list[tuple[int, float]], position: np.int64, ids: NDArray[np.int64], *, single: bool
    ) -> list[FilledMask]:
        # transformers drops padding ids wherever they stand, an answer that is one included; and of a text with several
        # masks it keeps the special tokens, because the other masks would vanish with them.
        before, after = ([i for i in part.tolist() if i != tokens.pad_id] for part in np.split(ids, [position]))
        sequence = tokens.filling(before, after[1:], skip_special_tokens=single)
        return [
            {
                "score": score,
                "token": token,
                "token_str": tokens.decode([token], skip_special_tokens=False),
                "sequence": sequence(None if token == tokens.pad_id else token),
            }
            for token, score in words
        ]

    return answers


def needed_top_k(options: Options) -> int | None:
    """Return the k of the k likeliest words that `finish` needs; None where it needs every logit."""
    return None if options.targets is not None else DEFAULT_TOP_K if options.top_k is None else options.top_k


def _words(tokens: Tokens, manifest: Manifest, wanted: int) -> int:
    """Return how many words there are to choose from: rows of the embedding that have a token.

    They are counted only where so many are wanted that it matters; there are as good as always as many as rows.
    """
    rows = manifest.architecture.vocab_size
    return rows if 2 * wanted <= min(rows, tokens.size) else rows - len(tokens.nameless)


def _likeliest(
    logits: NDArray[np.float32], count: int, targets: NDArray[np.int64] | None, tokens: Tokens
) -> list[tuple[int, float]]:
    """Return the likeliest words of one position with their probabilities over all rows, from its logits."""
    weights = logits - logits.max()
    np.exp(weights, out=weights)
    total = weights.sum()
    if targets is not None:
        weights = weights[targets]
    chosen = largest(weights, count)
    if targets is None and not all(map(tokens.names, chosen.tolist())):
        weights[tokens.nameless] = -1
        chosen = largest(weights, count)
    ids = chosen if targets is None else targets[chosen]
    return list(zip(ids.tolist(), (weights[chosen] / total).tolist(), strict=True))


def _named(result: TopKResult, count: int, tokens: Tokens) -> list[list[tuple[int, float]]]:
    """Return the likeliest words of each position from a top-k result, without those classes that have no token."""
    positions = zip(result.ids.tolist(), np.exp(result.log_probabilities).tolist(), strict=True)
    return [
        list(islice((pair for pair in zip(ids, scores, strict=True) if tokens.names(pair[0])), count))
        for ids, scores in positions
    ]


def largest(scores: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Return the indices of the `count` largest scores, best first, the lower index first among equals."""
    groups = len(scores) // GROUP
    if groups >= count:
        # Among the largest of each group, the count-th is a bound that few other scores reach: reading the scores
        # twice costs a tenth of what numpy's partition of a whole vocabulary does (20 against 200 microseconds).
        peaks = scores[: groups * GROUP].reshape(GROUP, groups).max(axis=0)
        chosen = np.flatnonzero(scores >= np.partition(peaks, -count)[-count])
    else:
        chosen = np.arange(len(scores))
    order: NDArray[np.intp] = chosen[np.argsort(-scores[chosen], kind="stable")][:count]
    return order


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetIds:
    """Token ids of targets: targets that were looked up already."""

    ids: NDArray[np.int64]
    """The ids, each once, in ascending order."""


def target_ids(targets: str | Sequence[str] | TargetIds, tokens: Tokens) -> NDArray[np.int64]:
    """Return the ids of targets; see `finding_targets`."""
    return targets.ids if isinstance(targets, TargetIds) else drained(finding_targets(targets, tokens)).ids


def finding_targets(targets: str | Sequence[str], tokens: Tokens) -> Steps[TargetIds]:
    """Look targets up, in steps: a target is a vocabulary entry, or else its first sub-word, with a warning.

    Raises:
        UsageError: when none is left, or they are no words.
    """
    if not isinstance(targets, Iterable):
        raise UsageError(f"targets is a word or a list of words, not {excerpt(targets)}")
    words = [targets] if isinstance(targets, str) else list(targets)
    ids: set[int] = set()
    for number, word in enumerate(words, 1):
        if number % STEP == 0:
            yield
        if not isinstance(word, str):
            raise UsageError(f"a target is a word, not {excerpt(word)}")
        if reason := lone_surrogate(word):
            raise UsageError(f"the target {excerpt(word)} is not Unicode text ({reason}): repair it")
        index = tokens.token_id(word)
        if index is None:
            index = tokens.first_piece(word)
            fate = "it is left out" if index is None else f"its first piece {tokens.token(index)!r} stands for it"
            # The caller of Model.fill_mask is nine frames up.
            warnings.warn(f"the target {excerpt(word)} is not in the vocabulary: {fate}", UserWarning, stacklevel=9)
        if index is not None:
            ids.add(index)
    if not ids:
        raise UsageError("At least one target must be provided when passed.")
    return TargetIds(ids=np.array(sorted(ids), dtype=np.int64))
