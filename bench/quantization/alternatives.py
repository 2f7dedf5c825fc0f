"""The ways of quantizing that were tried, one row each: what ships, and what was measured beside it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bertport.quantize.calibration.ranges import DEFAULT, DEFAULT_METHOD, METHODS, Calibration
from bertport.quantize.graph.builder import LEAST_OPSET, MICROSOFT, GraphBuilder
from bertport.quantize.graph.rewrite import Linear, linears, rewrite
from bertport.quantize.recipes.common import add_bias
from bertport.quantize.recipes.dynamic import DynamicEmitter
from bertport.quantize.recipes.weight_only import WeightOnlyEmitter
from bertport.quantize.weights.cache import WeightCache
from bertport.quantize.weights.calibrated import CalibratedWeights
from bertport.quantize.weights.rounding import Quantized
from bertport.runtime.providers.table import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx
    from numpy.typing import NDArray

    from bench.quantization.material import Material

__all__ = ["ALTERNATIVES", "Alternative"]


class SevenBits(WeightCache):
    """Weights in 7 bits, the usual remedy for saturation (`reduce_range`)."""

    def __init__(self) -> None:
        super().__init__(saturating=False)
        self._method = seven_bits


def seven_bits(weights: NDArray[np.float32]) -> Quantized:
    """Quantize each column to -63 to 63."""
    scales = (np.maximum(np.abs(weights).max(axis=0), 1e-30) / 63).astype(np.float32)
    return Quantized(values=np.rint(weights / scales).astype(np.int8), scales=scales)


@dataclass(frozen=True, slots=True, kw_only=True)
class PerBatch(DynamicEmitter):
    """One activation scale for the whole batch, as ONNX Runtime's own tools make it (DynamicQuantizeMatMul)."""

    def linear(self, builder: GraphBuilder, linear: Linear) -> None:
        """Write one linear layer."""
        values, scales = self._stored(builder, linear)
        product = linear.output if linear.bias is None else f"{linear.output}.product"
        builder.node("DynamicQuantizeMatMul", [linear.source, values, scales], product, domain=MICROSOFT)
        if linear.bias is not None:
            builder.node("Add", [product, linear.bias], linear.output)


@dataclass(frozen=True, slots=True, kw_only=True)
class DividedFirst(DynamicEmitter):
    """A division before one scale rounds all tokens, and GELU by erf: in opset 17, without scales by block."""

    opset: ClassVar[int] = LEAST_OPSET
    tanh_gelu: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsigned(DynamicEmitter):
    """Unsigned weights and activations (U8U8), which AVX2 multiplies in 16 bits without saturating."""

    def linear(self, builder: GraphBuilder, linear: Linear) -> None:
        """Write one linear layer; a tied decoder gets a second copy of its table."""
        made = self.weights.linear(linear)
        shifted = (made.values.astype(np.int16) + 128).astype(np.uint8)
        values = builder.constant(f"{linear.name}.uint8", shifted)
        scales = builder.constant(f"{linear.name}.unsigned_scales", made.scales)
        sized = builder.node("Abs", [linear.source], f"{linear.source}.absolute")
        largest = builder.reduce_max(sized, f"{linear.source}.largest")
        shares = builder.node("Div", [linear.source, largest], f"{linear.source}.shares")
        scale, zero = builder.scalar(1 / 127, np.float32), builder.scalar(128, np.uint8)
        quantized = builder.node("QuantizeLinear", [shares, scale, zero], f"{linear.source}.quantized")
        zeros = builder.constant(f"{linear.name}.zeros", np.full(len(made.scales), 128, dtype=np.uint8))
        product = builder.node(
            "MatMulIntegerToFloat",
            [quantized, values, scale, scales, zero, zeros],
            f"{linear.output}.product",
            domain=MICROSOFT,
        )
        add_bias(builder, "Mul", [product, largest], linear)


class DecomposedOnly(CalibratedWeights):
    """Outlier channels divided or kept in float; weights rounded to the nearest."""

    def _round(self, weights: NDArray[np.float32], gram: NDArray[np.float64], count: int) -> Quantized:  # noqa: ARG002
        return self._method(weights)


def _calibrated(
    kind: type[CalibratedWeights],
    emitter: type[DynamicEmitter] = DynamicEmitter,
    *,
    saturating: bool,
    decomposes: bool = True,
    keeps_in_float: bool = True,
) -> Callable[[Material], onnx.ModelProto]:
    def make(given: Material) -> onnx.ModelProto:
        weights = kind(
            saturating=saturating,
            layers=linears(given.fused),
            activations=given.activations,
            text={},
            decomposes=decomposes,
            keeps_in_float=keeps_in_float,
        )
        return rewrite(given.fused, emitter(weights=weights))

    return make


def _dynamic(
    emitter: type[DynamicEmitter], weights: Callable[[], WeightCache]
) -> Callable[[Material], onnx.ModelProto]:
    return lambda given: rewrite(given.fused, emitter(weights=weights()))


def _weight_only(bits: int, block: int) -> Callable[[Material], onnx.ModelProto]:
    return lambda given: rewrite(given.fused, WeightOnlyEmitter(bits=bits, block=block))


def _qdq(
    how: Calibration = DEFAULT, *, form: str = "int8-static-cpu", isa: str = "avx2"
) -> Callable[[Material], onnx.ModelProto]:
    return lambda given: given.static(form, how, isa)


