"""What is timed, and on what: values that travel to a worker process as JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from bertport.runtime.errors import UsageError

__all__ = ["Shape", "Subject", "Texts", "Workload", "from_json", "to_json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One model in one setting: what a worker process loads."""

    name: str
    """What results are listed under."""
    file: str | None = None
    """Path of a graph, or of a baseline's directory; either this or a bundle."""
    baseline: str | None = None
    """What opens the directory in `file`: a row of `bertport.measure.speed.baselines.PIPELINES`."""
    bundle: str | None = None
    """Directory of a bundle, opened by `bertport.runtime.load`."""
    bare: bool = False
    """Open the graph of the bundle's variant alone, as one in a `file` is."""
    variant: str | None = None
    """Of the bundle; None for its default."""
    provider: str = "cpu"
    """A row of the runtime's table of providers."""
    threads: int | None = None
    """Threads within one operator; None leaves the choice to ONNX Runtime."""
    config: dict[str, str] = field(default_factory=dict)
    """Session configuration entries on top of the runtime's; for a `file` only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Random token ids of one shape through the graph alone: no tokenizer, no post-processing."""

    rows: int
    """Sequences in the batch."""
    length: int
    """Tokens in each; there is no padding."""
    masked: int = 1
    """Positions decoded in each row; 0 for none."""
    vocabulary: int
    """Ids are drawn below this."""
    outputs: tuple[str, ...] = ()
    """Outputs fetched; all of the graph's when empty."""
    seed: int = 0
    """Of the ids and positions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Real inputs through the runtime, from text to answer; for a subject with a bundle."""

    task: str
    """A task of the runtime, such as `fill-mask`."""
    inputs: tuple[Any, ...]
    """Texts, or pairs of texts."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Of the task."""
    scenario: str = "SingleStream"
    """MLPerf's words: `SingleStream` answers one input after the other and times each; `Offline` answers all at once
    and gives the time of all; `Server` answers requests that come at `arrivals`, first come first served, and times
    each from its arrival."""
    arrivals: tuple[float, ...] = ()
    """For `Server`: seconds after the beginning at which requests come, ascending; the inputs take turns."""


Workload = Shape | Texts
SCENARIOS = ("SingleStream", "Offline", "Server")
_KINDS: dict[str, type[Shape | Texts | Subject]] = {"shape": Shape, "texts": Texts, "subject": Subject}


def to_json(value: Shape | Texts | Subject) -> dict[str, Any]:
    """Return a value as JSON values, with the name of its kind."""
    name = next(name for name, kind in _KINDS.items() if isinstance(value, kind))
    return {"kind": name, **dataclasses.asdict(value)}


def from_json(value: dict[str, Any]) -> Shape | Texts | Subject:
    """Read what `to_json` gave.

    Raises:
        UsageError: for anything else.
    """
    rest: dict[str, Any] = {
        key: tuple(item) if isinstance(item, list) else item for key, item in value.items() if key != "kind"
    }
    try:
        return _KINDS[value["kind"]](**rest)
    except (KeyError, TypeError) as error:
        raise UsageError(f"not a workload: {str(value)[:80]} ({error})") from error
