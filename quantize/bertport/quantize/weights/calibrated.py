"""Weights in 8 bits that are fitted to what goes into their layers on real text."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.measure.quality.model import in_order
from bertport.quantize.calibration.statistics import collect
from bertport.quantize.evaluation import read_evaluation, streams
from bertport.quantize.graph.rewrite import linears
from bertport.quantize.weights.activation_range import ranges_for, round_activations
from bertport.quantize.weights.blas import one_thread
from bertport.quantize.weights.cache import WeightCache
from bertport.quantize.weights.gptq import compensated
from bertport.quantize.weights.outliers import Treatment, treat

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    from bertport.quantize.calibration.statistics import Activations
    from bertport.quantize.evaluation import Progress
    from bertport.quantize.graph.rewrite import Linear, Table
    from bertport.quantize.weights.rounding import Quantized
    from bertport.runtime.bundle.directory import Bundle

__all__ = ["SAMPLES", "FittedWeights", "fit"]

SAMPLES = {"positions": 2000, "pairs": 100, "longest_pair": 48}
"""Masked positions and pairs to fit to: some 18,000 tokens, and enough masked ones for the MLM head's matrices."""
LOOKUPS = 0.3
"""Weight of looking rows up, which spares no direction, beside decoding, when a tied table is rounded: KL was 0.00037
without it, 0.00034 from 0.3 to 1, and 0.00045 with rounding to the nearest."""
MOST_AT_ONCE = 8
"""Layers fitted at once, at most: the widest of a BERT-base takes half a gigabyte meanwhile."""
ENOUGH = 2
"""Tokens for each channel from which compensation is taken: fewer leave directions open in which anything goes."""


def fit(
    bundle: Bundle,
    fused: onnx.ModelProto,
    calibration: str | os.PathLike[str] | None,
    *,
    saturating: bool,
    progress: Progress,
) -> FittedWeights:
    """Run the calibration text through the fp32 graph, and give weights that are fitted to it.

    Args:
        bundle: The bundle.
        fused: Its fp32 serving graph, fused, with its weights in memory.
        calibration: A file of texts; None for the sample that ships.
        saturating: Whether the instruction set adds pairs of products in 16 bits.
        progress: Told of what is done and of how much.

    Raises:
        InputTextError, PathError: for a text that cannot be used.
    """
    text = read_evaluation(bundle, calibration, sample="calibration", **SAMPLES)
    # The list holds copies of all weights: not while the graph runs, which holds them as well.
    sources = [layer.source for layer in linears(fused)]
    activations = collect(fused, sources, text.samples, progress=progress)
    layers = linears(fused)
    weights = FittedWeights(saturating=saturating, layers=layers, activations=activations, text=text.to_json())
    weights.prepare(layers, progress)
    return weights


class FittedWeights(WeightCache):
    """Rounds with compensation, and divides outlier channels or takes them out.

    Args:
        saturating: Whether the instruction set adds pairs of products in 16 bits.
        layers: The linear layers.
        activations: What goes into them, by `Linear.source`; a layer without is rounded to the nearest.
        text: What they were gathered on, for the record.
        treats: Whether outlier channels are treated while the graph runs; not where they were levelled beforehand.
        takes_out: Whether the largest of them may be taken out.
    """

    def __init__(  # noqa: PLR0913 — what is known and what is wanted
        self,
        *,
        saturating: bool,
        layers: Iterable[Linear],
        activations: Mapping[str, Activations],
        text: dict[str, Any],
        treats: bool = True,
        takes_out: bool = True,
    ) -> None:
        super().__init__(saturating=saturating)
        self.fitted_to = text
        self._saturating = saturating
        self._treats = treats
        self._takes_out = takes_out
        self._activations = activations
        self._treatments: dict[str, Treatment] = {}
        self._decoded = {
            layer.table.name: activations[layer.source]
            for layer in layers
            if layer.table and layer.source in activations
        }

    def prepare(self, layers: Sequence[Linear], progress: Progress) -> None:
        """Fit the layers' weights, several layers at once: one alone leaves cores idle most of the time."""
        with one_thread():
            for done, _ in enumerate(in_order(self.linear, layers, min(streams(), MOST_AT_ONCE)), 1):
                progress("fitting the weights", done, len(layers))

    def treatment(self, linear: Linear) -> Treatment | None:
        """Return what is done to the layer's activations before they are rounded, or None."""
        found = self._activations.get(linear.source)
        if found is None or linear.table is not None or not self._treats:
            return None
        if linear.name not in self._treatments:
            self._treatments[linear.name] = treat(
                found,
                linear.weights,
                round_weights=self._method,
                roundings=[partial(round_activations, span=span) for span in ranges_for(linear)],
                # What these few rows would take apart costs more than it spares.
                take_out=self._takes_out and not linear.flat,
            )
        return self._treatments[linear.name]

    def linear(self, linear: Linear, *, treated: bool = True) -> Quantized:
        """Return a linear layer's weights, for activations as they are or as they are treated."""
        found = self._activations.get(linear.source)
        if linear.table is not None or found is None:
            return super().linear(linear)
        treatment = self.treatment(linear) if treated else None
        if treatment is not None and not treatment.multiplies:
            treatment = None
        key = f"{linear.name}.treated" if treatment else linear.name
        if key not in self._made:
            weights, gram = linear.weights, found.gram.astype(np.float64)
            if treatment:
                weights = weights * treatment.inverse[:, None]
                gram *= treatment.factors[:, None]
                gram *= treatment.factors
            self._made[key] = self._round(weights, gram, found.count)
        return self._made[key]

    def table(self, table: Table) -> Quantized:
        """Return a table's transpose; that of a tied one suits the decoder, with regard to the lookups."""
        found = self._decoded.get(table.name) if table.tied else None
        if table.name not in self._made and found is not None:
            gram = found.gram / np.diag(found.gram).mean() + LOOKUPS * np.eye(len(found.gram))
            self._made[table.name] = self._round(np.ascontiguousarray(table.rows.T), gram, found.count)
        return super().table(table)

    def _round(self, weights: NDArray[np.float32], gram: NDArray[np.float64], count: int) -> Quantized:
        nearest = self._method(weights)
        if count < ENOUGH * len(gram):
            return nearest
        return compensated(weights, gram, nearest, saturating=self._saturating)
