"""Outlier Suppression+: per-channel shift and scale before static quantization, undone in the weights.

What it leaves of the outliers is a few channels, which are kept in float (outlier decomposition, as in
`weights/outliers.py`).

A static scale must cover every channel of an activation. After a LayerNorm of a trained BERT a few channels are ten
times wider than the rest, or lie far from 0; GELU gives a long positive end and a short negative one. With z the shift
and d the scale of each channel,

    x W + b  =  ((x - z) / d) (d W) + (b + z W)

holds for every z and d, so the graph is rewritten before it is calibrated, and only the vector (x - z) / d is rounded
(Outlier Suppression+, Wei et al. 2023, arXiv 2304.09145, without its folding into LayerNorm, whose output BERT adds to
the next layer's as well). The weights take the rest, each column with a scale of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from bertport.quantize.calibration.rounding_error import least_rounding_error
from bertport.quantize.calibration.statistics import Activations, magnitudes
from bertport.quantize.graph.layer_inputs import change_inputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import onnx
    import onnx_ir as ir
    from numpy.typing import NDArray

    from bertport.quantize.graph.rewrite import Linear

    Array = NDArray[np.float32]

__all__ = [
    "SUPPRESSED",
    "ShiftAndScale",
    "choose_shifts_and_scales",
    "suppress_outliers",
    "suppressed",
]

SUPPRESSED = ".levelled"
"""Suffix of the names of shifted and scaled activations; the fingerprints of ranges in manifests depend on it."""
WORTH = 0.8
"""The share of the squared error that must be left at most: shifting and dividing cost a pass over the activations."""
ROWS = 160
"""Tokens on which a choice is judged, at most: hundreds of choices are compared for each activation."""
QUANTILES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
"""Quantiles of the channels' widths that are tried: wider channels are divided."""
POWERS = (0.5, 0.75, 1.0)
"""Powers of the widths by which all channels are divided: 1 makes all equally wide."""
OF_WEIGHTS = 0.3
"""Share of the squared rounding error of the weights that remains after GPTQ, approximately."""
KEPT_IN_FLOAT = (4, 8, 16, 32)
"""Numbers of channels that are tried for keeping in float."""
LARGEST_SHARE = 0.03
"""The share of the channels that is kept in float at most: a product of more in float32 would cost what 8 bits save."""
WORTH_KEEPING = 0.8
"""The share of the squared error that must be left at most where channels are kept in float, or twice as many."""
WORTH_SHIFTING = 0.85
"""The share of it that shifts must leave at most of what a scale alone leaves: they cost a pass of their own."""


def _no_channels() -> NDArray[np.int64]:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftAndScale:
    """Shift and scale of an activation before it is rounded."""

    shift: Array
    """Shift of each channel, which is subtracted. Shape: (channels,)"""
    scale: Array
    """Scale of each channel, by which it is then divided. Shape: (channels,)"""
    kept_in_float: NDArray[np.int64] = field(default_factory=_no_channels)
    """The channels that are not rounded, in their order: they are multiplied apart, in float32."""

    @property
    def changes(self) -> bool:
        """Whether anything is shifted or scaled."""
        return bool(self.shift.any() or (self.scale != 1).any())


def choose_shifts_and_scales(
    layers: Sequence[Linear], activations: Mapping[str, Activations], *, keeps: bool = True
) -> dict[str, ShiftAndScale]:
    """Choose shift and scale, and the channels kept in float, of the activations that gain by it, by name.

    Args:
        layers: All layers whose inputs may be shifted and scaled: nothing else may use their weights and biases.
        activations: What goes into them.
        keeps: Whether channels may be kept in float.
    """
    chosen = {}
    for source in dict.fromkeys(layer.source for layer in layers):
        takers = [layer for layer in layers if layer.source == source]
        weights = np.concatenate([layer.weights for layer in takers], axis=1)
        # For the few rows of a head a product in float costs more than it spares.
        several = keeps and not any(layer.flat for layer in takers)
        if source in activations and (best := _best(activations[source], weights, keeps=several)):
            chosen[source] = best
    return chosen


def _best(given: Activations, weights: Array, *, keeps: bool) -> ShiftAndScale | None:
    """Find the shift, the scale and the channels kept in float that leave the least error in the product.

    Args:
        given: What goes into the layers.
        weights: Their matrices, side by side.
        keeps: Whether channels may be kept in float.

    Returns:
        None where nothing is worth its cost.
    """
    plain = ShiftAndScale(shift=np.zeros_like(given.lowest), scale=np.ones_like(given.lowest))
    before = _error(given, weights, plain)
    least, levelled = _least(given, weights, [by for by in _candidates(given) if not by.shift.any()])
    shifting, shifted = _least(given, weights, [by for by in _candidates(given) if by.shift.any()] or [plain])
    if shifting <= WORTH_SHIFTING * least:
        least, levelled = shifting, shifted
    if least > WORTH * before:
        least, levelled = before, plain
    best = levelled
    widths = _widths(given, plain.shift)
    bases = (levelled, _candidate(plain.shift, np.sqrt(widths / np.median(widths))))
    for count in KEPT_IN_FLOAT if keeps else ():
        if count > LARGEST_SHARE * len(given.lowest):
            break
        left, plan = _least(given, weights, _keeping(given, weights, bases, count))
        if left <= WORTH_KEEPING * least:
            least, best = left, plan
    return best if best is not plain else None


def _least(given: Activations, weights: Array, candidates: Iterable[ShiftAndScale]) -> tuple[float, ShiftAndScale]:
    """Return the least error, and what leaves it; of equal ones the first."""
    error, _, best = min((_error(given, weights, by), index, by) for index, by in enumerate(candidates))
    return error, best


