"""Measurements of a comparison: frozen values that the runner makes and the report is drawn from.

The classes here that the report holds too are keys of report.json: none may be renamed.
"""

# No `from __future__ import annotations`: the codec reads these annotations while the program runs.
from collections.abc import Mapping
from dataclasses import dataclass, field

from bertport.compare.codec import LEFT_OUT, inline_keys
from bertport.compare.entries import ComparedBundle, Entry
from bertport.compare.presets import Preset
from bertport.compare.workloads import Inputs
from bertport.measure.labelled.figures import PairedDifference, TaskFigures
from bertport.measure.machine import Machine
from bertport.measure.quality.bias import PairAnswers, Probe
from bertport.measure.quality.heads import HEADS
from bertport.measure.quality.label_bias import LabelScores
from bertport.measure.quality.results import BatchInvariance, HeadFigures
from bertport.measure.speed.timing import Run
from bertport.measure.speed.workload import Shape
from bertport.measure.statistics import Estimate

__all__ = [
    "AnswersStep",
    "BiasStep",
    "DataInfo",
    "LabelBiasStep",
    "LabelledStep",
    "LayerCost",
    "LayerTable",
    "Measurements",
    "Quality",
    "QualityStep",
    "Recorded",
    "SampleCounts",
    "Sums",
    "TimingStep",
]

Sums = Mapping[str, tuple[Mapping[str, float], ...]]
"""By head, the sums of each text."""


