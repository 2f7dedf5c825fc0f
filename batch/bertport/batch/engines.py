"""The table of engines: what carries the work, one machine or a cluster of Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.batch.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bertport.batch.job import Carriers, Job, Part
    from bertport.runtime.model import Model

__all__ = ["ENGINES", "LOCAL", "RAY", "Engine"]

LOCAL, RAY = "local", "ray"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One row."""

    name: str
    """Name for users."""
    make: Callable[[Job, Sequence[Part], Carriers, Model | None], Iterator[dict[str, Any]]]
    """Makes parts, and yields what was counted of each as it is done, in any order."""


def _on_this_machine(
    job: Job, parts: Sequence[Part], carriers: Carriers, model: Model | None
) -> Iterator[dict[str, Any]]:
    """Make the parts one after the other in this process."""
    del carriers
    worker = Worker(job, model=model)
    for part in parts:
        yield worker.make(part)


def _on_ray(job: Job, parts: Sequence[Part], carriers: Carriers, model: Model | None) -> Iterator[dict[str, Any]]:
    """Make the parts on a cluster of Ray."""
    del model  # each worker loads its own
    from bertport.batch.on_ray import make_parts

    yield from make_parts(job, parts, carriers)


ENGINES: dict[str, Engine] = {
    engine.name: engine for engine in (Engine(name=LOCAL, make=_on_this_machine), Engine(name=RAY, make=_on_ray))
}
