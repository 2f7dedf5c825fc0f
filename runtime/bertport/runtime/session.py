"""Sessions of ONNX Runtime: opened here alone, with settings that suit an encoder, and run on batches."""

from __future__ import annotations

import json
import os
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertport.runtime.errors import BundleError, PathError, ProviderError
from bertport.runtime.excerpts import as_unicode, excerpt, one_line
from bertport.runtime.forks import keep_in_forks, refuse_forked
from bertport.runtime.heads import POSITIONS, decoded_outputs
from bertport.runtime.matmul import matmul_model
from bertport.runtime.memory import make_room
from bertport.runtime.providers.assignment import assigned, settled_options
from bertport.runtime.providers.checks import check_active, left_over, obstacle, placement_of, refusal
from bertport.runtime.providers.table import PROVIDERS, onnxruntime
from bertport.runtime.sliced_logits import SlicedLogits
from bertport.runtime.threads import intra_op_threads

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bertport.runtime.providers.table import Provider

__all__ = [
    "FATAL_ONLY",
    "NO_MEMORY",
    "SETTINGS",
    "Graph",
    "check_fp32",
    "check_path",
    "is_of_onnxruntime",
    "least_positions",
    "open_graph",
    "open_session",
    "session_options",
]

SETTINGS = {
    # A session's threads spin for work while it runs and stop when it returns: idle sessions that spin take the
    # cores from every other one in the process (a 5 ms run was seen to take 150 ms).
    "session.force_spinning_stop": "1",
    # Not session.set_denormal_as_zero: ONNX Runtime 1.32 sets it for the thread that opens the session and leaves it
    # so, which changes the arithmetic of the whole program (numpy's 1e-40 becomes 0).
    # So that the session can say which provider runs each node.
    "session.record_ep_graph_assignment_info": "1",
    # Or a file whose name ends in `.ort` would be read as another format than it was checked as.
    "session.load_model_format": "ONNX",
}

REDUCES_NOTHING = (1, 32)
"""The first version of ONNX Runtime whose ReduceMax takes an empty tensor."""
FATAL_ONLY = 4
"""ONNX Runtime's log level in a session: its errors are raised as well, and what it prints of them by itself would
stand between the lines of a log, or of a terminal that shows one sentence."""
ERRORS_ONLY = 3
"""ONNX Runtime's log level: its warnings are about fusions and placement, on which a user cannot act."""

NO_MEMORY = re.compile(r"Failed to allocate memory|smaller than requested bytes|bad_alloc|bad allocation")
"""Messages of ONNX Runtime for memory that it did not get, the second where its arena has a limit (`gpu_mem_limit`): it
raises the error that it raises for anything else."""