def _head_kinds() -> dict[str, object]:
    return {name: head.results | None for name, head in HEADS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Everything measured of a variant against its reference."""

    samples: int
    """Inputs that were run, pairs included."""
    seed: int
    """Seed of the resamples and of the batches."""
    resamples: int
    """Bootstrap resamples behind each interval."""
    confidence: float
    """Confidence level of each interval."""
    heads: Mapping[str, HeadFigures | None] = field(metadata=inline_keys(_head_kinds))
    """By name of the head; None where a graph lacks it or no sample asks for it."""
    stability: BatchInvariance | None
    """Whether its answers depend on what else is in the batch."""

    def head(self, name: str) -> HeadFigures | None:
        """Return the figures of a head; None where it was not measured."""
        return self.heads.get(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Accuracy of a variant as its manifest records it, for the same arithmetic as this machine's."""

    measured: str
    """Date."""
    instruction_set: str
    """Instruction set that it was measured with."""
    text: str
    """Name of the text."""
    figures: Mapping[str, Mapping[str, Estimate]]
    """Estimates that a budget can bound, by head and key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """Cost and saving of one layer in low precision."""

    name: str
    """Name of the layer."""
    inputs: int
    """Rows of its matrix."""
    outputs: int
    """Columns of its matrix."""
    damage: float
    """Increase of the model's KL from fp32 when this layer alone is in low precision, in nats."""
    saved_ms: float
    """Milliseconds that low precision saves in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTable:
    """The table of layers that quantization left in a bundle."""

    damage: float
    """KL from fp32 with every layer in low precision, in nats."""
    rows: tuple[LayerCost, ...]
    """The layers, in the model's order."""
    text: Mapping[str, str | float]
    """Description of the text that KL was measured on."""
    machine: str
    """The instruction set that times were measured with."""
    head: str | None = field(default=None, metadata=LEFT_OUT)
    """Head whose KL ranks the layers."""
    higher_precision: tuple[str, ...] | None = field(default=None, metadata=LEFT_OUT)
    """Names of the layers that the variant keeps in higher precision."""

    def costliest(self) -> list[LayerCost]:
        """Return the layers, the one that costs most first."""
        return sorted(self.rows, key=lambda layer: -layer.damage)


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityStep:
    """Result of the step that measures a variant's quality; empty where its reference failed."""

    fidelity: Quality | None = None
    """The figures."""
    per_text: Sums | None = None
    """The sums behind them."""
    looks: int | None = None
    """2 where the first samples left a bound undecided and more were taken."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Reason why an entry could not be measured, by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasStep:
    """Result of the bias probe's step."""

    pairs: tuple[PairAnswers, ...] | None = None
    """The answers."""
    why: str | None = None
    """Reason why there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelBiasStep:
    """Result of the bias probe's step for a classifier."""

    pairs: tuple[LabelScores, ...] | None = None
    """The scores."""
    why: str | None = None
    """Reason why there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataInfo:
    """The labelled data that rows were measured on."""

    name: str
    """Name of its file."""
    fingerprint: str
    """`sha256:` and the SHA-256 of the file's bytes."""
    task: str
    """The task."""
    kind: str
    """Kind of truth: one label, several, a number, tags, spans, a choice, relevance, a similarity, or texts."""
    examples: int
    """Number of examples that were measured."""
    limit: int | None
    """Most examples that were asked for, the first of the file; null for all."""
    metrics: tuple[str, ...]
    """The metrics that were asked for; empty for all of the task."""
    truncation: bool
    """Whether texts that are too long were cut."""
    columns: Mapping[str, str]
    """The file's column for each thing that was read."""
    label_map: Mapping[str, str]
    """The bundle's name for labels that the file calls otherwise."""
    positive: str | None
    """The label that was named as positive; null where none was."""
    notes: tuple[str, ...]
    """Sentences on what is odd, but measurable."""
    prompts: Mapping[str, str] | None = None
    """What texts begin with, by `query` and `document`, which of two texts are the first and the second; null where
    they do not become vectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledStep:
    """Result of the step that measures a row on labelled data."""

    figures: TaskFigures | None = None
    """The metrics."""
    differences: Mapping[str, PairedDifference] = field(default_factory=dict)
    """By metric, how it differs from the reference's; nothing for the reference."""
    why: str | None = None
    """Reason why there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswersStep:
    """Result of the step that compares answers."""

    answers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The best answer to each text, by name of the entry."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Reason why an entry could not be asked, by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingStep:
    """Result of a step that times workloads."""

    runs: tuple[Run, ...]
    """A run for each entry and workload."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Reason why an entry could not be timed, by its name."""
    rate: float = 0.0
    """For the Server scenario: requests a second."""
    reference: str = ""
    """For the Server scenario: the entry whose speed sets the rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleCounts:
    """Samples that quality is measured on."""

    masked_positions: int
    """Masked positions of the first look."""
    masked_texts: int
    """Masked texts of the first look."""
    pairs: int
    """Pairs of sentences of the first look."""
    tasks: Mapping[str, int] | None = field(default=None, metadata=LEFT_OUT)
    """Samples of the first look for heads that are trained for a task, by kind; left out where there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """Measurements of a comparison, finished or not."""

    bundles: tuple[ComparedBundle, ...]
    """The bundles that take part."""
    entries: tuple[Entry, ...]
    """The rows of the report to be."""
    left_out: tuple[str, ...]
    """A sentence for each variant that does not take part."""
    preset: Preset
    """Preset: how much was measured."""
    command: str
    """The command line."""
    threads: int | None
    """Threads within an operator."""
    seed: int
    """Random seed of masks, pairs, inputs, arrivals and resamples."""
    budget: Mapping[str, float]
    """Bounds of the accuracy budget, by name."""
    baselines: tuple[str, ...]
    """Other libraries that were measured."""
    random_weights: bool
    """Whether the user says that the weights are random."""
    text_name: str
    """Name of the file of texts."""
    text_sha256: str
    """Fingerprint of the texts."""
    text_count: int
    """Number of texts."""
    text_shipped: bool
    """Whether the texts are the sample that ships."""
    inputs: Inputs
    """Inputs of the timed scenarios."""
    shapes: Mapping[str, Shape]
    """The batches of one length, by name of the workload."""
    probe: Probe
    """The bias probe."""
    label_probe: Probe | None
    """The bias probe of classifiers; None where no bundle has one."""
    probe_shipped: bool
    """Whether the probes are those that ship."""
    samples: Mapping[str, SampleCounts]
    """By label of the bundle."""
    layers: Mapping[str, Mapping[str, LayerTable]]
    """By label of the bundle and by variant."""
    machine: Machine
    """Machine that it was measured on."""
    recorded: Mapping[str, Recorded]
    """Records of the manifests, by name of the entry."""
    quality: Mapping[str, QualityStep]
    """By name of the entry."""
    bias: Mapping[str, tuple[PairAnswers, ...]]
    """By name of the entry."""
    label_bias: Mapping[str, tuple[LabelScores, ...]]
    """By name of the entry."""
    data: DataInfo | None
    """The labelled data; None where there was none."""
    labelled: Mapping[str, LabelledStep]
    """By name of the entry."""
    answers: Mapping[str, tuple[str, ...]]
    """The best answer to each text, by name of the entry."""
    runs: Mapping[str, Mapping[str, Run]]
    """By workload and by name of the entry."""
    server: Mapping[float, TimingStep]
    """The Server scenario, by share of the reference's rate."""
    failed: Mapping[str, str]
    """Reason why an entry could not be measured, by its name."""
    complete: bool
    """Whether nothing interrupted it."""
    seconds: float
    """Seconds that it took."""
    steps_resumed: int
    """Steps that an interrupted comparison had left."""

    def reference_of(self, compared: ComparedBundle) -> Entry | None:
        """Return the entry that a bundle's others are compared with; None where it does not take part."""
        return compared.reference_among(self.entries)
