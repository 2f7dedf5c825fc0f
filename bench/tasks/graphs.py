"""Graphs that `load` does not open on a CPU, as models of the runtime, so that nothing but the graph differs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.tasks.tables import FP32
from bertport.measure.quality.model import graph_of
from bertport.measure.speed.loaded import LoadedBundle
from bertport.quantize.evaluation import AS_DEFINED
from bertport.runtime import load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.select import CPU, suits
from bertport.runtime.providers.table import PROVIDERS
from bertport.runtime.session import SETTINGS, Graph, open_graph, open_session, session_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from bertport.measure.speed.loaded import Loaded
    from bertport.measure.speed.workload import WorkerSpec
    from bertport.runtime.model import Model

__all__ = ["open_stock", "open_timed", "open_variant"]

PORTABLE = "portable"
"""The variant that the stock tool quantizes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneByOne(Graph):
    """A graph that runs each text of a batch alone: dynamic quantization gives a whole batch one scale."""

    def run_in_slices(
        self,
        feeds: Mapping[str, NDArray[np.int64]],
        outputs: Sequence[str],
        *,
        most: int,  # noqa: ARG002 — no position is decoded
    ) -> dict[str, Any]:
        """Run the graph on one row after the other, without padding."""
        rows, width = feeds["input_ids"].shape
        made: dict[str, list[NDArray[np.float32]]] = {name: [] for name in outputs}
        for row in range(rows):
            length = int(feeds["attention_mask"][row].sum())
            alone = {name: feeds[name][row : row + 1, :length] for name in self.inputs}
            for name, value in self.run(alone, outputs).items():
                # Only values per token have the width of the batch, which the other rows share.
                padding = [(0, width - length if axis == 1 and value.ndim == 3 else 0) for axis in range(value.ndim)]  # noqa: PLR2004
                made[name].append(np.pad(value, padding))
        return {name: np.concatenate(values) for name, values in made.items()}


def open_variant(path: Path, name: str) -> Model:
    """Open a variant on the CPU; one that is for other hardware computes as ONNX defines its operators, slowly."""
    bundle = Bundle.open(path)
    if suits(bundle.manifest.variants[name].requires, CPU):
        return load(path, variant=name, provider="cpu")
    with bundle.opening(name) as file:
        graph = open_graph(file, PROVIDERS["cpu"])
        session = open_session(file, session_options(config={**SETTINGS, **AS_DEFINED}))
    return load(path, variant=FP32, provider="cpu").with_graph(dataclasses.replace(graph, session=session))


def open_stock(graph: Path, bundle: Path, *, threads: int | None = None) -> Model:
    """Open what the stock tool made of a bundle's portable graph, with the bundle's tokenizer and tasks."""
    model = load(bundle, variant=PORTABLE, threads=threads)
    opened = open_graph(graph, PROVIDERS["cpu"], threads=threads)
    fields = {field.name: getattr(opened, field.name) for field in dataclasses.fields(opened)}
    return model.with_graph(OneByOne(**fields))


def open_timed(spec: WorkerSpec) -> Loaded:
    """Open it for `bertport.measure.speed`: the specification names the graph's file and the bundle."""
    model = open_stock(Path(str(spec.file)), Path(str(spec.bundle)), threads=spec.threads)
    return LoadedBundle(model, graph_of(model))
