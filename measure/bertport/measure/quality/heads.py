"""The table of heads: how each is measured, what its figures are called, and which of them a budget can bound.

A head is a row here and in the tables of export, runtime and serve. The hidden states, which every encoder has, are the
last row. What has no row, such as the pooler, is not measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.measure.quality.metrics import (
    COSINE_COLUMNS,
    PAIR_COLUMNS,
    TOKEN_COLUMNS,
    compare_pairs,
    compare_tokens,
    cosines,
)
from bertport.measure.quality.results import Hidden, Judgements, MaskedTokens
from bertport.measure.quality.rows import Column, Figure, Head, Limit, Moved, Test
from bertport.measure.quality.samples import GIVEN_PAIRS, ORDERED, PAIRS, PLAIN, REPLACED, TEXTS
from bertport.measure.quality.summaries import hidden_states, judged_pairs, judged_tokens, masked_tokens
from bertport.measure.quality.task_rows import TASK_ROWS
from bertport.runtime.heads import HEADS as KNOWN
from bertport.runtime.heads import HIDDEN_STATES, MLM, NSP, RTD, SOP, output_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from bertport.measure.quality.samples import Sample
    from bertport.measure.quality.sums import HeadSums
    from bertport.measure.statistics import Settings
    from bertport.measure.text import Text
    from bertport.runtime.bundle.manifest import HeadEntry, Manifest

    Floats = NDArray[np.float64]
    Logits = NDArray[np.floating]

__all__ = [
    "HEADS",
    "HIDDEN",
    "kinds_of",
    "known_limits",
    "limit_named",
    "measured_rows",
    "sample_kinds",
    "unmeasured",
]

HIDDEN = "hidden"
"""Name of the hidden states in results."""


def _tokens(reference: Logits, candidate: Logits, sample: Sample, _: HeadEntry | None) -> Floats:
    return compare_tokens(reference, candidate, sample.labels)


def _pairs(reference: Logits, candidate: Logits, sample: Sample, head: HeadEntry | None) -> Floats:
    """Compare two answers for a pair; where the manifest does not say, the first column says yes."""
    positive = (head.positive if head else None) or 0
    return compare_pairs(reference, candidate, np.array([sample.label]), positive=positive)


def _replaced(reference: Logits, candidate: Logits, sample: Sample, head: HeadEntry | None) -> Floats:
    """Compare two answers for each token; where the manifest does not say, the second column means replaced."""
    positive = 1 if head is None or head.positive is None else head.positive
    at = sample.positions
    return compare_pairs(reference[0][at], candidate[0][at], 1 - sample.labels, positive=positive)


def _hidden(reference: Logits, candidate: Logits, sample: Sample, _: HeadEntry | None) -> Floats:  # noqa: ARG001 — as every row's
    return cosines(reference[0], candidate[0])[:, None]


def _judge(  # noqa: PLR0913 — what differs between the heads that answer yes or no
    *,
    name: str,
    short: str,
    budget: str,
    kind: str,
    title: str,
    caption: str,
    meaning: str,
    cost: str,
    unit: str = "pairs",
    compare: Callable[[Logits, Logits, Sample, HeadEntry | None], Floats] = _pairs,
    summarize: Callable[[HeadSums, Settings], Judgements] = judged_pairs,
) -> Head:
    """Return the row of a head that answers yes or no.

    Args:
        name: As manifests call it.
        short: Its abbreviation, in front of the name of each figure.
        budget: The name of its bound in a budget, and what its figures of batch invariance begin with.
        kind: The kind of samples that it is measured on.
        title: The title of its table in a report.
        caption: As the field of the row.
        meaning: As the field of the row.
        cost: As the field of the column of flips.
        unit: What is judged.
        compare: As the field of the row.
        summarize: As the field of the row.
    """
    return Head(
        name=name,
        output=output_of(name),
        samples=frozenset({kind}),
        columns=PAIR_COLUMNS,
        unrecorded=frozenset({"gained", "lost"}),
        compare=compare,
        summarize=summarize,
        results=Judgements,
        title=title,
        caption=caption,
        meaning=meaning,
        reported=(
            Column(
                key="accuracy_candidate",
                title=f"{short} accuracy",
                heading="accuracy",
                form=".1%",
                labelled=True,
                more_is_better=True,
            ),
            Column(key="flips", title=f"{short} flips", heading="flips", form=".2%", cost=cost),
            Column(
                key="mean_change",
                title=f"{short} mean change of probability",
                heading="mean change of probability",
                form=".4f",
            ),
            Column(
                key="largest_change",
                title=f"{short} largest change of probability",
                heading="largest change",
                form=".4f",
            ),
            Column(key="kl", title=f"{short} KL divergence, nats", heading="KL, nats", form=".5f", divergence=True),
        ),
        figures=(
            Figure(key="flips", title=f"{short} flips", form=".2%", unit=unit),
            Figure(key="largest_change", title=f"{short} largest probability change", form=".4f"),
        ),
        tests=(
            Test(
                key="accuracy_difference",
                reference="accuracy_reference",
                candidate="accuracy_candidate",
                title=f"{short} accuracy",
                form="+.2%",
                unit=unit,
                more_is_better=True,
            ),
        ),
        moved=(
            Moved(key="flips", name=f"{budget}_flips"),
            Moved(key="largest_change", name=f"{budget}_largest_change", title=f"{short} probability"),
        ),
        limits=(
            Limit(
                name=budget,
                meaning=f"{short} flips",
                path=(name, "flips"),
                at_least=False,
                form=".2%",
                fine=".2%",
                counts=True,
                unit=unit,
                # One answer in two hundred, for each head that answers yes or no: fp32 and 8 bits disagree where fp32
                # itself is undecided, and there are few such answers where a trained head is in use.
                default=0.005,
            ),
        ),
    )


HEADS: dict[str, Head] = {
    row.name: row
    for row in (
        Head(
            name=MLM,
            output=output_of(MLM),
            samples=frozenset({TEXTS}),
            columns=TOKEN_COLUMNS,
            compare=_tokens,
            summarize=masked_tokens,
            results=MaskedTokens,
            title="Masked-language-model head",
            caption="{positions} masked positions in {texts} texts, masked by BERT's procedure with a fixed seed. "
            "Agreement and KL are with fp32.",
            meaning="MLM is the head that fills in masked words: top-1 agreement is the share of them whose best "
            "answer is fp32's.",
            reported=(
                Column(
                    key="accuracy_candidate",
                    title="MLM top-1 accuracy",
                    heading="top-1 accuracy",
                    form=".1%",
                    labelled=True,
                    headline=True,
                    more_is_better=True,
                ),
                Column(
                    key="top5_accuracy_candidate",
                    title="MLM top-5 accuracy",
                    heading="top-5 accuracy",
                    form=".1%",
                    labelled=True,
                ),
                Column(
                    key="perplexity_candidate",
                    title="pseudo-perplexity",
                    heading="pseudo-perplexity",
                    form=".2f",
                    labelled=True,
                    more_is_better=False,
                ),
                Column(
                    key="top1_agreement",
                    title="MLM top-1 agreement",
                    heading="top-1 agreement",
                    form=".1%",
                    headline=True,
                    meaning="Agreement: masked tokens with the same best answer as fp32.",
                    cost="of masked tokens get the answer that fp32 gives",
                    more_is_better=True,
                ),
                Column(key="top5_agreement", title="MLM top-5 overlap", heading="top-5 overlap", form=".1%"),
                Column(key="kl", title="MLM KL divergence, nats", heading="KL, nats", form=".5f", divergence=True),
            ),
            figures=(
                Figure(key="top1_agreement", title="MLM top-1 agreement", form=".2%", unit="positions"),
                Figure(key="top5_agreement", title="MLM top-5 agreement", form=".2%", unit="positions"),
                Figure(key="kl", title="MLM KL divergence, nats", form=".5f", unit="positions"),
                Figure(key="perplexity_difference", title="pseudo-perplexity, change", form="+.3f", unit="positions"),
            ),
            tests=(
                Test(
                    key="accuracy_difference",
                    reference="accuracy_reference",
                    candidate="accuracy_candidate",
                    title="MLM top-1 accuracy",
                    form="+.2%",
                    unit="positions",
                    more_is_better=True,
                ),
                Test(
                    key="top5_accuracy_difference",
                    reference="top5_accuracy_reference",
                    candidate="top5_accuracy_candidate",
                    title="MLM top-5 accuracy",
                    form="+.2%",
                    unit="positions",
                    more_is_better=True,
                ),
                Test(
                    key="nll_difference",
                    reference="nll_reference",
                    candidate="nll_candidate",
                    title="MLM loss: -log p of the original token (nats)",
                    form="+.4f",
                    unit="positions",
                    more_is_better=False,
                ),
            ),
            moved=(
                Moved(key="top1_agreement", name="top1_agreement"),
                Moved(key="kl", name="kl", title="KL", unit="nats"),
            ),
            limits=(
                Limit(
                    name="top1",
                    meaning="MLM top-1 agreement",
                    path=(MLM, "top1_agreement"),
                    at_least=True,
                    form=".1%",
                    fine=".2%",
                    counts=True,
                    unit="positions",
                    default=0.98,
                ),
                Limit(
                    name="kl",
                    meaning="MLM KL divergence",
                    path=(MLM, "kl"),
                    at_least=False,
                    form=".4f",
                    fine=".5f",
                    counts=False,
                    unit="positions",
                ),
            ),
        ),
        _judge(
            name=NSP,
            short="NSP",
            budget="nsp",
            kind=PAIRS,
            title="Next-sentence head",
            caption="{positions} pairs, about half true continuations.",
            meaning="NSP is the head that says whether one sentence follows another: flips are the pairs that it "
            "answers otherwise than in fp32.",
            cost="of sentence pairs are answered otherwise than by fp32",
        ),
        _judge(
            name=SOP,
            short="SOP",
            budget="sop",
            kind=ORDERED,
            title="Sentence-order head",
            caption="{positions} pairs of neighbours, about half of them swapped.",
            meaning="SOP is the head that says whether two sentences are in order: flips are the pairs that it answers "
            "otherwise than in fp32.",
            cost="of neighbouring sentences are put in another order than by fp32",
        ),
        _judge(
            name=RTD,
            short="RTD",
            budget="rtd",
            kind=REPLACED,
            compare=_replaced,
            summarize=judged_tokens,
            unit="tokens",
            title="Replaced-token head",
            caption="{positions} tokens in {texts} texts, of which 15% are replaced by others with a fixed seed.",
            meaning="RTD is the head that says which tokens are replaced: flips are the tokens that it judges "
            "otherwise than in fp32.",
            cost="of tokens are judged otherwise than by fp32",
        ),
        *TASK_ROWS,
        Head(
            name=HIDDEN,
            output=HIDDEN_STATES,
            samples=frozenset({TEXTS, PAIRS}),
            columns=COSINE_COLUMNS,
            compare=_hidden,
            summarize=hidden_states,
            results=Hidden,
            title="Hidden states and batch invariance",
            caption="Cosine of a token's last hidden state with fp32's. Moved: the distance between a text's answers "
            "alone and with other texts in the batch, or padded to twice its length.",
            reported=(
                Column(
                    key="cosine",
                    title="hidden-state cosine",
                    heading="mean cosine",
                    form=".4f",
                    headline=True,
                    more_is_better=True,
                ),
                Column(key="worst", title="smallest hidden-state cosine", heading="smallest cosine", form=".4f"),
            ),
            figures=(Figure(key="cosine", title="hidden-state cosine", form=".5f", unit="tokens"),),
            moved=(Moved(key="worst", name="worst_cosine"),),
            limits=(
                Limit(
                    name="cosine",
                    meaning="hidden-state cosine",
                    path=(HIDDEN, "cosine"),
                    at_least=True,
                    form=".4f",
                    fine=".5f",
                    counts=False,
                    unit="tokens",
                    # Of the default model's variants, those of 0.9995 and more agree with fp32 in 98% of the masked
                    # words and more, and that of 0.9988 in 96%.
                    default_without_heads=0.999,
                ),
            ),
        ),
    )
}
"""Rows by name, in the order in which results list them."""


def measured_rows(heads: Mapping[str, HeadEntry]) -> tuple[str, ...]:
    """Return the names of the rows by which a manifest's heads are measured, in the order of the table.

    A head has one row, or none: one whose values are no classes is measured as `task_rows.SCORES`.
    """
    return tuple(name for name, row in HEADS.items() if row.key in heads and row.applies(heads[row.key]))


def unmeasured(heads: Mapping[str, HeadEntry], accuracy: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of a manifest's heads of which an accuracy has no figures.

    Args:
        heads: The heads.
        accuracy: Figures by name of the row, or None where there are none.
    """
    measured = {HEADS[name].key for name, figures in accuracy.items() if figures and name in HEADS}
    return tuple(name for name in heads if name not in measured)