LOWER = frozenset({"fp16", "bf16"})
"""Precisions in which products of floats are no fp32; what 8-bit variants keep in float is."""
EXACT_SIZE = 16
"""Rows and columns of the matrices by whose product a plugin's fp32 is judged: bf16 shows from the first on."""
MOST_FP32_ERROR = 1e-5
"""The largest error of such a product, as a share of its largest number: fp32 was seen to keep 1e-7, bf16 2e-3, and
TF32 rounds its factors by up to 5e-4."""
_exact: set[tuple[object, ...]] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A session with its inputs, outputs and placement. Safe to run from several threads."""

    session: Any
    """The `onnxruntime.InferenceSession`."""
    inputs: frozenset[str]
    """Names of the inputs it must be given."""
    outputs: frozenset[str]
    """Names of the outputs it has."""
    provider: Provider
    """Provider that it runs on."""
    placement: Mapping[str, Mapping[str, int]]
    """Nodes per operator, by ONNX Runtime's provider name; empty where ONNX Runtime cannot tell."""
    threads: int | None
    """Threads asked for; None leaves one per physical core to ONNX Runtime."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Provider options in effect."""
    optional: frozenset[str] = frozenset()
    """Names of the inputs that have a value of their own when not given."""
    full: int | None = None
    """Bytes held by the process from which on memory is given back before a run; None where none need be."""
    mapped: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    """Mapped files of weights that a plugin may read for as long as the session lives; ONNX Runtime itself copies."""
    process: int = field(default_factory=os.getpid)
    """Id of the process that opened it, which alone can run it."""

    @property
    def operators(self) -> frozenset[str]:
        """Names of the operators of its nodes; empty where ONNX Runtime cannot tell."""
        return frozenset(name for counts in self.placement.values() for name in counts)

    @property
    def least_positions(self) -> int:
        """Return the fewest positions that a run must decode."""
        return least_positions(self.provider, self.operators, self.optional)

    def run_in_slices(
        self, feeds: Mapping[str, NDArray[np.int64]], outputs: Sequence[str], *, most: int
    ) -> dict[str, Any]:
        """Run the graph on a batch, and decode no more than `most` positions at once, nor fewer than it needs.

        Returns:
            What `run` does; in place of logits `[positions, vocabulary]` of more positions than that, `SlicedLogits`.
        """
        positions = feeds[POSITIONS]
        # What the graph chose of the logits is small. A portable graph decodes them all, whatever is asked.
        decoded = decoded_outputs(outputs)
        if not len(positions) and POSITIONS in self.inputs and (least := self.least_positions):
            import numpy as np

            # The whole graph runs, whatever is asked of it: the first position of the batch is decoded in vain.
            filled = self.run({**feeds, POSITIONS: np.zeros(least, dtype=np.int64)}, outputs)
            return filled | {name: filled[name][:0] for name in decoded}
        if len(positions) <= most or not decoded or POSITIONS not in self.inputs:
            return self.run(feeds, outputs)

        def decode(start: int, names: Sequence[str]) -> dict[str, Any]:
            return self.run({**feeds, POSITIONS: positions[start : start + most]}, names)

        def sliced(name: str) -> SlicedLogits:
            return SlicedLogits(values[name], lambda start: decode(start, [name])[name], len(positions), most)

        values: dict[str, Any] = decode(0, outputs)
        return values | {name: sliced(name) for name in decoded}

    def run(self, feeds: Mapping[str, NDArray[np.int64]], outputs: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Run the graph on a batch; feeds that it has no input for are left out.

        Raises:
            MemoryError: where ONNX Runtime does not get the memory that it needs, on a device too.
            ProviderError: in a process that was forked since the graph was opened.
        """
        refuse_forked(self.process)
        if self.full is not None:
            make_room(self.full)
        given = {name: feeds[name] for name in self.inputs}
        given |= {name: feeds[name] for name in self.optional if name in feeds}
        try:
            if self.provider.device is None:
                values = self.session.run(list(outputs), given)
            else:
                values = self._bound(given, outputs, self.provider.device)
        except Exception as error:  # ONNX Runtime's errors share no base but Exception
            if NO_MEMORY.search(str(error)) is None:
                raise
            raise MemoryError("ONNX Runtime does not get the memory for a batch") from error
        return dict(zip(outputs, values, strict=True))

    def _bound(self, feeds: Mapping[str, NDArray[np.int64]], outputs: Sequence[str], device: str) -> list[Any]:
        """Run with outputs left on the device until all are there; a binding per call, so that threads do not meet."""
        number = int(self.options.get("device_id", "0"))
        binding = self.session.io_binding()
        for name, value in feeds.items():
            binding.bind_cpu_input(name, value)
        for name in outputs:
            binding.bind_output(name, device, number)
        self.session.run_with_iobinding(binding)
        values: list[Any] = binding.copy_outputs_to_cpu()
        return values


def is_of_onnxruntime(error: Exception) -> bool:
    """Return whether an error is ONNX Runtime's: of its own classes, or what pybind11 makes of any other in C++."""
    return type(error).__module__.partition(".")[0] == "onnxruntime" or type(error) is RuntimeError


def least_positions(provider: Provider, operators: Collection[str], optional: Collection[str] = ()) -> int:
    """Return the fewest positions that a run of a graph must decode.

    One where the graph chooses words: TopK over no rows divides by zero, which ends the process, in ONNX Runtime up to
    1.29. And one where it looks for the largest value of a row, as INT8 graphs with 16-bit activations do: of no rows,
    ReduceMax gives a tensor of another shape, which the next operator refuses, up to 1.31.

    Args:
        provider: that it runs on.
        operators: names of the operators of its nodes.
        optional: names of the inputs that have a value of their own when not given.
    """
    reduced = "ReduceMax" in operators and _version() < REDUCES_NOTHING
    return max(provider.least_positions, int("top_k" in optional or reduced))


def session_options(
    *, threads: int | None = None, config: Mapping[str, str] = SETTINGS, log_level: int = ERRORS_ONLY
) -> Any:  # noqa: ANN401 — ONNX Runtime is not typed
    """Return ONNX Runtime's options of a session, for `open_session`.

    Args:
        threads: threads within an operator; None leaves the number to ONNX Runtime.
        config: configuration entries by ONNX Runtime's keys.
        log_level: the least severe messages that ONNX Runtime prints.
    """
    options = onnxruntime().SessionOptions()
    options.log_severity_level = log_level
    options.intra_op_num_threads = threads or 0
    for key, value in config.items():
        options.add_session_config_entry(key, value)
    return options


def open_session(
    graph: str | os.PathLike[str] | bytes,
    options: Any = None,  # noqa: ANN401 — ONNX Runtime is not typed
    providers: Sequence[tuple[str, Mapping[str, str]]] | None = ((PROVIDERS["cpu"].ort, {}),),
) -> Any:  # noqa: ANN401 — as above
    """Return an `onnxruntime.InferenceSession`: the one place that opens any.

    Args:
        graph: path of the graph, or the serialized graph.
        options: what `session_options` returned, perhaps with further attributes set; None for its defaults.
        providers: ONNX Runtime's names of execution providers with their options, the first one first; None where the
            devices of a plugin were added to the options.

    Raises:
        PathError: for a path that ONNX Runtime cannot be told.
        Exception: what ONNX Runtime raises, whose errors share no other base.
    """
    if not isinstance(graph, bytes):
        check_path(graph)
    source = graph if isinstance(graph, bytes) else os.fspath(graph)
    session = onnxruntime().InferenceSession(
        source,
        session_options() if options is None else options,
        providers=None if providers is None else [(name, dict(given)) for name, given in providers],
        # Without fall-back: ONNX Runtime's own would, at the first error of a run, open the session again on the CPU.
        enable_fallback=0,
    )
    # It keeps the bytes for that fall-back: as much memory as the weights.
    session._model_bytes = None  # noqa: SLF001 — ONNX Runtime has no public name for it
    keep_in_forks(session)
    return session


def check_path(path: str | os.PathLike[str]) -> None:
    """Refuse a path that ONNX Runtime cannot be told: it takes texts alone.

    Raises:
        PathError: for a path that is not UTF-8.
    """
    shown = as_unicode(os.fspath(path))
    if shown != os.fspath(path):
        raise PathError(f"{shown} is a path that is not UTF-8, which ONNX Runtime cannot open: rename the directory")


def open_graph(  # noqa: PLR0913 — each is one setting, by keyword
    path: Path,
    provider: Provider,
    *,
    threads: int | None = None,
    options: Mapping[str, object] | None = None,
    precision: str = "fp32",
    external_data: Iterable[str] = (),
    appended: bytes = b"",
    allow_fallback: bool = False,
    bounded: bool = False,
) -> Graph:
    """Return a graph opened on a provider, which is checked to run there.

    Args:
        path: the `.onnx` file; its external data lies beside it.
        provider: a row of the table.
        threads: threads within an operator; None for one per physical core that this process may use.
        options: of the provider, in place of the row's own.
        precision: how products are to be computed, as manifests call it.
        external_data: paths of the files that hold its weights, from its directory.
        appended: a serialized model to be merged into the graph: nodes and outputs that follow it.
        allow_fallback: warn where computing was left to another provider, instead of refusing it.
        bounded: give memory back after each run, in place of keeping the most that any run took.

    Raises:
        UsageError: for a number of threads or an option that cannot be.
        ProviderError: when the provider does not work here.
        BundleError: when ONNX Runtime cannot load the graph.
    """
    threads = intra_op_threads(threads)
    settled = settled_options(provider, precision=precision, threads=threads, given=options or {})
    reason = obstacle(provider, precision)
    if reason is not None:
        raise refusal(provider, reason)
    if provider.plugin is not None and precision not in LOWER:
        check_fp32(provider, settled)
    opening = session_options(threads=threads, log_level=FATAL_ONLY)
    if bounded:
        # The arena grows by doubling and never gives back; a pattern is one more block, as large as all of a run's
        # values, kept for each shape that was seen.
        opening.enable_cpu_mem_arena = opening.enable_mem_pattern = False
    # A plugin opens such files by itself, and follows no link of the graph's.
    weights = _unreachable(path, external_data, strict=bool(appended) or provider.plugin is not None)
    session = _session(path, provider, opening, settled, precision, appended, weights)
    check_active(provider, session.get_providers())
    placement = placement_of(session)
    left = left_over(provider, placement)
    if left is not None:
        if not allow_fallback:
            raise ProviderError(left)
        warnings.warn(left, UserWarning, stacklevel=5)  # the caller of `load`
    return Graph(
        session=session,
        inputs=frozenset(argument.name for argument in session.get_inputs()),
        optional=frozenset(argument.name for argument in session.get_overridable_initializers()),
        outputs=frozenset(argument.name for argument in session.get_outputs()),
        provider=provider,
        placement=placement,
        threads=threads,
        options=settled,
        mapped={} if provider.plugin is None else weights,
    )


def check_fp32(provider: Provider, settled: Mapping[str, str]) -> None:
    """Refuse a plugin that multiplies fp32 in less: asked by a small product, once for each set of options.

    What a plugin does not know of its options it may leave alone without a word, and compute as it likes.

    Raises:
        ProviderError: with how far its product is from the right one.
    """
    import numpy as np

    asked = (provider.name, str(provider.plugin), tuple(sorted(settled.items())))
    if asked in _exact:
        return
    options = session_options(threads=1, log_level=FATAL_ONLY)
    left = np.random.default_rng(0).standard_normal((EXACT_SIZE, EXACT_SIZE), dtype=np.float32)
    providers = assigned(options, provider, settled)
    try:
        session = open_session(matmul_model(left), options, providers)
        [product] = session.run(None, {"a": left})
    except Exception as error:  # ONNX Runtime's errors share no base but Exception
        reason = one_line(error)
        raise ProviderError(
            f"provider {provider.name!r} cannot multiply two small matrices with the options "
            f"{json.dumps(dict(settled))} ({excerpt(reason, 300)}): give others, or choose another provider"
        ) from error
    exact = left.astype(np.float64) @ left
    wrong = float(np.abs(product - exact).max() / np.abs(exact).max())
    if not wrong <= MOST_FP32_ERROR:  # NaN as well
        raise ProviderError(
            f"provider {provider.name!r} computes fp32 in lower precision: a product of two small matrices is wrong by "
            f"{wrong:.1e} of its largest number, where fp32 keeps {MOST_FP32_ERROR:g}: give the provider option that "
            "restores fp32, or choose another provider"
        )
    _exact.add(asked)


def _unreachable(path: Path, external_data: Iterable[str], *, strict: bool) -> dict[str, NDArray[np.uint8]]:
    """Return, mapped, the files of weights that ONNX Runtime would not open although they belong to the bundle.

    It opens what lies below the graph's directory, or below that of the file that the graph is a link to. A bundle in
    the Hub's cache consists of links into another directory: where the graph is none of them, or is handed over in
    memory, its weights are handed over as well.
    """
    import numpy as np

    allowed = [Path(os.path.realpath(path.parent))] + ([] if strict else [Path(os.path.realpath(path)).parent])
    mapped = {}
    for name in external_data:
        file = Path(os.path.realpath(path.parent / name))
        if not any(file.is_relative_to(directory) for directory in allowed):
            mapped[name] = np.memmap(file, dtype=np.uint8, mode="r") if file.stat().st_size else np.empty(0, np.uint8)
    return mapped


def _session(  # noqa: PLR0913, PLR0917 — what a session is made of
    path: Path,
    provider: Provider,
    options: Any,  # noqa: ANN401 — ONNX Runtime is not typed
    settled: Mapping[str, str],
    precision: str,
    appended: bytes,
    weights: Mapping[str, NDArray[np.uint8]],
) -> Any:  # noqa: ANN401 — as above
    check_path(path)
    cpu = PROVIDERS["cpu"].ort
    names = assigned(options, provider, settled, precision=precision)
    source: Path | bytes = path
    if appended:
        # A repeated field of a protobuf message is joined and a message merged when two are read one after the other.
        source = path.read_bytes() + appended
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    if weights:
        options.add_external_initializers_from_files_in_memory(
            list(weights), list(weights.values()), [other.size for other in weights.values()]
        )
    try:
        return open_session(source, options, names)
    except Exception as error:  # ONNX Runtime's errors share no base but Exception
        reason = one_line(error)
        if provider.ort != cpu:
            raise ProviderError(
                f"provider {provider.name!r} cannot open {path.name} ({reason}): choose another variant or provider"
            ) from error
        raise BundleError(
            f"ONNX Runtime {onnxruntime().__version__} cannot load {path} ({reason}): install a newer "
            "ONNX Runtime, or export again"
        ) from error


def _version() -> tuple[int, ...]:
    return tuple(int(part) for part in onnxruntime().__version__.split(".")[:2])
