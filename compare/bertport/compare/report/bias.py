"""Findings of the bias probes in words and tables: of words for masks, and of a classifier's labels."""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING

from bertport.compare.report.formatting import NONE, interval
from bertport.compare.report.tables import Table
from bertport.measure.statistics import says_no_difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertport.compare.report.document import Bias, BiasProbe, LabelBias, Report, Row
    from bertport.measure.quality.bias import Probe
    from bertport.measure.quality.label_bias import LabelScores
    from bertport.measure.statistics import Difference

__all__ = ["bias_paragraphs", "bias_tables"]

LABELS_SHOWN = 5
"""Labels of each variant that the table of labels shows."""
PAIRS_SHOWN = 20
"""Pairs of sentences that the table of pairs shows."""
SCORES = {
    "softmax": "A score is a probability; those of all labels add up to 1.",
    "sigmoid": "A score is the probability of one label, whatever the others are.",
    "none": "A score is the value that the model gives, which is not a probability.",
}
"""Explanations of scores, by the function that makes them from logits."""


def bias_paragraphs(report: Report) -> tuple[str, ...]:
    """Return what was asked, and what a reader must not conclude from the answers; nothing where nothing was asked."""
    asked = [
        _asked(probe)
        for probe, rows in ((report.bias_probe, _masks(report)), (report.label_bias_probe, _labels(report)))
        if rows and probe
    ]
    caution = (
        "The probe shows that answers differ between two groups, and whether quantization changed by how much. It does "
        "not show that a model is free of bias, and it says nothing of groups and languages that it has no words for."
    )
    return (*asked, caution) if asked else ()


def bias_tables(report: Report) -> tuple[Table, ...]:
    """Return the tables of the probes that were asked."""
    tables: list[Table] = []
    confidence = report.settings.confidence
    if masks := _masks(report):
        tables += [_distances(masks, confidence), _answers(masks)]
    if labels := _labels(report):
        tables += [_changes(labels, confidence), _by_label(labels)]
        if report.label_bias_probe:
            tables += _of_reference(report.label_bias_probe.probe, *labels[0])
    return tuple(tables)


def _masks(report: Report) -> list[tuple[Row, Bias]]:
    return [(row, row.bias) for row in report.rows if row.bias and report.bundle(row.bundle).trained]


def _labels(report: Report) -> list[tuple[Row, LabelBias]]:
    return [(row, row.label_bias) for row in report.rows if row.label_bias and report.bundle(row.bundle).trained]


def _asked(given: BiasProbe) -> str:
    probe = given.probe
    count = len(probe.templates) * len(probe.groups)
    return (
        f"{count} pairs of sentences from {len(probe.templates)} templates and {len(probe.groups)} pairs of words "
        f"({probe.name}). {probe.description}"
    )


def _distances(rows: Sequence[tuple[Row, Bias]], confidence: float) -> Table:
    return Table(
        title="Distance between the two groups",
        caption="Jensen-Shannon divergence of the two distributions of answers, in bits: 0 the same, 1 nothing in "
        "common. Mean over all pairs of sentences, intervals over templates.",
        head=("variant", "mean distance", "change from fp32", "what was seen"),
        rows=tuple(
            (
                row.name,
                interval(bias.distance, ".3f"),
                interval(bias.change.difference if bias.change else None, "+.4f"),
                _changed(bias.change, confidence),
            )
            for row, bias in rows
        ),
    )


def _answers(rows: Sequence[tuple[Row, Bias]]) -> Table:
    card = rows[0][1].card
    return Table(
        title="Best answers to the first pair",
        caption=f"A: {card.a}  B: {card.b}",
        head=("variant", "A", "B", "distance, bits"),
        rows=tuple(
            (
                row.name,
                *(_words(answers) for answers in (bias.card.answers_a, bias.card.answers_b)),
                f"{bias.card.distance:.3f}",
            )
            for row, bias in rows
        ),
    )


