"""The calibrator: makes of a graph source one whose activations are calibrated, once for all recipes of a run."""

from __future__ import annotations

import dataclasses
import gc
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bertport.quantize.calibration.observe import CalibrationText, histograms, read_calibration
from bertport.quantize.calibration.outlier_suppression import (
    SUPPRESSED,
    choose_shifts_and_scales,
    suppress_outliers,
    suppressed,
)
from bertport.quantize.calibration.ranges import digest, method_named
from bertport.quantize.calibration.rotation import ROTATED, choose_blocks, rotate_blocks
from bertport.quantize.calibration.statistics import collect
from bertport.quantize.graph.layer_inputs import changeable
from bertport.quantize.graph.rewrite import linears
from bertport.quantize.isa import saturates
from bertport.quantize.texts import read_evaluation
from bertport.quantize.weights.calibrated import SAMPLES, CalibratedWeights

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from bertport.quantize.calibration.histogram import Histogram
    from bertport.quantize.calibration.ranges import Calibration
    from bertport.quantize.calibration.statistics import Activations
    from bertport.quantize.deadline import Progress
    from bertport.quantize.recipes.source import GraphSource
    from bertport.quantize.recipes.table import Recipe
    from bertport.runtime.bundle.directory import Bundle

__all__ = ["Calibrator"]


class Calibrator:
    """Calibrates the fp32 graph of a bundle, when a recipe first asks for it.

    Args:
        bundle: The bundle.
        plain: Its serving graph of standard operators, with its weights in memory.
        how: The settings.
        text: A file of texts; None for the sample that ships.
        progress: Told of what is done.

    Raises:
        UnknownNameError: for an unknown method.
        InputTextError, PathError: for a text that cannot be used.
    """

    def __init__(
        self,
        bundle: Bundle,
        plain: onnx.ModelProto,
        how: Calibration,
        *,
        text: str | os.PathLike[str] | None,
        progress: Progress,
    ) -> None:
        self.how, self.progress = how, progress
        self.method = method_named(how.method)
        self.text: CalibrationText = read_calibration(bundle, text, samples=how.samples)
        self.fitting = read_evaluation(bundle, text, sample="calibration", as_read=True, **SAMPLES)
        self._given = plain

    def apply(self, source: GraphSource, recipe: Recipe, *, method: str | None = None) -> GraphSource:
        """Return a graph source with outliers suppressed, weights calibrated, and ranges that suit the recipe's scheme.

        Args:
            source: What the other recipes' graphs are made from.
            recipe: One that calibrates, or any other, whose source stays as it is.
            method: Another one than that of the settings, from the same histograms.
        """
        if recipe.scheme is None:
            return source
        to_range = method_named(method) if method else self.method
        ranges = {name: to_range(histogram, recipe.scheme) for name, histogram in self._histograms.items()}
        layers = linears(self.plain)
        weights = CalibratedWeights(
            saturating=recipe.by_instruction_set and saturates(source.instruction_set),
            layers=layers,
            activations=self._suppressed.activations if self.how.gptq else {},
            text=self.fitting.to_json(),
            decomposes=False,
            settled=self._suppressed.kept_in_float,
        )
        weights.prepare(layers, self.progress)
        return dataclasses.replace(source, plain=self.plain, ranges=ranges, weights=weights)

    def record(self, source: GraphSource) -> dict[str, Any]:
        """Say what a calibrated graph was made of: the fingerprint that goes into the manifest."""
        return {
            "text": {"name": self.text.name, "sha256": self.text.sha256},
            "samples": len(self.text.samples),
            "tokens": self.text.tokens,
            "method": self.how.method,
            "smooth": None,  # of SmoothQuant, which manifests recorded once
            "levelled": self._suppressed.count,
            "rotated": self._suppressed.rotated,
            "kept_in_float": sum(map(len, self._suppressed.kept_in_float.values())),
            "ranges_sha256": digest(source.ranges),
        }

    @property
    def plain(self) -> onnx.ModelProto:
        """The graph that is quantized: the bundle's, with its outliers suppressed."""
        return self._suppressed.model

    @cached_property
    def _suppressed(self) -> _Suppressed:
        model = self._given
        layers = linears(model)
        sources = [layer.source for layer in layers]
        activations = collect(model, sources, self.fitting.samples, progress=self.progress)
        free = changeable(model, layers)
        blocks = choose_blocks(free, activations) if self.how.rotate else {}
        if blocks:
            model = rotate_blocks(model, free, blocks)
            # The lists hold copies of all weights, and onnx_ir's graphs refer to themselves: not while the graph runs.
            del layers, free
            gc.collect()
            turned = [f"{name}{ROTATED}" for name in blocks]
            # Moments would follow from those of the channels, but the ends of their sums do not.
            activations = {
                **{name: known for name, known in activations.items() if name not in blocks},
                **collect(model, turned, self.fitting.samples, progress=self.progress),
            }
            free = changeable(model, linears(model))
        chosen = (
            choose_shifts_and_scales(free, activations, keeps=self.how.keep_in_float)
            if self.how.suppress_outliers
            else {}
        )
        levelled = {name: f"{name}{SUPPRESSED}" for name, by in chosen.items() if by.changes}
        after = {levelled[name]: suppressed(activations[name], chosen[name]) for name in levelled}
        return _Suppressed(
            model=suppress_outliers(model, free, chosen),
            activations={**activations, **after},
            rotated=len(blocks),
            count=len(levelled),
            kept_in_float={levelled.get(name, name): by.kept_in_float for name, by in chosen.items()},
        )

    @cached_property
    def _histograms(self) -> dict[str, Histogram]:
        names = dict.fromkeys(layer.source for layer in linears(self.plain))
        without = self._suppressed.kept_in_float
        return histograms(self.plain, names, self.text, self.progress, without=without)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Suppressed:
    """A graph whose outliers are suppressed, and what is known of its activations."""

    model: onnx.ModelProto
    """The graph, its weights in memory."""
    activations: Mapping[str, Activations]
    """Statistics of the inputs of its layers on the calibration text, by name of the activation."""
    rotated: int
    """Number of activations that were rotated by blocks."""
    count: int
    """Number of activations that were shifted and scaled."""
    kept_in_float: Mapping[str, NDArray[np.int64]]
    """The channels that are kept in float, by name of the activation."""
