"""Material for the ways of quantizing: the fp32 graph, and statistics of its activations on calibration text."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from bertport.quantize.calibration.outlier_suppression import ShiftAndScale, suppress_outliers
from bertport.quantize.calibration.ranges import Calibration, Range
from bertport.quantize.calibration.rotation import BLOCKS, rotate_blocks
from bertport.quantize.calibration.statistics import Activations, collect
from bertport.quantize.calibrator import Calibrator
from bertport.quantize.graph.fusion import fuse, load_plain
from bertport.quantize.graph.layer_inputs import changeable
from bertport.quantize.graph.rewrite import linears
from bertport.quantize.recipes.source import GraphSource
from bertport.quantize.recipes.table import RECIPES
from bertport.quantize.texts import read_evaluation
from bertport.quantize.weights.cache import WeightCache
from bertport.quantize.weights.calibrated import SAMPLES
from bertport.runtime.providers.cpu import INSTRUCTION_SETS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx

    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.bundle.manifest import Architecture

__all__ = ["Material"]

ANYWHERE = Range(low=-4.0, high=4.0)
"""Range of every activation where there is no text: how long a product takes does not depend on it."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """Material that graphs are made from; what is costly is made once, when it is first asked for."""

    path: Path
    """The fp32 serving graph."""
    architecture: Architecture
    """Its dimensions."""
    bundle: Bundle | None = None
    """The bundle that it is of, whose tokenizer reads the calibration text; None for random weights."""
    calibrators: dict[Calibration, Calibrator] = field(default_factory=dict)
    """By their settings."""

    @cached_property
    def fused(self) -> onnx.ModelProto:
        """The graph with its layers fused."""
        return fuse(load_plain(self.path), self.architecture)

    @cached_property
    def plain(self) -> onnx.ModelProto:
        """The graph of standard operators."""
        return load_plain(self.path)

    @cached_property
    def activations(self) -> Mapping[str, Activations]:
        """Statistics of the inputs of the fused graph's layers on the calibration text; none with random weights."""
        if self.bundle is None:
            return {}
        return collect(
            self.fused,
            [layer.source for layer in linears(self.fused)],
            read_evaluation(self.bundle, None, sample="calibration", as_read=True, **SAMPLES).samples,
            progress=_silent,
        )

    def static(self, name: str, how: Calibration, isa: str) -> onnx.ModelProto:
        """Make the graph of a recipe with calibrated activations."""
        recipe = RECIPES[name]
        cache = WeightCache(saturating=recipe.by_instruction_set and INSTRUCTION_SETS[isa].saturates)
        source = GraphSource(plain=self.plain, fused=self.plain, instruction_set=INSTRUCTION_SETS[isa], weights=cache)
        if self.bundle is None:
            plain = self._suppressed if how.suppress_outliers else self.plain
            ranges = dict.fromkeys((layer.source for layer in linears(plain)), ANYWHERE)
            return recipe.make(dataclasses.replace(source, plain=plain, ranges=ranges))
        # Histograms do not depend on the method: one calibrator for each rescaling.
        key = dataclasses.replace(how, method="minmax")
        if key not in self.calibrators:
            self.calibrators[key] = Calibrator(self.bundle, self.plain, how, text=None, progress=_silent)
        return recipe.make(self.calibrators[key].apply(source, recipe, method=how.method))

    @cached_property
    def _suppressed(self) -> onnx.ModelProto:
        """The graph with every activation that may be shifted and scaled so: at most what it costs on real text.

        The inputs of the layers that make a wide vector narrow, behind GELU, are rotated by blocks of 64.
        """
        free = changeable(self.plain, linears(self.plain))
        behind = [layer for layer in free if len(layer.weights) > layer.weights.shape[1] and not layer.flat]
        blocks = {layer.source: BLOCKS[-1] for layer in behind if len(layer.weights) % BLOCKS[-1] == 0}
        plain = rotate_blocks(self.plain, free, blocks)
        layers = changeable(plain, linears(plain))
        chosen = {
            layer.source: ShiftAndScale(
                shift=np.linspace(-0.1, 0.1, len(layer.weights), dtype=np.float32),
                scale=np.linspace(1, 2, len(layer.weights), dtype=np.float32),
            )
            for layer in layers
        }
        return suppress_outliers(plain, layers, chosen)


def _silent(stage: str, done: int, count: int) -> None:
    """Say nothing."""
