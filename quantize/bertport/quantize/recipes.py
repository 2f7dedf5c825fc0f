"""The recipes, one row each: what a variant is, where it runs, and the function that makes its graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bertport.quantize.int8 import Int8Emitter, WeightCache
from bertport.quantize.rewrite import rewrite
from bertport.runtime.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import onnx

    from bertport.runtime.machine import InstructionSet

__all__ = ["RECIPES", "Recipe", "Request", "recipe_named"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a graph is made from."""

    fused: onnx.ModelProto
    """The fp32 serving graph, fused, its weights in memory; not to be changed."""
    instruction_set: InstructionSet | None
    """The CPU instruction set to make it for; None for a CPU of which nothing is known."""
    weights: WeightCache
    """Weights in 8 bits, shared by the graphs of a search."""
    higher: frozenset[str] = field(default_factory=frozenset)
    """Linear layers to leave in higher precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One way of making a smaller or faster variant."""

    name: str
    """Name of the recipe, and of the variant it makes."""
    summary: str
    """What it does, for people."""
    file: str
    """Path of the graph inside the bundle."""
    providers: tuple[str, ...]
    """Short names of the providers it is for, best first."""
    size: float
    """Share of fp32's size that a BERT-base takes, about."""
    by_instruction_set: bool
    """Whether the graph depends on the CPU's instruction set."""
    for_size: bool
    """Whether it is meant to be small rather than fast: being slower than fp32 is stated and not refused."""
    searchable: bool
    """Whether layers can be left in higher precision to hold an accuracy budget."""
    make: Callable[[Request], onnx.ModelProto]
    """Makes the graph."""


def _int8_dynamic(request: Request) -> onnx.ModelProto:
    return rewrite(request.fused, Int8Emitter(weights=request.weights, higher=request.higher))


RECIPES: dict[str, Recipe] = {
    row.name: row
    for row in (
        Recipe(
            name="int8-dynamic",
            summary="weights and activations in 8 bits, activation scales made at run time for each token",
            file="onnx/model_int8_dynamic.onnx",
            providers=("cpu",),
            size=0.25,
            by_instruction_set=True,
            for_size=False,
            searchable=True,
            make=_int8_dynamic,
        ),
    )
}
"""By name, in the order of `bertport quantize --list`; the first is the default."""


def recipe_named(name: str, known: Iterable[str] = RECIPES) -> Recipe:
    """Give a row of the table.

    Raises:
        UnknownNameError: for a name that is not in it.
    """
    if name not in RECIPES:
        kind = "recipe"
        raise UnknownNameError(kind, name, known, "see bertport quantize --list")
    return RECIPES[name]
