"""The table of heads: which of transformers' classes make a head, and how PyTorch runs it.

A head is a row here and in the tables of runtime, measure and serve. What its output is called, its axes and the labels
that hold for every checkpoint are the runtime's words (`bertport.runtime.heads`). Its tensors are those of its class
(`bertport.export.checkpoint.layout`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.labels import labels_in, terms_of_texts, terms_of_tokens
from bertport.runtime.bundle.manifest import heads_of
from bertport.runtime.heads import (
    EMBEDDING,
    HIDDEN_STATES,
    MLM,
    MULTIPLE_CHOICE,
    NSP,
    POOLER,
    QUESTION_ANSWERING,
    RTD,
    SEQUENCE_CLASSIFICATION,
    SOP,
    TOKEN_CLASSIFICATION,
    output_of,
)
from bertport.runtime.heads import HEADS as RUNTIME_HEADS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import torch
    from transformers import PretrainedConfig, PreTrainedModel

    from bertport.runtime.bundle.manifest import HeadEntry

__all__ = ["HEADS", "Head", "entry_of", "output_names", "with_aliases"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One row: a head that a checkpoint may hold."""

    title: str
    """Name of its task, for the middle of a sentence."""
    summary: str
    """A line about it for the model card."""
    own_class: str | None = None
    """transformers' class for it alone, which every family has unless its row says otherwise, without the family's name
    in front: `ForMaskedLM`; None where a family's row says which of its classes hold it."""
    optimum: str | None = None
    """Optimum's name of the task for which its table has that class; None where it has none."""
    make: Callable[[PretrainedConfig], PreTrainedModel] | None = None
    """Builds the class where transformers has none of its name."""
    attributes: tuple[str, ...] = ()
    """The attributes of the class's output that may hold its logits, in the order in which they are looked for; none
    where the encoder computes it."""
    finish: Callable[[torch.Tensor, Any], torch.Tensor] | None = None
    """Makes the graph's output of them, and of the class's output, where it is another."""
    choices: bool = False
    """Whether its class takes inputs of [batch, choices, sequence]; here each text has one choice."""
    labels: Callable[[Mapping[str, Any]], tuple[str, ...]] | None = None
    """Reads a label per column from config.json; None where the runtime's labels hold for every checkpoint."""
    terms: Callable[[Mapping[str, Any], tuple[str, ...]], Mapping[str, Any]] | None = None
    """Reads what else config.json states of it, fields of its entry in a manifest, from that and its labels."""
    pairs: bool = False
    """Whether it judges pairs of texts, so that the encoder must know two segments."""
    tuned: bool = False
    """Whether it is trained for a task, and not together with the encoder, which lacks nothing without it."""
    example: tuple[str, str] | None = None
    """A call from Python and one from the command line, for the model card; None where it has no task of its own."""


def _two_columns(logits: torch.Tensor, _: object) -> torch.Tensor:
    """Return a column of zeros beside logits of one column, [..., 2]: its softmax is their sigmoid."""
    import torch

    return torch.stack((torch.zeros_like(logits), logits), dim=-1)


def _span(starts: torch.Tensor, output: Any) -> torch.Tensor:  # noqa: ANN401 — transformers' outputs
    """Return the logits of starts and ends side by side, [batch, sequence, 2]."""
    import torch

    return torch.stack((starts, output.end_logits), dim=-1)


