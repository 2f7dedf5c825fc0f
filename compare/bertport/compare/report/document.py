"""The report's types: frozen classes whose keys are those of report.json, and how a file of it is read.

Every page is drawn from these values, so that it can be drawn again without measuring. Keys are never renamed. A new
one gets a default, so that reports without it can be read; `python -m bertport.compare.report.schema` writes the JSON
Schema anew.
"""

# No `from __future__ import annotations`: the codec reads these annotations while the program runs.
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bertport.compare.codec import INLINE, LEFT_OUT, DecodeError, decode
from bertport.compare.entries import VARIANT
from bertport.compare.measurements import DataInfo, LayerTable, Quality, Recorded, SampleCounts, Sums
from bertport.compare.presets import Preset
from bertport.compare.workloads import InputsSummary
from bertport.measure.budget import Judgement, Outcome
from bertport.measure.labelled.figures import PairedDifference, TaskFigures
from bertport.measure.machine import Machine
from bertport.measure.quality.bias import PairAnswers, Probe
from bertport.measure.quality.heads import known_limits
from bertport.measure.quality.label_bias import LabelScores
from bertport.measure.quality.results import HeadFigures
from bertport.measure.statistics import Difference, Estimate
from bertport.measure.text import read_beginning
from bertport.runtime.bundle.manifest import Architecture
from bertport.runtime.errors import UsageError

__all__ = [
    "SCHEMA",
    "SCHEMA_VERSION",
    "TRAINED",
    "Against",
    "Bias",
    "BiasProbe",
    "Bound",
    "BundleInfo",
    "Change",
    "Finding",
    "LabelBias",
    "LabelShift",
    "Labelled",
    "Offline",
    "Recommendation",
    "Report",
    "Row",
    "Server",
    "Settings",
    "ShapeTimes",
    "SingleStream",
    "Speed",
    "Speedup",
    "Start",
    "TextInfo",
    "Times",
    "Verdict",
    "Weights",
    "read_report",
]

