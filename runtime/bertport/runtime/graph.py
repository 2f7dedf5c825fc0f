"""One ONNX Runtime session: opened with settings that suit an encoder, and run on a batch."""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertport.runtime.errors import BundleError, ProviderError, UsageError
from bertport.runtime.providers import PROVIDERS, check_placement, onnxruntime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bertport.runtime.providers import Provider

__all__ = ["ERRORS_ONLY", "SETTINGS", "Graph", "open_graph", "usable_cores"]

SETTINGS = {
    # A session's threads spin for work while it runs and stop when it returns: idle sessions that spin take the
    # cores from every other one in the process (a 5 ms run was seen to take 150 ms).
    "session.force_spinning_stop": "1",
    # Not session.set_denormal_as_zero: ONNX Runtime 1.32 sets it for the thread that opens the session and leaves it
    # so, which changes the arithmetic of the whole program (numpy's 1e-40 becomes 0).
    # So that the session can say which provider runs each node.
    "session.record_ep_graph_assignment_info": "1",
}

ERRORS_ONLY = 3
"""ONNX Runtime's log level: warnings are about fusions and placement, which nobody can act on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A session and what it says of itself. Safe to run from several threads."""

    session: Any
    """The `onnxruntime.InferenceSession`."""
    inputs: frozenset[str]
    """Names of the inputs it takes."""
    outputs: frozenset[str]
    """Names of the outputs it has."""
    provider: Provider
    """Where it runs."""
    placement: Mapping[str, Mapping[str, int]]
    """Nodes per operator, by ONNX Runtime's provider name; empty where ONNX Runtime cannot tell."""
    threads: int | None
    """Threads asked for; None leaves one per physical core to ONNX Runtime."""

    def run(self, feeds: Mapping[str, NDArray[np.int64]], outputs: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Run the graph on a batch; feeds that it has no input for are left out."""
        values = self.session.run(list(outputs), {name: feeds[name] for name in self.inputs})
        return dict(zip(outputs, values, strict=True))


def open_graph(path: Path, provider: Provider, *, threads: int | None = None) -> Graph:
    """Open a graph on a provider, and see that it runs there.

    Args:
        path: the `.onnx` file; its external data lies beside it.
        provider: a row of the table.
        threads: threads within an operator; None for one per physical core that this process may use.

    Raises:
        UsageError: for a number of threads that cannot be.
        ProviderError: when the provider does not work here.
        BundleError: when ONNX Runtime cannot load the graph.
    """
    ort = onnxruntime()
    if provider.preload and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    threads = _threads(threads)
    options = ort.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    if threads is not None:
        options.intra_op_num_threads = threads
    for key, value in SETTINGS.items():
        options.add_session_config_entry(key, value)
    cpu = PROVIDERS["cpu"].ort
    names = [(provider.ort, dict(provider.options))]
    if provider.ort != cpu:
        names.append((cpu, {}))  # for nodes that compute shapes; anything more is refused below
    try:
        session = ort.InferenceSession(str(path), options, providers=names)
    except Exception as error:  # ONNX Runtime's errors share no base but Exception
        reason = " ".join(str(error).split())
        if provider.ort != cpu:
            message = (
                f"provider {provider.name!r} cannot open {path.name} ({reason}): choose another variant or provider"
            )
            raise ProviderError(message) from error
        message = f"ONNX Runtime {ort.__version__} cannot load {path} ({reason}): update it, or export again"
        raise BundleError(message) from error
    placement = _placement(session)
    check_placement(provider, session.get_providers(), placement)
    return Graph(
        session=session,
        inputs=frozenset(each.name for each in session.get_inputs()),
        outputs=frozenset(each.name for each in session.get_outputs()),
        provider=provider,
        placement=placement,
        threads=threads,
    )


def usable_cores() -> float:
    """Give the processors that this process may use, by affinity and by the container's quota."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with suppress(OSError, ValueError):  # no control groups, or no limit ("max")
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cores = min(cores, int(quota) / int(period))
    return cores


def _threads(asked: int | None) -> int | None:
    if asked is not None:
        if not isinstance(asked, int) or isinstance(asked, bool) or asked < 1:
            message = f"threads is a number from 1 up, not {asked!r}"
            raise UsageError(message)
        return asked
    # ONNX Runtime's own choice, one thread per physical core, pinned, is best and ends when a number is set; but it
    # does not see a container's quota, and more threads than that wait for each other.
    cores = usable_cores()
    return max(1, math.ceil(cores)) if cores < (os.cpu_count() or 1) else None


def _placement(session: Any) -> dict[str, dict[str, int]]:  # noqa: ANN401 — ONNX Runtime is not typed
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return {}
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name].update(node.op_type for node in part.get_nodes())
    return {name: dict(counter) for name, counter in counts.items()}
