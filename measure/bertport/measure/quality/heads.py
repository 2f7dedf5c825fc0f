"""The table of heads: how each is measured, what its figures are called, and which of them a budget can bound.

A head is a row here and in the tables of export, runtime and serve. The hidden states, which every encoder has, are the
last row. What has no row, such as the pooler, is not measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
from bertport.measure.quality.samples import ORDERED, PAIRS, REPLACED, TEXTS
from bertport.measure.quality.summaries import hidden_states, judged_pairs, judged_tokens, masked_tokens
from bertport.runtime.heads import HIDDEN_STATES, MLM, NSP, RTD, SOP, decoded_outputs, output_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import NDArray

    from bertport.measure.quality.results import HeadFigures
    from bertport.measure.quality.samples import Sample
    from bertport.measure.quality.sums import HeadSums
    from bertport.measure.statistics import Settings
    from bertport.runtime.bundle.manifest import HeadEntry

    Floats = NDArray[np.float64]
    Logits = NDArray[np.floating]

__all__ = [
    "HEADS",
    "HIDDEN",
    "Column",
    "Figure",
    "Head",
    "Limit",
    "Moved",
    "Test",
    "kinds_of",
    "known_limits",
    "limit_named",
]

HIDDEN = "hidden"
"""What results call the hidden states."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of a head, as a terminal shows it."""

    key: str
    """Its key among the head's figures, of an `Estimate` or a number."""
    title: str
    """What people call it."""
    form: str
    """How it is printed."""
    unit: str = ""
    """What it is counted in; empty for a number without a count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One figure of a head, as a report shows it."""

    key: str
    """Its key among the head's figures, of an `Estimate` or a number."""
    title: str
    """What people call it."""
    heading: str
    """Heading of its column in the head's table."""
    form: str
    """How it is printed; a percentage for a share."""
    labelled: bool = False
    """Whether it is of the right answers, and not of the distance from the reference: where the weights know nothing
    it means nothing, and the reference has one too."""
    divergence: bool = False
    """Whether it is a divergence: a small one is printed with two significant digits, not with five decimals."""
    headline: bool = False
    """Whether it stands for the head among the figures of speed: in the first table, and plotted against latency."""
    meaning: str = ""
    """A sentence on it for the first table."""
    cost: str = ""
    """What the summary says after its value, of a variant that is recommended; empty for what it does not name."""
    more_is_better: bool | None = None
    """Which way a later report is worse; None where reports are not compared by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """One labelled metric of a head, by which the candidate is tested against the reference."""

    key: str
    """Key of its `Difference` among the head's figures."""
    reference: str
    """Key of the reference's figure."""
    candidate: str
    """Key of the candidate's figure."""
    title: str
    """What people call the metric."""
    form: str
    """How the difference is printed."""
    unit: str
    """What it is counted in."""
    more_is_better: bool
    """Whether the candidate is better where the difference is above 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """One figure by which batch invariance is measured: a model's answers alone against those in a batch."""

    key: str
    """Its key among the head's figures."""
    name: str
    """Its key in the results of batch invariance, where the figures of all heads stand side by side."""
    title: str = ""
    """What a terminal calls it; empty for what it does not show."""
    unit: str = ""
    """Unit of its columns in a report; empty for what it does not show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One figure that a budget can bound."""

    name: str
    """What users write."""
    meaning: str
    """What it is, for people."""
    path: tuple[str, str]
    """Where it is in a fidelity: the name of the head, and the figure's key."""
    at_least: bool
    """Whether the bound is a lower one."""
    form: str
    """How a report prints it."""
    fine: str
    """How it is printed where a variant is refused for it."""
    counts: bool
    """Whether it is a share of answers that change or stay, and not a distance."""
    unit: str
    """What it is counted in."""
    default: float | None = None
    """Its bound in the default budget; None for none."""
    default_without_heads: float | None = None
    """Its bound in the budget of a bundle that has nothing of what the default budget bounds."""

    def holds(self, value: float, bound: float) -> bool:
        """Tell whether a value keeps to a bound, itself included; what is not a number keeps to none."""
        return value >= bound if self.at_least else value <= bound

    def asked(self, bound: float, form: str | None = None) -> str:
        """Return a bound in words: "at least 98.0%"."""
        return f"at {'least' if self.at_least else 'most'} {bound:{form or self.form}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One row: how a head's outputs are compared, and what follows from it."""

    name: str
    """As manifests and results call it."""
    output: str
    """Name of the graph's output."""
    samples: frozenset[str]
    """Kinds of samples that it is measured on: `samples.TEXTS`, `samples.PAIRS` and the like."""
    columns: tuple[str, ...]
    """Names of the metrics that `compare` computes."""
    unrecorded: frozenset[str] = frozenset()
    """Those of them that the sums per text in a report leave out."""
    compare: Callable[[Logits, Logits, Sample, HeadEntry | None], Floats]
    """From the reference's and the candidate's output for a sample, and what the manifest says of the head, to rows of
    metrics. Shape of the outputs: (masked, classes) where serving graphs decode positions, or else (1, ...); of the
    result: (rows, columns)."""
    summarize: Callable[[HeadSums, Settings], HeadFigures]
    """From the sums of the metrics per text to the figures of the head."""
    results: type[HeadFigures]
    """What `summarize` returns."""
    figures: tuple[Figure, ...]
    """What a terminal shows, in order."""
    title: str
    """Title of its table in a report."""
    caption: str = ""
    """How that table is to be read; `{positions}` and `{texts}` stand for how much was measured."""
    meaning: str = ""
    """What the head is and what its budget bounds, for readers who meet it in a report first."""
    reported: tuple[Column, ...]
    """What a report shows, in order."""
    tests: tuple[Test, ...] = ()
    """The labelled metrics, in order."""
    moved: tuple[Moved, ...] = ()
    """What is kept of the head's figures where batch invariance is measured."""
    limits: tuple[Limit, ...] = ()
    """What a budget can bound."""

    def asks(self, sample: Sample) -> bool:
        """Tell whether the head is measured on a sample."""
        decoded = decoded_outputs([self.output])
        return sample.kind in self.samples and (not decoded or len(sample.positions) > 0)


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
"""By name, in the order in which results list them."""


def kinds_of(heads: Collection[str]) -> frozenset[str]:
    """Return the kinds of samples that some heads are measured on, besides those of the hidden states."""
    return frozenset().union(*(HEADS[name].samples for name in heads if name in HEADS))


def limit_named(name: str) -> Limit:
    """Return what budgets can bound by this name."""
    return known_limits()[name]


def known_limits() -> dict[str, Limit]:
    """Return what budgets can bound, by the name that users write; first what the default budget bounds."""
    limits = [limit for head in HEADS.values() for limit in head.limits]
    return {limit.name: limit for limit in sorted(limits, key=lambda limit: limit.default is None)}
