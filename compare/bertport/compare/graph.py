"""Token ids in, raw outputs out: what measuring needs of a model, and an ONNX file that gives it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bertport.runtime.errors import BundleError, MissingDependencyError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from bertport.compare.masking import Sample

    Outputs = Mapping[str, NDArray[np.floating]]

__all__ = ["HIDDEN", "LOGITS", "NSP_LOGITS", "Batch", "Graph", "OnnxGraph", "Remembered", "make_batch"]

LOGITS, NSP_LOGITS, HIDDEN = "logits", "seq_relationship_logits", "last_hidden_state"


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
        """Run a batch and give the named outputs.

        `logits` has a row per masked position, in their order: (masked, vocabulary). The others are as in
        transformers: `seq_relationship_logits` (rows, 2), `last_hidden_state` (rows, length, hidden).
        """


def make_batch(samples: Sequence[Sample], *, pad: int = 0, length: int = 0) -> Batch:
    """Lay samples out as rows of one batch, padded at the end to the longest, or to `length` where that is more."""
    width = max(length, *(len(each.input_ids) for each in samples))
    input_ids = np.full((len(samples), width), pad, dtype=np.int64)
    attention_mask = np.zeros_like(input_ids)
    token_type_ids = np.zeros_like(input_ids)
    for row, each in enumerate(samples):
        size = len(each.input_ids)
        input_ids[row, :size], token_type_ids[row, :size], attention_mask[row, :size] = (
            each.input_ids,
            each.token_type_ids,
            1,
        )
    return Batch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        token_type_ids=token_type_ids,
        masked_positions=np.concatenate([each.positions + row * width for row, each in enumerate(samples)]),
    )


class OnnxGraph:
    """An ONNX file or its bytes in a session of its own, in a bundle or not yet in one.

    Args:
        model: Path of the graph, or the serialized graph (then without external data).
        providers: Execution providers by ONNX Runtime's names, best first, with options or without.
        threads: Threads within one operator; 0 leaves the choice to ONNX Runtime.
        config: Session configuration entries, by ONNX Runtime's keys, on top of `SESSION_CONFIG`.

    Raises:
        BundleError: when the graph cannot be loaded.
        MissingDependencyError: without ONNX Runtime.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        *,
        providers: Sequence[str | tuple[str, dict[str, str]]] = ("CPUExecutionProvider",),
        threads: int = 0,
        config: Mapping[str, str] | None = None,
    ) -> None:
        try:
            import onnxruntime
        except ImportError:
            what = "measuring"
            raise MissingDependencyError(what, "onnxruntime", "cpu") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors only: ONNX Runtime warns of shape nodes it moves to the CPU
        for key, value in {**SESSION_CONFIG, **(config or {})}.items():
            options.add_session_config_entry(key, value)
        source = model if isinstance(model, bytes) else str(model)
        try:
            self.session = onnxruntime.InferenceSession(source, options, providers=list(providers))
        except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
            name = "the graph in memory" if isinstance(model, bytes) else str(model)
            message = f"ONNX Runtime {onnxruntime.__version__} cannot load {name}: {error}"
            raise BundleError(message) from error
        self.inputs = frozenset(each.name for each in self.session.get_inputs())
        self.outputs = tuple(each.name for each in self.session.get_outputs())

    def run(self, batch: Batch, outputs: Sequence[str]) -> Outputs:
        """Run a batch; a graph without the input `masked_positions` decodes all, and the masked ones are picked."""
        feeds = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "token_type_ids": batch.token_type_ids,
            "masked_positions": batch.masked_positions,
        }
        values = self.session.run(list(outputs), {name: feeds[name] for name in self.inputs})
        found = dict(zip(outputs, values, strict=True))
        if LOGITS in found and "masked_positions" not in self.inputs:
            found[LOGITS] = found[LOGITS].reshape(-1, found[LOGITS].shape[-1])[batch.masked_positions]
        return found


SESSION_CONFIG = {
    # Threads that spin after a run take the cores from the next session: 5 ms became 150 with two in a process.
    "session.force_spinning_stop": "1",
}
"""What every session that is measured is given.

Not `session.set_denormal_as_zero`: ONNX Runtime sets it for the thread that makes the session and leaves it so, which
changes the arithmetic of the whole process (seen with 1.32: hypothesis refuses to draw floats afterwards).
"""


class Remembered:
    """A graph whose answers are kept, for comparing many candidates with one reference.

    Args:
        graph: The graph that runs what has not been asked before.
        limit: Bytes of answers to keep; the oldest go first.
    """

    def __init__(self, graph: Graph, *, limit: int = 512 * 2**20) -> None:
        self.graph = graph
        self.outputs = graph.outputs
        self.limit = limit
        self._size = 0
        self._kept: OrderedDict[bytes, Outputs] = OrderedDict()

    def run(self, batch: Batch, outputs: Sequence[str]) -> Outputs:
        """Give the kept answer of an equal batch, or run it."""
        arrays = (batch.input_ids, batch.attention_mask, batch.token_type_ids, batch.masked_positions)
        key = b"|".join([repr((tuple(outputs), batch.input_ids.shape)).encode(), *(each.tobytes() for each in arrays)])
        if key not in self._kept:
            found = self.graph.run(batch, outputs)
            self._kept[key] = found
            self._size += sum(each.nbytes for each in found.values())
            while self._size > self.limit and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self._size -= sum(each.nbytes for each in oldest.values())
            return found
        return self._kept[key]
