"""Labelled data: what a variant loses on the task itself, beside its distance from fp32 on any text.

Nothing is calibrated or searched for on labelled data: it only judges what was made.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertport.measure.budget import DROP, DROPS
from bertport.measure.drops import broken_drops, drop_limit, judge_drops, share_left
from bertport.measure.labelled.figures import choose_metrics, paired_differences, task_figures
from bertport.measure.labelled.lengths import check_lengths
from bertport.measure.labelled.metrics import require_packages
from bertport.measure.labelled.predictions import predict_labelled
from bertport.measure.quality.heads import HEADS, HIDDEN, measured_rows
from bertport.measure.quality.model import open_onnx
from bertport.measure.quality.results import finite
from bertport.quantize.evaluation import AS_DEFINED, REFERENCE
from bertport.runtime.bundle.task_metrics import number
from bertport.runtime.errors import UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.model import Model
from bertport.runtime.providers.checks import placement_of
from bertport.runtime.providers.table import PROVIDERS
from bertport.runtime.session import Graph
from bertport.runtime.tasks.table import TASKS
from bertport.runtime.text.tokenizer import Tokens
from bertport.runtime.threads import intra_op_threads

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from bertport.measure.budget import Judgement
    from bertport.measure.labelled.data import LabelledData
    from bertport.measure.labelled.figures import Chosen, PairedDifference, TaskFigures
    from bertport.measure.labelled.options import DataChoice
    from bertport.measure.labelled.predictions import Predictions
    from bertport.quantize.deadline import Progress
    from bertport.runtime.bundle.directory import Bundle

__all__ = [
    "LabelledAccuracy",
    "LabelledJudge",
    "LabelledMaterial",
    "open_candidate",
    "refuse_calibrating_on",
    "standing_drops",
]

EVERY = 16
"""Examples between two reports of progress."""
DIGITS = 8
"""Digits of a fingerprint that tell files of one name apart."""
OTHERWISE = {
    "columns": "the columns",
    "label_map": "the label map",
    "positive": "the positive label",
    "prompts": "the prompts",
}
"""What makes figures of one file others, for sentences, by its key in `LabelledMaterial.read_as`. Whether texts are cut
does not: where they are not, none is too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledAccuracy:
    """Accuracy of a variant on labelled data, beside fp32's."""

    reference: TaskFigures
    """Of fp32."""
    candidate: TaskFigures
    """Of the variant."""
    differences: Mapping[str, PairedDifference]
    """The variant's metrics minus fp32's, on the same examples, by metric."""
    drops: Mapping[str, float]
    """The bounds of the budget, by metric."""
    head: str
    """The row of the table of measured heads that answers the task: by it a search lowers the loss."""
    read_as: Mapping[str, Any] = field(default_factory=dict)
    """How the file was read and asked, as `LabelledMaterial.read_as` has it."""

    @property
    def broken(self) -> tuple[str, ...]:
        """A sentence for each bound that the figure itself does not keep to."""
        return broken_drops(self.drops, self.differences)

    @property
    def shares(self) -> dict[str, float]:
        """The share of its distance from fp32 that the head may keep, by its name; empty where no bound is broken."""
        share = share_left(self.drops, self.differences)
        return {} if share is None else {self.head: share}

    @property
    def verdicts(self) -> dict[str, Judgement]:
        """Verdict of the intervals on each bound, by name of the limit."""
        return judge_drops(self.drops, self.differences)

    def verdicts_json(self) -> dict[str, dict[str, Any]]:
        """Return the verdicts as JSON values."""
        return {name: judged.to_json() for name, judged in self.verdicts.items()}

    def record(self, recorded: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """Return the entry of a variant's `task_metrics` in a manifest, by the name of the data.

        A name that stands for other data in the bundle gets digits of the fingerprint: `dev.jsonl` of two directories.

        Args:
            recorded: The `task_metrics` of the bundle's variants.
        """
        name, fingerprint = self.candidate.data, self.candidate.fingerprint
        if any(name in entries and _fingerprint(entries[name]) != fingerprint for entries in recorded):
            name = f"{name} ({fingerprint.partition(':')[2][:DIGITS]})"
        return {name: self.to_json()}

    def to_json(self) -> dict[str, Any]:
        """Return what the entry says, as JSON values."""
        verdicts = self.verdicts
        metrics: dict[str, dict[str, Any]] = {}
        for metric, value in self.candidate.metrics.items():
            difference = self.differences.get(metric)
            metrics[metric] = {
                "reference": dataclasses.asdict(self.reference.metrics[metric]),
                "candidate": dataclasses.asdict(value),
                "difference": difference and dataclasses.asdict(difference.difference),
                "p_value": difference and difference.p_value,
                "test": difference and difference.test,
            }
            if metric in self.drops:
                judged = verdicts.get(f"{metric}{DROP}")
                metrics[metric] |= {"drop_bound": self.drops[metric], "verdict": judged and judged.verdict}
        first = next(iter(self.differences.values()), None)
        record = {
            "task": self.candidate.task,
            "kind": self.candidate.kind,
            "data": {"name": self.candidate.data, "fingerprint": self.candidate.fingerprint},
            **self.read_as,
            "examples": self.candidate.examples,
            "reference_variant": REFERENCE,
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            "metrics": metrics,
            "agreement": first and first.agreement and dataclasses.asdict(first.agreement),
            "spearman": first and first.spearman and dataclasses.asdict(first.spearman),
        }
        return {key: finite(value) for key, value in record.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledMaterial:
    """Labelled data that was read and checked, and what is measured on it."""

    data: LabelledData
    """The data."""
    chosen: Chosen
    """The metrics."""
    drops: Mapping[str, float]
    """The bounds of the budget, by metric; empty where figures are recorded and not judged."""
    truncation: bool = False
    """Whether texts that are too long are cut."""
    label_map: Mapping[str, str] = field(default_factory=dict)
    """The bundle's name for labels that the file calls otherwise."""

    @classmethod
    def read(
        cls,
        choice: DataChoice,
        bundle: Bundle,
        drops: Mapping[str, float],
        *,
        calibration: str | os.PathLike[str] | None = None,
        truncation: bool = False,
    ) -> LabelledMaterial:
        """Read and check labelled data.

        Args:
            choice: The file, and how it is read.
            bundle: The bundle.
            drops: The bounds of the budget, by metric.
            calibration: What is calibrated and searched on; None for the sample that ships.
            truncation: Whether texts that are too long are cut.

        Raises:
            UsageError: for a file that is calibrated on as well, and a bound on a metric that the data has not, or
                that says nothing with its truth.
            BertportError: as `bertport.measure.labelled.data.read_labelled` and
                `bertport.measure.labelled.lengths.check_lengths` say.
        """
        require_packages("quantize --data")
        refuse_calibrating_on(str(choice.data), calibration)
        data = choice.read(bundle.manifest)
        chosen = choose_metrics(data, positive=choice.positive)
        known = [metric.name for metric in chosen.metrics if metric.higher_is_better]
        for metric in drops:
            if metric not in known:
                raise UsageError(
                    f"the budget bounds {metric}{DROP}, and {data.task} on {data.name} is measured by "
                    f"{', '.join(known)}: bound one of these"
                )
        # By name: what the truth leaves idle is refused.
        choose_metrics(data, tuple(drops), positive=choice.positive if "f1" in drops or not drops else None)
        check_lengths(bundle, data, truncation=truncation)
        return cls(data=data, chosen=chosen, drops=drops, truncation=truncation, label_map=choice.label_map)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what is odd, but measurable, and on what was taken in one of several ways."""
        return (*self.data.notes, *self.chosen.notes)

    @property
    def read_as(self) -> dict[str, Any]:
        """How the file is read and asked: its columns, the meaning of its labels, and whether long texts are cut."""
        positive, prompts = self.chosen.positive, self.data.prompts
        return {
            "columns": dict(self.data.columns),
            "label_map": dict(self.label_map),
            "positive": None if positive is None else (self.data.labels or ())[positive],
            **({"prompts": prompts.to_json()} if prompts else {}),
            "truncation": self.truncation,
        }

    def recorded_drops(self, name: str, recorded: Mapping[str, Any]) -> dict[str, float]:
        """Return the bounds that a variant was held to on this data, by metric.

        Args:
            name: The variant.
            recorded: Its `task_metrics`.

        Raises:
            UsageError: where such a bound is on what was read or asked otherwise.
        """
        drops: dict[str, float] = {}
        for entry in recorded.values():
            if not _is_of(entry, self.data):
                continue
            bounds = _bounds(entry.get("metrics"))
            self._refuse_other(name, bounds, entry)
            drops |= bounds
        return drops

    def _refuse_other(self, name: str, bounds: Mapping[str, float], entry: Mapping[str, Any]) -> None:
        """Refuse the bounds of an entry that was read or asked otherwise than it is now.

        Raises:
            UsageError: naming what differs.
        """
        now, known = self.read_as, {metric.name for metric in self.chosen.metrics}
        for metric, bound in bounds.items():
            held = f"variant {name!r} is held to {metric}{DROP}={bound:g} on {self.data.name}"
            todo = "measure as before, or bound it anew with --accuracy-budget"
            for key, what in OTHERWISE.items():
                if key in entry and entry[key] != now.get(key) and (key != "positive" or metric == "f1"):
                    before, after = (excerpt(value.get(key), 200) for value in (entry, now))
                    raise UsageError(f"{held}, measured with {what} {before}, and this is with {after}: {todo}")
            if metric not in known:
                raise UsageError(f"{held}, and {metric} is not measured now: {todo}")

    def predict(self, model: Model, name: str, progress: Progress) -> Predictions:
        """Return a model's predictions of all of the data.

        Args:
            model: The model.
            name: What progress calls it.
            progress: Told of what is done and of how much.
        """

        def told(done: int, count: int) -> None:
            if done % EVERY == 0 or done == count:
                progress(f"predicting {self.data.name} by {name}", done, count)

        return predict_labelled(model, self.data, truncation=self.truncation, progress=told)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledJudge:
    """Labelled data with fp32's predictions of it, which every candidate is compared with."""

    material: LabelledMaterial
    """The data and the metrics."""
    predictions: Predictions = field(repr=False)
    """Predictions of fp32."""
    figures: TaskFigures
    """Metrics of fp32."""

    @classmethod
    def of(cls, bundle: Bundle, material: LabelledMaterial, progress: Progress) -> LabelledJudge:
        """Return what judges by some data, once fp32 has predicted it.

        Args:
            bundle: The bundle.
            material: The data and the metrics.
            progress: Told of what is done and of how much.

        Raises:
            UsageError: for a bound on a metric that is not defined for what fp32 predicts.
        """
        data = material.data
        predictions = material.predict(open_candidate(bundle, REFERENCE), REFERENCE, progress)
        figures = task_figures(predictions, data, chosen=material.chosen)
        for metric in material.drops:
            if not math.isfinite(figures.metrics[metric].value):
                raise UsageError(
                    f"the budget bounds {metric}{DROP}, and {metric} is not defined for fp32 on {data.name}: bound "
                    "another metric, or give data that it is defined on"
                )
        return cls(material=material, predictions=predictions, figures=figures)

    def measure(  # noqa: PLR0913 — what a comparison takes, by keyword
        self,
        bundle: Bundle,
        candidate: Path | bytes | str,
        *,
        progress: Progress,
        name: str,
        provider: str = "cpu",
        precision: str = "fp32",
        exact: bool = False,
        drops: Mapping[str, float] | None = None,
    ) -> LabelledAccuracy:
        """Predict the data by a candidate, and compare it with fp32.

        Args:
            bundle: The bundle.
            candidate: A graph's path or bytes, or the name of a variant of the bundle.
            progress: Told of what is done and of how much.
            name: What progress and errors call the candidate.
            provider: Short name of the provider that it runs on.
            precision: How it computes products, as manifests call it.
            exact: As `bertport.quantize.evaluation.evaluate` has it.
            drops: The bounds that it is held to, by metric; None for the budget's.
        """
        model = open_candidate(bundle, candidate, name=name, provider=provider, precision=precision, exact=exact)
        data, chosen = self.material.data, self.material.chosen
        predictions = self.material.predict(model, name, progress)
        return LabelledAccuracy(
            reference=self.figures,
            candidate=task_figures(predictions, data, chosen=chosen),
            differences=paired_differences(predictions, self.predictions, data, chosen=chosen),
            drops=self.material.drops if drops is None else drops,
            head=_row(bundle, data.task),
            read_as=self.material.read_as,
        )


def open_candidate(  # noqa: PLR0913 — how it runs, by keyword
    bundle: Bundle,
    candidate: Path | bytes | str,
    *,
    name: str | None = None,
    provider: str = "cpu",
    precision: str = "fp32",
    exact: bool = False,
) -> Model:
    """Return the model of a graph that is not in the bundle yet: it answers as `load` would let it, once it is.

    Args:
        bundle: The bundle, whose tokenizer and heads it has.
        candidate: A graph's path or bytes, or the name of a variant of the bundle.
        name: What errors call it; None for the variant's name, which of a graph is fp32's.
        provider: Short name of the provider that it runs on.
        precision: How it computes products, as manifests call it.
        exact: As `bertport.quantize.evaluation.evaluate` has it.
    """
    threads = intra_op_threads(None)
    with bundle.opening(candidate) if isinstance(candidate, str) else nullcontext(candidate) as source:
        opened = open_onnx(
            source, provider=provider, precision=precision, threads=threads, config=AS_DEFINED if exact else {}
        )
    graph = Graph(
        session=opened.session,
        inputs=opened.inputs,
        outputs=frozenset(opened.outputs),
        provider=PROVIDERS[provider],
        placement=placement_of(opened.session),
        threads=threads,
    )
    variant = candidate if isinstance(candidate, str) else REFERENCE  # whose outputs a variant has
    variants = bundle.manifest.variants
    named = dataclasses.replace(bundle.manifest, variants=variants | {name or variant: variants[variant]})
    return Model(dataclasses.replace(bundle, manifest=named), name or variant, graph, Tokens.read(bundle))


def refuse_calibrating_on(data: str, calibration: str | os.PathLike[str] | None) -> None:
    """Refuse to judge by what is calibrated and searched on.

    Raises:
        UsageError: where both are one file.
    """
    with suppress(OSError):  # what is missing has a sentence of its own
        if calibration is not None and Path(data).samefile(calibration):
            raise UsageError(
                f"{data} is given as labelled data and to calibrate on, and what a variant was made from cannot judge "
                "it: give another file for one of the two"
            )


def standing_drops(recorded: Mapping[str, Any], measured: LabelledData | None) -> tuple[dict[str, float], bool]:
    """Return the bounds that a variant stays held to on data that is not measured now, and whether it breaks one.

    Args:
        recorded: Its `task_metrics`.
        measured: The data that is measured now; None for none.

    Returns:
        The bounds by metric, the least of several, and whether a recorded drop is beyond its bound, or not defined.
    """
    drops: dict[str, float] = {}
    broken = False
    for entry in recorded.values():
        if not isinstance(entry, Mapping) or (measured and _is_of(entry, measured)):
            continue
        metrics = entry.get("metrics")
        for metric, bound in _bounds(metrics).items():
            difference = number(metrics[metric].get("difference"), "value")  # type: ignore[index]  # it has bounds
            drops[metric] = min(bound, drops.get(metric, bound))
            broken |= difference is None or not drop_limit(metric).holds(-difference, bound)
    return drops, broken


def _is_of(entry: object, data: LabelledData) -> bool:
    """Return whether an entry of `task_metrics` is of some data and its task."""
    return isinstance(entry, Mapping) and _fingerprint(entry) == data.fingerprint and entry.get("task") == data.task


def _bounds(metrics: object) -> dict[str, float]:
    """Return the bounds on drops of an entry of `task_metrics`, by metric; none of what another program wrote."""
    found = {
        name: number(figures, "drop_bound")
        for name, figures in (metrics.items() if isinstance(metrics, Mapping) else ())
        if name in DROPS
    }
    return {name: bound for name, bound in found.items() if bound is not None and 0 <= bound <= 1}


def _fingerprint(entry: object) -> object:
    """Return the fingerprint of the data of an entry of `task_metrics`; None of what another program wrote."""
    data = entry.get("data") if isinstance(entry, Mapping) else None
    return data.get("fingerprint") if isinstance(data, Mapping) else None


def _row(bundle: Bundle, task: str) -> str:
    """Return the row of the table of measured heads that answers a task; that of the hidden states where none does."""
    head = TASKS[task].usual_head
    return next((row for row in measured_rows(bundle.manifest.heads) if HEADS[row].key == head), HIDDEN)