HEADS: dict[str, Head] = {
    MLM: Head(
        title="masked language modelling",
        summary="masked language modelling: fills `[MASK]`",
        own_class="ForMaskedLM",
        optimum="fill-mask",
        attributes=("logits", "prediction_logits"),
        example=(
            'model.fill_mask("The capital of France is [MASK].", top_k=5)',
            'bertport fill-mask "The capital of France is [MASK]." -m BUNDLE',
        ),
    ),
    NSP: Head(
        title="next-sentence prediction",
        summary="next-sentence prediction: says whether one sentence follows another",
        attributes=("logits", "seq_relationship_logits"),
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
        pairs=True,
        example=(
            'model.sentence_order("He went to the store.", "He bought milk.")',
            'bertport sentence-order "He went to the store." "He bought milk." -m BUNDLE',
        ),
    ),
    RTD: Head(
        title="replaced-token detection",
        summary="replaced-token detection: says which tokens stand where another one stood",
        attributes=("logits",),
        finish=_two_columns,
        example=(
            'model.replaced_tokens("The capital of France is milk.")',
            'bertport replaced-tokens "The capital of France is milk." -m BUNDLE',
        ),
    ),
    SEQUENCE_CLASSIFICATION: Head(
        title="sequence classification",
        summary="sequence classification: a value for each label of a text, or of a pair of texts",
        tuned=True,
        own_class="ForSequenceClassification",
        optimum="text-classification",
        attributes=("logits",),
        labels=labels_in,
        terms=terms_of_texts,
        example=(
            'model.classify("What a lovely day!")',
            'bertport classify "What a lovely day!" -m BUNDLE',
        ),
    ),
    TOKEN_CLASSIFICATION: Head(
        title="token classification",
        summary="token classification: a value for each label of each token",
        tuned=True,
        own_class="ForTokenClassification",
        optimum="token-classification",
        attributes=("logits",),
        labels=labels_in,
        terms=terms_of_tokens,
        example=(
            'model.tag("Wolfgang lives in Berlin.", aggregation_strategy="simple")',
            'bertport tag "Wolfgang lives in Berlin." -m BUNDLE',
        ),
    ),
    QUESTION_ANSWERING: Head(
        title="question answering",
        summary="question answering: says where in a text the answer to a question starts and ends",
        tuned=True,
        own_class="ForQuestionAnswering",
        optimum="question-answering",
        attributes=("start_logits",),
        finish=_span,
        example=(
            'model.answer("Where does Wolfgang live?", "My name is Wolfgang and I live in Berlin.")',
            'bertport answer "Where does Wolfgang live?" -c "My name is Wolfgang and I live in Berlin." -m BUNDLE',
        ),
    ),
    MULTIPLE_CHOICE: Head(
        title="multiple choice",
        summary="multiple choice: a value for each of several ways to go on",
        tuned=True,
        own_class="ForMultipleChoice",
        optimum="multiple-choice",
        attributes=("logits",),
        choices=True,
        example=(
            'model.choose("It began to rain.", ["She opened her umbrella.", "She put on her sunglasses."])',
            """bertport predict multiple-choice -m BUNDLE -i '{"prompt": "It rains.", "choices": ["Wet.", "Cats."]}'""",
        ),
    ),
    EMBEDDING: Head(
        title="sentence embeddings",
        summary="sentence embeddings: one vector of a text, to be compared with those of others",
        example=('model.embed(["some text", "another"])', 'bertport embed "some text" "another" -m BUNDLE'),
    ),
    POOLER: Head(
        title="pooled features",
        summary="the pooled `[CLS]` feature",
    ),
}
"""Heads by name, in the order of a bundle's heads."""


def output_names(heads: Collection[str]) -> tuple[str, ...]:
    """Return the outputs of a model with these heads, in order: those of classes of their own, then the encoder's."""
    rows = [(output_of(name), head.attributes) for name, head in HEADS.items() if name in heads]
    own, encoder = ([output for output, attributes in rows if bool(attributes) is kind] for kind in (True, False))
    return (*own, HIDDEN_STATES, *encoder)


def entry_of(name: str, config: Mapping[str, Any]) -> HeadEntry:
    """Return what a manifest says of a head: by the table of heads, and by config.json where the checkpoint decides.

    Raises:
        CheckpointError: when config.json states what cannot be.
    """
    head, entry = HEADS[name], heads_of([name])[name]
    if head.labels is None:
        return entry
    labels = head.labels(config)
    return replace(entry, labels=labels, **(head.terms(config, labels) if head.terms else {}))


def with_aliases(entries: Mapping[str, HeadEntry]) -> dict[str, HeadEntry]:
    """Return the heads of a bundle with the names by which other runtimes look for their outputs.

    A name has one meaning in a graph: where an output has it already, as masked language modelling has `logits`, no
    other head gets it; of the heads that are left, the checkpoint's own come before those that were added, and both in
    the table's order. A head gets all of its names, or none.
    """
    taken = {HIDDEN_STATES, *(entry.output for entry in entries.values())}
    named = dict(entries)
    for name, entry in sorted(entries.items(), key=lambda item: item[1].source is not None):
        aliases = RUNTIME_HEADS[name].aliases
        if aliases and taken.isdisjoint(aliases):
            taken.update(aliases)
            named[name] = replace(entry, aliases=aliases)
    return named
