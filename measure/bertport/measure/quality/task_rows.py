"""The rows of the table of measured heads for those that are trained for a task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bertport.measure.quality.metrics import COSINE_COLUMNS, cosines
from bertport.measure.quality.rows import Column, Figure, Head, Limit, Moved
from bertport.measure.quality.samples import CANDIDATES, CHOICES, GIVEN_PAIRS, PAIRS, PLAIN, QUESTIONS
from bertport.measure.quality.task_metrics import (
    CLASS_COLUMNS,
    SPAN_COLUMNS,
    TOKEN_LABEL_COLUMNS,
    compare_classes,
    compare_entities,
    compare_spans,
    given_labels,
)
from bertport.measure.quality.task_results import Choices, Classes, Scores, Spans, TokenLabels, Vectors
from bertport.measure.quality.task_summaries import choices, classes, scores, spans, token_labels, vectors
from bertport.runtime.heads import (
    EMBEDDING,
    MULTI_LABEL,
    MULTIPLE_CHOICE,
    QUESTION_ANSWERING,
    REGRESSION,
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
    output_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bertport.measure.quality.samples import Sample
    from bertport.runtime.bundle.manifest import HeadEntry

    Floats = NDArray[np.float64]
    Logits = NDArray[np.floating]

__all__ = ["SCORES", "TASK_ROWS"]

SCORES = "scores"
"""Name, in results, of a sequence-classification head whose values are scores, not classes."""


def _gives_scores(head: HeadEntry | None) -> bool:
    """Return whether the values of a sequence-classification head are no classes: a regression, or a single value."""
    return head is not None and (head.problem_type == REGRESSION or len(head.labels or ()) == 1)


def _gives_classes(head: HeadEntry | None) -> bool:
    return not _gives_scores(head)


def _several(head: HeadEntry | None) -> bool:
    """Return whether a text may have several labels."""
    return head is not None and head.problem_type == MULTI_LABEL


def _classes(reference: Logits, candidate: Logits, _: Sample, head: HeadEntry | None) -> Floats:
    return compare_classes(reference, candidate, several=_several(head))


def _given(reference: Logits, candidate: Logits, _: Sample, head: HeadEntry | None) -> Floats:
    return given_labels(reference, candidate, several=_several(head))


def _words(sample: Sample) -> NDArray[np.int64]:
    """Return the index of each token's word; where the tokenizer does not say, every token is a word."""
    return np.arange(len(sample.input_ids)) if sample.words is None else sample.words


def _token_labels(reference: Logits, candidate: Logits, sample: Sample, head: HeadEntry | None) -> Floats:
    """Compare the labels of all tokens, and the entities of the words, of which the first token decides."""
    words, labels = _words(sample), head.labels if head else None
    rows = compare_classes(reference[0][words >= 0], candidate[0][words >= 0])
    counted = np.zeros((len(rows), 2))
    first = (words >= 0) & (np.diff(words, prepend=-1) != 0)
    if labels and len(rows):
        named = ([labels[number] for number in side[0][first].argmax(axis=-1)] for side in (reference, candidate))
        counted[0] = compare_entities(*named)
    return np.concatenate([rows, counted], axis=1)


def _given_tokens(reference: Logits, candidate: Logits, sample: Sample, _: HeadEntry | None) -> Floats:
    judged = _words(sample) >= 0
    return given_labels(reference[0][judged], candidate[0][judged])


def _spans(reference: Logits, candidate: Logits, sample: Sample, _: HeadEntry | None) -> Floats:
    return compare_spans(reference[0], candidate[0], _words(sample) >= 0)


def _difference(reference: Logits, candidate: Logits, *_: object) -> Floats:
    """Return the largest absolute difference of a sample's values. Shape: (1, 1)."""
    return np.array([[np.abs(reference.astype(np.float64) - candidate).max()]])


def _scored(reference: Logits, candidate: Logits, sample: Sample, _: HeadEntry | None) -> Floats:
    """Return for each value: whether it ranks a document, of which query, its number, and both models' values."""
    ranked = float(sample.kind == CANDIDATES)
    return np.array(
        [
            [ranked, sample.group, number, *values]
            for number, values in enumerate(zip(reference[0], candidate[0], strict=True))
        ],
        dtype=np.float64,
    )


