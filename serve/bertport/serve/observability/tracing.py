"""Spans for OpenTelemetry, where its packages are installed and its environment variables ask for them.

`opentelemetry-instrument bertport serve` sets a provider up by itself. Without it, `OTEL_TRACES_EXPORTER` (`otlp`,
`console`, or both with a comma between them) or `OTEL_EXPORTER_OTLP_ENDPOINT` does, as OpenTelemetry's specification
names them.
"""

from __future__ import annotations

import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertport.serve.observability.context import RequestContext

__all__ = ["Tracing", "tracing"]

_LOG = logging.getLogger(__name__)

EXPORTER = "OTEL_TRACES_EXPORTER"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
EXPORTERS = ("otlp", "console")
NAME = "bertport.serve"
OTLP = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
"""A package of its own; imported by name, because it need not be there."""


class Tracing:
    """Makes a span of each request.

    Args:
        tracer: OpenTelemetry's.
    """

    def __init__(self, tracer: Any) -> None:  # noqa: ANN401 — its packages need not be installed
        self._tracer = tracer

    def begin(self, headers: Mapping[bytes, bytes], context: RequestContext) -> Any:  # noqa: ANN401 — as above
        """Begin a span, within the client's if its `traceparent` names one."""
        from opentelemetry import propagate, trace

        names = ("traceparent", "tracestate")
        carrier = {name: headers[name.encode()].decode("latin-1") for name in names if name.encode() in headers}
        span = self._tracer.start_span(
            context.method,
            context=propagate.extract(carrier),
            kind=trace.SpanKind.SERVER,
            attributes={"http.request.method": context.method, "url.path": context.path[:200]},
        )
        context.trace = format(span.get_span_context().trace_id, "032x")
        return span

    def end(self, span: Any, context: RequestContext, status: int) -> None:  # noqa: ANN401 — as above
        """End it, with what was learned."""
        known = context.to_json(status)
        names = ("request_id", "bundle", "variant", "task", "items", "tokens", "queue_ms", "run_ms", "reason")
        for name in names:
            if name in known:
                span.set_attribute(f"bertport.{name}", known[name])
        span.set_attribute("http.response.status_code", status)
        if context.task:
            span.update_name(f"{context.method} {context.task}")
        span.end()


def tracing() -> Tracing | None:
    """Return what makes spans; None where no exporter would receive them."""
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # none has been set up
        exporters = _exporters()
        if not exporters or not _set_up(exporters):
            return None
    return Tracing(trace.get_tracer(NAME))


def _exporters() -> list[str]:
    """Return the exporters that the variables name, and log those that do not exist."""
    stated = os.environ.get(EXPORTER) or ("otlp" if any(os.environ.get(name) for name in ENDPOINTS) else "")
    names = dict.fromkeys(name.strip().lower() for name in stated.split(","))
    for name in names.keys() - {"", "none", *EXPORTERS}:
        known = ", ".join(EXPORTERS)
        _LOG.warning("no spans are exported by %r, which %s names: give some of %s", name, EXPORTER, known)
    return [name for name in names if name in EXPORTERS]


def _set_up(exporters: list[str]) -> bool:
    """Set a tracer provider up; a missing package is logged and does not stop the server."""
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        _LOG.warning("no spans are exported: %s is not installed", error.name)
        return False
    made = [exporter for name in exporters if (exporter := _exporter(name)) is not None]
    if not made:
        return False
    given = OTELResourceDetector().detect().attributes  # what `create` is given would take the place of them
    provider = TracerProvider(resource=Resource.create({"service.name": "bertport", **given}))
    for exporter in made:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)  # which sends what is left when the process ends
    return True


def _exporter(name: str) -> Any:  # noqa: ANN401 — as above
    """Return an exporter; None where its package is missing."""
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter

    if name == "console":
        return ConsoleSpanExporter()
    try:
        return import_module(OTLP).OTLPSpanExporter()
    except ImportError as error:
        _LOG.warning("no spans are exported by %r: %s is not installed", name, error.name)
        return None
