"""Operators of an int8-dynamic run, and the time of each: a table of docs/research/quantization.md.

    python -m bench.quantization.operators [--as now] [--only "the default model"] [--seconds 3]

Runs the default model and a BERT-base of seeded random weights under ONNX Runtime's profiler, on one thread, so that an
operator's time is its work and does not hang on what else the machine does. The BERT-base divides and keeps in float
the share of channels that the default model's shipped variant does. `--as` names the form of the recipe that is
measured; the file, docs/data/quantization-operators.json, keeps the rows of other names, so that a form that was
measured before a change stands beside the one after it. On a CPU with AVX2 alone, real or shown by `python -m
bench.avx2`, the file and the table have names of their own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.checkout import provenance
from bench.performance.profiling import feeds_of, operators
from bench.quantization.__main__ import random_base
from bench.quantization.material import Material
from bench.quantization.page import DATA, operators_table, write_table
from bertport.measure.machine import machine_lock
from bertport.quantize.graph.rewrite import linears, rewrite
from bertport.quantize.graph.storage import write_graph
from bertport.quantize.recipes.dynamic import DynamicEmitter
from bertport.quantize.weights.cache import WeightCache
from bertport.quantize.weights.calibrated import CalibratedWeights
from bertport.quantize.weights.outliers import DecompositionPlan
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.providers.cpu import INSTRUCTION_SETS, cpu

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from bertport.quantize.graph.rewrite import Linear

SHAPES = ((1, 16), (1, 128), (8, 128))
"""Rows and tokens of the runs."""
VARIANT = "int8-dynamic"


class DecomposedAlike(WeightCache):
    """Weights rounded to the nearest, whose layers divide and keep in float as many channels as those of another model.

    Args:
        saturating: Whether the instruction set adds pairs of products in 16 bits.
        factors: What each of the other model's layers multiplies its channels by, by the layer's name.
    """

    def __init__(self, *, saturating: bool, factors: Mapping[str, NDArray[np.float32]]) -> None:
        super().__init__(saturating=saturating)
        self._factors = factors

    def plan(self, linear: Linear) -> DecompositionPlan | None:
        """Return the plan of the other model's layer at half the depth, as many channels kept in float."""
        factors = self._factors.get(_at_half_depth(linear.name))
        if factors is None or linear.table is not None:
            return None
        kept, inputs = int((factors == 0).sum()), len(linear.weights)
        alike = np.resize(np.sort(factors[factors != 0]), inputs)
        if kept:
            alike[:: inputs // kept][:kept] = 0
        return DecompositionPlan(factors=alike)


def _at_half_depth(name: str) -> str:
    """Return a layer's name with half the number of its layer: a BERT-base has twice as many as the default model."""
    return ".".join(str(int(part) // 2) if part.isdecimal() else part for part in name.split("."))


def default_model(place: Path) -> Path:
    """Write the default model's graph as the recipe makes it for this CPU, calibrated on the sample that ships."""
    bundle = Bundle.open(default_bundle())
    path = bundle.file(bundle.manifest.variants["fp32"].file)
    material = Material(path=path, architecture=bundle.manifest.architecture, bundle=bundle)
    layers = linears(material.fused)
    weights = CalibratedWeights(saturating=_saturates(), layers=layers, activations=material.activations, text={})
    return _written(material, weights, place)


def bert_base(place: Path) -> Path:
    """Write the graph of a BERT-base with seeded random weights, its channels decomposed as the default model's are."""
    path, shape = random_base(place)
    weights = DecomposedAlike(saturating=_saturates(), factors=_shipped_factors())
    return _written(Material(path=path, architecture=shape), weights, place)


def _saturates() -> bool:
    """Return whether this CPU adds pairs of products in 16 bits."""
    return INSTRUCTION_SETS[cpu().instruction_set].saturates


def _written(material: Material, weights: WeightCache, place: Path) -> Path:
    file = place / "quantized.onnx"
    write_graph(rewrite(material.fused, DynamicEmitter(weights=weights)), file)
    return file


def _shipped_factors() -> dict[str, NDArray[np.float32]]:
    """Read what the layers of the default model's shipped variant multiply their channels by."""
    from onnx import numpy_helper

    from bertport.measure.onnx_files import read_model

    bundle, ending = Bundle.open(default_bundle()), ".factors"
    model = read_model(bundle.file(bundle.manifest.variants[VARIANT].file))
    return {
        tensor.name.removesuffix(ending): numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.name.endswith(ending)
    }


MODELS: dict[str, Callable[[Path], Path]] = {"the default model": default_model, "BERT-base": bert_base}
"""Writers of the models' graphs, by the model's name."""


def profile(file: Path, seconds: float) -> dict[str, dict[str, dict[str, float]]]:
    """Return how often each operator runs and the milliseconds it takes, by shape and operator."""
    result = {}
    for rows, length in SHAPES:
        by_operator: dict[str, dict[str, float]] = {}
        for node in operators(file, feeds_of(rows, length, 30522), seconds=seconds, threads=1):
            summary = by_operator.setdefault(node["operator"], {"count": 0, "ms": 0.0})
            summary["count"] += node["count"]
            summary["ms"] += node["ms"]
        result[f"{rows}x{length}"] = by_operator
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, keep the figures, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--as", dest="form", default="now", help="name of the recipe's form that is measured")
    parser.add_argument("--only", choices=MODELS, help="one model")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds for each shape")
    parser.add_argument("--output", type=Path, help="write the figures here, and no table")
    given = parser.parse_args(arguments)
    name = "operators-avx2" if cpu().instruction_set == "avx2" else "operators"
    kept = DATA / f"quantization-{name}.json"
    file = given.output or kept
    rows = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    for model, write in MODELS.items():
        if given.only in (None, model):
            with tempfile.TemporaryDirectory() as place:
                graph = write(Path(place))
                with machine_lock():
                    shapes = profile(graph, given.seconds)
            row = {"model": model, "form": given.form, **provenance(), "shapes": shapes}
            rows = [*(old for old in rows if (old["model"], old["form"]) != (model, given.form)), row]
            file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if file == kept:
        write_table(name, operators_table(rows))


if __name__ == "__main__":
    main()
