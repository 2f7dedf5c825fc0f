"""The graph source: what a recipe makes a graph from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

    from bertport.quantize.calibration.ranges import Range
    from bertport.quantize.weights.cache import WeightCache
    from bertport.runtime.providers.cpu import InstructionSet

__all__ = ["GraphSource"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSource:
    """Source of a recipe's graph: the fp32 graphs, cached 8-bit weights, calibrated ranges, and precisions."""

    plain: onnx.ModelProto
    """The fp32 serving graph of standard operators, its weights in memory; not to be changed. Where no recipe takes it,
    the fused one stands here, so that the weights are held once."""
    fused: onnx.ModelProto
    """The same with its layers fused into ONNX Runtime's operators, its weights in memory; not to be changed."""
    instruction_set: InstructionSet | None
    """The CPU instruction set to make it for; None for a CPU of which nothing is known."""
    weights: WeightCache
    """Weights in 8 bits, shared by the graphs of a search."""
    ranges: Mapping[str, Range] = field(default_factory=dict)
    """Calibrated range of each activation, by its name in `plain`; empty for recipes that need none."""
    high_precision_layers: frozenset[str] = field(default_factory=frozenset)
    """Linear layers to leave in higher precision."""
    float_fallback: bool = False
    """Whether these compute in float32, where a recipe has something between that and 8 bits."""
