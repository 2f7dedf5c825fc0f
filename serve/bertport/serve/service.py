"""What the handlers share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from bertport.serve.gate import Gate
from bertport.serve.hosts import Hosts
from bertport.serve.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bertport.serve.lane import Lane
    from bertport.serve.settings import Settings

__all__ = ["Service"]


class Service:
    """The state of one server.

    Args:
        settings: what it was told.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.gate = Gate(settings.limits)
        self.metrics = Metrics(self._lanes, lambda: self.gate.active)
        self.hosts = Hosts(settings, self.metrics.ran, self.metrics.introduce)
        # Tokenizing long texts: one thread, because the cores belong to the model.
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="tokenize")

    def _lanes(self) -> Iterator[tuple[str, Lane]]:
        return self.hosts.lanes()

    async def reload(self) -> None:
        """Load the bundles anew, and count how that ended."""
        try:
            await self.hosts.load()
        except Exception:
            self.metrics.reloads.labels("failed").inc()
            raise
        self.metrics.reloads.labels("done").inc()

    async def close(self) -> None:
        """Let what is under way end."""
        await self.hosts.close()
        self.pool.shutdown(wait=True)
