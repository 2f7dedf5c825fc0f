"""Measuring a variant against fp32 before it enters a bundle: accuracy on held-out text, speed, and size."""

from __future__ import annotations

import dataclasses
import math
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Any

from bertport.measure.machine import awaited, describe_machine
from bertport.measure.quality.fidelity import measure
from bertport.measure.quality.heads import unmeasured
from bertport.measure.quality.model import CachedModel, Graph, conventions, open_onnx, size_of, streams
from bertport.measure.speed.timing import interleave, speedup, summarize
from bertport.measure.speed.workload import Shape, WorkerSpec
from bertport.quantize.graph.storage import size_on_disk
from bertport.runtime.heads import HEADS as KNOWN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bertport.measure.quality.model import Batch, Outputs
    from bertport.measure.quality.results import Fidelity
    from bertport.quantize.deadline import Progress
    from bertport.quantize.texts import Evaluation
    from bertport.runtime.bundle.directory import Bundle

__all__ = [
    "AS_DEFINED",
    "REFERENCE",
    "SHAPES",
    "Measurement",
    "Speed",
    "evaluate",
    "measurement",
    "open_reference",
    "time_against",
]

SHAPES = ((1, 16), (1, 128))
"""Rows and tokens that are timed."""
AS_DEFINED = {"session.disable_quant_qdq": "1"}
"""ONNX Runtime's setting by which QuantizeLinear and DequantizeLinear stay what they are: nothing can overflow."""
TOGETHER = 256
"""Tokens of a batch of texts of one length, at most, on the CPU: eight pairs at once take a fifth less time than one by
one in a BERT-base, fp32 and int8-dynamic, and sixteen no less; texts of 110 tokens gain 3%."""
REFERENCE = "fp32"
"""The variant that is taken as right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Times of one shape, in milliseconds, and their ratio."""

    reference_ms: float
    """Median of the fp32 serving graph."""
    ms: float
    """Median of the variant."""
    speedup: float
    """Speed-up: fp32's median time as a multiple of the variant's."""
    low: float
    """Lower end of the ratio's interval."""
    high: float
    """Upper end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Everything measured of one variant, as its manifest entry records it."""

    accuracy: Fidelity
    """Against fp32, per head."""
    text: dict[str, Any]
    """Description of the held-out text that accuracy was measured on, as `Evaluation.to_json` returns it."""
    speed: dict[str, Speed]
    """Times and their ratio, by shape, such as `1x128`."""
    size: int | None
    """Bytes of the graph and its weights; None where it was refused for its accuracy before."""
    size_of_reference: float | None
    """The same as a share of fp32's, with 4 bytes a weight."""
    further: int | None
    """Bytes that it adds to the bundle: 0 where its files are those of fp32; None as above."""
    machine: dict[str, Any]
    """Description of the machine that it was measured on."""
    not_measured: tuple[str, ...]
    """The bundle's heads of which nothing is known, as people call them."""

    @classmethod
    def of_accuracy(cls, bundle: Bundle, accuracy: Fidelity, evaluation: Evaluation) -> Measurement:
        """Return what was measured of a graph that is not timed."""
        machine = dataclasses.asdict(describe_machine())
        return cls(
            accuracy=accuracy,
            text=evaluation.to_json(),
            speed={},
            size=None,
            size_of_reference=None,
            further=None,
            machine=machine,
            not_measured=_not_measured(bundle, accuracy),
        )

    @property
    def slower(self) -> bool:
        """Whether it is slower than fp32: the geometric mean of the ratios is below 1."""
        return math.prod(ratio.speedup for ratio in self.speed.values()) < 1

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return {
            "reference": REFERENCE,
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            "text": self.text,
            "machine": self.machine,
            "accuracy": self.accuracy.to_json(),
            "not_measured": list(self.not_measured),
            "speed": {shape: dataclasses.asdict(ratio) for shape, ratio in self.speed.items()},
            "size": {
                "bytes": self.size,
                "of_reference": None if self.size_of_reference is None else round(self.size_of_reference, 4),
                "further_bytes": self.further,
            },
            "slower_than_reference": self.slower,
        }


def open_reference(bundle: Bundle) -> Graph:
    """Return the fp32 serving graph, whose answers are kept for the next candidate."""
    return CachedModel(_Reference(bundle))


