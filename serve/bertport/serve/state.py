"""State that the handlers share."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from bertport.serve.api.raw import TASK as TENSORS
from bertport.serve.api.tasks import WIRE_TASKS
from bertport.serve.engine.pieces import Pieces
from bertport.serve.engine.registry import Registry
from bertport.serve.errors import Failed
from bertport.serve.http.admission import Admission
from bertport.serve.observability.metrics import OTHER, Metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bertport.serve.engine.worker import ModelWorker
    from bertport.serve.errors import Problem
    from bertport.serve.settings import Settings

__all__ = ["Service"]

_LOG = logging.getLogger(__name__)


class Service:
    """The state of one server.

    Args:
        settings: of the server.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.failure: str | None = None
        """Reason why the process cannot go on; None while it can."""
        self.admission = Admission(settings.limits)
        self.metrics = Metrics(self._workers, lambda: self.admission.inside)
        self.registry = Registry(settings, self.metrics.ran, self._introduce, self.die)
        self.pieces = Pieces(self.die)
        self._told: set[tuple[str, str]] = set()

    def _workers(self) -> Iterator[tuple[str, ModelWorker]]:
        return self.registry.workers()

    def _introduce(self, bundle: str, variant: str) -> None:
        self.metrics.introduce(bundle, variant, [*WIRE_TASKS, TENSORS])

    def die(self, reason: str) -> None:
        """Note that the process cannot go on; from any thread."""
        self.failure = self.failure or reason

    def tell(self, bundle: str, note: str) -> None:
        """Log a note that answers to clients carry, once for each bundle."""
        if (bundle, note) not in self._told:
            self._told.add((bundle, note))
            _LOG.warning("a client is told: %s", note, extra={"fields": {"bundle": bundle}})

    def refused(self, problem: Problem, client: str) -> None:
        """Count and log a connection that is refused before there is a request on it."""
        self.metrics.failed(OTHER, OTHER, OTHER, problem.reason)
        if self.settings.access_log:
            fields = {"status": problem.status, "client": client, "reason": problem.reason, "error": problem.message}
            _LOG.info("refused", extra={"fields": fields})

    def check_ready(self) -> None:
        """Refuse requests unless every bundle that was loaded can answer.

        Raises:
            Loading: while bundles are loaded, and when the server stops.
            Failed: when a thread that answers has ended.
        """
        if self.admission.draining:
            raise self.admission.stopping()
        if reason := self.failure or self.registry.failure:
            raise Failed(reason)
        self.registry.check_loaded()

    async def reload(self) -> None:
        """Load the bundles anew, and count how that ended."""
        try:
            await self.registry.load()
        except Exception:
            self.metrics.reloads.labels("failed").inc()
            raise
        self.metrics.reloads.labels("done").inc()

    async def close(self) -> None:
        """Finish what is under way, and close."""
        await self.registry.close()
        await asyncio.to_thread(self.pieces.close)
