"""The table of heads: what a graph computes beside hidden states, and what a manifest must say of it.

A head is a row here and in the tables of export, measure and serve. The task that answers with it names it in
`bertport.runtime.tasks.table`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = [
    "BATCH",
    "CHOICE",
    "DEFAULT_TOP_K",
    "EMBEDDING",
    "HEADS",
    "HIDDEN",
    "HIDDEN_STATES",
    "LABEL",
    "MLM",
    "MULTIPLE_CHOICE",
    "MULTI_LABEL",
    "NSP",
    "POOLER",
    "POSITIONS",
    "QUESTION_ANSWERING",
    "REGRESSION",
    "RTD",
    "SEGMENTS",
    "SEQUENCE",
    "SEQUENCE_CLASSIFICATION",
    "SINGLE_LABEL",
    "SOP",
    "SPAN",
    "TOKEN_CLASSIFICATION",
    "VOCABULARY",
    "Head",
    "decoded_outputs",
    "head_of",
    "is_per_token",
    "output_of",
    "top_k_output",
]

MLM = "mlm"
"""The head that fills in masked words."""
NSP = "nsp"
"""The head that judges whether a text follows another."""
SOP = "sop"
"""The head that judges whether two texts stand in the order in which they were written."""
RTD = "rtd"
"""The head that judges of each token whether it stands in place of another."""
SEQUENCE_CLASSIFICATION = "sequence-classification"
"""The head that gives a text, or a pair of texts, a value for each label."""
TOKEN_CLASSIFICATION = "token-classification"  # noqa: S105 — no password
"""The head that gives each token a value for each label."""
QUESTION_ANSWERING = "question-answering"
"""The head that says of each token whether the answer to a question starts or ends there."""
MULTIPLE_CHOICE = "multiple-choice"
"""The head that gives a text with one of several choices a value, to be compared with those of the others."""
EMBEDDING = "embedding"
"""The modules of sentence-transformers that make one vector of the states of a text's tokens."""
POOLER = "pooler"
"""The dense layer and tanh over the state of the first token."""
SINGLE_LABEL = "single_label_classification"
"""transformers' problem type of a head that chooses one of its labels."""
MULTI_LABEL = "multi_label_classification"
"""transformers' problem type of a head of whose labels several may fit."""
REGRESSION = "regression"
"""transformers' problem type of a head whose values are no classes."""
BATCH = "batch"
"""The axis of texts."""
SEQUENCE = "sequence"
"""The axis of a text's tokens."""
VOCABULARY = "vocabulary"
"""The axis of words to choose from."""
HIDDEN = "hidden"
"""The axis of the hidden states' features."""
LABEL = "label"
"""The axis of a classifier's labels."""
SPAN = "span"
"""The axis of the two ends of a span: 0 for its start, 1 for its end."""
CHOICE = "choice"
"""The axis of the one value of a choice."""
POSITIONS = "masked_positions"
"""The input of serving graphs that states which positions are decoded: indices into `[batch x sequence]`."""
SEGMENTS = "token_type_ids"
"""The input of encoders that tell texts apart by segments: 0 for the first of a pair, 1 for the second."""
DEFAULT_TOP_K = 5
"""Answers per mask by default, as in transformers."""
HIDDEN_STATES = "last_hidden_state"
"""The output that every encoder has, `[batch, sequence, hidden]`; it belongs to no head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One row: a head of the model."""

    name: str
    """Key of the head in a manifest."""
    title: str
    """Name for people."""
    output: str
    """Name of the graph's output."""
    axes: tuple[str, ...]
    """A name per axis of the output, as the portable graph computes it."""
    labels: tuple[str, ...] | None = None
    """A label per column of the last axis, for checkpoints that do not give their own; None where it does not classify
    or only the checkpoint knows."""
    label_count: int | None = None
    """Number of labels that a manifest must state if it states any; None for any number."""
    problem_type: str | None = None
    """Problem type as transformers calls it, `SINGLE_LABEL`, `MULTI_LABEL` or `REGRESSION`; None without labels."""
    positive: int | None = None
    """Column of the label that means yes, which a manifest with labels must state too; None where there is none."""
    pairs: bool = False
    """Whether it judges pairs of texts, which it needs segments for."""
    decoded: bool = False
    """Whether serving graphs compute it at the input `POSITIONS` alone: `[positions, classes]`."""
    aliases: tuple[str, ...] = ()
    """Names by which other runtimes look for the output in a portable graph: one for the whole of it, or one for each
    column of its last axis."""
    top_k: bool = False
    """Whether the graph may return the k likeliest classes in place of all of them."""
    pipeline: str | None = None
    """The Hub's name of its task, for the model card; None where the Hub has none."""


