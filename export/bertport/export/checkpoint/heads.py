"""The table of heads: which tensors of a checkpoint make a head, and how PyTorch builds and runs it.

A head is a row here and in the tables of runtime, measure and serve. What its output is called, its axes and the labels
that hold for every checkpoint are the runtime's words (`bertport.runtime.heads`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bertport.runtime.bundle.manifest import heads_of
from bertport.runtime.heads import HEADS as RUNTIME
from bertport.runtime.heads import HIDDEN_STATES, MLM, NSP, POOLER, output_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from torch import nn
    from transformers import BertConfig

    from bertport.runtime.bundle.manifest import HeadEntry

__all__ = ["HEADS", "Head", "classifier", "describe", "labels_of", "output_names"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One row: a head that a checkpoint may hold."""

    title: str
    """What it computes, as it is named in the middle of a sentence."""
    summary: str
    """A line about it for the model card."""
    classes: tuple[str, ...] = ()
    """transformers' classes that promise it, without the family's name in front: `ForMaskedLM`."""
    tensors: tuple[str, ...]
    """The tensors that make it, under BERT's names; a checkpoint that holds some of them must hold all."""
    tied: str | None = None
    """One more tensor, equal to the matrix of the word embedding unless config.json says that it is not; None where
    there is none."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """The name in `tensors` of each tensor that the module has, or a checkpoint may have, under another name too."""
    reads: str
    """The output of transformers' encoder that it is computed from."""
    module: str | None = None
    """Path of its module in the model, with which its tensors' names begin; None where the encoder computes it."""
    build: Callable[[BertConfig, int], nn.Module] | None = None
    """Makes the module, from the config and the number of labels (0 for a head without labels); None as above."""
    labels: Callable[[Mapping[str, Any]], tuple[str, ...]] | None = None
    """Reads a label per column from config.json; None where the runtime's labels hold for every checkpoint."""
    pairs: bool = False
    """Whether it judges pairs of texts, so that the encoder must know two segments."""
    pipeline: str | None = None
    """The Hub's name of its task, for the model card; None where the card names none."""
    example: tuple[str, str] | None = None
    """A call from Python and one from the command line, for the model card; None where it has no task of its own."""


def classifier(config: BertConfig, labels: int) -> nn.Module:
    """Return a linear layer from the encoder's width to one logit per label."""
    from torch import nn

    return nn.Linear(config.hidden_size, labels)


def _prediction(config: BertConfig, _: int) -> nn.Module:
    from transformers.models.bert.modeling_bert import BertLMPredictionHead

    return BertLMPredictionHead(config)


HEADS: dict[str, Head] = {
    MLM: Head(
        title="masked language modelling",
        summary="masked language modelling: fills `[MASK]`",
        classes=("ForPreTraining", "ForMaskedLM"),
        tensors=(
            "cls.predictions.transform.dense.weight",
            "cls.predictions.transform.dense.bias",
            "cls.predictions.transform.LayerNorm.weight",
            "cls.predictions.transform.LayerNorm.bias",
            "cls.predictions.bias",
        ),
        tied="cls.predictions.decoder.weight",
        # transformers stores the bias of the decoder under either name, or both.
        aliases={"cls.predictions.decoder.bias": "cls.predictions.bias"},
        reads="last_hidden_state",
        module="cls.predictions",
        build=_prediction,
        pipeline="fill-mask",
        example=(
            'model.fill_mask("The capital of France is [MASK].", top_k=5)',
            'bertport fill-mask "The capital of France is [MASK]." -m BUNDLE',
        ),
    ),
    NSP: Head(
        title="next-sentence prediction",
        summary="next-sentence prediction: says whether one sentence follows another",
        classes=("ForPreTraining", "ForNextSentencePrediction"),
        tensors=("cls.seq_relationship.weight", "cls.seq_relationship.bias"),
        reads="pooler_output",
        module="cls.seq_relationship",
        build=classifier,
        pairs=True,
        example=(
            'model.next_sentence("He went to the store.", "He bought milk.")',
            'bertport next-sentence "He went to the store." "He bought milk." -m BUNDLE',
        ),
    ),
    POOLER: Head(
        title="pooled features",
        summary="the pooled `[CLS]` feature",
        tensors=("bert.pooler.dense.weight", "bert.pooler.dense.bias"),
        reads="pooler_output",
    ),
}
"""By name, in the order of a bundle's heads."""


def output_names(heads: Collection[str]) -> tuple[str, ...]:
    """Return the outputs of a model with these heads, in order: those of modules of their own, then the encoder's."""
    rows = [(output_of(name), row.module) for name, row in HEADS.items() if name in heads]
    own, encoder = ([output for output, module in rows if bool(module) is kind] for kind in (True, False))
    return (*own, HIDDEN_STATES, *encoder)


def labels_of(name: str, config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return a head's labels, read from config.json or the runtime's own; None for a head that does not classify.

    Raises:
        CheckpointError: when config.json states labels that cannot be.
    """
    read = HEADS[name].labels
    return RUNTIME[name].labels if read is None else read(config)


def describe(labels: Mapping[str, tuple[str, ...] | None]) -> dict[str, HeadEntry]:
    """Return what a manifest says of heads.

    Args:
        labels: the labels of each head, by its name.
    """
    return {name: replace(entry, labels=labels[name]) for name, entry in heads_of(labels).items()}
