"""Tables for the terminal: recipes, and what was measured of a variant."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from bertport.measure.budget import DROP
from bertport.measure.quality.heads import HEADS
from bertport.measure.quality.samples import CANDIDATES, CHOICES, GIVEN_PAIRS, PLAIN, QUESTIONS, TASK_KINDS
from bertport.measure.statistics import Difference, Estimate
from bertport.quantize.evaluation import REFERENCE
from bertport.quantize.recipes.table import RECIPES
from bertport.runtime.commands.render import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertport.measure.quality.results import HeadFigures, Movement, Value
    from bertport.measure.quality.rows import Figure, Head
    from bertport.quantize.evaluation import Measurement
    from bertport.quantize.labelled import LabelledAccuracy
    from bertport.quantize.search.sensitivity import Layers

__all__ = ["figures", "labelled", "layers", "recipes"]

MOST_LABELS = 10
"""Labels of a head that are shown, at most."""
NONE = "-"
"""In place of a figure that is not defined."""
SAMPLES = {
    PLAIN: "sentences",
    GIVEN_PAIRS: "pairs of the file",
    QUESTIONS: "questions",
    CHOICES: "choices",
    CANDIDATES: "documents",
}
"""Names for people of the samples of heads that are trained for a task."""


def headed(rows: Sequence[Sequence[str]]) -> str:
    """Return rows in columns, the first of them the heading."""
    return table(rows, headed=True, indent=0)


def recipes() -> str:
    """Return the table of recipes."""
    heading = ("recipe", "providers", "size", "by instruction set", "what it does")
    rows = [
        (
            recipe.name,
            ", ".join(recipe.providers),
            f"{recipe.size:.2f}",
            "yes" if recipe.by_instruction_set else "no",
            recipe.summary,
        )
        for recipe in RECIPES.values()
    ]
    return headed([heading, *rows])


def figures(name: str, measured: Measurement) -> str:
    """Return everything measured of a variant, one figure a row, with its interval and its number of samples."""
    accuracy = measured.accuracy
    rows = [("figure", name, f"{accuracy.confidence:.0%} interval", "of")]
    for head in HEADS.values():
        if of_head := accuracy.heads.get(head.name):
            rows += [_row(figure, of_head.read(figure.key)) for figure in head.figures]
            rows += _by_label(head, of_head)
    if accuracy.stability:
        rows += _moved("batch mates", accuracy.stability.batch_mates, accuracy.stability.texts)
        if accuracy.stability.padding:
            rows += _moved("padding", accuracy.stability.padding, accuracy.stability.texts)
    for shape, speed in measured.speed.items():
        value = f"{speed.speedup:.2f}x ({speed.reference_ms:.1f} -> {speed.ms:.1f} ms)"
        rows.append((f"speed-up over fp32 at {shape}", value, f"{speed.low:.2f} to {speed.high:.2f}", ""))
    if measured.size is not None:
        size = f"{measured.size:,} bytes" if measured.further else "fp32's files: no further byte"
        rows.append(("size", f"{measured.size_of_reference:.3f} of fp32", "", size))
    lines = [
        headed(rows),
        *_doubts(measured),
        f"measured on {measured.machine['cpu']} ({measured.machine['instruction_set']})",
    ]
    if measured.slower:
        lines.append("SLOWER than fp32 on this machine")
    return "\n".join(lines)


def labelled(name: str, measured: LabelledAccuracy) -> str:
    """Return what was measured of a variant on labelled data: each metric of fp32 and of it, and the difference."""
    rows = [("on labelled data", REFERENCE, name, "difference", "95% interval", "p", "bound")]
    verdicts = measured.verdicts
    for metric, value in measured.candidate.metrics.items():
        paired = measured.differences.get(metric)
        moved = paired.difference if paired and math.isfinite(paired.difference.value) else None
        judged = verdicts.get(f"{metric}{DROP}")
        rows.append(
            (
                metric,
                _defined(measured.reference.metrics[metric].value),
                _defined(value.value),
                f"{moved.value:+.4f}" if moved else NONE,
                f"{moved.low:+.4f} to {moved.high:+.4f}" if moved else NONE,
                f"{paired.p_value:.3f}" if paired and math.isfinite(paired.p_value) else NONE,
                f"drop at most {measured.drops[metric]:g}: {judged.verdict}" if judged else "",
            )
        )
    lines = [headed(rows)]
    first = next(iter(measured.differences.values()), None)
    if first and first.agreement:
        same = first.agreement
        lines.append(f"the same prediction as fp32: {same.value:.2%} ({same.low:.2%} to {same.high:.2%})")
    if first and first.spearman:
        same = first.spearman
        lines.append(f"rank correlation with fp32's scores: {same.value:.4f} ({same.low:.4f} to {same.high:.4f})")
    lines += [
        f"{limit}={measured.drops[limit.removesuffix(DROP)]:g} is undecided: about {judged.more:,} more examples would "
        "decide"
        for limit, judged in verdicts.items()
        if judged.more
    ]
    if not measured.drops:
        lines.append("recorded and not judged: no bound on a drop was given")
    data = measured.candidate
    lines += [*data.notes, f"{data.task}, {data.examples:,} examples of {data.data}; none of them was calibrated on"]
    return "\n".join(lines)


def _defined(value: float) -> str:
    """Return a metric's value in four decimals, or `NONE` where it is not defined."""
    return f"{value:.4f}" if math.isfinite(value) else NONE


