"""The types of an evaluation: frozen classes whose keys are those of its JSON.

Keys are never renamed, and a new one gets a default. `python -m bertport.compare.evaluate.schema` writes the JSON
Schema anew.
"""

# No `from __future__ import annotations`: the codec reads these annotations while the program runs.
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bertport.compare.codec import LEFT_OUT
from bertport.measure.labelled.figures import PairedDifference, TaskFigures
from bertport.measure.machine import Machine

__all__ = [
    "SCHEMA",
    "SCHEMA_VERSION",
    "Comparison",
    "Data",
    "DifferingExample",
    "EvaluatedBundle",
    "EvaluatedVariant",
    "Evaluation",
    "RecordedSpeed",
    "Settings",
]

SCHEMA: Literal["bertport-evaluation"] = "bertport-evaluation"
SCHEMA_VERSION: Literal[1] = 1
"""Raised when a key changes its meaning or goes; new keys leave it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedBundle:
    """The bundle."""

    name: str
    """Its own name."""
    digest: str
    """Digest of its manifest, which stands for every file."""
    default_variant: str
    """Name of the variant that is loaded where none is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The labelled data."""

    name: str
    """Name of the file."""
    fingerprint: str
    """`sha256:` and the SHA-256 of the file's bytes."""
    examples: int
    """Number of examples that were measured."""
    limit: int | None
    """Most examples that were asked for, the first of the file; null for all."""
    kind: str
    """Kind of truth: one label, several, a number, tags, spans, a choice, relevance, a similarity, or texts."""
    columns: Mapping[str, str]
    """The file's column for each thing that was read."""
    labels: tuple[str, ...] | None
    """The head's labels, one per column; null where the truth is not made of labels."""
    label_form: str | None
    """Form of the labels in the file: names, ids, truth values; null where the truth is not made of labels."""
    label_map: Mapping[str, str]
    """The bundle's name for labels that the file calls otherwise."""
    positive: str | None
    """The label that F1 is of; null where no such metric was computed."""
    notes: tuple[str, ...]
    """Sentences on what is odd, but measurable."""
    prompts: Mapping[str, str] | None = None
    """What texts begin with, by `query` and `document`, which of two texts are the first and the second; null where
    they do not become vectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of the measurement."""

    provider: str
    """The execution provider that was asked for, or `auto`."""
    threads: int | None
    """Threads within an operator; null leaves the choice to ONNX Runtime."""
    truncation: bool
    """Whether texts that are too long were cut."""
    seed: int
    """Random seed of resamples and permutations."""
    resamples: int
    """Bootstrap resamples behind each interval."""
    confidence: float
    """Confidence level of each interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedSpeed:
    """Speed-up of a variant over its reference, as the manifest records it from quantization."""

    speedup: float
    """The reference's time as a multiple of the variant's."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedVariant:
    """One variant."""

    name: str
    """Its name in the bundle."""
    recipe: str
    """Recipe by which its weights are stored, such as `int8-dynamic`."""
    provider: str
    """The execution provider that it ran on."""
    size_bytes: int
    """Bytes of the graph and the weights it needs."""
    figures: TaskFigures
    """Its metrics, each with an interval, label by label, and the calibration of its probabilities."""
    recorded_speed: Mapping[str, RecordedSpeed]
    """By rows x tokens, such as 1x128, what the manifest records; empty where it records none. Not measured here."""
    recorded_on: str | None
    """The CPU that it was recorded on; null where nothing is recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One variant against the reference, on the same examples."""

    variant: str
    """Name of the variant."""
    differences: Mapping[str, PairedDifference]
    """The paired difference of each metric, by its name: variant minus reference."""
    sentences: tuple[str, ...]
    """Differences in words: a sentence for each metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferingExample:
    """An example on which variants differ."""

    line: int
    """Its line in the file, counted from 1; of Parquet its row."""
    inputs: str
    """Inputs that were predicted, as JSON, cut where they are long."""
    truth: str
    """Truth of the example, in words."""
    predictions: Mapping[str, str]
    """Prediction of each variant, by its name."""
    difference: float
    """Largest difference of any variant from the reference, of a probability or of a number; of answers without either,
    1 where one differs and 0 where none does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """An evaluation of a bundle on labelled data."""

    schema: Literal["bertport-evaluation"] = SCHEMA
    """Name of the document's format."""
    schema_version: Literal[1] = SCHEMA_VERSION
    """Version of the keys."""
    created: str
    """UTC time at the end, ISO 8601."""
    command: str
    """The command line."""
    bundle: EvaluatedBundle
    """The bundle."""
    task: str
    """The task."""
    data: Data
    """The labelled data."""
    settings: Settings
    """Settings of the measurement."""
    machine: Machine
    """Machine that it was measured on."""
    reference: str
    """Name of the variant that the others are compared with."""
    variants: tuple[EvaluatedVariant, ...]
    """The variants, the reference first."""
    comparisons: tuple[Comparison, ...]
    """Each other variant against the reference."""
    left_out: tuple[str, ...]
    """A sentence for each variant of the bundle that was left out."""
    conclusion: str
    """Advice on which variant to deploy, as far as the figures and the speeds that the manifest records tell."""
    examples: tuple[DifferingExample, ...] | None = field(default=None, metadata=LEFT_OUT)
    """Examples on which variants differ most, those with other answers first, then by falling difference; left out
    where they were not asked for."""
