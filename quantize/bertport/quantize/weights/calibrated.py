"""Calibrated weights: rounded to 8 bits for what goes into their layers on real text."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.measure.quality.model import in_order, streams
from bertport.quantize.blas import one_thread
from bertport.quantize.calibration.statistics import collect, together
from bertport.quantize.graph.rewrite import linears
from bertport.quantize.texts import read_evaluation
from bertport.quantize.weights.activation_range import ranges_for, round_activations
from bertport.quantize.weights.cache import WeightCache
from bertport.quantize.weights.gptq import round_with_gptq
from bertport.quantize.weights.outliers import DecompositionPlan, plan_decomposition

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    from bertport.quantize.calibration.statistics import Activations
    from bertport.quantize.deadline import Progress
    from bertport.quantize.graph.rewrite import Linear, Table
    from bertport.quantize.weights.rounding import Quantized
    from bertport.runtime.bundle.directory import Bundle

__all__ = ["SAMPLES", "CalibratedWeights", "calibrate_weights"]

SAMPLES = {"positions": 2000, "pairs": 100, "longest_pair": 48, "sentences": 600}
"""Masked positions and pairs to calibrate on: some 18,000 tokens, enough of them masked for the MLM head's matrices."""
LOOKUP_RIDGE = 0.3
"""Ridge added to the decoder's Gram matrix for the tied embedding, so that lookups are not sacrificed: KL was 0.00037
without it, 0.00034 from 0.3 to 1, and 0.00045 with rounding to the nearest."""
MOST_AT_ONCE = 8
"""Layers calibrated at once, at most: the widest of a BERT-base takes half a gigabyte meanwhile."""
ENOUGH = 2
"""Tokens for each channel from which GPTQ is used: fewer leave directions open in which anything goes."""


def calibrate_weights(
    bundle: Bundle,
    fused: onnx.ModelProto,
    calibration: str | os.PathLike[str] | None,
    *,
    saturating: bool,
    progress: Progress,
) -> CalibratedWeights:
    """Run the calibration text through the fp32 graph, and return weights that are calibrated on it.

    Args:
        bundle: The bundle.
        fused: Its fp32 serving graph, fused, with its weights in memory.
        calibration: A file of texts; None for the sample that ships.
        saturating: Whether the instruction set adds pairs of products in 16 bits.
        progress: Told of what is done and of how much.

    Raises:
        InputTextError, PathError: for a text that cannot be used.
    """
    text = read_evaluation(bundle, calibration, sample="calibration", as_read=True, **SAMPLES)
    # The list holds copies of all weights: not while the graph runs, which holds them as well.
    sources = [layer.source for layer in linears(fused)]
    activations = collect(fused, sources, text.samples, progress=progress)
    layers = linears(fused)
    weights = CalibratedWeights(saturating=saturating, layers=layers, activations=activations, text=text.to_json())
    weights.prepare(layers, progress)
    return weights