def _by_label(head: Head, figures: HeadFigures) -> list[tuple[str, str, str, str]]:
    """Return a row for each label, those of the least agreement where there are many."""
    lowest = sorted(figures.labelled.items(), key=lambda item: item[1].value)[:MOST_LABELS]
    rest = len(figures.labelled) - len(lowest)
    more = [(f"  of {rest} other labels: see --json", "", "", "")] if rest else []
    return [_row(replace(head.figures[0], title=f"  of {label!r}"), share) for label, share in lowest] + more


def _doubts(measured: Measurement) -> list[str]:
    """Return what there is to say of figures besides their values, and of heads that have none."""
    lines = [
        f"{HEADS[name].title}: {doubt}"
        for name, figures in measured.accuracy.heads.items()
        if figures
        for doubt in figures.doubts
    ]
    return lines + ([f"not measured: {', '.join(measured.not_measured)}"] if measured.not_measured else [])


def layers(name: str, ranking: Layers, higher: Sequence[str]) -> str:
    """Return the table of a recipe's layers, those whose higher precision buys most first."""
    rows = [("layer", "matrix", "KL it costs", "ms it saves", "KL per ms", "precision")]
    rows += [
        (
            layer.name,
            f"{layer.inputs} x {layer.outputs}",
            f"{layer.kl_increase:+.6f}",
            f"{layer.saved_ms:+.3f}",
            f"{layer.priority:+.6f}",
            "higher" if layer.name in higher else "",
        )
        for layer in ranking.rows
    ]
    counts = [f"{ranking.text['masked_positions']:,} positions", f"{ranking.text['pairs']:,} pairs"]
    counts += [f"{ranking.text[kind]:,} {SAMPLES[kind]}" for kind in TASK_KINDS if kind in ranking.text]
    text = f"{', '.join(counts[:-1])} and {counts[-1]} of {ranking.text['name']}"
    summary = (
        f"{name}: KL {ranking.kl_increase:.6f} nats with every layer in lower precision, on {text} ({ranking.machine})"
    )
    return f"{headed(rows)}\n{summary}"


def _row(figure: Figure, value: Value) -> tuple[str, str, str, str]:
    if not isinstance(value, Estimate):
        return figure.title, f"{_number(value):{figure.form}}", "", ""
    if not value.count:
        return figure.title, "not measured", "", f"0 {figure.unit}"
    interval = f"{value.low:{figure.form}} to {value.high:{figure.form}}"
    return figure.title, f"{value.value:{figure.form}}", interval, f"{value.count:,} {figure.unit}"


def _moved(what: str, movement: Movement, texts: int) -> list[tuple[str, str, str, str]]:
    return [
        (f"{moved.title} moved by {what}", f"{_number(value):.2e}", "", f"{texts:,} texts")
        for head in HEADS.values()
        for moved in head.moved
        if moved.title and (value := movement.get(moved.name)) is not None
    ]


def _number(value: Value) -> float:
    """Return the number of a figure, without its interval."""
    match value:
        case Difference():
            return value.difference.value
        case Estimate():
            return value.value
    return value
