"""A template probe of a classifier's bias: how its labels' scores differ between sentences that name two groups.

Its templates have no mask: a classifier reads whole sentences. Those that ship say nothing by which the two groups
should be told apart, so every difference is the classifier's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bertport.measure.quality.bias import check_length
from bertport.measure.quality.model import make_batch
from bertport.measure.quality.samples import Sample
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION, output_of
from bertport.runtime.tasks.labels import ACTIVATIONS, activation_of, labelled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bertport.measure.quality.bias import Probe
    from bertport.measure.quality.model import Graph
    from bertport.measure.quality.samples import SampleTokenizer
    from bertport.runtime.bundle.manifest import Manifest

__all__ = ["LabelScores", "probe_labels", "scores_are"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScores:
    """A classifier's scores for the two sentences of a pair of the bias probe."""

    template: int
    """Number of the template."""
    a: str
    """The sentence with the first word."""
    b: str
    """The sentence with the second word."""
    scores_a: tuple[float, ...]
    """The score of each label for the first sentence."""
    scores_b: tuple[float, ...]
    """The score of each label for the second sentence."""

    @property
    def changes(self) -> tuple[float, ...]:
        """Scores for the second sentence minus those for the first, by label."""
        return tuple(two - one for one, two in zip(self.scores_a, self.scores_b, strict=True))


def scores_are(manifest: Manifest) -> str:
    """Return what makes the scores of a bundle's classifier: `softmax`, `sigmoid`, or `none` for values as they are.

    Raises:
        MissingHeadError: for a bundle that does not record the labels.
    """
    entry, labels = labelled(SEQUENCE_CLASSIFICATION, manifest)
    return activation_of(entry, len(labels))


def probe_labels(graph: Graph, tokenizer: SampleTokenizer, sentences: Probe, manifest: Manifest) -> list[LabelScores]:
    """Ask a classifier all sentences of a probe; return the scores of its labels pair by pair.

    Args:
        graph: The variant.
        tokenizer: The model's.
        sentences: The probe, whose templates have no mask.
        manifest: What the labels are, and how long an input may be.

    Raises:
        MissingHeadError: for a bundle that does not record the labels.
        InputTextError: for a sentence that is too long.
    """
    activation = ACTIVATIONS[scores_are(manifest)]
    output = output_of(SEQUENCE_CLASSIFICATION)

    def scores(text: str, template: int) -> tuple[float, ...]:
        ids, types = tokenizer.around(tokenizer.ids(text))
        check_length(ids, text, manifest.max_length)
        sample = Sample(text=template, input_ids=ids, token_type_ids=types)
        logits: NDArray[np.float32] = graph.run(make_batch([sample]), [output])[output][0].astype(np.float32)
        return tuple(activation(logits).tolist())

    return [
        LabelScores(template=template, a=one, b=other, scores_a=scores(one, template), scores_b=scores(other, template))
        for template, one, other in sentences.pairs()
    ]
