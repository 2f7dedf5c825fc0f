"""The request context: what is learned of a request on its way, for the log and the metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bertport.serve.engine.registry import ServedModel
    from bertport.serve.engine.worker import ModelWorker

__all__ = ["RequestContext"]


@dataclass(slots=True, kw_only=True)
class RequestContext:
    """Request context: the facts known of one request."""

    request_id: str
    """The client's, or one of ours."""
    method: str
    """HTTP method of the request."""
    path: str
    """Path of the request."""
    client: str
    """Address of the client."""
    began: float = field(default_factory=perf_counter)
    """Time at which its head was read, by `perf_counter`."""
    served: ServedModel | None = None
    """The bundle that was asked."""
    worker: ModelWorker | None = None
    """The variant that was asked."""
    task: str = ""
    """The wire task."""
    items: int = 0
    """Texts."""
    tokens: int = 0
    """Their tokens."""
    queued: float | None = None
    """Seconds in the queue."""
    run: float | None = None
    """Seconds of the batches it was in."""
    phase: str = "body"
    """Phase that it waits for: its `body`, to be tokenized (`prepare`), the `queue`, the `run`."""
    reason: str | None = None
    """Reason why there is no result."""
    said: str | None = None
    """Note to the client on its parameters, beside the answer."""
    trace: str | None = None
    """OpenTelemetry's id of its trace."""

    @property
    def seconds(self) -> float:
        """Time since it began."""
        return perf_counter() - self.began

    def to_json(self, status: int) -> dict[str, object]:
        """Return the fields of its line in the log; what is not known is left out."""
        fields: dict[str, object] = {
            "request_id": self.request_id,
            "method": self.method,
            "path": self.path[:200],
            "status": status,
            "ms": _milliseconds(self.seconds),
            "client": self.client,
        }
        if self.served is not None and self.worker is not None:
            fields |= {"bundle": self.served.name, "variant": self.worker.variant}
        if self.task:
            fields |= {"task": self.task, "items": self.items, "tokens": self.tokens}
        if self.queued is not None and self.run is not None:
            fields |= {"queue_ms": _milliseconds(self.queued), "run_ms": _milliseconds(self.run)}
        if self.reason:
            fields["reason"] = self.reason
        if self.trace:
            fields["trace_id"] = self.trace
        return fields


def _milliseconds(seconds: float) -> float:
    return round(1e3 * seconds, 2)
