"""An evaluation for people: tables of metrics, of differences and of labels, and sentences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bertport.compare.report.formatting import NONE, interval, percent
from bertport.compare.report.metrics import POINTS
from bertport.measure.labelled.kinds import TAGS
from bertport.measure.labelled.records import unit_of
from bertport.runtime.commands.render import printable, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bertport.compare.evaluate.document import Evaluation
    from bertport.measure.labelled.figures import LabelFigures

__all__ = ["shown"]

MOST_LABELS = 20
"""Labels that are shown, at most."""
LONGEST_INPUT = 300
"""Characters of an input that are shown."""
LIKENESS = ("same answers", "rank correlation")
"""Columns of what two variants' answers have in common."""


def shown(evaluation: Evaluation) -> str:
    """Return an evaluation as text for a terminal."""
    parts = [
        _head(evaluation),
        _metrics(evaluation),
        _differences(evaluation),
        "\n".join(printable(sentence) for sentence in _sentences(evaluation)),
        _labels(evaluation),
        _examples(evaluation),
    ]
    return "\n\n".join(part for part in parts if part)


def _head(evaluation: Evaluation) -> str:
    data = evaluation.data
    first = "the first " if data.limit is not None and data.limit <= data.examples else ""
    line = (
        f"{evaluation.bundle.name}: {evaluation.task} on {first}{data.examples:,} examples of {data.name} "
        f"({data.fingerprint[:19]}...)"
    )
    return "\n".join(printable(text) for text in (line, *(f"note: {note}" for note in _notes(evaluation))))


def _notes(evaluation: Evaluation) -> dict[str, None]:
    """Return the notes on the data and on figures, each once, in order."""
    notes = dict.fromkeys(evaluation.data.notes)
    for variant in evaluation.variants:
        notes |= dict.fromkeys(variant.figures.notes)
    return notes


def _metrics(evaluation: Evaluation) -> str:
    """Return the table of metrics in points: a row for each variant, with 95% intervals."""
    names = list(evaluation.variants[0].figures.metrics)
    rows = [("variant", *names)]
    for variant in evaluation.variants:
        metrics = variant.figures.metrics
        rows.append((variant.name, *(interval(metrics[name], ".1f", factor=POINTS) for name in names)))
    return f"{table(rows)}\n  in points, with intervals of {evaluation.settings.confidence:.0%}"


def _differences(evaluation: Evaluation) -> str:
    """Return the table of differences from the reference: a row for each variant and metric."""
    if not evaluation.comparisons:
        return ""
    rows = [(f"against {evaluation.reference}", "metric", "difference", "p", *LIKENESS)]
    for comparison in evaluation.comparisons:
        for number, (name, paired) in enumerate(comparison.differences.items()):
            size = interval(paired.difference, "+.2f", factor=POINTS).replace("-0.00", "+0.00")
            p_value = f"{paired.p_value:.2g}" if math.isfinite(paired.p_value) else NONE
            # How alike answers are is one figure for all metrics.
            alike = ("", "") if number else (percent(paired.agreement), interval(paired.spearman, ".4f"))
            rows.append((comparison.variant, name, size, p_value, *alike))
    filled = [index for index in range(len(rows[0])) if any(row[index] not in {NONE, ""} for row in rows[1:])]
    shown_rows = [[row[index] for index in filled] for row in rows]
    return f"{table(shown_rows)}\n  difference in points, variant minus {evaluation.reference}, paired by example"


def _sentences(evaluation: Evaluation) -> Iterator[str]:
    for comparison in evaluation.comparisons:
        yield from comparison.sentences
    yield evaluation.conclusion
    yield from (f"left out: {sentence}" for sentence in evaluation.left_out)


def _labels(evaluation: Evaluation) -> str:
    """Return the table of labels: how many examples have each, or how many entities, and what each variant finds."""
    by_variant = [variant.figures.labels for variant in evaluation.variants]
    support = {name: label.support for labels in by_variant for name, label in labels.items()}
    if not support:
        return ""
    names = sorted(support, key=lambda name: -support[name])
    counted = "entities" if evaluation.data.kind == TAGS else "examples"
    rows = [("label", counted, *(f"{variant.name} P / R / F1" for variant in evaluation.variants))]
    rows += [
        (name, f"{support[name]:,}", *(_label(labels.get(name)) for labels in by_variant))
        for name in names[:MOST_LABELS]
    ]
    rest = len(names) - MOST_LABELS
    more = f"\n  {rest:,} other labels: see --json" if rest > 0 else ""
    return f"{table(rows, right={1})}{more}"


def _label(label: LabelFigures | None) -> str:
    """Return a label's figures; a dash for a type of entities that neither occurs nor is predicted."""
    if label is None:
        return NONE
    return " / ".join(_share(value) for value in (label.precision, label.recall, label.f1))


def _share(value: float) -> str:
    return f"{value * POINTS:.1f}" if math.isfinite(value) else NONE


def _examples(evaluation: Evaluation) -> str:
    """Return the examples on which variants differ most, where they were asked for."""
    if evaluation.examples is None:
        return ""
    if not evaluation.examples:
        return "no example on which variants differ"
    parts = []
    for example in evaluation.examples:
        text = example.inputs if len(example.inputs) <= LONGEST_INPUT else f"{example.inputs[:LONGEST_INPUT]}..."
        rows = [("truth", example.truth[:LONGEST_INPUT])]
        rows += [(name, predicted[:LONGEST_INPUT]) for name, predicted in example.predictions.items()]
        place = f"{evaluation.data.name}, {unit_of(evaluation.data.name)} {example.line:,}"
        parts.append(f"{place}: {printable(text)}\n{table(rows)}")
    return "\n\n".join(parts)
