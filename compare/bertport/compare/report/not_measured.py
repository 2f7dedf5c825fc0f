"""Sentences on what was not measured although a reader might take it for measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertport.compare.presets import QUICK
from bertport.compare.report.document import TRAINED
from bertport.measure.quality.heads import HEADS
from bertport.measure.quality.task_rows import TASK_ROWS
from bertport.measure.speed.tasks import FEATURES, FILL_MASK
from bertport.runtime.heads import MLM

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bertport.compare.report.document import BundleInfo, Report

__all__ = ["FEW_TEXTS", "not_measured"]

TUNED = frozenset(row.name for row in TASK_ROWS)
"""The heads of fine-tuned models, which nobody misses in a pretrained one, nor its heads in them."""
FEW_TEXTS = 30
"""Fewer texts than this give intervals that are too narrow: the percentile bootstrap needs some dozens of clusters."""


def not_measured(report: Report, left_out: Iterable[str]) -> tuple[str, ...]:
    """Return a sentence for each thing that was not measured, `left_out` first."""
    return tuple(_sentences(report, left_out))


def _sentences(report: Report, left_out: Iterable[str]) -> Iterator[str]:
    rows, text = report.rows, report.text
    if not report.complete:
        yield "This run was interrupted: figures that are missing were not reached (--resume goes on)."
    yield from left_out
    yield from (f"{row.name}: {row.failed}" for row in rows if row.failed)
    yield from _of_masks(report)
    failed = {row.name for row in rows if row.failed}
    for bundle in report.bundles:
        yield from _missing_of(bundle, failed)
        if report.data and bundle.reference is None:
            yield f"{bundle.label}: {report.data.name}, because its reference variant does not take part."
    if text.texts < FEW_TEXTS:
        yield (
            f"Reliable intervals of quality: {text.texts} texts are too few for them to mean much, {FEW_TEXTS} would "
            "do."
        )
    if {row.provider for row in rows} == {"cpu"}:
        yield "Other execution providers than the CPU's."
    if any(not row.is_variant and not row.labelled for row in rows):
        yield "Quality of the baselines: they run the same fp32 weights; only their best answers are compared."
    if report.settings.preset.name == QUICK.name:
        yield "Small differences: --quick takes few samples and few rounds, so its intervals are wide."
    shapes = [shape.length for row in rows for shape in row.speed.shapes.values()]
    longest = max(0, *shapes, *text.inputs.lengths)
    room = min(bundle.max_length for bundle in report.bundles)
    if longest < room:
        yield f"Inputs longer than {longest} tokens; the model takes {room}."
    yield "Energy, several processes on one machine, and requests over a network."


def _of_masks(report: Report) -> Iterator[str]:
    """Say why masks were not filled where one might expect it."""
    task, head = report.text.inputs.task, MLM.upper()
    if all(MLM in bundle.heads for bundle in report.bundles):
        if task != FILL_MASK:
            yield f"{FILL_MASK} speed: the bundles have not one mask token; the scenarios ask for {task}."
    elif task == FEATURES:
        yield f"{head} figures and {FILL_MASK} speed: a bundle has no {head} head; the scenarios ask for {task}."


def _missing_of(bundle: BundleInfo, failed: set[str]) -> Iterator[str]:
    pretrained = TUNED.isdisjoint(bundle.heads)
    for head in HEADS.values():
        bounded = any(limit.default is not None for limit in head.limits)
        # A missing MLM head changes the scenarios: see above.
        if bounded and pretrained and head.name not in {MLM, *TUNED, *bundle.heads}:
            yield f"{bundle.label}: {head.name.upper()}, a head that it does not have."
    if bundle.weights != TRAINED:
        yield (
            f"{bundle.label}: accuracy and the bias probe mean nothing ({bundle.weights_reason}), and nothing is "
            "recommended; agreement with fp32 and speed stand."
        )
    if bundle.reference is None:
        yield f"{bundle.label}: quality, because its reference variant does not take part."
    elif bundle.reference in failed:
        yield f"{bundle.label}: quality, because its reference variant failed."
