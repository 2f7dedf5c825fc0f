"""Prometheus metrics: every series is there before the first request."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily

from bertport.serve.errors import REASONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.core import Metric

    from bertport.serve.engine.worker import Batch, ModelWorker

__all__ = ["OTHER", "Metrics"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
OTHER = ""
"""Task, bundle and variant of requests that ask no model."""


class Metrics:
    """The server's counters, in a registry of their own.

    Args:
        workers: gives name of the bundle, and worker, for each variant that is loaded.
        active: gives the number of requests in the server.
    """

    def __init__(self, workers: Callable[[], Iterable[tuple[str, ModelWorker]]], active: Callable[[], int]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which says when the server started
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        of_variant, of_task = ("bundle", "variant"), ("bundle", "variant", "task")
        self.requests = self._counter("requests", "Requests that were answered with a result.", of_task)
        self.failures = self._counter("failures", "Requests that were not, by reason.", (*of_task, "reason"))
        self.request_seconds = self._histogram(
            "request_seconds", "From a request's head to its answer, of those with a result.", SECONDS, of_task
        )
        self.queue_seconds = self._histogram(
            "queue_seconds",
            "From a request's entry into the queue to the begin of its first batch.",
            SECONDS,
            of_variant,
        )
        self.run_seconds = self._histogram("run_seconds", "Time of a batch.", SECONDS, of_variant)
        self.batch_items = self._histogram("batch_items", "Texts in a batch.", SIZES, of_variant)
        self.batch_tokens = self._histogram("batch_tokens", "Tokens in a batch.", TOKENS, of_variant)
        self.items = self._counter("items", "Texts that were asked about.", of_task)
        self.tokens = self._counter("tokens", "Tokens that were run.", of_variant)
        self.padding = self._counter("padding_tokens", "Tokens of padding among them.", of_variant)
        self.reloads = self._counter("reloads", "Reloads of the bundles, by outcome.", ("outcome",))
        # Looking a series up by its labels costs more than counting in it.
        self._of_task = cache(self._series_of_task)
        self._of_variant = cache(self._series_of_variant)
        self._failing(OTHER, OTHER, OTHER)
        for outcome in ("done", "failed"):
            self.reloads.labels(outcome)
        self.registry.register(_Now(workers, active))

    def introduce(self, bundle: str, variant: str, tasks: Iterable[str]) -> None:
        """Make the series of a variant, at zero."""
        self._of_variant(bundle, variant)
        self._failing(bundle, variant, OTHER)  # refused before its task was known
        for task in tasks:
            self._failing(bundle, variant, task)
            self._of_task(bundle, variant, task)

    def ran(self, bundle: str, variant: str, batch: Batch) -> None:
        """Count a batch."""
        (queue, run, items, size), (tokens, padding) = self._of_variant(bundle, variant)
        for wait in batch.waits:
            queue.observe(wait)
        run.observe(batch.seconds)
        items.observe(batch.items)
        size.observe(batch.tokens)
        tokens.inc(batch.tokens)
        padding.inc(batch.padding)

    def answered(self, bundle: str, variant: str, task: str, items: int, seconds: float) -> None:
        """Count a request with a result."""
        requests, asked, taken = self._of_task(bundle, variant, task)
        requests.inc()
        asked.inc(items)
        taken.observe(seconds)

    def failed(self, bundle: str, variant: str, task: str, reason: str) -> None:
        """Count a request without one; `OTHER` for what is not known of it."""
        self.failures.labels(bundle, variant, task, reason).inc()

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _series_of_variant(self, *labels: str) -> tuple[tuple[Histogram, ...], tuple[Counter, Counter]]:
        sizes = (self.queue_seconds, self.run_seconds, self.batch_items, self.batch_tokens)
        return tuple(histogram.labels(*labels) for histogram in sizes), (
            self.tokens.labels(*labels),
            self.padding.labels(*labels),
        )

    def _series_of_task(self, *labels: str) -> tuple[Counter, Counter, Histogram]:
        return self.requests.labels(*labels), self.items.labels(*labels), self.request_seconds.labels(*labels)

    def _failing(self, bundle: str, variant: str, task: str) -> None:
        for reason in REASONS:
            self.failures.labels(bundle, variant, task, reason)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"bertport_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...]) -> Histogram:
        return Histogram(f"bertport_{name}", text, labels, buckets=buckets, registry=self.registry)


class _Now:
    """Gauges that are read when they are asked for."""

    def __init__(self, workers: Callable[[], Iterable[tuple[str, ModelWorker]]], active: Callable[[], int]) -> None:
        self._workers = workers
        self._active = active

    def collect(self) -> Iterator[Metric]:
        """Return the gauges as they are."""
        inside = GaugeMetricFamily("bertport_requests_active", "Requests in the server.")
        inside.add_metric([], self._active())
        yield inside
        items = GaugeMetricFamily("bertport_queue_items", "Texts that wait.", labels=("bundle", "variant"))
        tokens = GaugeMetricFamily("bertport_queue_tokens", "Tokens that wait.", labels=("bundle", "variant"))
        for bundle, worker in self._workers():
            items.add_metric([bundle, worker.variant], worker.items)
            tokens.add_metric([bundle, worker.variant], worker.tokens)
        yield items
        yield tokens
