"""Token ids in, raw outputs out: what measuring needs of a model, and what it takes out of an ONNX file or a bundle."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from bertport.measure.quality.results import Conventions
from bertport.measure.quality.samples import SampleTokenizer
from bertport.runtime.errors import BertportError, BundleError, ProviderError
from bertport.runtime.excerpts import excerpt, one_line
from bertport.runtime.heads import decoded_outputs
from bertport.runtime.providers.assignment import assigned, settled_options
from bertport.runtime.providers.checks import placement_of
from bertport.runtime.providers.cpu import cpu, usable_cores
from bertport.runtime.providers.table import AUTO, candidates, onnxruntime
from bertport.runtime.session import SETTINGS, least_positions, open_session, session_options
from bertport.runtime.text.tokenizer import TOKENIZER, Tokens
from bertport.runtime.threads import intra_op_threads

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from bertport.measure.quality.samples import Sample
    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.model import Model

    Outputs = Mapping[str, NDArray[np.floating]]

__all__ = [
    "Batch",
    "CachedModel",
    "Graph",
    "OnnxGraph",
    "conventions",
    "graph_of",
    "in_order",
    "make_batch",
    "open_onnx",
    "read_sample_tokenizer",
    "read_tokenizer",
    "size_of",
    "streams",
]

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_STREAMS = 16
"""Samples that run at once, at most: each holds its own activations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The inputs of one run."""

    input_ids: NDArray[np.int64]
    """Shape: (rows, length)"""
    attention_mask: NDArray[np.int64]
    """1 for tokens, 0 for padding. Shape: (rows, length)"""
    token_type_ids: NDArray[np.int64]
    """Shape: (rows, length)"""
    masked_positions: NDArray[np.int64]
    """Flat indices, into rows x length, of the positions to decode. Shape: (masked,)"""


class Graph(Protocol):
    """A model that can be measured."""

    outputs: tuple[str, ...]
    """Names of its outputs, as a bundle's manifest lists them."""

    def run(self, batch: Batch, outputs: Sequence[str]) -> Outputs:
        """Run a batch and return the named outputs.

        An output that serving graphs decode has a row per masked position, in their order: (masked, classes). The
        others are as in transformers, with a row per input: (rows, classes) or (rows, length, hidden).
        """


def make_batch(samples: Sequence[Sample], *, pad: int = 0, length: int = 0) -> Batch:
    """Lay samples out as rows of one batch, padded at the end to the longest, or to `length` where that is more."""
    width = max(length, *(len(sample.input_ids) for sample in samples))
    input_ids = np.full((len(samples), width), pad, dtype=np.int64)
    attention_mask = np.zeros_like(input_ids)
    token_type_ids = np.zeros_like(input_ids)
    for row, sample in enumerate(samples):
        size = len(sample.input_ids)
        input_ids[row, :size], token_type_ids[row, :size], attention_mask[row, :size] = (
            sample.input_ids,
            sample.token_type_ids,
            1,
        )
    return Batch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        token_type_ids=token_type_ids,
        masked_positions=np.concatenate([sample.positions + row * width for row, sample in enumerate(samples)]),
    )


def in_order(function: Callable[[Item], Result], items: Iterable[Item], streams: int) -> Iterator[Result]:
    """Yield a function's results in the order of the items, computed by several threads at once.

    A session of one thread that several streams run at once does nothing but work: no stream waits at the end of each
    operator, as the threads of one run do. At most two results a stream are held that were not asked for yet.

    Args:
        function: What to compute; it is called from several threads where there are several streams.
        items: What to compute it of.
        streams: How many are computed at once; 1 computes in the caller's thread.
    """
    if streams <= 1:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(streams)
    waiting: deque[Any] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * streams:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # An error, or a caller that stops, leaves nothing behind that still runs.
        pool.shutdown(cancel_futures=True)


def streams() -> int:
    """Return how many samples to run at once, each on one thread: one for each core that this process may use."""
    return max(1, min(MOST_STREAMS, cpu().physical_cores, int(usable_cores())))


class OnnxGraph:
    """An ONNX Runtime session with the inputs of a bundle's graph, portable or serving.

    Args:
        session: The `onnxruntime.InferenceSession`.
        least_positions: Fewest positions that a run must decode, as `bertport.runtime.session.least_positions` says.
    """

    def __init__(self, session: Any, *, least_positions: int = 0) -> None:  # noqa: ANN401 — ONNX Runtime is not typed
        self.session, self.least_positions = session, least_positions
        self.inputs = frozenset(given.name for given in session.get_inputs())
        self.outputs = tuple(output.name for output in session.get_outputs())

    def run(self, batch: Batch, outputs: Sequence[str]) -> Outputs:
        """Run a batch; a graph without the input `masked_positions` decodes all, and the masked ones are picked.

        Raises:
            ProviderError: where ONNX Runtime raises.
        """
        positions = batch.masked_positions
        feeds = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "token_type_ids": batch.token_type_ids,
            # The whole graph runs, whatever is asked of it: where there must be one, the first is decoded in vain.
            "masked_positions": positions if len(positions) else np.zeros(self.least_positions, dtype=np.int64),
        }
        given = {name: feeds[name] for name in self.inputs}
        try:
            values = self.session.run(list(outputs), given)
        except MemoryError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
            rows, length = batch.input_ids.shape
            raise ProviderError(
                f"ONNX Runtime fails on {rows} x {length} tokens ({excerpt(one_line(error), 300)}): choose another "
                "variant or provider"
            ) from error
        answers = dict(zip(outputs, values, strict=True))
        if "masked_positions" not in self.inputs:
            for name in decoded_outputs(outputs):
                answers[name] = answers[name].reshape(-1, answers[name].shape[-1])[batch.masked_positions]
        elif not len(positions):
            answers |= {name: answers[name][:0] for name in decoded_outputs(outputs)}
        return answers


