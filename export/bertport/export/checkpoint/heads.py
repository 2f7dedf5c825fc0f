"""The table of heads: which of transformers' classes make a head, and how PyTorch runs it.

A head is a row here and in the tables of runtime, measure and serve. What its output is called, its axes and the labels
that hold for every checkpoint are the runtime's words (`bertport.runtime.heads`). Its tensors are those of its class
(`bertport.export.checkpoint.layout`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bertport.runtime.bundle.manifest import heads_of
from bertport.runtime.heads import EMBEDDING, HIDDEN_STATES, MLM, NSP, POOLER, RTD, SOP, output_of
from bertport.runtime.heads import HEADS as RUNTIME

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import torch
    from transformers import PretrainedConfig, PreTrainedModel

    from bertport.runtime.bundle.manifest import Embedding, HeadEntry

__all__ = ["HEADS", "Head", "describe", "labels_of", "output_names"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One row: a head that a checkpoint may hold."""

    title: str
    """What it computes, as it is named in the middle of a sentence."""
    summary: str
    """A line about it for the model card."""
    own_class: str | None = None
    """transformers' class for it alone, which every family has, without the family's name in front: `ForMaskedLM`; None
    where a family's row says which of its classes hold it."""
    optimum: str | None = None
    """Optimum's name of the task for which its table has that class; None where it has none."""
    make: Callable[[PretrainedConfig], PreTrainedModel] | None = None
    """Builds the class where transformers has none of its name."""
    attributes: tuple[str, ...] = ()
    """The attributes of the class's output that may hold its logits, in the order in which they are looked for; none
    where the encoder computes it."""
    finish: Callable[[torch.Tensor], torch.Tensor] | None = None
    """Makes the graph's output of them where it is another."""
    reads: str
    """The output of transformers' encoder that it is computed from."""
    labels: Callable[[Mapping[str, Any]], tuple[str, ...]] | None = None
    """Reads a label per column from config.json; None where the runtime's labels hold for every checkpoint."""
    pairs: bool = False
    """Whether it judges pairs of texts, so that the encoder must know two segments."""
    pipeline: str | None = None
    """The Hub's name of its task, for the model card; None where the card names none."""
    example: tuple[str, str] | None = None
    """A call from Python and one from the command line, for the model card; None where it has no task of its own."""


def _two_columns(logits: torch.Tensor) -> torch.Tensor:
    """Return a column of zeros beside logits of one column, [..., 2]: its softmax is their sigmoid."""
    import torch

    return torch.stack((torch.zeros_like(logits), logits), dim=-1)


HEADS: dict[str, Head] = {
    MLM: Head(
        title="masked language modelling",
        summary="masked language modelling: fills `[MASK]`",
        own_class="ForMaskedLM",
        optimum="fill-mask",
        attributes=("logits", "prediction_logits"),
        reads="last_hidden_state",
        pipeline="fill-mask",
        example=(
            'model.fill_mask("The capital of France is [MASK].", top_k=5)',
            'bertport fill-mask "The capital of France is [MASK]." -m BUNDLE',
        ),
    ),
    NSP: Head(
        title="next-sentence prediction",
        summary="next-sentence prediction: says whether one sentence follows another",
        attributes=("logits", "seq_relationship_logits"),
        reads="pooler_output",
        pairs=True,
        example=(
            'model.next_sentence("He went to the store.", "He bought milk.")',
            'bertport next-sentence "He went to the store." "He bought milk." -m BUNDLE',
        ),
    ),
    SOP: Head(
        title="sentence order",
        summary="sentence order: says whether two sentences were swapped",
        attributes=("sop_logits",),
        reads="pooler_output",
        pairs=True,
        example=(
            'model.predict("sentence-order", [("He went to the store.", "He bought milk.")])',
            'bertport predict sentence-order "He went to the store." "He bought milk." -m BUNDLE',
        ),
    ),
    RTD: Head(
        title="replaced-token detection",
        summary="replaced-token detection: says which tokens stand where another one stood",
        attributes=("logits",),
        finish=_two_columns,
        reads="last_hidden_state",
        example=(
            'model.predict("replaced-tokens", ["The capital of France is milk."])',
            'bertport predict replaced-tokens "The capital of France is milk." -m BUNDLE',
        ),
    ),
    EMBEDDING: Head(
        title="sentence embeddings",
        summary="sentence embeddings: one vector of a text, to be compared with those of others",
        reads="last_hidden_state",
        pipeline="sentence-similarity",
        example=('model.embed(["some text"])', 'bertport predict embeddings "some text" -m BUNDLE'),
    ),
    POOLER: Head(
        title="pooled features",
        summary="the pooled `[CLS]` feature",
        reads="pooler_output",
    ),
}
"""By name, in the order of a bundle's heads."""


def output_names(heads: Collection[str]) -> tuple[str, ...]:
    """Return the outputs of a model with these heads, in order: those of classes of their own, then the encoder's."""
    rows = [(output_of(name), row.attributes) for name, row in HEADS.items() if name in heads]
    own, encoder = ([output for output, attributes in rows if bool(attributes) is kind] for kind in (True, False))
    return (*own, HIDDEN_STATES, *encoder)


def labels_of(name: str, config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return a head's labels, read from config.json or the runtime's own; None for a head that does not classify.

    Raises:
        CheckpointError: when config.json states labels that cannot be.
    """
    read = HEADS[name].labels
    return RUNTIME[name].labels if read is None else read(config)


def describe(labels: Mapping[str, tuple[str, ...] | None], embedding: Embedding | None = None) -> dict[str, HeadEntry]:
    """Return what a manifest says of heads, in the table's order.

    Args:
        labels: the labels of each head, by its name.
        embedding: what makes one vector of a text; None where nothing does.
    """
    entries = {name: replace(entry, labels=labels[name]) for name, entry in heads_of(labels).items()}
    if embedding is not None:
        entries |= {name: replace(entry, embedding=embedding) for name, entry in heads_of([EMBEDDING]).items()}
    return {name: entries[name] for name in HEADS if name in entries}