class _Reference:
    """The fp32 serving graph, opened when it first runs: while weights are calibrated it would be in the way.

    Args:
        bundle: The bundle.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle, self._lock = bundle, Lock()  # several streams may be the first
        self._graph: Graph | None = None
        self.outputs = bundle.manifest.variants[REFERENCE].outputs

    def run(self, batch: Batch, outputs: Sequence[str]) -> Outputs:
        """Run a batch, as `Graph.run` does."""
        with self._lock:
            if self._graph is None:
                with self._bundle.opening(REFERENCE) as path:
                    self._graph = open_onnx(path, threads=1)
        return self._graph.run(batch, outputs)


def evaluate(  # noqa: PLR0913 — what a comparison takes
    bundle: Bundle,
    reference: Graph,
    candidate: Path | bytes | str,
    evaluation: Evaluation,
    *,
    stability: int,
    progress: Progress,
    provider: str = "cpu",
    precision: str = "fp32",
    exact: bool = False,
) -> Fidelity:
    """Measure accuracy against the reference.

    Args:
        bundle: The bundle.
        reference: Of `open_reference`.
        candidate: A graph's path or bytes, or the name of a variant of the bundle.
        evaluation: What to measure on.
        stability: Samples on which to measure batch invariance, and the effect of padding.
        progress: Told of what is done and of how much.
        provider: Short name of the provider that the candidate runs on.
        precision: How it computes products, as manifests call it.
        exact: Whether 8-bit products are to be computed in float32, slowly, as ONNX defines them: for a graph that is
            measured on another provider than it is made for, which is timed with that one's 8-bit kernels all
            the same.
    """
    config = AS_DEFINED if exact else {}
    with bundle.opening(candidate) if isinstance(candidate, str) else nullcontext(candidate) as source:
        # One thread for each stream; a provider that runs one text at a time has all of them.
        threads = 1 if provider == "cpu" else None
        graph = open_onnx(source, provider=provider, precision=precision, threads=threads, config=config)
    return measure(
        reference,
        graph,
        evaluation.samples,
        conventions=conventions(bundle),
        stability=stability,
        # No recipe's answers depend on batch mates: on the CPU they are to the bit what each text gets alone, but for
        # the last bits of 4-bit products of a single row on AVX2, which no figure shows.
        streams=streams() if provider == "cpu" else 1,
        tokens=TOGETHER if provider == "cpu" else 0,
        progress=lambda done, all_of_them: progress("measuring accuracy", done, all_of_them),
    )


def time_against(  # noqa: PLR0913 — how long to measure, by keyword
    bundle: Bundle,
    candidate: Path | str,
    *,
    progress: Progress,
    provider: str = "cpu",
    precision: str = "fp32",
    against: str | None = None,
    rounds: int = 8,
    runs: int = 5,
) -> dict[str, Speed]:
    """Time a graph against the fp32 serving graph, taking turns, each in its own process.

    Args:
        bundle: The bundle.
        candidate: A graph's path, or the name of a variant of the bundle.
        progress: Told of what is done and of how much.
        provider: Short name of the provider that the candidate runs on.
        precision: How it computes products, as manifests call it.
        against: Short name of the provider that fp32 runs on; None for the same.
        rounds: Turns of each.
        runs: Timed runs in a turn.

    Raises:
        WorkerError: when one cannot be loaded or run.
    """
    manifest = bundle.manifest
    lengths = sorted({(rows, min(length, manifest.max_length)) for rows, length in SHAPES})
    workloads = {
        f"{rows}x{length}": Shape(rows=rows, length=length, vocabulary=manifest.architecture.vocab_size)
        for rows, length in lengths
    }
    place: dict[str, Any] = (
        {"bundle": str(bundle.path), "variant": candidate, "bare": True}
        if isinstance(candidate, str)
        else {"file": str(candidate)}
    )
    times = interleave(
        [
            WorkerSpec(
                name=REFERENCE, bundle=str(bundle.path), variant=REFERENCE, bare=True, provider=against or provider
            ),
            WorkerSpec(name="candidate", provider=provider, precision=precision, **place),
        ],
        workloads,
        rounds=rounds,
        runs=runs,
        waiting=lambda: progress(awaited(), 0, 0),
        progress=lambda done, all_of_them: progress("measuring speed", done, all_of_them),
    )
    by_name = {(run.subject, run.workload): run for run in times}
    speeds = {}
    for shape in workloads:
        before, after = by_name[REFERENCE, shape], by_name["candidate", shape]
        ratio = speedup(before, after)
        speeds[shape] = Speed(
            reference_ms=summarize(before).median.value * 1e3,
            ms=summarize(after).median.value * 1e3,
            speedup=ratio.value,
            low=ratio.low,
            high=ratio.high,
        )
    return speeds


def measurement(  # noqa: PLR0913 — what was measured, each by its own function
    bundle: Bundle,
    candidate: Path,
    accuracy: Fidelity,
    evaluation: Evaluation,
    speed: dict[str, Speed],
    *,
    shared: bool = False,
) -> Measurement:
    """Put together what was measured of a graph.

    Args:
        bundle: The bundle.
        candidate: The graph.
        accuracy: Against fp32.
        evaluation: What it was measured on.
        speed: By shape.
        shared: Whether the graph is the fp32 serving graph.
    """
    size = size_of(bundle, REFERENCE) if shared else size_on_disk(candidate)
    # A bundle may store fp32's weights in 16 bits; the share is of 32 all the same.
    fp32 = max(size_of(bundle, REFERENCE), 4 * bundle.manifest.architecture.parameters)
    return Measurement(
        accuracy=accuracy,
        text=evaluation.to_json(),
        speed=speed,
        size=size,
        size_of_reference=size / fp32,
        further=0 if shared else size,
        machine=dataclasses.asdict(describe_machine()),
        not_measured=_not_measured(bundle, accuracy),
    )


def _not_measured(bundle: Bundle, accuracy: Fidelity) -> tuple[str, ...]:
    """Return what people call the heads of which an accuracy has no figures."""
    names = unmeasured(bundle.manifest.heads, accuracy.heads)
    return tuple(KNOWN[name].title if name in KNOWN else name for name in names)