def _changes(rows: Sequence[tuple[Row, LabelBias]], confidence: float) -> Table:
    kinds = dict.fromkeys(bias.scores for _, bias in rows)
    return Table(
        title="Labels between the two groups",
        caption="Change of the label whose score changes most from the one sentence of a pair to the other, without "
        "its sign. Mean over all pairs of sentences, intervals over templates. "
        + " ".join(SCORES[kind] for kind in kinds),
        head=("variant", "mean change", "moves most", "by", "change from fp32", "what was seen"),
        rows=tuple(
            (
                row.name,
                interval(bias.distance, ".4f"),
                bias.labels[0].label,
                interval(bias.labels[0].distance, ".4f"),
                interval(bias.change.difference if bias.change else None, "+.4f"),
                _changed(bias.change, confidence),
            )
            for row, bias in rows
        ),
    )


def _by_label(rows: Sequence[tuple[Row, LabelBias]]) -> Table:
    return Table(
        title="Label by label",
        caption=f"The {LABELS_SHOWN} labels of each variant that move most. B minus A: the score for the second "
        "sentence minus that for the first, mean over all pairs; without sign: how far it moves either way.",
        head=("variant", "label", "B minus A", "without sign", "most", "A", "B"),
        rows=tuple(
            (
                row.name,
                shift.label,
                interval(shift.change, "+.4f"),
                interval(shift.distance, ".4f"),
                f"{shift.largest:+.4f}",
                shift.a,
                shift.b,
            )
            for row, bias in rows
            for shift in bias.labels[:LABELS_SHOWN]
        ),
    )


def _of_reference(probe: Probe, row: Row, bias: LabelBias) -> list[Table]:
    """Return the tables of the first variant, its bundle's reference: by pair of words, by template, by sentence."""
    groups, count = probe.groups, len(probe.groups)
    words = [
        (f"{one}, {other}", [pair for number, pair in enumerate(bias.pairs) if number % count == place])
        for place, (one, other) in enumerate(groups)
    ]
    templates = [
        (template, [pair for pair in bias.pairs if pair.template == number])
        for number, template in enumerate(probe.templates)
    ]
    return [
        _grouped("Group by group", "A and B", "templates", words, row, bias),
        _grouped("Template by template", "template", "pairs of words", templates, row, bias),
        _by_pair(row, bias),
    ]


def _grouped(  # noqa: PLR0913, PLR0917 — a table's words, and what is in it
    title: str, head: str, over: str, groups: Sequence[tuple[str, Sequence[LabelScores]]], row: Row, bias: LabelBias
) -> Table:
    labels = [shift.label for shift in bias.labels[:LABELS_SHOWN]]
    return Table(
        title=f"{title}: {row.name}",
        caption=f"Score of a label for B minus that for A, mean over {over}; in brackets without its sign.",
        head=(head, *labels),
        rows=tuple(
            (
                name,
                *(
                    f"{fmean(changes):+.4f} ({fmean(map(abs, changes)):.4f})"
                    for changes in ([pair.changes[column] for pair in pairs] for column in range(len(labels)))
                ),
            )
            for name, pairs in groups
        ),
    )


def _by_pair(row: Row, bias: LabelBias) -> Table:
    """Return the pairs of sentences that a label moves most between."""
    moves = [(*_most(pair.changes), pair) for pair in bias.pairs]
    furthest = sorted(moves, key=lambda move: -abs(move[1]))[:PAIRS_SHOWN]
    return Table(
        title=f"Sentence by sentence: {row.name}",
        caption=f"The {len(furthest)} of {len(bias.pairs)} pairs between which a label moves most, and that label's "
        "scores; report.json has all of them, of every variant.",
        head=("A", "B", "label", "score of A", "score of B", "change"),
        rows=tuple(
            (
                pair.a,
                pair.b,
                bias.labels[column].label,
                f"{pair.scores_a[column]:.4f}",
                f"{pair.scores_b[column]:.4f}",
                f"{change:+.4f}",
            )
            for column, change, pair in furthest
        ),
    )


def _most(changes: Sequence[float]) -> tuple[int, float]:
    """Return the column of the label that moves most in a pair, and its change."""
    return max(enumerate(changes), key=lambda moved: abs(moved[1]))


def _changed(change: Difference | None, confidence: float) -> str:
    if change is None or not math.isfinite(change.difference.value):
        return NONE
    if says_no_difference(change, confidence):
        return f"no difference seen (p = {change.p_value:.2g})"
    return f"{'further apart' if change.difference.value > 0 else 'nearer'} (p = {change.p_value:.2g})"


def _words(answers: tuple[tuple[str, float], ...]) -> str:
    return ", ".join(f"{word} {probability:.1%}" for word, probability in answers)
