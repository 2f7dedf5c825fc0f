"""Worker specifications and workloads, which travel to a worker process as JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bertport.measure.quality.model import Batch
from bertport.measure.speed.tasks import FILL_MASK
from bertport.runtime.errors import UsageError

__all__ = [
    "OFFLINE",
    "SCENARIOS",
    "SERVER",
    "SINGLE_STREAM",
    "Shape",
    "Texts",
    "WorkerSpec",
    "Workload",
    "from_json",
    "random_batch",
    "to_json",
]

SINGLE_STREAM, OFFLINE, SERVER = SCENARIOS = ("SingleStream", "Offline", "Server")
"""MLPerf's names of the scenarios."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """One model in one setting: what a worker process loads."""

    name: str
    """Name in results."""
    file: str | None = None
    """Path of a graph, or of a baseline's directory; either this or a bundle."""
    baseline: str | None = None
    """Baseline that opens the directory in `file`: a row of `bertport.measure.speed.baselines.BASELINES`."""
    task: str = FILL_MASK
    """Task that a baseline answers: a row of `bertport.measure.speed.tasks.TIMED`."""
    opener: str | None = None
    """Function that opens this in place of the above, for programs that time models of their own: `module:function`,
    which is given the specification and returns a `bertport.measure.speed.loaded.Loaded`."""
    python: str | None = None
    """Interpreter of the process; None for this one. It finds this bertport, and of packages only its own."""
    bundle: str | None = None
    """Directory of a bundle, opened by `bertport.runtime.load`."""
    bare: bool = False
    """Open the graph of the bundle's variant alone, as one in a `file` is."""
    variant: str | None = None
    """Name of the bundle's variant; None for its default."""
    provider: str = "cpu"
    """A row of the runtime's table of providers; with a library, also ONNX Runtime's name of one that it holds."""
    provider_library: str | None = None
    """Path of the plugin that holds the provider of a bundle; None for that of its package."""
    precision: str = "fp32"
    """Precision of matrix products of a graph alone, as manifests name it; a bundle's variant states its own."""
    threads: int | None = None
    """Threads within one operator; None for one per physical core that this process may use. Baselines choose by
    themselves."""
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
    """Random seed of the ids and positions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Real inputs from text to answer; for a specification with a bundle, a baseline or an opener."""

    task: str
    """A task of the runtime, such as `fill-mask`."""
    inputs: tuple[Any, ...]
    """Texts, or pairs of texts."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Parameters of the task."""
    scenario: str = SINGLE_STREAM
    """Load scenario, one of `SCENARIOS`: `SingleStream` answers one input after the other, or `at_once` of them, and
    times each call; `Offline` answers all in one call and gives its time; `Server` answers requests that come at
    `arrivals`, first come first served, and times each from its arrival."""
    arrivals: tuple[float, ...] = ()
    """For `Server`: seconds after the beginning at which requests come, ascending; the inputs take turns."""
    at_once: int = 1
    """For `SingleStream`: inputs given in one call."""


Workload = Shape | Texts
_KINDS: dict[str, type[Shape | Texts | WorkerSpec]] = {"shape": Shape, "texts": Texts, "spec": WorkerSpec}


def random_batch(shape: Shape) -> Batch:
    """Draw the token ids and the positions to decode of a shape."""
    rng = np.random.default_rng(shape.seed)
    size = (shape.rows, shape.length)
    positions = [
        row * shape.length + np.sort(rng.choice(shape.length, size=min(shape.masked, shape.length), replace=False))
        for row in range(shape.rows)
    ]
    return Batch(
        input_ids=rng.integers(shape.vocabulary, size=size),
        attention_mask=np.ones(size, dtype=np.int64),
        token_type_ids=np.zeros(size, dtype=np.int64),
        masked_positions=np.concatenate(positions).astype(np.int64),
    )


def to_json(value: Shape | Texts | WorkerSpec) -> dict[str, Any]:
    """Return a value as JSON values, with the name of its kind."""
    name = next(name for name, kind in _KINDS.items() if isinstance(value, kind))
    return {"kind": name, **dataclasses.asdict(value)}


def from_json(value: dict[str, Any]) -> Shape | Texts | WorkerSpec:
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
