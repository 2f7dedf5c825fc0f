"""Models as a worker has them loaded: a graph alone, or a bundle from text to answer with the seconds of each stage."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.measure.speed.tasks import TIMED
from bertport.measure.speed.workload import random_batch
from bertport.runtime.errors import BertportError, UsageError
from bertport.runtime.session import Graph
from bertport.runtime.tasks.table import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from bertport.measure.quality.model import OnnxGraph
    from bertport.measure.speed.workload import Shape, Texts
    from bertport.runtime.model import Model

__all__ = ["Answer", "Loaded", "LoadedBundle", "LoadedGraph", "Stopwatch", "plain"]

Answer = Any
"""An answer of a task, as JSON has it; what of it is compared is said by the table of timed tasks."""


@dataclass(slots=True)
class Stopwatch:
    """Seconds in the stages of answering texts, and the tokens that were computed."""

    tokenize: float = 0.0
    """Seconds of making inputs ready."""
    run: float = 0.0
    """Seconds in the graph."""
    tokens: int = 0
    """Tokens of the batches, padding included."""

    def reset(self) -> None:
        """Begin again at 0."""
        self.tokenize = self.run = 0.0
        self.tokens = 0

    def count(self, lengths: Sequence[int]) -> None:
        """Count the tokens of a batch, whose rows are padded to the longest."""
        self.tokens += len(lengths) * max(lengths)

    def stages(self, total: float) -> dict[str, float]:
        """Return the seconds of each stage of a total: what is in neither is making answers of outputs."""
        return {"tokenize": self.tokenize, "run": self.run, "finish": total - self.tokenize - self.run}


def plain(value: Any) -> Answer:  # noqa: ANN401 — an answer of whatever library
    """Return an answer as JSON values: arrays become lists, and numbers of an array's type numbers of Python's."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


class Loaded:
    """One loaded model, to be timed; each kind does what it can of the following."""

    stopwatch: Stopwatch | None = None
    """Adds up the stages of answering; None for a kind that cannot tell them apart."""

    def forward(self, shape: Shape) -> Callable[[], object]:
        """Return what runs random ids of a shape through the model alone."""
        raise UsageError(f"{type(self).__name__} runs no bare token ids (asked for {shape.rows}x{shape.length})")

    def answering(self, texts: Texts) -> Callable[[Sequence[Any]], object]:
        """Return what answers a list of inputs.

        Raises:
            UsageError: for a task that it does not have.
        """
        raise UsageError(f"texts are timed with a bundle: a bare graph has no tokenizer (asked for {texts.task})")

    def answers(self, texts: Texts) -> list[Answer]:
        """Return the answer to each input."""
        raise UsageError(f"texts are answered with a bundle: a bare graph has no tokenizer (asked for {texts.task})")


class LoadedGraph(Loaded):
    """A graph alone, without a tokenizer.

    Args:
        graph: The graph.
    """

    def __init__(self, graph: OnnxGraph) -> None:
        self._graph = graph

    def forward(self, shape: Shape) -> Callable[[], object]:
        """Return what runs random ids of a shape through the graph."""
        batch, outputs = random_batch(shape), shape.outputs or self._graph.outputs
        return lambda: self._graph.run(batch, outputs)


class LoadedBundle(LoadedGraph):
    """A bundle as it serves.

    Args:
        model: As `bertport.runtime.load` opened it; it stays as it is.
        graph: Its graph.
    """

    def __init__(self, model: Model, graph: OnnxGraph) -> None:
        super().__init__(graph)
        self.stopwatch = Stopwatch()
        self._model = model.with_graph(_TimedGraph(**_fields(model.graph), stopwatch=self.stopwatch))

    def answering(self, texts: Texts) -> Callable[[Sequence[Any]], object]:
        """Return what answers a list of inputs as `predict` does, an error raised where it is found."""
        watch = self.stopwatch or Stopwatch()
        call = _TimedCall(**_fields(self._model.bind(texts.task, **texts.parameters)), stopwatch=watch)

        def answer(inputs: Sequence[Any]) -> None:
            for outcome in self._model.outcomes(call, inputs, observe=watch.count):
                if isinstance(outcome, BertportError):
                    raise outcome

        return answer

    def answers(self, texts: Texts) -> list[Answer]:
        """Return the answer to each input, the best one alone where the task has many."""
        asked = {**texts.parameters, **TIMED[texts.task].best_parameters}
        return [plain(answer) for answer in self._model.predict(texts.task, texts.inputs, **asked)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _TimedGraph(Graph):
    """A graph that adds up the time spent in it."""

    stopwatch: Stopwatch
    """Stopwatch to which the time is added."""

    def run_in_slices(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str], *, most: int) -> dict[str, Any]:
        """Run it; positions beyond `most` are decoded while their answers are made, and counted there."""
        began = time.perf_counter()
        values = Graph.run_in_slices(self, feeds, outputs, most=most)  # super() knows no class that slots replaced
        self.stopwatch.run += time.perf_counter() - began
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class _TimedCall(Call):
    """A task's call that adds up the time spent making inputs ready."""

    stopwatch: Stopwatch
    """Stopwatch to which the time is added."""

    def tokenized(self, read: Sequence[Any]) -> list[Any]:
        began = time.perf_counter()
        works = Call.tokenized(self, read)  # super() knows no class that slots replaced
        self.stopwatch.tokenize += time.perf_counter() - began
        return works


def _fields(value: Graph | Call) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
