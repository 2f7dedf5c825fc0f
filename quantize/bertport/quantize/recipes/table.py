"""The recipes, one row each: what a variant is, where it runs, and the function that makes its graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertport.quantize.calibration.ranges import SCHEMES
from bertport.quantize.graph.rewrite import rewrite
from bertport.quantize.recipes.dynamic import DynamicEmitter
from bertport.quantize.recipes.fp16 import convert_to_fp16
from bertport.quantize.recipes.qdq import QdqEmitter
from bertport.quantize.recipes.weight_only import WeightOnlyEmitter
from bertport.runtime.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import onnx

    from bertport.quantize.calibration.ranges import QuantizationScheme
    from bertport.quantize.graph.rewrite import Emitter
    from bertport.quantize.recipes.source import GraphSource

__all__ = ["RECIPES", "Recipe", "recipe_named", "searchable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One way of making a smaller or faster variant."""

    name: str
    """Name of the recipe, and of the variant it makes."""
    summary: str
    """Summary of the recipe in words, for people."""
    file: str
    """Path of the graph inside the bundle; where it writes none, that of fp32."""
    providers: tuple[str, ...]
    """Short names of the providers it is for, best first; those whose rows have its precision."""
    precision: str
    """Precision of its products, as manifests name it."""
    size: float
    """Share of fp32's size that a BERT-base takes, about; 0 where nothing is added."""
    by_instruction_set: bool
    """Whether the graph depends on the CPU's instruction set."""
    for_size: bool
    """Whether it is meant to be small rather than fast: being slower than fp32 is stated and not refused."""
    make: Callable[[GraphSource], onnx.ModelProto]
    """Makes the graph."""
    shares_fp32: bool = False
    """Whether its variant is the fp32 serving graph's files, which the provider computes in another precision."""
    timed_against: str | None = None
    """Short name of the provider that fp32 is timed on; None for the one that the variant is timed on."""
    calibrates_weights: bool = False
    """Whether 8-bit weights are calibrated on what goes into their layers on the calibration text."""
    int16_activations: bool = False
    """Whether single layers can get more than 8 bits without going to float32."""
    fallback: str = "float32"
    """Precision of layers left in a higher one, where that is not 16-bit activations, as manifests name it."""
    scheme: QuantizationScheme | None = None
    """Quantization scheme of calibrated activations; None where nothing is calibrated."""
    emitter: Callable[[GraphSource], Emitter] | None
    """Writes its linear layers, so that single ones can be timed and left in higher precision to hold a budget; None
    where that cannot be."""

    @property
    def takes_plain(self) -> bool:
        """Whether it makes its graph from the one of standard operators: calibrated, or converted as a whole."""
        return self.scheme is not None or (self.emitter is None and not self.shares_fp32)

    def graph(self, source: GraphSource) -> onnx.ModelProto:
        """Return the graph whose layers the emitter writes: calibrated ones are made of standard operators."""
        return source.plain if self.scheme else source.fused


def _dynamic(source: GraphSource) -> Emitter:
    return DynamicEmitter(
        weights=source.weights, high_precision_layers=source.high_precision_layers, float_fallback=source.float_fallback
    )


def _weights_8(source: GraphSource) -> Emitter:
    return WeightOnlyEmitter(bits=8, block=64, high_precision_layers=source.high_precision_layers)


def _weights_4(source: GraphSource) -> Emitter:
    return WeightOnlyEmitter(bits=4, block=32, high_precision_layers=source.high_precision_layers)


def _qdq(scheme: QuantizationScheme) -> Callable[[GraphSource], Emitter]:
    return lambda source: QdqEmitter(
        weights=source.weights,
        ranges=source.ranges,
        scheme=scheme,
        high_precision_layers=source.high_precision_layers,
        float_fallback=source.float_fallback,
    )


def _rewritten(emitter: Callable[[GraphSource], Emitter]) -> Callable[[GraphSource], onnx.ModelProto]:
    return lambda source: rewrite(source.fused, emitter(source))


