"""An 8-bit variant of a model of random weights, with what held the budget on another: the price of fidelity, kept.

Random weights have no outliers, so that what is made of them by default would have no channel in float and no layer in
higher precision, and would be faster than the recipe is on a model that somebody trained.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.quantize.graph.fusion import fuse, load_plain
from bertport.quantize.graph.rewrite import rewrite
from bertport.quantize.graph.storage import write_graph
from bertport.quantize.isa import saturates
from bertport.quantize.recipes.dynamic import DynamicEmitter
from bertport.quantize.weights.cache import WeightCache
from bertport.quantize.weights.outliers import DecompositionPlan
from bertport.runtime.bundle.changes import add_variant
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.manifest import Variant
from bertport.runtime.bundle.requirements import requires_of
from bertport.runtime.bundle.workspace import Workspace
from bertport.runtime.providers.cpu import INSTRUCTION_SETS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertport.quantize.graph.rewrite import Linear

__all__ = ["VARIANT", "Shares", "add_like", "shares_of"]

VARIANT, FILE = "int8-dynamic", "onnx/model_int8_dynamic.onnx"
FACTORS = ".factors"
"""End of the names of the constants that treated activations are multiplied by; 0 keeps a channel in float."""
LAYER = re.compile(r"(?<=layer\.)\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Shares of the channels of a layer's inputs that a recipe treats as outliers."""

    kept_in_float: float
    """Share of those that are kept in float."""
    divided: float
    """Share of those that are divided."""


def shares_of(bundle: Path, variant: str = VARIANT) -> dict[str, Shares]:
    """Return what a bundle's 8-bit variant does to each layer's channels, by its name; others it leaves alone."""
    import onnx

    model = onnx.load(bundle / Bundle.open(bundle).manifest.variants[variant].file)
    factors = {
        constant.name.removesuffix(FACTORS): onnx.numpy_helper.to_array(constant)
        for constant in model.graph.initializer
        if constant.name.endswith(FACTORS)
    }
    return {
        name: Shares(kept_in_float=float(np.mean(values == 0)), divided=float(np.mean((values != 0) & (values != 1))))
        for name, values in factors.items()
    }


class _Imposed(WeightCache):
    """Weights rounded to the nearest, for activations whose channels are treated in given shares.

    Args:
        saturating: Whether the instruction set adds pairs of products in 16 bits.
        shares: By the name of a layer of another model.
        layers: How many layers that model has for one of this one's.
    """

    def __init__(self, *, saturating: bool, shares: Mapping[str, Shares], layers: float) -> None:
        super().__init__(saturating=saturating)
        self._shares, self._layers = shares, layers

    def plan(self, linear: Linear) -> DecompositionPlan | None:
        """Return how the layer's activations are decomposed: as in the same place of the other model."""
        shares = self._shares.get(LAYER.sub(lambda number: str(int(int(number[0]) * self._layers)), linear.name))
        if shares is None:
            return None
        factors = np.ones(len(linear.weights), dtype=np.float32)
        kept, divided = (round(share * len(factors)) for share in (shares.kept_in_float, shares.divided))
        factors[:kept], factors[kept : kept + divided] = 0, 0.5
        return DecompositionPlan(factors=factors)


def add_like(bundle: Path, model: Path, *, instruction_set: str) -> None:
    """Add an int8-dynamic variant to a bundle, with the shares and the higher precision of another bundle's.

    Args:
        bundle: The bundle, of a model of the same family.
        model: The other bundle.
        instruction_set: What the variant is made for.
    """
    target, other = Bundle.open(bundle), Bundle.open(model)
    isa = INSTRUCTION_SETS.get(instruction_set)
    measured: dict[str, Any] = other.manifest.variants[VARIANT].fidelity or {}
    with target.opening("fp32") as path:
        fused = fuse(load_plain(path), target.manifest.architecture)
    emitter = DynamicEmitter(
        weights=_Imposed(
            saturating=saturates(isa),
            shares=shares_of(model),
            layers=other.manifest.architecture.layers / target.manifest.architecture.layers,
        ),
        high_precision_layers=frozenset(measured.get("higher_precision", ())),
        float_fallback=measured.get("higher_is") == "float32",
    )
    made = rewrite(fused, emitter)
    with Workspace.beside(target) as work:
        file = work.reserve(FILE)
        graph = work.directory / Path(file).name
        weights = {str(PurePosixPath(file).with_name(part.name)): part for part in write_graph(made, graph)}
        variant = Variant(
            file=file,
            external_data=tuple(weights),
            kind="serving",
            recipe=VARIANT,
            requires=requires_of(made, precision=VARIANT, isa=isa.name if isa else None),
            outputs=target.manifest.variants["fp32"].outputs,
        )
        add_variant(work, VARIANT, variant, {file: graph, **weights})