def _stock(*, reduce_range: bool) -> Callable[[Material], onnx.ModelProto]:
    """Use ONNX Runtime's quantize_dynamic on the fused graph, signed weights per channel."""

    def make(given: Material) -> onnx.ModelProto:
        import logging

        onnxruntime()
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        named = onnx.ModelProto()
        named.CopyFrom(given.fused)  # the optimizer forgets to name the domain of its operators
        if not any(opset.domain == MICROSOFT for opset in named.opset_import):
            named.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))
        logging.disable(logging.WARNING)
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "quantized.onnx"
            quantize_dynamic(
                named,
                path,
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=reduce_range,
                extra_options={"DefaultTensorType": 1},  # shape inference stops at fused operators
            )
            made = onnx.load(path)
        logging.disable(logging.NOTSET)
        return made

    return make


def _naive() -> WeightCache:
    return WeightCache(saturating=False)


def _safe() -> WeightCache:
    return WeightCache(saturating=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One way of quantizing."""

    name: str
    """Short name, for tables."""
    what: str
    """Description in words."""
    make: Callable[[Material], onnx.ModelProto]
    """Makes its graph."""
    config: Mapping[str, str] = field(default_factory=dict)
    """Session configuration that goes with it."""
    timed: bool = True
    """Whether it is among those that are timed: others differ from one of them in numbers only."""


AS_DEFINED = {"session.disable_quant_qdq": "1"}
"""QuantizeLinear and DequantizeLinear as ONNX defines them: what TensorRT computes, without TensorRT."""

ALTERNATIVES = {
    alternative.name: alternative
    for alternative in (
        Alternative(
            name="int8-dynamic",
            what="ships: scale per token, full range, fitted",
            make=_calibrated(CalibratedWeights, saturating=False),
        ),
        Alternative(
            name="int8-dynamic avx2",
            what="ships: scale per token, pair-safe weights, fitted",
            make=_calibrated(CalibratedWeights, saturating=True),
        ),
        Alternative(
            name="divided first",
            what="a division before rounding, GELU by erf, pair-safe weights, fitted",
            make=_calibrated(CalibratedWeights, DividedFirst, saturating=True),
        ),
        Alternative(
            name="compensated alone",
            what="no channel divided or taken out",
            make=_calibrated(CalibratedWeights, saturating=True, decomposes=False),
            timed=False,
        ),
        Alternative(
            name="treated alone",
            what="rounded to the nearest",
            make=_calibrated(DecomposedOnly, saturating=True),
            timed=False,
        ),
        Alternative(
            name="none taken out",
            what="outlier channels divided, none computed in float32",
            make=_calibrated(CalibratedWeights, saturating=True, keeps_in_float=False),
        ),
        Alternative(
            name="not fitted", what="scale per token, full range", make=_dynamic(DynamicEmitter, _naive), timed=False
        ),
        Alternative(
            name="not fitted avx2", what="scale per token, pair-safe", make=_dynamic(DynamicEmitter, _safe), timed=False
        ),
        Alternative(name="seven bits", what="scale per token, reduce_range", make=_dynamic(DynamicEmitter, SevenBits)),
        Alternative(name="U8U8", what="scale per token, unsigned weights", make=_dynamic(Unsigned, _naive)),
        Alternative(
            name="x64quantprecision",
            what="scale per token, full range, session.x64quantprecision=1",
            make=_dynamic(DynamicEmitter, _naive),
            config={"session.x64quantprecision": "1"},
        ),
        Alternative(name="per batch", what="one scale for the batch, full range", make=_dynamic(PerBatch, _naive)),
        Alternative(
            name="per batch avx2", what="one scale for the batch, pair-safe weights", make=_dynamic(PerBatch, _safe)
        ),
        Alternative(name="stock", what="quantize_dynamic on the fused graph", make=_stock(reduce_range=False)),
        Alternative(name="stock reduce_range", what="the same with reduce_range=True", make=_stock(reduce_range=True)),
        Alternative(
            name="int8-static",
            what="ships: QDQ, symmetric, levelled, fitted, as ONNX defines it",
            make=_qdq(form="int8-static"),
            config=AS_DEFINED,
            timed=False,
        ),
        *(
            Alternative(name=name, what=what, make=_qdq(how, form="int8-static"), config=AS_DEFINED, timed=False)
            for name, what, how in (
                ("static, not levelled", "symmetric, weights fitted", Calibration(suppress_outliers=False)),
                ("static, not fitted", "symmetric, levelled", Calibration(gptq=False)),
                ("static, not rotated", "symmetric, levelled, weights fitted", Calibration(rotate=False)),
                ("static, neither", "symmetric", Calibration(suppress_outliers=False, gptq=False, rotate=False)),
            )
        ),
        Alternative(
            name="static, none kept",
            what="QDQ, unsigned, pair-safe weights, no channel kept in float32",
            make=_qdq(Calibration(keep_in_float=False)),
            timed=False,
        ),
        *(
            Alternative(
                name="int8-static-cpu" if method == DEFAULT_METHOD else f"static, {method}",
                what=f"{'ships: ' if method == DEFAULT_METHOD else ''}QDQ, unsigned, pair-safe weights, {method}",
                make=_qdq(Calibration(method=method)),
                timed=method == DEFAULT_METHOD,
            )
            for method in METHODS
        ),
        Alternative(name="int8-weight-only", what="ships: 8 bits, blocks of 64", make=_weight_only(8, 64)),
        Alternative(name="8 bits, blocks of 32", what="MatMulNBits", make=_weight_only(8, 32)),
        Alternative(name="8 bits, blocks of 128", what="MatMulNBits", make=_weight_only(8, 128)),
        Alternative(name="int4-weight-only", what="ships: 4 bits, blocks of 32", make=_weight_only(4, 32)),
        Alternative(name="4 bits, blocks of 64", what="MatMulNBits", make=_weight_only(4, 64)),
    )
}
"""By name."""