def _standard(emitter: Callable[[GraphSource], Emitter]) -> Callable[[GraphSource], onnx.ModelProto]:
    return lambda source: rewrite(source.plain, emitter(source))


def _fp32(source: GraphSource) -> onnx.ModelProto:
    return source.plain


RECIPES: dict[str, Recipe] = {
    row.name: row
    for row in (
        Recipe(
            name="int8-dynamic",
            summary="weights and activations in 8 bits, activation scales made at run time for each token",
            file="onnx/model_int8_dynamic.onnx",
            providers=("cpu",),
            precision="int8-dynamic",
            size=0.25,
            by_instruction_set=True,
            for_size=False,
            make=_rewritten(_dynamic),
            calibrates_weights=True,
            int16_activations=True,
            emitter=_dynamic,
        ),
        Recipe(
            name="int8-static",
            summary="calibrated activations (QDQ), symmetric, standard operators: what TensorRT multiplies in 8 bits",
            file="onnx/model_int8_static.onnx",
            providers=("tensorrt", "cuda", "tensorrt-rtx"),
            precision="int8-static-symmetric",
            size=0.25,
            by_instruction_set=False,
            for_size=False,
            make=_standard(_qdq(SCHEMES["s8"])),
            scheme=SCHEMES["s8"],
            int16_activations=True,
            emitter=_qdq(SCHEMES["s8"]),
        ),
        Recipe(
            name="int8-static-cpu",
            summary="the same with unsigned activations, over the range that occurs, for CPUs",
            file="onnx/model_int8_static_cpu.onnx",
            providers=("cpu", "openvino"),
            precision="int8-static",
            size=0.25,
            by_instruction_set=True,
            for_size=False,
            make=_standard(_qdq(SCHEMES["u8"])),
            scheme=SCHEMES["u8"],
            int16_activations=True,
            emitter=_qdq(SCHEMES["u8"]),
        ),
        Recipe(
            name="int8-weight-only",
            summary="weights in 8 bits by blocks of 64: the nearest to fp32, slower than fp32 on some machines",
            file="onnx/model_int8_weight_only.onnx",
            providers=("cpu",),
            precision="int8-weight-only",
            size=0.27,
            by_instruction_set=False,
            for_size=True,
            make=_rewritten(_weights_8),
            emitter=_weights_8,
        ),
        Recipe(
            name="int4-weight-only",
            summary="layers in 4 bits by blocks of 32, tables in 8: the smallest, slower than fp32 on some machines",
            file="onnx/model_int4_weight_only.onnx",
            providers=("cpu",),
            precision="int4-weight-only",
            size=0.18,
            by_instruction_set=False,
            for_size=True,
            fallback="8-bit weights",
            make=_rewritten(_weights_4),
            emitter=_weights_4,
        ),
        Recipe(
            name="fp16",
            summary="weights and arithmetic in 16 bits, standard operators, masks that do not overflow",
            file="onnx/model_fp16.onnx",
            providers=("cuda", "tensorrt", "tensorrt-rtx"),
            precision="fp16",
            size=0.5,
            by_instruction_set=False,
            for_size=False,
            make=convert_to_fp16,
            emitter=None,
        ),
        Recipe(
            name="bf16",
            summary="the fp32 graph, its products in bfloat16: no file of its own, for CPUs that multiply bfloat16",
            file="onnx/model_serving.onnx",
            providers=("openvino",),
            precision="bf16",
            size=0.0,
            by_instruction_set=False,
            for_size=False,
            make=_fp32,
            shares_fp32=True,
            timed_against="cpu",
            emitter=None,
        ),
    )
}
"""By name, in the order of `bertport quantize --list`; the first is the default."""


def recipe_named(name: str, known: Iterable[str] = RECIPES) -> Recipe:
    """Return a row of the table.

    Raises:
        UnknownNameError: for a name that is not in it.
    """
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, known, "see bertport quantize --list")
    return RECIPES[name]


def searchable() -> list[str]:
    """Name the recipes whose layers can be left in higher precision one by one."""
    return [name for name, row in RECIPES.items() if row.emitter is not None]