HEADS: dict[str, Head] = {
    head.name: head
    for head in (
        Head(
            name=MLM,
            title="masked-language-modelling",
            output="logits",
            axes=(BATCH, SEQUENCE, VOCABULARY),
            decoded=True,
            top_k=True,
            pipeline="fill-mask",
        ),
        Head(
            name=NSP,
            title="next-sentence",
            output="seq_relationship_logits",
            axes=(BATCH, LABEL),
            labels=("is_next", "not_next"),  # column 0: B follows A, 1: B is from another place
            label_count=2,
            problem_type=SINGLE_LABEL,
            positive=0,
            pairs=True,
        ),
        Head(
            name=SOP,
            title="sentence-order",
            output="sentence_order_logits",
            axes=(BATCH, LABEL),
            labels=("in_order", "swapped"),  # column 0: A came before B, 1: B came before A
            label_count=2,
            problem_type=SINGLE_LABEL,
            positive=0,
            pairs=True,
        ),
        Head(
            name=RTD,
            title="replaced-token",
            output="replaced_token_logits",
            axes=(BATCH, SEQUENCE, LABEL),
            # a discriminator has one logit a token: with 0 before it, softmax gives its sigmoid
            labels=("original", "replaced"),
            label_count=2,
            problem_type=SINGLE_LABEL,
            positive=1,
        ),
        Head(
            name=SEQUENCE_CLASSIFICATION,
            title="sequence-classification",
            output="class_logits",
            axes=(BATCH, LABEL),
            aliases=("logits",),
            pipeline="text-classification",
        ),
        Head(
            name=TOKEN_CLASSIFICATION,
            title="token-classification",
            output="token_logits",
            axes=(BATCH, SEQUENCE, LABEL),
            aliases=("logits",),
            pipeline="token-classification",
        ),
        Head(
            name=QUESTION_ANSWERING,
            title="question-answering",
            output="span_logits",
            axes=(BATCH, SEQUENCE, SPAN),
            aliases=("start_logits", "end_logits"),
            pipeline="question-answering",
        ),
        Head(name=MULTIPLE_CHOICE, title="multiple-choice", output="choice_logits", axes=(BATCH, CHOICE)),
        Head(
            name=EMBEDDING,
            title="sentence-embedding",
            output="sentence_embedding",
            axes=(BATCH, HIDDEN),
            pipeline="sentence-similarity",
        ),
        Head(name=POOLER, title="pooler", output="pooler_output", axes=(BATCH, HIDDEN)),
    )
}
"""The heads by name, in the order in which they are shown."""


def output_of(head: str | None) -> str:
    """Return the graph's output of a head; None stands for the encoder itself."""
    return HIDDEN_STATES if head is None else HEADS[head].output


def head_of(output: str) -> Head | None:
    """Return the head behind a graph's output; None for hidden states, and for what this version does not know."""
    return next((head for head in HEADS.values() if head.output == output), None)


def is_per_token(output: str) -> bool:
    """Return whether an output has a row for each token of a text."""
    head = head_of(output)
    return output == HIDDEN_STATES if head is None else SEQUENCE in head.axes


def decoded_outputs(outputs: Collection[str]) -> list[str]:
    """Return those of a graph's outputs that serving graphs compute at the input `POSITIONS` alone."""
    return [head.output for head in HEADS.values() if head.decoded and head.output in outputs]


def top_k_output(outputs: Collection[str]) -> str | None:
    """Return the one of a graph's outputs that may be cut to its k likeliest classes; None if there is none."""
    return next((head.output for head in HEADS.values() if head.top_k and head.output in outputs), None)