def _chosen(reference: Logits, candidate: Logits, sample: Sample, _: HeadEntry | None) -> Floats:
    """Return of a choice: the number of its question, and both models' values. Shape: (1, 3)."""
    return np.array([[sample.group, reference[0, 0], candidate[0, 0]]], dtype=np.float64)


def _cosines(reference: Logits, candidate: Logits, *_: object) -> Floats:
    return cosines(reference, candidate)[:, None]


def _both(reference: Logits, candidate: Logits, *_: object) -> NDArray[np.floating]:
    """Return both vectors. Shape: (1, 2, hidden)."""
    return np.stack([reference, candidate], axis=1).astype(np.float32)


def _agreement(name: str, meaning: str, head: str, unit: str) -> Limit:
    """Return the bound on the share of answers that stay: 98%, as of masked words."""
    return Limit(
        name=name,
        meaning=meaning,
        path=(head, "agreement"),
        at_least=True,
        form=".1%",
        fine=".2%",
        counts=True,
        unit=unit,
        default=0.98,
    )


def _agreement_column(title: str, cost: str) -> Column:
    return Column(
        key="agreement",
        title=title,
        heading="agreement",
        form=".1%",
        headline=True,
        cost=cost,
        more_is_better=True,
    )


def _probability_columns(short: str) -> tuple[Column, ...]:
    """Return the columns of how far probabilities are from the reference's."""
    return (
        Column(key="mean_change", title=f"{short} mean change of probability", heading="mean change", form=".4f"),
        Column(
            key="largest_change", title=f"{short} largest change of probability", heading="largest change", form=".4f"
        ),
        Column(key="kl", title=f"{short} KL divergence, nats", heading="KL, nats", form=".5f", divergence=True),
        Column(key="lead", title=f"lead of fp32's best {short}", heading="lead in fp32", form=".3f"),
    )


def _probability_figures(short: str, unit: str) -> tuple[Figure, ...]:
    return (
        Figure(key="kl", title=f"{short} KL divergence, nats", form=".5f", unit=unit),
        Figure(key="largest_change", title=f"{short} largest probability change", form=".4f"),
        Figure(key="lead", title=f"lead of fp32's best {short}", form=".3f", unit=unit),
    )