def sample_kinds(manifest: Manifest, texts: Iterable[Text] = ()) -> frozenset[str]:
    """Return the kinds of samples that a bundle's heads are measured on, besides those of the hidden states.

    Heads that judge the order of two texts count where the encoder can tell these apart.

    Args:
        manifest: The bundle's.
        texts: What samples are made of. Where there are pairs among them, a classifier reads these, and neither single
            texts nor pairs that are made up.
    """
    rows = [HEADS[name] for name in measured_rows(manifest.heads)]
    asked = [row for row in rows if manifest.judges_pairs or not KNOWN[row.key].pairs]
    if not any(text.pair for text in texts):
        return kinds_of(row.name for row in asked)
    others = kinds_of(row.name for row in asked if GIVEN_PAIRS not in row.samples)
    return others.union(*(row.samples - {PLAIN, PAIRS} for row in asked if GIVEN_PAIRS in row.samples))


def kinds_of(heads: Iterable[str]) -> frozenset[str]:
    """Return the kinds of samples that some rows are measured on, of any text, besides those of the hidden states."""
    return frozenset().union(*(HEADS[name].samples for name in heads if name in HEADS)) - {GIVEN_PAIRS}


def limit_named(name: str) -> Limit:
    """Return what budgets can bound by this name."""
    return known_limits()[name]


def known_limits() -> dict[str, Limit]:
    """Return what budgets can bound, by the name that users write; first what the default budget bounds."""
    limits = [limit for head in HEADS.values() for limit in head.limits]
    return {limit.name: limit for limit in sorted(limits, key=lambda limit: limit.default is None)}