class CalibratedWeights(WeightCache):
    """Rounds by GPTQ, and divides outlier channels or keeps them in float.

    Args:
        saturating: Whether the instruction set adds pairs of products in 16 bits.
        layers: The linear layers.
        activations: What goes into them, by `Linear.source`; a layer without is rounded to the nearest.
        text: What they were gathered on, for the record.
        decomposes: Whether outlier channels are divided or kept in float while the graph runs; not where that was
            settled beforehand.
        keeps_in_float: Whether the largest of them may be kept in float.
        settled: The channels that are kept in float by what was settled beforehand, by `Linear.source`.
    """

    def __init__(  # noqa: PLR0913 — what is known and what is wanted
        self,
        *,
        saturating: bool,
        layers: Iterable[Linear],
        activations: Mapping[str, Activations],
        text: dict[str, Any],
        decomposes: bool = True,
        keeps_in_float: bool = True,
        settled: Mapping[str, NDArray[np.int64]] | None = None,
    ) -> None:
        super().__init__(saturating=saturating)
        self.calibrated_on = text
        self._saturating = saturating
        self._decomposes = decomposes
        self._keeps_in_float = keeps_in_float
        self._settled = settled or {}
        self._activations = _by_matrix(layers, activations)
        self._plans: dict[str, DecompositionPlan] = {}

    def prepare(self, layers: Sequence[Linear], progress: Progress) -> None:
        """Calibrate the layers' weights, several layers at once: one alone leaves cores idle most of the time."""
        matrices = list({_matrix_name(layer): layer for layer in layers}.values())
        with one_thread():
            for done, _ in enumerate(in_order(self.linear, matrices, min(streams(), MOST_AT_ONCE)), 1):
                progress("calibrating the weights", done, len(matrices))

    def plan(self, linear: Linear) -> DecompositionPlan | None:
        """Return what is done to the layer's activations before they are rounded, or None."""
        known = self._activations.get(linear.name)
        if linear.table is None and len(channels := self._settled.get(linear.source, ())):
            return DecompositionPlan.keeping(np.asarray(channels), len(linear.weights))
        if known is None or linear.table is not None or not self._decomposes:
            return None
        if linear.name not in self._plans:
            self._plans[linear.name] = plan_decomposition(
                known,
                linear.weights,
                round_weights=self._method,
                roundings=[partial(round_activations, span=span) for span in ranges_for(linear)],
                # For these few rows a product in float costs more than it spares.
                may_keep_in_float=self._keeps_in_float and not linear.flat,
            )
        return self._plans[linear.name]

    def linear(self, linear: Linear, *, decomposed: bool = True) -> Quantized:
        """Return a linear layer's weights, for activations as they are or as their plan decomposes them."""
        known = self._activations.get(linear.name)
        plan = self.plan(linear) if decomposed else None
        if plan is not None and not plan.multiplies:
            plan = None
        if linear.table is not None or (known is None and plan is None):
            return super().linear(linear)
        key = f"{linear.name}.treated" if plan else linear.name
        if key not in self._made:
            weights = linear.weights * plan.inverse[:, None] if plan else linear.weights
            self._made[key] = self._fitted(weights, known, plan) if known else self._method(weights)
        return self._made[key]

    def _fitted(self, weights: NDArray[np.float32], known: Activations, plan: DecompositionPlan | None) -> Quantized:
        """Round weights for what is known of the activations, as a plan leaves these."""
        gram = known.gram.astype(np.float64)
        if plan:
            gram *= plan.factors[:, None]
            gram *= plan.factors
        return self._round(weights, gram, known.count)

    def table(self, table: Table) -> Quantized:
        """Return a table's transpose; a tied one is calibrated for the decoder, with a ridge for the lookups."""
        known = self._activations.get(table.name) if table.tied else None
        if table.name not in self._made and known is not None:
            gram = known.gram / np.diag(known.gram).mean() + LOOKUP_RIDGE * np.eye(len(known.gram))
            self._made[table.name] = self._round(np.ascontiguousarray(table.rows.T), gram, known.count)
        return super().table(table)

    def _round(self, weights: NDArray[np.float32], gram: NDArray[np.float64], count: int) -> Quantized:
        nearest = self._method(weights)
        if count < ENOUGH * len(gram):
            return nearest
        return round_with_gptq(weights, gram, nearest, saturating=self._saturating)


def _matrix_name(layer: Linear) -> str:
    """Return the name of a layer's matrix, which is that of its table where it has one."""
    return layer.table.name if layer.table else layer.name


def _by_matrix(layers: Iterable[Linear], activations: Mapping[str, Activations]) -> dict[str, Activations]:
    """Return statistics of the activations that are multiplied by each matrix, by its name, as far as there are any."""
    parts: dict[str, list[Activations]] = {}
    for layer in layers:
        if layer.source in activations:
            parts.setdefault(_matrix_name(layer), []).append(activations[layer.source])
    return {name: together(of_matrix) for name, of_matrix in parts.items()}