TASK_ROWS = (
    Head(
        name=SEQUENCE_CLASSIFICATION,
        applies=_gives_classes,
        output=output_of(SEQUENCE_CLASSIFICATION),
        samples=frozenset({PLAIN, PAIRS, GIVEN_PAIRS}),
        columns=CLASS_COLUMNS,
        compare=_classes,
        keep=_given,
        summarize=classes,
        results=Classes,
        title="Classes of texts",
        caption="{positions} texts and pairs of texts. Agreement and KL are with fp32; the lead is that of its best "
        "label.",
        meaning="Class agreement is the share of texts whose label, or set of labels, is fp32's.",
        reported=(
            _agreement_column("class agreement", "of texts get the label that fp32 gives"),
            *_probability_columns("class"),
        ),
        figures=(
            Figure(key="agreement", title="class agreement", form=".2%", unit="texts"),
            *_probability_figures("class", "texts"),
        ),
        moved=(
            Moved(key="agreement", name="class_agreement"),
            Moved(key="largest_change", name="class_largest_change", title="class probability"),
        ),
        limits=(_agreement("class", "class agreement", SEQUENCE_CLASSIFICATION, "texts"),),
    ),
    Head(
        name=SCORES,
        head=SEQUENCE_CLASSIFICATION,
        applies=_gives_scores,
        output=output_of(SEQUENCE_CLASSIFICATION),
        samples=frozenset({PLAIN, CANDIDATES, GIVEN_PAIRS}),
        columns=("difference",),
        compare=_difference,
        keep=_scored,
        summarize=scores,
        results=Scores,
        title="Scores of texts",
        caption="{positions} texts, most of them documents of a query, in {texts} texts. Changes are in standard "
        "deviations of fp32's own scores.",
        meaning="Rank correlation is how far the documents of a query stay in fp32's order, 1 where all do; changes of "
        "scores are in standard deviations of fp32's own.",
        reported=(
            Column(
                key="rank",
                title="rank correlation",
                heading="rank correlation of a query's documents",
                form=".4f",
                headline=True,
                more_is_better=True,
            ),
            Column(
                key="top1_agreement",
                title="same best document",
                heading="same best document",
                form=".1%",
                cost="of queries get the best document that fp32 gives",
                more_is_better=True,
            ),
            Column(key="change", title="change of a score", heading="mean change", form=".4f"),
            Column(key="largest_change", title="largest change of a score", heading="largest change", form=".3f"),
            Column(
                key="correlation", title="rank correlation of all scores", heading="correlation of scores", form=".4f"
            ),
        ),
        figures=(
            Figure(key="rank", title="rank correlation of a query's documents", form=".4f", unit="queries"),
            Figure(key="top1_agreement", title="same best document", form=".2%", unit="queries"),
            Figure(key="change", title="change of a score, in fp32's deviations", form=".4f", unit="scores"),
            Figure(key="largest_change", title="largest change of a score", form=".3f"),
            Figure(key="correlation", title="rank correlation of all scores", form=".4f"),
        ),
        moved=(Moved(key="largest_difference", name="score_largest_difference", title="score"),),
        limits=(
            Limit(
                name="score",
                meaning="change of a score",
                path=(SCORES, "change"),
                at_least=False,
                form=".3f",
                fine=".4f",
                counts=False,
                of_noise=True,
                unit="scores",
                # Past one text in twenty-five at most, where scores are spread as a normal distribution.
                default=0.1,
            ),
            Limit(
                name="rank",
                meaning="rank correlation",
                path=(SCORES, "rank"),
                at_least=True,
                form=".3f",
                fine=".4f",
                counts=False,
                unit="queries",
                # Two of eight documents that change places with a neighbour, in the mean: each takes 0.024.
                default=0.95,
            ),
            Limit(
                name="best",
                meaning="queries with the same best document",
                path=(SCORES, "top1_agreement"),
                at_least=True,
                form=".1%",
                fine=".2%",
                counts=True,
                unit="queries",
            ),
        ),
    ),
    Head(
        name=TOKEN_CLASSIFICATION,
        output=output_of(TOKEN_CLASSIFICATION),
        samples=frozenset({PLAIN}),
        columns=TOKEN_LABEL_COLUMNS,
        compare=_token_labels,
        keep=_given_tokens,
        summarize=token_labels,
        results=TokenLabels,
        title="Labels of tokens",
        caption="{positions} tokens in {texts} texts. Agreement and KL are with fp32; entities are those of which the "
        "label, the first and the last word are the same.",
        meaning="Tag agreement is the share of tokens whose label is fp32's; entities are compared as F1 with fp32's.",
        reported=(
            _agreement_column("tag agreement", "of tokens get the label that fp32 gives"),
            Column(
                key="entities",
                title="F1 of entities with fp32's",
                heading="F1 of entities",
                form=".1%",
                more_is_better=True,
            ),
            *_probability_columns("tag"),
        ),
        figures=(
            Figure(key="agreement", title="tag agreement", form=".2%", unit="tokens"),
            Figure(key="entities", title="F1 of entities with fp32's", form=".2%", unit="entities"),
            *_probability_figures("tag", "tokens"),
        ),
        moved=(
            Moved(key="agreement", name="tag_agreement"),
            Moved(key="largest_change", name="tag_largest_change", title="tag probability"),
        ),
        limits=(
            _agreement("tag", "tag agreement", TOKEN_CLASSIFICATION, "tokens"),
            Limit(
                name="entity",
                meaning="F1 of entities with fp32's",
                path=(TOKEN_CLASSIFICATION, "entities"),
                at_least=True,
                form=".1%",
                fine=".2%",
                counts=False,
                of_noise=True,
                unit="entities",
                # Wider than that of tokens: an entity is another with any word in it.
                default=0.95,
            ),
        ),
    ),
    Head(
        name=QUESTION_ANSWERING,
        output=output_of(QUESTION_ANSWERING),
        samples=frozenset({QUESTIONS}),
        columns=SPAN_COLUMNS,
        compare=_spans,
        summarize=spans,
        results=Spans,
        title="Answers to questions",
        caption="{positions} questions on {texts} texts. Agreement, F1 and KL are with fp32's answers, of at most 15 "
        "tokens, or none.",
        meaning="Span agreement is the share of questions whose answer is, to the token, fp32's.",
        reported=(
            _agreement_column("span agreement", "of questions get the answer that fp32 gives"),
            Column(key="overlap", title="F1 of answers with fp32's", heading="F1 of answers", form=".1%"),
            Column(
                key="kl_start", title="KL of starts, nats", heading="KL of starts, nats", form=".5f", divergence=True
            ),
            Column(key="kl_end", title="KL of ends, nats", heading="KL of ends, nats", form=".5f", divergence=True),
            Column(key="unanswered", title="unanswered by fp32", heading="unanswered by fp32", form=".1%"),
        ),
        figures=(
            Figure(key="agreement", title="span agreement", form=".2%", unit="questions"),
            Figure(key="overlap", title="F1 of answers with fp32's", form=".2%", unit="questions"),
            Figure(key="kl_start", title="KL of starts, nats", form=".5f", unit="questions"),
            Figure(key="kl_end", title="KL of ends, nats", form=".5f", unit="questions"),
            Figure(key="unanswered", title="unanswered by fp32", form=".2%", unit="questions"),
        ),
        moved=(Moved(key="agreement", name="span_agreement"), Moved(key="kl_start", name="span_kl")),
        limits=(_agreement("span", "span agreement", QUESTION_ANSWERING, "questions"),),
    ),
    Head(
        name=MULTIPLE_CHOICE,
        output=output_of(MULTIPLE_CHOICE),
        samples=frozenset({CHOICES}),
        columns=("difference",),
        compare=_difference,
        keep=_chosen,
        summarize=choices,
        results=Choices,
        title="Choices",
        caption="{positions} texts with one of four choices each, in {texts} texts. Agreement and KL are with fp32.",
        meaning="Choice agreement is the share of questions of which the same text is chosen as by fp32.",
        reported=(
            _agreement_column("choice agreement", "of questions get the choice that fp32 makes"),
            *_probability_columns("choice"),
        ),
        figures=(
            Figure(key="agreement", title="choice agreement", form=".2%", unit="questions"),
            *_probability_figures("choice", "questions"),
        ),
        moved=(Moved(key="largest_difference", name="choice_largest_difference", title="choice"),),
        limits=(_agreement("choice", "choice agreement", MULTIPLE_CHOICE, "questions"),),
    ),
    Head(
        name=EMBEDDING,
        output=output_of(EMBEDDING),
        samples=frozenset({PLAIN}),
        columns=COSINE_COLUMNS,
        compare=_cosines,
        keep=_both,
        summarize=vectors,
        results=Vectors,
        title="Sentence embeddings",
        caption="{positions} texts. Cosine of a text's vector with fp32's, and how many of its ten nearest neighbours "
        "among the others are the same.",
        meaning="Neighbours are the ten nearest texts of a text by its vector: how many of them are fp32's.",
        reported=(
            Column(
                key="cosine",
                title="embedding cosine",
                heading="mean cosine",
                form=".4f",
                headline=True,
                more_is_better=True,
            ),
            Column(key="worst", title="smallest embedding cosine", heading="smallest cosine", form=".4f"),
            Column(
                key="neighbours",
                title="common neighbours",
                heading="common neighbours",
                form=".1%",
                more_is_better=True,
            ),
        ),
        figures=(
            Figure(key="cosine", title="embedding cosine", form=".5f", unit="texts"),
            Figure(key="worst", title="smallest embedding cosine", form=".5f"),
            Figure(key="neighbours", title="common neighbours of ten", form=".2%", unit="texts"),
        ),
        moved=(Moved(key="worst", name="embedding_worst_cosine"),),
        limits=(
            Limit(
                name="embedding",
                meaning="embedding cosine",
                path=(EMBEDDING, "cosine"),
                at_least=True,
                form=".4f",
                fine=".5f",
                counts=False,
                unit="texts",
                # An angle of eight degrees. Of the mean states of the default encoder, int8-dynamic keeps 0.9997
                # and 97% of the neighbours; noise that brings them to 0.99 keeps 92%, to 0.98 it keeps 89%.
                default=0.99,
            ),
            Limit(
                name="neighbours",
                meaning="common neighbours",
                path=(EMBEDDING, "neighbours"),
                at_least=True,
                form=".1%",
                fine=".2%",
                counts=False,
                of_noise=True,
                unit="texts",
                default=0.9,
            ),
        ),
    ),
)
"""Rows of heads that are trained for a task, in the order in which results list them."""