SCHEMA: Literal["bertport-comparison"] = "bertport-comparison"
SCHEMA_VERSION: Literal[1] = 1
"""Raised when a key changes its meaning or goes; new keys leave it."""
MOST_BYTES = 256 << 20
"""Bytes of a report, at most; those of today have some millions."""
Weights = Literal["trained", "random", "no better than chance"]
TRAINED: Weights = "trained"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of the measurement, and the budget that it is judged by."""

    preset: Preset = field(metadata=INLINE)
    """The preset."""
    threads: int | None
    """Threads within an operator; null leaves the choice to ONNX Runtime."""
    seed: int
    """Random seed of masks, pairs, inputs, arrivals and resamples."""
    resamples: int
    """Bootstrap resamples behind each interval."""
    confidence: float
    """Confidence level of each interval."""
    budget: Mapping[str, float]
    """Bounds of the accuracy budget, by name of the limit."""
    budget_in_words: str
    """The same for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextInfo:
    """The text that everything was measured on."""

    name: str
    """Name of its file."""
    sha256: str
    """SHA-256 of the texts, whatever the format of the file."""
    texts: int
    """Number of texts."""
    shipped: bool = False
    """Whether it is the sample that ships; not in reports of 0.1."""
    inputs: InputsSummary
    """Inputs of the timed scenarios."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleInfo:
    """A bundle that was compared."""

    label: str
    """Name of the bundle in the report."""
    name: str
    """Its own name."""
    architecture: Architecture
    """The encoder's dimensions."""
    heads: tuple[str, ...]
    """Names of the heads it has."""
    max_length: int
    """Longest input that it takes, in tokens."""
    languages: tuple[str, ...]
    """Languages of its training text."""
    licence: str | None
    """As its manifest states it."""
    default_variant: str
    """Name of the variant that is loaded where none is named."""
    source_sha256: Mapping[str, str]
    """SHA-256 of the checkpoint's files, by name."""
    reference: str | None
    """Name of the row that its others are compared with; null where it does not take part."""
    weights: Weights
    """Whether accuracy means anything."""
    weights_reason: str
    """Reason why accuracy means nothing; empty where it means something."""
    samples: SampleCounts
    """Samples that quality was measured on."""
    sensitivity: Mapping[str, LayerTable]
    """By variant, the table of layers that quantization left in the bundle."""

    @property
    def trained(self) -> bool:
        """Whether accuracy means anything."""
        return self.weights == TRAINED


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Times of a workload, in seconds."""

    median: Estimate
    """Half of the runs were faster."""
    p90: Estimate
    """Nine of ten were."""
    p99: Estimate
    """Ninety-nine of a hundred were."""
    mean: float
    """Mean of all runs."""
    fastest: float
    """The fastest run."""
    runs: int
    """Number of timed runs."""
    warmup_runs: int
    """Number of runs before them."""
    warmup_s: float
    """Seconds of those in total."""
    rounds: tuple[tuple[float, ...], ...]
    """Seconds of every timed run, by round."""
    stages: Mapping[str, float]
    """Shares of the time in tokenizing, the graph and post-processing; empty where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Fresh processes: what comes before the first answer."""

    cold_start: Estimate
    """Seconds from the start of Python to the first answer."""
    load: Estimate
    """Seconds of that in which the model is loaded."""
    peak_bytes_of_one_answer: int
    """Most memory resident up to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleStream:
    """One text after the other."""

    times: Times = field(metadata=INLINE)
    """Time of each text."""
    peak_bytes: int
    """Most memory resident in the process when it was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offline:
    """All texts in one call."""

    times: Times = field(metadata=INLINE)
    """Time of each call."""
    texts_per_second: Estimate
    """From the median time."""
    tokens_per_second: Estimate
    """The same of real tokens."""
    real_tokens: int
    """Tokens of the texts."""
    padded_tokens: int
    """Tokens that the model computed."""
    share_of_peak: float | None
    """Share of the machine's fp32 matmul peak; null where that is not known."""
    peak_bytes: int
    """Most memory resident in the process when it was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Requests that come at random times."""

    share: float
    """Their rate, as a share of what the reference answers in a second."""
    requests_per_second: float
    """Their rate."""
    reference: str
    """Name of the row that sets it."""
    overloaded: bool
    """Whether requests come faster than they are answered."""
    times: Times = field(metadata=INLINE)
    """Time of each request, from its arrival."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeTimes:
    """Batches of one length through the graph alone."""

    times: Times = field(metadata=INLINE)
    """Time of each batch."""
    rows: int
    """Sequences in the batch."""
    length: int
    """Tokens in each."""
    tokens_per_second: Estimate
    """From the median time."""
    gflop: float
    """Floating-point operations of the batch, in billions."""
    share_of_peak: float | None
    """Share of the machine's fp32 matmul peak; null where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Speed of a row; null for what was not measured."""

    start: Start | None
    """Cold start."""
    single_stream: SingleStream | None
    """One text after the other."""
    offline: Offline | None
    """All texts in one call."""
    server: tuple[Server, ...]
    """Requests at random times, one for each rate."""
    shapes: Mapping[str, ShapeTimes]
    """By rows x tokens, such as 1x128."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    """The ratio of the reference's median time to the row's: how many times as fast it is."""

    ratio: Estimate = field(metadata=INLINE)
    """With its interval."""
    no_difference_seen: bool
    """Whether 1 is within the interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bias:
    """Result of the bias probe."""

    distance: Estimate
    """Mean distance between the answers to the two sentences of a pair, in bits."""
    card: PairAnswers
    """The first pair, with the best answers to each sentence."""
    pairs: tuple[tuple[str, str, float], ...]
    """Both sentences of each pair and their distance in bits."""
    change: Difference | None
    """Change of the distance from the reference's; null for the reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelShift:
    """Shift of one label's score between the sentences of two groups."""

    label: str
    """The label."""
    change: Estimate
    """Score for the second sentence of a pair minus that for the first, mean over all pairs."""
    distance: Estimate
    """The same without its sign."""
    largest: float
    """The largest change of any pair, with its sign."""
    a: str
    """The first sentence of that pair."""
    b: str
    """The second sentence of that pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelBias:
    """Result of the bias probe of a classifier."""

    scores: str
    """Function that makes scores of its logits: `softmax`, `sigmoid`, or `none` for values as they are."""
    distance: Estimate
    """The change of the label that moves most in a pair, without its sign, mean over all pairs."""
    labels: tuple[LabelShift, ...]
    """The labels that move most, the one that moves most first."""
    pairs: tuple[LabelScores, ...]
    """Both sentences of each pair, and the scores of those labels."""
    change: Difference | None
    """Change of the distance from the reference's; null for the reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A row's metrics on labelled data."""

    figures: TaskFigures
    """The metrics, each with its interval, label by label, and the calibration of its probabilities."""
    differences: Mapping[str, PairedDifference]
    """By metric, the row's minus the reference's on the same examples; empty for the reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One variant on one provider, or one baseline."""

    name: str
    """Differs from every other row's."""
    bundle: str
    """Label of the bundle."""
    kind: str
    """`variant`, or the name of a baseline."""
    variant: str | None
    """Name of the bundle's variant; null for a baseline."""
    provider: str
    """Execution provider that it runs on."""
    recipe: str
    """Recipe by which its weights are stored, such as `int8-dynamic`."""
    instruction_set: str | None
    """Instruction set that the variant was made for."""
    reference: bool
    """Whether the bundle's others are compared with it."""
    default: bool
    """Whether the bundle's manifest names it as its default."""
    size_bytes: int | None
    """Bytes of the graph and the weights it needs."""
    failed: str | None
    """Reason why it could not be measured."""
    recorded: Recorded | None = None
    """Accuracy on this instruction set as the manifest records it; not in reports of 0.1."""
    looks: int | None = None
    """2 where the first samples left a bound of the budget undecided and more were taken; not in reports of 0.1."""
    quality: Quality | None
    """Null where it was not measured, as for a baseline."""
    per_text: Sums | None
    """By head, the sums of each text that the figures were drawn from; count is the number of positions."""
    bias: Bias | None
    """Result of the bias probe."""
    label_bias: LabelBias | None = field(default=None, metadata=LEFT_OUT)
    """Result of the bias probe of classifiers; left out without a classifier."""
    labelled: Labelled | None = field(default=None, metadata=LEFT_OUT)
    """Its metrics on labelled data; left out where there are none."""
    same_answers: Estimate | None
    """Share of the timed texts whose best answer is the reference's."""
    speed: Speed
    """Its speed."""
    times_faster: Mapping[str, Speedup]
    """By workload, the ratio of medians to the reference."""

    @property
    def is_variant(self) -> bool:
        """Whether it is a variant of a bundle, not a baseline."""
        return self.kind == VARIANT

    def head(self, name: str) -> HeadFigures | None:
        """Return the figures of a head; None where it was not measured."""
        return self.quality.head(name) if self.quality else None

    def metric(self, name: str) -> Estimate | None:
        """Return a metric on labelled data; None where it was not measured."""
        return self.labelled.figures.metrics.get(name) if self.labelled else None

    def difference(self, metric: str) -> PairedDifference | None:
        """Return how a metric on labelled data differs from the reference's; None where that was not measured."""
        return self.labelled.differences.get(metric) if self.labelled else None


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasProbe:
    """The sentences of the bias probe."""

    probe: Probe = field(metadata=INLINE)
    """Templates and words."""
    shipped: bool
    """Whether it is the probe that ships."""
    file: str
    """Name of the file that ships."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One test of a variant against its reference."""

    row: str
    """Name of the row."""
    id: str = ""
    """Id of the test: `head.key`, `bias.distance` or `speed.workload`; not in reports before 0.2."""
    figure: str
    """The same for people."""
    no_difference_seen: bool
    """Whether the test does not reject that there is none."""
    verdict: str = ""
    """Conclusion of the sentence, in a few words."""
    size: str = ""
    """The difference or ratio, with its interval."""
    sentence: str
    """All of it in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """One bound of the budget, of a figure that was measured."""

    limit: str
    """Its name, as in the budget."""
    bound: float
    """The bound."""
    verdict: Outcome
    """Verdict on the bound."""
    by: Literal["run", "record"]
    """Source of the verdict: this run, or what the manifest records."""
    run: Judgement
    """Judgement by this run."""
    record: Judgement | None
    """Judgement by what the manifest records."""
    sentence: str
    """All of it in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One variant by the accuracy budget."""

    bundle: str
    """Label of its bundle."""
    row: str
    """Name of the row."""
    verdict: Outcome | Literal["not measured"] | None = None
    """Broken where a bound is, held where all are, or else undecided where one is; not in reports of 0.1."""
    bounds: tuple[Bound, ...] = ()
    """Each bound whose figure was measured; not in reports of 0.1."""
    holds: bool
    """Whether no bound is broken."""
    breaks: tuple[str, ...]
    """Sentences on the bounds that are broken."""
    near: tuple[str, ...]
    """Sentences on the bounds that are undecided, and on those that were not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """Recommendation for one goal."""

    bundle: str
    """Label of the bundle."""
    goal: str
    """For people."""
    choice: str | None
    """Name of a row."""
    reason: str
    """Reason for the choice, or for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One figure that changed between two reports."""

    row: str
    """Name of the row."""
    figure: str
    """For people."""
    old: float | None
    """Value in the older report."""
    new: float | None
    """Value in this report."""
    change: float | None
    """As a share of the old figure."""
    worse: bool
    """Whether it is for the worse."""
    regression: bool
    """Worse, beyond noise and beyond the tolerance."""
    sentence: str
    """All of it in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """Changes since an older report."""

    created: str
    """Time of the older measurement, UTC."""
    tolerance: Mapping[str, float]
    """By kind of figure, as a share."""
    changes: tuple[Change, ...]
    """Beyond noise."""
    not_compared: tuple[str, ...]
    """Sentences on what the two cannot be compared in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Report of `bertport compare`: times in seconds, sizes in bytes, divergences in nats, bias in bits."""

    schema: Literal["bertport-comparison"]
    """Name of the document's format."""
    schema_version: Literal[1]
    """Raised when a key changes its meaning or goes; keys may be added without."""
    created: str
    """Time of the measurement, UTC."""
    complete: bool
    """False for what an interruption left."""
    seconds: float
    """Seconds that measuring took."""
    steps_resumed: int
    """Steps that an interrupted run had left."""
    command: str
    """The command line."""
    machine: Machine
    """Machine that it was measured on."""
    packages: Mapping[str, str]
    """Versions of what the baselines run on."""
    settings: Settings
    """Settings of the measurement, and the budget that it is judged by."""
    text: TextInfo
    """Text that everything was measured on."""
    data: DataInfo | None = field(default=None, metadata=LEFT_OUT)
    """The labelled data that rows were measured on; left out where there was none."""
    bundles: tuple[BundleInfo, ...]
    """The bundles that were compared."""
    rows: tuple[Row, ...]
    """Variants and baselines."""
    bias_probe: BiasProbe
    """The sentences of the bias probe."""
    label_bias_probe: BiasProbe | None = field(default=None, metadata=LEFT_OUT)
    """The sentences of the bias probe of classifiers; left out where no bundle has one."""
    not_measured: tuple[str, ...]
    """Sentences on what was not measured although a reader might take it for measured."""
    findings: tuple[Finding, ...] = ()
    """Each variant tested against its reference."""
    verdicts: tuple[Verdict, ...] = ()
    """Each variant by the accuracy budget; not in the first reports of 0.1."""
    recommendations: tuple[Recommendation, ...] = ()
    """Recommendation for each goal."""
    against: Against | None = None
    """Changes since an older report, where one was given."""

    def bundle(self, label: str) -> BundleInfo:
        """Return the bundle of a label."""
        return next(bundle for bundle in self.bundles if bundle.label == label)