def open_onnx(
    model: str | os.PathLike[str] | bytes,
    *,
    provider: str = "cpu",
    precision: str = "fp32",
    threads: int | None = None,
    config: Mapping[str, str] | None = None,
) -> OnnxGraph:
    """Open an ONNX file, in a bundle or not yet in one, with the settings that the runtime opens graphs with.

    Args:
        model: Path of the graph, or the serialized graph (then without external data).
        provider: A row of the runtime's table of providers.
        precision: How products are to be computed, as manifests call it.
        threads: Threads within one operator; None for one per physical core that this process may use.
        config: Session configuration entries by ONNX Runtime's keys, to try what the runtime does not set.

    Raises:
        UnknownNameError, ProviderError: for a provider that is unknown or not here.
        BundleError: when the graph cannot be loaded.
        MissingDependencyError: without ONNX Runtime.
    """
    [row] = [each for each in candidates(provider) if provider in (each.name, AUTO)][:1]
    threads = intra_op_threads(threads)  # as the runtime: a quota of the container is not seen by ONNX Runtime
    options = session_options(threads=threads, config={**SETTINGS, **(config or {})})
    settled = settled_options(row, precision=precision, threads=threads)
    providers = assigned(options, row, settled, precision=precision)
    try:
        session = open_session(model, options, providers)
    except BertportError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        name = "the graph in memory" if isinstance(model, bytes) else str(model)
        raise BundleError(
            f"ONNX Runtime {onnxruntime().__version__} cannot load {name} ({one_line(error)}): "
            "quantize or export it again"
        ) from error
    if row.ort not in session.get_providers():
        raise ProviderError(
            f"provider {row.name!r} did not start (in use: {', '.join(session.get_providers())}): {row.install}"
        )
    operators = {operator for counts in placement_of(session).values() for operator in counts}
    return OnnxGraph(session, least_positions=least_positions(row, operators))


class CachedModel:
    """A model whose answers are cached, for comparing many candidates with one reference.

    Args:
        graph: The graph that runs what has not been asked before.
        limit: Bytes of answers to cache. Once they are full, what is not cached is run each time: candidates ask for
            everything in the same order, so that evicting would drop every answer just before it is needed.
    """

    def __init__(self, graph: Graph, *, limit: int = 512 * 2**20) -> None:
        self.graph = graph
        self.outputs = graph.outputs
        self.limit = limit
        self._size = 0
        self._cache: dict[bytes, Outputs] = {}
        self._lock = Lock()  # several streams may ask at once

    def run(self, batch: Batch, outputs: Sequence[str]) -> Outputs:
        """Return the cached answer of an equal batch, or run it."""
        arrays = (batch.input_ids, batch.attention_mask, batch.token_type_ids, batch.masked_positions)
        key = b"|".join(
            [repr((tuple(outputs), batch.input_ids.shape)).encode(), *(array.tobytes() for array in arrays)]
        )
        if key in self._cache:
            return self._cache[key]
        answers = self.graph.run(batch, outputs)
        size = sum(values.nbytes for values in answers.values())
        with self._lock:
            if self._size + size <= self.limit:
                self._cache[key] = answers
                self._size += size
        return answers


def graph_of(model: Model) -> OnnxGraph:
    """Return the graph of a model that `bertport.runtime.load` opened, to be measured as it serves."""
    return OnnxGraph(model.graph.session, least_positions=model.graph.least_positions)


def read_tokenizer(bundle: Bundle) -> Tokenizer:
    """Read a bundle's tokenizer, without the truncation and padding that some checkpoints store in it.

    Raises:
        BundleError: when the bundle lists none, or it is changed.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(bundle.read(TOKENIZER).decode())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def read_sample_tokenizer(bundle: Bundle) -> SampleTokenizer:
    """Read a bundle's tokenizer with what samples are made by.

    Raises:
        BundleError: when the bundle lists none, or it is changed.
        InputTextError: when it has no mask token.
    """
    mask, segments = Tokens.read(bundle).mask_token, bundle.manifest.segments
    return SampleTokenizer.of(read_tokenizer(bundle), mask=mask, segments=segments)


def conventions(bundle: Bundle) -> Conventions:
    """Read the conventions of a bundle's model; the padding id is 0 where its tokenizer has none."""
    return Conventions(
        max_length=bundle.manifest.max_length,
        pad=Tokens.read(bundle).pad_id or 0,
        heads=bundle.manifest.heads,
    )


def size_of(bundle: Bundle, variant: str) -> int:
    """Return the bytes of a variant's graph and of the files that hold its weights.

    A file that two variants share counts for each: it is what one variant needs to be there.
    """
    entry = bundle.manifest.variants[variant]
    return sum(bundle.manifest.files[name].size for name in {entry.file, *entry.external_data})