def _keeping(given: Activations, weights: Array, bases: Iterable[ShiftAndScale], count: int) -> Iterator[ShiftAndScale]:
    """Yield what keeps some channels in float: the largest that are left, or those whose rounding costs most."""
    of_rows = np.square(weights).sum(axis=1)
    for by in bases:
        for rank in (magnitudes((given.rows - by.shift) / by.scale), of_rows * np.square(by.scale)):
            kept = np.sort(np.argsort(-rank, kind="stable")[:count])
            yield replace(by, kept_in_float=kept.astype(np.int64))


def _candidates(given: Activations) -> Iterator[ShiftAndScale]:
    low, high = given.lowest, given.highest
    ends = np.quantile(given.rows, [0.002, 0.998], axis=0)
    whole = np.full_like(low, (low.min() + high.max()) / 2)
    for shift in (np.zeros_like(low), whole, (low + high) / 2, ends.mean(axis=0)):
        width = _widths(given, shift)
        yield _candidate(shift, np.ones_like(width))
        for quantile in QUANTILES:
            above = np.maximum(1, width / np.quantile(width, quantile))
            yield _candidate(shift, np.sqrt(above))
            yield _candidate(shift, above)
        for power in POWERS:
            yield _candidate(shift, (width / np.median(width)) ** power)


def _widths(given: Activations, shift: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return how far each channel goes from its shift."""
    furthest = np.maximum(given.highest - shift, shift - given.lowest)
    widths: NDArray[np.floating] = np.maximum(furthest, np.finfo(np.float32).tiny * 1e6)
    return widths


def _candidate(shift: NDArray[np.floating], scale: NDArray[np.floating]) -> ShiftAndScale:
    # Channels that are always 0 would be divided by next to nothing.
    return ShiftAndScale(shift=shift.astype(np.float32), scale=np.maximum(scale, 1e-3).astype(np.float32))


def _error(given: Activations, weights: Array, by: ShiftAndScale) -> float:
    """Estimate the squared error that rounding leaves in the product for each token: of activations and weights."""
    rounded = np.ones(len(weights), dtype=bool)
    rounded[by.kept_in_float] = False
    rows = ((given.rows[:: max(1, len(given.rows) // ROWS)] - by.shift) / by.scale)[:, rounded]
    matrix = (weights * by.scale[:, None])[rounded]
    scaled = np.square(matrix).sum(axis=1)
    ends = np.stack([given.lowest, given.highest])
    furthest = np.abs((ends - by.shift) / by.scale)[:, rounded].max()
    steps = np.square(np.abs(matrix).max(axis=0) / 127).sum() / 12
    of_weights = OF_WEIGHTS * steps * np.square(rows).mean(axis=0).sum()

    return least_rounding_error(rows, scaled, float(furthest)) + float(of_weights)


def suppressed(given: Activations, by: ShiftAndScale) -> Activations:
    """Return what is known of an activation once it is shifted and scaled."""
    shift = by.shift.astype(np.float64)
    moved = np.outer(given.mean, shift)
    gram = given.gram + given.count * (np.outer(shift, shift) - moved - moved.T)
    ends = (given.lowest - by.shift) / by.scale, (given.highest - by.shift) / by.scale
    return Activations(
        gram=(gram / np.outer(by.scale, by.scale)).astype(np.float32),
        mean=(given.mean - by.shift) / by.scale,
        lowest=ends[0],
        highest=ends[1],
        rows=(given.rows - by.shift) / by.scale,
        count=given.count,
    )


def suppress_outliers(
    model: onnx.ModelProto, layers: Iterable[Linear], chosen: Mapping[str, ShiftAndScale]
) -> onnx.ModelProto:
    """Return the graph with its activations shifted and scaled, which computes what it did but for the last bits.

    Args:
        model: The serving graph of standard operators, its weights in memory; it is not changed.
        layers: As `layer_inputs.changeable` returns them, in the order in which they run.
        chosen: Shift and scale, by name of the activation.
    """
    return change_inputs(model, layers, chosen, insert=_shift_and_scale, matrix=_scaled_rows, bias=_shifted_bias)


def _shifted_bias(layer: Linear, by: ShiftAndScale, bias: Array) -> Array:
    """Return the bias that undoes the shift: b + z W."""
    return (bias + by.shift.astype(np.float64) @ layer.weights).astype(np.float32)


def _scaled_rows(layer: Linear, by: ShiftAndScale) -> Array:
    """Return the weights that undo the scale: d W."""
    return layer.weights * by.scale[:, None]


def _shift_and_scale(graph: ir.Graph, source: ir.Value, by: ShiftAndScale, before: ir.Node) -> ir.Value:
    """Insert the nodes that shift and scale an activation, and store their vectors; idle steps are left out."""
    import onnx_ir as ir

    steps = []
    if by.shift.any():
        # One number for all channels is stored as one.
        shift = by.shift if np.ptp(by.shift) else by.shift[:1]
        steps.append(("Sub", shift, ".shift"))
    if np.ptp(by.scale) or by.scale[0] != 1:
        steps.append(("Mul", np.reciprocal(by.scale), ".factors"))
    value = source
    for number, (operator, vector, ending) in enumerate(steps, 1):
        name = f"{source.name}{ending}"
        tensor = ir.tensor(vector.astype(np.float32), name=name)
        dtype = ir.TensorType(ir.DataType.FLOAT)
        constant = ir.Value(name=name, shape=ir.Shape(vector.shape), type=dtype, const_value=tensor)
        graph.register_initializer(constant)
        output = f"{source.name}{SUPPRESSED}" + ("" if number == len(steps) else f".{number}")
        node = ir.node(operator, [value, constant], outputs=[ir.Value(name=output)], name=f"{output}/{operator}")
        graph.insert_before(before, node)
        [value] = node.outputs
    return value