def read_report(path: Path) -> Report:
    """Read a report's JSON.

    Raises:
        PathError: when there is no such file.
        UsageError: when it is not a report, one of a newer schema, or a broken one.
    """
    content = read_beginning(path, MOST_BYTES + 1, "report", "name a report.json of bertport compare")
    if len(content) > MOST_BYTES:
        raise UsageError(f"{path} has more than {MOST_BYTES:,} bytes, as no report has: name a report.json")
    try:
        value = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON in UTF-8 ({error}): name a report.json of bertport compare") from error
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise UsageError(f"{path} is not a report of bertport compare: name its report.json")
    if value.get("schema_version") != SCHEMA_VERSION:
        raise UsageError(
            f"{path} has version {value.get('schema_version')!r} of the schema, and {SCHEMA_VERSION} is read here: "
            "use the bertport that wrote it, or measure again"
        )
    try:
        report = decode(Report, value)
        _check_names(report)
    except DecodeError as error:
        raise UsageError(
            f"{path} is not a whole report ({error}): use the file that bertport compare wrote, or measure again"
        ) from error
    return report


def _check_names(report: Report) -> None:
    """See that what is named is there.

    Raises:
        DecodeError: for a bundle or a limit that is not.
    """
    if not report.bundles or not report.rows:
        raise DecodeError(f"$.{'rows' if report.bundles else 'bundles'} is empty")
    labels = [bundle.label for bundle in report.bundles]
    for number, row in enumerate(report.rows):
        if row.bundle not in labels:
            raise DecodeError(f"$.rows[{number}].bundle is {row.bundle!r}, and $.bundles has {', '.join(labels)}")
    for name in report.settings.budget:
        if name not in known_limits():
            raise DecodeError(f"$.settings.budget has {name!r}, and budgets bound {', '.join(known_limits())}")
