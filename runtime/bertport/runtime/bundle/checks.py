"""Checks of a manifest that is well formed: paths, labels, inputs and names that cannot be are refused."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from bertport.runtime.bundle.manifest import OPSET, SIMILARITIES
from bertport.runtime.bundle.parsing import MOST_QUOTED
from bertport.runtime.errors import BundleError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import HEADS, SEGMENTS

if TYPE_CHECKING:
    from bertport.runtime.bundle.manifest import Manifest

__all__ = ["check", "refuse_outside"]

LONGEST_PATH = 512
"""Characters of a file's path inside the bundle."""
LONGEST_INPUT = 1_000_000
"""Tokens; attention over as many would take terabytes."""
LARGEST_VOCABULARY = 10_000_000
"""Words; the largest vocabularies of encoders have a million. Those without a token are listed in memory."""
LARGEST_DIMENSION = 1_000_000
"""Numbers of a text's vector; the vectors of today's models have a few thousand at most."""


def check(manifest: Manifest) -> None:
    """Check a manifest.

    Raises:
        BundleError: for what is well formed and cannot be.
    """
    named = {path for entry in manifest.variants.values() for path in (entry.file, *entry.external_data)}
    if manifest.golden_vectors:
        named.add(manifest.golden_vectors.file)
    for path in sorted(named - manifest.files.keys()):
        raise BundleError(
            f"manifest.json names {path[:MOST_QUOTED]!r} but does not list it among its files: export again"
        )
    for path in manifest.files:
        refuse_outside(path)
    if not 1 <= manifest.max_length <= LONGEST_INPUT:
        stated = excerpt(manifest.max_length, 40)
        raise BundleError(f"manifest.json: max_length is {stated} tokens: the bundle is damaged; export again")
    if not 1 <= manifest.architecture.vocab_size <= LARGEST_VOCABULARY:
        stated = excerpt(manifest.architecture.vocab_size, 40)
        raise BundleError(f"manifest.json: vocab_size is {stated} words: the bundle is damaged; export again")
    for name, variant in manifest.variants.items():
        if OPSET not in variant.requires.operator_domains:
            raise BundleError(
                f"manifest.json: variant {name[:MOST_QUOTED]!r} requires no version of {OPSET}: "
                "the bundle is damaged; export again"
            )
    _check_inputs(manifest)
    _check_labels(manifest)
    _check_embeddings(manifest)
    if manifest.default_variant not in manifest.variants:
        raise BundleError(
            f"manifest.json names the default variant {manifest.default_variant[:MOST_QUOTED]!r}, "
            "which it does not describe: the bundle is damaged; export again"
        )


def _check_inputs(manifest: Manifest) -> None:
    """Refuse a constant that is no row of the embedding of segments, and one for ids or the mask.

    Inputs that only a later version knows are its own affair.
    """
    rows = {"input_ids": 0, "attention_mask": 0, SEGMENTS: manifest.architecture.type_vocab_size}
    for name in rows.keys() & manifest.inputs.keys():
        given = manifest.inputs[name]
        if given.constant is not None and given.constant not in range(rows[name]):
            raise BundleError(
                f"manifest.json gives the input {name[:MOST_QUOTED]!r} the constant {given.constant}, which is not "
                "possible: the bundle is damaged; export again"
            )


def _check_labels(manifest: Manifest) -> None:
    """Refuse labels that are not those of the columns."""
    for name, head in manifest.heads.items():
        labels, positive = head.labels or (), head.positive
        kind = HEADS.get(name) if head.labels is not None else None
        count, columns = len(labels), f"the columns of the head {name[:MOST_QUOTED]!r}"
        if kind and kind.label_count is not None:
            count, columns = kind.label_count, f"the {kind.label_count} columns of {kind.title}"
        optional = kind is None or kind.positive is None
        if len(labels) != count or (positive not in range(count) and not (optional and positive is None)):
            raise BundleError(
                f"manifest.json gives {len(labels)} labels to {columns}, and calls column {positive} positive: "
                "the bundle is damaged; export again"
            )


def _check_embeddings(manifest: Manifest) -> None:
    """Refuse facts about vectors of texts that do not go together."""
    for name, head in manifest.heads.items():
        facts = head.embedding
        if facts is None:
            continue
        if facts.similarity not in SIMILARITIES:
            wrong = f"compares vectors by {excerpt(facts.similarity, 80)}, which is none of {', '.join(SIMILARITIES)}"
        elif not 1 <= facts.dimension <= LARGEST_DIMENSION:
            wrong = f"gives vectors of {excerpt(facts.dimension, 40)} numbers"
        elif facts.truncate_dim is not None and not 1 <= facts.truncate_dim <= facts.dimension:
            wrong = f"cuts vectors of {facts.dimension} numbers to {excerpt(facts.truncate_dim, 40)}"
        elif facts.default_prompt is not None and facts.default_prompt not in facts.prompts:
            wrong = f"names the prompt {excerpt(facts.default_prompt, 80)}, which it does not state"
        else:
            continue
        raise BundleError(
            f"manifest.json: the head {name[:MOST_QUOTED]!r} {wrong}: the bundle is damaged; export again"
        )


def refuse_outside(path: str) -> None:
    """Refuse a path that is none inside a bundle.

    Raises:
        BundleError: for such a path.
    """
    if len(path) > LONGEST_PATH:
        raise BundleError(
            f"manifest.json names {excerpt(path)}, of {len(path):,} characters, and a path has {LONGEST_PATH} at most: "
            "the bundle is damaged; export again"
        )
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path or ":" in path or "\0" in path:
        named = path[:MOST_QUOTED]
        raise BundleError(
            f"manifest.json names {named!r}, which is outside the bundle: do not use a bundle from this source"
        )
