"""Outlier Suppression+: per-channel shift and scale before static quantization, undone in the weights.

A static scale must cover every channel of an activation. After a LayerNorm of a trained BERT a few channels are ten
times wider than the rest, or lie far from 0; GELU gives a long positive end and a short negative one. With z the shift
and d the scale of each channel,

    x W + b  =  ((x - z) / d) (d W) + (b + z W)

holds for every z and d, so the graph is rewritten before it is calibrated, and only the vector (x - z) / d is rounded
(Outlier Suppression+, Wei et al. 2023, arXiv 2304.09145, without its folding into LayerNorm, whose output BERT adds to
the next layer's as well). The weights take the rest, each column with a scale of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bertport.quantize.calibration.statistics import Activations

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    from bertport.quantize.graph.rewrite import Linear

    Array = NDArray[np.float32]

__all__ = ["SUPPRESSED", "ShiftAndScale", "choose_shifts_and_scales", "suppress_outliers", "suppressed", "suppressible"]

SUPPRESSED = ".levelled"
"""What the name of a shifted and scaled activation ends with; the fingerprints of ranges in manifests hang on it."""
WORTH = 0.8
"""The share of the squared error that must be left at most: shifting and dividing cost a pass over the activations."""
STEPS = 254
"""Steps of the symmetric range that a choice is judged by."""
CUTS = np.geomspace(1.0, 1 / 8, 8)
"""Shares of the range that are tried: what lies beyond is cut off."""
ROWS = 160
"""Tokens on which a choice is judged, at most: hundreds of choices are compared for each activation."""
QUANTILES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
"""Of the channels' widths: wider ones are divided."""
POWERS = (0.5, 0.75, 1.0)
"""Of the widths, by which all channels are divided: 1 makes all equally wide."""
OF_WEIGHTS = 0.3
"""What GPTQ leaves of the squared error of the weights, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftAndScale:
    """What is done to an activation before it is rounded."""

    shift: Array
    """What is subtracted from each channel. Shape: (channels,)"""
    scale: Array
    """What each channel is then divided by. Shape: (channels,)"""


def choose_shifts_and_scales(
    layers: Sequence[Linear], activations: Mapping[str, Activations]
) -> dict[str, ShiftAndScale]:
    """Choose shift and scale of the activations that gain by it, by name.

    Args:
        layers: All layers whose inputs may be shifted and scaled: nothing else may use their weights and biases.
        activations: What goes into them.
    """
    found = {}
    for source in dict.fromkeys(layer.source for layer in layers):
        matrices = [layer.weights for layer in layers if layer.source == source]
        if source in activations and (best := _best(activations[source], np.concatenate(matrices, axis=1))):
            found[source] = best
    return found


def _best(given: Activations, weights: Array) -> ShiftAndScale | None:
    """Find the shift and scale that leave the least error in the product; None where it is not worth it."""
    plain = ShiftAndScale(shift=np.zeros_like(given.lowest), scale=np.ones_like(given.lowest))
    before = _error(given, weights, plain)
    error, _, best = min((_error(given, weights, each), index, each) for index, each in enumerate(_candidates(given)))
    return best if error <= WORTH * before else None


def _candidates(given: Activations) -> Iterator[ShiftAndScale]:
    low, high = given.lowest, given.highest
    ends = np.quantile(given.rows, [0.002, 0.998], axis=0)
    whole = np.full_like(low, (low.min() + high.max()) / 2)
    for shift in (np.zeros_like(low), whole, (low + high) / 2, ends.mean(axis=0)):
        width = np.maximum(np.maximum(high - shift, shift - low), np.finfo(np.float32).tiny * 1e6)
        yield _candidate(shift, np.ones_like(width))
        for quantile in QUANTILES:
            above = np.maximum(1, width / np.quantile(width, quantile))
            yield _candidate(shift, np.sqrt(above))
            yield _candidate(shift, above)
        for power in POWERS:
            yield _candidate(shift, (width / np.median(width)) ** power)


def _candidate(shift: NDArray[np.floating], scale: NDArray[np.floating]) -> ShiftAndScale:
    # Channels that are always 0 would be divided by next to nothing.
    return ShiftAndScale(shift=shift.astype(np.float32), scale=np.maximum(scale, 1e-3).astype(np.float32))


def _error(given: Activations, weights: Array, by: ShiftAndScale) -> float:
    """Estimate the squared error that rounding leaves in the product, for each token.

    Rounding errors of two channels do not hang together, so each counts with the size of its row of the weights.
    """
    rows = (given.rows[:: max(1, len(given.rows) // ROWS)] - by.shift) / by.scale
    scaled = np.square(weights).sum(axis=1) * np.square(by.scale)
    ends = np.stack([given.lowest, given.highest])
    furthest = np.abs((ends - by.shift) / by.scale).max()
    steps = np.square(np.abs(weights * by.scale[:, None]).max(axis=0) / 127).sum() / 12
    of_weights = OF_WEIGHTS * steps * np.square(rows).mean(axis=0).sum()

    def of_rows(cut: float) -> float:
        step = max(2 * cut * furthest / STEPS, np.finfo(np.float32).tiny)
        errors = np.clip(np.rint(rows / step), -STEPS / 2, STEPS / 2) * step - rows
        return float((np.square(errors).mean(axis=0) * scaled).sum())

    return float(min(map(of_rows, CUTS)) + of_weights)


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


def suppressible(model: onnx.ModelProto, layers: Iterable[Linear]) -> tuple[Linear, ...]:
    """Return the layers whose inputs may be shifted and scaled.

    Such a layer is a MatMul whose matrix, and a bias behind it, nothing else uses. An activation that any other layer
    takes as well is left out as a whole.
    """
    layers = tuple(layers)
    parts = _Parts(model)
    refused = {layer.source for layer in layers if parts.of(layer) is None}
    return tuple(layer for layer in layers if layer.source not in refused)


def suppress_outliers(
    model: onnx.ModelProto, layers: Iterable[Linear], chosen: Mapping[str, ShiftAndScale]
) -> onnx.ModelProto:
    """Return the graph with its activations shifted and scaled, which computes what it did but for the last bits.

    Args:
        model: The serving graph of standard operators, its weights in memory; it is not changed.
        layers: As `suppressible` gives them.
        chosen: Shift and scale, by name of the activation.
    """
    import onnx
    from onnx import numpy_helper

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in changed.graph.initializer}
    parts = _Parts(changed)

    def store(name: str, values: NDArray[np.floating]) -> None:
        stored[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values, dtype=np.float32), name))

    for layer in layers:
        found, by = parts.of(layer), chosen.get(layer.source)
        if found is None or by is None:
            continue
        node, bias = found
        store(bias, numpy_helper.to_array(stored[bias]) + by.shift.astype(np.float64) @ layer.weights)
        store(node.input[1], layer.weights * by.scale[:, None])
        node.input[0] = layer.source + SUPPRESSED
    nodes, made = [], set()
    for node in changed.graph.node:
        source = next((name.removesuffix(SUPPRESSED) for name in node.input if name.endswith(SUPPRESSED)), None)
        if source is not None and source not in made:
            made.add(source)
            nodes += _shift_and_scale(changed, source, chosen[source])
        nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    return changed


def _shift_and_scale(model: onnx.ModelProto, source: str, by: ShiftAndScale) -> list[onnx.NodeProto]:
    """Return the nodes that shift and scale an activation, and store their vectors; idle steps are left out."""
    from onnx import helper, numpy_helper

    steps = []
    if by.shift.any():
        # One number for all channels is stored as one.
        shift = by.shift if np.ptp(by.shift) else by.shift[:1]
        steps.append(("Sub", shift, ".shift"))
    if np.ptp(by.scale) or by.scale[0] != 1:
        steps.append(("Mul", np.reciprocal(by.scale), ".factors"))
    nodes, name = [], source
    for number, (operator, values, ending) in enumerate(steps, 1):
        output = source + (SUPPRESSED if number == len(steps) else f"{SUPPRESSED}.{number}")
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), f"{source}{ending}"))
        nodes.append(helper.make_node(operator, [name, f"{source}{ending}"], [output], name=f"{output}/{operator}"))
        name = output
    return nodes


class _Parts:
    """Finds the nodes and initialisers of a layer that are its own."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.stored = {tensor.name for tensor in model.graph.initializer}
        self.producers = {output: node for node in model.graph.node for output in node.output}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def of(self, layer: Linear) -> tuple[onnx.NodeProto, str] | None:
        """Return a layer's MatMul and the name of its bias; None where there are none of its own."""
        node = self.producers[layer.output]
        behind = self.users.get(layer.output, [])
        if node.op_type != "MatMul" or layer.table or len(behind) != 1 or behind[0].op_type != "Add":
            return None
        biases = [name for name in behind[0].input if self._own(name)]
        return (node, biases[0]) if len(biases) == 1 and self._own(node.input[1]) else None

    def _own(self, name: str) -> bool:
        return name in self.stored and len(self.users[name]) == 1
