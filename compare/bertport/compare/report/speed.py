"""Speed of a row of the report, from the timed runs of a comparison."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from bertport.compare.report.document import (
    Offline,
    Server,
    ShapeTimes,
    SingleStream,
    Speed,
    Speedup,
    Start,
    Times,
)
from bertport.compare.workloads import COLD_START, flops, server_name
from bertport.measure import statistics
from bertport.measure.speed.baselines import padded_by
from bertport.measure.speed.tasks import TIMED
from bertport.measure.speed.timing import speedup, summarize
from bertport.measure.speed.workload import OFFLINE, SINGLE_STREAM
from bertport.measure.statistics import Estimate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bertport.compare.entries import Entry
    from bertport.compare.measurements import Measurements
    from bertport.measure.speed.timing import Run
    from bertport.measure.speed.workload import Shape
    from bertport.measure.statistics import Settings
    from bertport.runtime.bundle.manifest import Architecture

__all__ = ["RowSpeed"]


class RowSpeed:
    """The speed of one entry.

    Args:
        measurements: Of the whole comparison.
        entry: The entry.
        reference: The one that its bundle's others are compared with.
        architecture: Its encoder's dimensions.
        settings: Of the intervals.
    """

    def __init__(
        self,
        measurements: Measurements,
        entry: Entry,
        reference: Entry | None,
        architecture: Architecture,
        settings: Settings,
    ) -> None:
        self._measurements, self._entry, self._reference = measurements, entry, reference
        self._architecture, self._settings = architecture, settings
        self._peak = measurements.machine.matmul_gflops if entry.provider == "cpu" else None

    def speed(self) -> Speed:
        """Return how fast the entry is, as far as that was measured."""
        single_stream = self._single_stream()
        return Speed(
            start=self._start(),
            single_stream=single_stream,
            offline=self._offline(),
            server=tuple(self._server(single_stream)),
            shapes={
                name: self._shape(shape, run)
                for name, shape in self._measurements.shapes.items()
                if (run := self._run(name))
            },
        )

    def times_faster(self) -> dict[str, Speedup]:
        """Return by workload how many times as fast as its reference the entry is."""
        if self._reference is None or self._reference.name == self._entry.name:
            return {}
        ratios = {}
        for workload in (SINGLE_STREAM, OFFLINE, *self._measurements.shapes):
            run, other = self._run(workload), self._measurements.runs.get(workload, {}).get(self._reference.name)
            if run and other:
                ratio = speedup(other, run, self._settings)
                ratios[workload] = Speedup(ratio=ratio, no_difference_seen=ratio.low <= 1 <= ratio.high)
        return ratios

    def _run(self, workload: str) -> Run | None:
        return self._measurements.runs.get(workload, {}).get(self._entry.name)

    def _times(self, run: Run) -> Times:
        summary = summarize(run, self._settings)
        total = sum(run.stages.values())
        return Times(
            median=summary.median,
            p90=summary.p90,
            p99=summary.p99,
            mean=fmean(seconds for turn in run.rounds for seconds in turn),
            fastest=summary.fastest,
            runs=summary.runs,
            warmup_runs=summary.warmup_runs,
            warmup_s=summary.warmup_s,
            rounds=tuple(tuple(round(seconds, 7) for seconds in turn) for turn in run.rounds),
            stages={name: seconds / total for name, seconds in run.stages.items()} if total else {},
        )

    def _start(self) -> Start | None:
        run = self._run(COLD_START)
        if run is None:
            return None
        cold_start, load = (
            statistics.quantile([[value] for value in seconds], 0.5, self._settings)
            for seconds in (run.start_s, run.load_s)
        )
        return Start(cold_start=cold_start, load=load, peak_bytes_of_one_answer=run.peak_bytes)

    def _single_stream(self) -> SingleStream | None:
        run = self._run(SINGLE_STREAM)
        return SingleStream(times=self._times(run), peak_bytes=run.peak_bytes) if run else None

    def _offline(self) -> Offline | None:
        run, inputs = self._run(OFFLINE), self._measurements.inputs
        if run is None:
            return None
        times, tokens = self._times(run), sum(inputs.lengths)
        decoded = TIMED[inputs.task].decoded
        work = sum(flops(self._architecture, 1, length, decoded) for row in inputs.rows for length in row)
        padded = padded_by(self._entry.kind, inputs.task, inputs.rows) if run.tokens is None else run.tokens
        return Offline(
            times=times,
            texts_per_second=_rate(times.median, len(inputs.rows)),
            tokens_per_second=_rate(times.median, tokens),
            real_tokens=tokens,
            padded_tokens=padded,
            share_of_peak=self._share_of_peak(work, times),
            peak_bytes=run.peak_bytes,
        )

    def _server(self, single_stream: SingleStream | None) -> Iterator[Server]:
        alone = single_stream.times.mean if single_stream else 0.0
        for share, step in self._measurements.server.items():
            run = self._run(server_name(share))
            if run:
                yield Server(
                    share=share,
                    requests_per_second=step.rate,
                    reference=step.reference,
                    overloaded=step.rate * alone >= 1,
                    times=self._times(run),
                )

    def _shape(self, shape: Shape, run: Run) -> ShapeTimes:
        times = self._times(run)
        work = flops(self._architecture, shape.rows, shape.length, shape.masked)
        return ShapeTimes(
            times=times,
            rows=shape.rows,
            length=shape.length,
            tokens_per_second=_rate(times.median, shape.rows * shape.length),
            gflop=work / 1e9,
            share_of_peak=self._share_of_peak(work, times),
        )

    def _share_of_peak(self, work: float, times: Times) -> float | None:
        return work / times.median.value / 1e9 / self._peak if self._peak else None


def _rate(seconds: Estimate, amount: float) -> Estimate:
    """Return work a second from the seconds that an amount of it takes; the ends of the interval change places."""
    return Estimate(
        value=amount / seconds.value,
        low=amount / seconds.high,
        high=amount / seconds.low,
        count=seconds.count,
        clusters=seconds.clusters,
    )
