"""The quality of one variant: per head against the reference, and what each answers to the bias probe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertport.compare.bundled import conventions, graph_of, read_tokenizer
from bertport.compare.fidelity import measure
from bertport.compare.graph import Remembered
from bertport.compare.masking import masked_samples, pair_samples
from bertport.compare.statistics import Settings
from bertport.runtime import load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bertport.compare.contenders import Contender, Entrant
    from bertport.compare.effort import Effort
    from bertport.compare.graph import Graph
    from bertport.compare.masking import Sample
    from bertport.compare.tally import Tally
    from bertport.compare.text import Text

__all__ = ["LONGEST", "SMALL", "QualityBench", "samples_for"]

LONGEST = 128
"""Tokens of the longest sample: BERT was pretrained on this length for nine steps in ten."""
SMALL = 2_000_000
"""Parameters below which one thread is faster than two."""


def samples_for(entrant: Entrant, texts: Sequence[Text], effort: Effort, seed: int) -> list[Sample]:
    """Make masked texts and pairs for the heads that a bundle has."""
    tokenizer, manifest = read_tokenizer(entrant.bundle), entrant.bundle.manifest
    longest = min(LONGEST, manifest.max_length)
    found: list[Sample] = []
    # Without the MLM head they still show the hidden states.
    found += masked_samples(texts, tokenizer, seed=seed, max_tokens=longest, limit=effort.positions)
    if "nsp" in manifest.heads and effort.pairs:
        found += pair_samples(texts, tokenizer, seed=seed, max_tokens=longest, limit=effort.pairs)
    return found


class QualityBench:
    """Opens a bundle's variants one after the other and measures each; the reference's answers are kept.

    Args:
        entrant: The bundle.
        reference: Its row that is taken as right.
        samples: From `samples_for`.
        effort: How much to measure.
        seed: Of the resamples.
    """

    def __init__(
        self, entrant: Entrant, reference: Contender, samples: Sequence[Sample], effort: Effort, seed: int
    ) -> None:
        self._entrant, self._reference, self._samples = entrant, reference, samples
        self._effort, self._settings = effort, Settings(seed=seed)
        self._kept: Graph | None = None

    def open(self, contender: Contender) -> Graph:
        """Open a variant as it serves."""
        threads = contender.subject.threads
        if threads is None and self._entrant.bundle.manifest.architecture.parameters < SMALL:
            threads = 1
        return graph_of(
            load(self._entrant.bundle.path, variant=contender.variant, provider=contender.provider, threads=threads)
        )

    def reference(self) -> Graph:
        """Give the reference, opened once."""
        if self._kept is None:
            self._kept = Remembered(self.open(self._reference))
        return self._kept

    def quality(self, contender: Contender, progress: Callable[[int, int], None]) -> dict[str, Any]:
        """Measure a variant against the reference; the reference against itself, for its own accuracy.

        Returns:
            `fidelity`, as `Fidelity.to_json` gives it, and `per_text`, the sums behind it.
        """
        itself = contender == self._reference
        candidate = self.reference() if itself else self.open(contender)
        sums: dict[str, Any] = {}

        def keep(tally: Tally) -> None:
            sums.update(tally.per_text())

        found = measure(
            self.reference(),
            candidate,
            self._samples,
            settings=self._settings,
            conventions=conventions(self._entrant.bundle),
            stability=self._effort.stability,
            progress=progress,
            tallied=keep,
        )
        return {"fidelity": found.to_json(), "per_text": sums}
