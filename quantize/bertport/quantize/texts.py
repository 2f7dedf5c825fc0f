"""Texts read as samples: what variants are measured on, searched for with, and their weights calibrated on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertport.measure.quality.heads import sample_kinds
from bertport.measure.quality.model import read_sample_tokenizer
from bertport.measure.quality.samples import (
    PAIRED,
    PLAIN,
    REPLACED,
    TASK_KINDS,
    TEXTS,
    Sample,
    masked_samples,
    pair_samples,
    refuse_unread,
    replaced_samples,
)
from bertport.measure.quality.task_samples import plain_samples, task_samples
from bertport.measure.text import fingerprint, read_texts, sample_path
from bertport.runtime.errors import InputTextError
from bertport.runtime.excerpts import as_unicode

if TYPE_CHECKING:
    import os

    from bertport.runtime.bundle.directory import Bundle

__all__ = ["LEAST_POSITIONS", "PAIRS", "POSITIONS", "Evaluation", "read_evaluation"]

POSITIONS, PAIRS = 2000, 2000
"""Masked positions and sentence pairs to measure on, at most: 2,000 tell 98% from 98.7% with 95% confidence."""
LONGEST, LONGEST_PAIR = 128, 32
"""Tokens of the longest masked text and of the longest pair. Pairs are most of what is run, and their answer hangs on
the words around the seam. Of 6,000 pairs, the default model in INT8 answers otherwise than fp32 in 0.48% (0.32% to
0.70%) with 64 tokens, 0.55% (0.38% to 0.78%) with 48, and 0.53% (0.36% to 0.76%) with 32, and the probability changes
by 0.0033, 0.0035 and 0.0040 in the mean: shorter pairs are no easier, and take six tenths of the time."""
LEAST_POSITIONS = 50
"""Fewer say nothing of an agreement of 98%."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Held-out samples that accuracy is measured on, and the text file that they come from."""

    samples: tuple[Sample, ...]
    """Masked texts, then pairs, then those of heads that are trained for a task."""
    name: str
    """Name of the file of texts."""
    sha256: str
    """Fingerprint of the texts."""

    def to_json(self) -> dict[str, Any]:
        """Say what it was, without the text itself."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "masked_positions": self.positions,
            "pairs": self.pairs,
            "tokens": self.tokens,
        } | {kind: count for kind in TASK_KINDS if (count := self.count(kind))}

    def count(self, kind: str) -> int:
        """Return the number of samples of a kind."""
        return sum(sample.kind == kind for sample in self.samples)

    @property
    def positions(self) -> int:
        """Number of masked positions."""
        return sum(len(sample.positions) for sample in self.samples if sample.kind == TEXTS)

    @property
    def pairs(self) -> int:
        """Number of sentence pairs."""
        return sum(sample.is_pair for sample in self.samples)

    @property
    def tokens(self) -> int:
        """Number of tokens in all."""
        return sum(len(sample.input_ids) for sample in self.samples)


def read_evaluation(  # noqa: PLR0913 — how much of it, by keyword
    bundle: Bundle,
    path: str | os.PathLike[str] | None,
    *,
    sample: str,
    positions: int = POSITIONS,
    pairs: int = PAIRS,
    longest_pair: int = LONGEST_PAIR,
    sentences: int | None = None,
    as_read: bool = False,
) -> Evaluation:
    """Read texts, and make samples of them for the heads that the bundle has.

    Args:
        bundle: The bundle.
        path: A file of texts; None for a sample that ships.
        sample: Which of `bertport.measure.text.SAMPLES` that is.
        positions: Masked positions, about.
        pairs: Sentence pairs, at most.
        longest_pair: Tokens of the longest of them.
        sentences: Sentences for heads that are trained for a task, at most; as many as positions where None.
        as_read: Whether twice as many sentences, as they are written, take the place of masked texts for a bundle that
            fills in no masks: what weights are calibrated on is then what the bundle reads. The hidden states are
            measured on masked texts all the same. Of a text that gives none of the inputs of its heads, sentences do.

    Raises:
        InputTextError, PathError: for a file that is missing, empty, too short, not text, or full of unknown words.
    """
    source = sample_path(sample) if path is None else Path(path)
    texts = read_texts(source)
    tokenizer = read_sample_tokenizer(bundle)
    option = "--calibration" if sample == "calibration" else "--text"
    refuse_unread(texts, tokenizer.tokenizer, source.name, shipped=path is None, option=option)
    most = bundle.manifest.max_length
    kinds = sample_kinds(bundle.manifest, texts)
    unmasked = as_read and TEXTS not in kinds
    if unmasked:
        sentences = 2 * (positions if sentences is None else sentences)
        kinds |= frozenset() if kinds & set(TASK_KINDS) else {PLAIN}
    chosen = [] if unmasked else list(masked_samples(texts, tokenizer, max_tokens=min(LONGEST, most), limit=positions))
    given = sum(len(sample.positions) for sample in chosen)
    if not unmasked and given < min(LEAST_POSITIONS, positions):
        raise InputTextError(
            f"{source} is too short: it gives {given} masked positions, at least {LEAST_POSITIONS} are needed: "
            "give more text"
        )
    if REPLACED in kinds:
        chosen += replaced_samples(texts, tokenizer, max_tokens=min(LONGEST, most), limit=positions)
    for kind in PAIRED:
        if kind in kinds and pairs:
            chosen += pair_samples(texts, tokenizer, kind=kind, max_tokens=min(longest_pair, most), limit=pairs)
    chosen += task_samples(
        kinds,
        texts,
        tokenizer,
        max_tokens=min(LONGEST, most),
        longest_pair=min(longest_pair, most),
        positions=positions if sentences is None else sentences,
        pairs=pairs,
        whole=path is not None,
    )
    if unmasked and not chosen:  # choices and ranked documents need texts of several sentences
        chosen += plain_samples(
            texts, tokenizer, max_tokens=min(LONGEST, most), limit=sentences, whole=path is not None
        )
    return Evaluation(samples=tuple(chosen), name=as_unicode(source.name), sha256=fingerprint(texts))
