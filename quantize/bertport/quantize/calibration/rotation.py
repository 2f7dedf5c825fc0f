"""Block Hadamard rotation: outliers spread over the channels of their block before an activation is rounded.

After GELU a token has a few large channels, others in every token, so that neither a scale for each channel nor
channels kept in float take them away, and the widest values of many tokens set the step of all. A Hadamard matrix is
orthogonal, and gives each channel of its block an equal share of every other: what stood out stands out less, and sums
of many channels are near a normal distribution, whose ends are near. With H the matrix, once for each block,

    x W  =  (x H) (H'W)

so the weights are rotated beforehand, and x when the graph runs, in one product of standard operators (QuaRot, Ashkboos
et al. 2024, arXiv 2404.00456; by blocks as in DuQuant, Lin et al. 2024, arXiv 2406.01721).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bertport.quantize.calibration.rounding_error import least_rounding_error
from bertport.quantize.graph.layer_inputs import change_inputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx
    import onnx_ir as ir
    from numpy.typing import NDArray

    from bertport.quantize.calibration.statistics import Activations
    from bertport.quantize.graph.rewrite import Linear

    Array = NDArray[np.float32]

__all__ = ["BLOCKS", "ROTATED", "choose_blocks", "hadamard", "rotate", "rotate_blocks"]

ROTATED = ".rotated"
"""Suffix of the names of rotated activations."""
BLOCKS = (32, 64)
"""Channels of a block that are tried: wider ones spread further, and cost more."""
WORTH = 0.5
"""The share of the squared error that must be left at most: the eight rotations of the default model take a twentieth
of its time."""
WORTH_MORE = 0.8
"""The share that blocks twice as wide must leave at most of what half as wide ones left."""
WIDTHS = 0.998
"""Quantile of a channel's magnitudes that is taken for its width."""


def choose_blocks(layers: Sequence[Linear], activations: Mapping[str, Activations]) -> dict[str, int]:
    """Choose the activations that are rotated, by name, and the channels of their blocks.

    Args:
        layers: All layers whose inputs may be rotated: nothing else may use their weights.
        activations: What goes into them.
    """
    chosen = {}
    for source in dict.fromkeys(layer.source for layer in layers):
        takers = [layer for layer in layers if layer.source == source]
        # For the few rows of a head a rotation costs more than it spares.
        if source not in activations or any(layer.flat for layer in takers):
            continue
        weights = np.concatenate([layer.weights for layer in takers], axis=1)
        # Less their mean, as a shift would have it: where all tokens are alike, nothing stands out.
        rows = (activations[source].rows - activations[source].mean).astype(np.float32)
        best, share = 0, WORTH
        least = _error(rows, weights)
        for block in BLOCKS:
            if len(weights) % block:
                break
            left = _error(rotate(rows, block), _rotate_rows(weights, block))
            if left < share * least:
                least, best, share = left, block, WORTH_MORE
        if best:
            chosen[source] = best
    return chosen


def rotate_blocks(model: onnx.ModelProto, layers: Iterable[Linear], blocks: Mapping[str, int]) -> onnx.ModelProto:
    """Return the graph with its activations rotated, which computes what it did but for the last bits.

    Args:
        model: The serving graph of standard operators, its weights in memory; it is not changed.
        layers: As `layer_inputs.changeable` returns them, in the order in which they run.
        blocks: Channels of a block, by name of the activation.
    """
    return change_inputs(model, layers, blocks, insert=_rotation, matrix=_rotated_weights)


def hadamard(size: int) -> Array:
    """Return the orthogonal, symmetric Hadamard matrix of a power of two, of shape (size, size)."""
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    normed: Array = (matrix / np.sqrt(size)).astype(np.float32)
    return normed


def rotate(values: Array, block: int) -> Array:
    """Return values with each block of their last axis rotated; of the same shape."""
    turned: Array = values.reshape(*values.shape[:-1], -1, block) @ hadamard(block)
    return turned.reshape(values.shape)


def _rotated_weights(layer: Linear, block: int) -> Array:
    return _rotate_rows(layer.weights, block)


def _rotate_rows(matrix: Array, block: int) -> Array:
    """Return weights for rotated activations."""
    return np.ascontiguousarray(rotate(np.ascontiguousarray(matrix.T), block).T)


def _error(rows: Array, weights: Array) -> float:
    """Estimate the squared error that rounding leaves in the product for each token.

    Channels are taken as they are or, as a scale for each would have them, as equally wide, whichever leaves less.
    """
    reach: Array = np.asarray(np.quantile(np.abs(rows), WIDTHS, axis=0), dtype=np.float32)
    # Channels that are always 0 would be divided by 0.
    widths: Array = reach + np.float32(float(reach.max()) * 1e-3 + float(np.finfo(np.float32).tiny) * 1e6)
    scaled, costs = rows / widths, np.square(weights).sum(axis=1)
    return min(
        least_rounding_error(rows, costs, float(np.abs(rows).max())),
        least_rounding_error(scaled, costs * np.square(widths), float(np.abs(scaled).max())),
    )


def _rotation(graph: ir.Graph, source: ir.Value, block: int, before: ir.Node) -> ir.Value:
    """Insert the nodes that rotate an activation by blocks of its last axis."""
    import onnx_ir as ir

    def constant(array: NDArray[np.float32] | NDArray[np.int64], name: str) -> ir.Value:
        # A node and not an initialiser: it is no layer's matrix.
        return insert("Constant", [], name, value=ir.tensor(array, name=name))

    def insert(operator: str, inputs: list[ir.Value], name: str, **attributes: ir.TensorProtocol | int) -> ir.Value:
        node = ir.node(operator, inputs, attributes, outputs=[ir.Value(name=name)], name=f"{name}/{operator}")
        graph.insert_before(before, node)
        return node.outputs[0]

    name = f"{source.name}{ROTATED}"
    shape = insert("Shape", [source], f"{name}.shape")
    rows = constant(np.array([-1, block], dtype=np.int64), f"{name}.rows")
    blocks = insert("Reshape", [source, rows], f"{name}.blocks")
    turned = insert("MatMul", [blocks, constant(hadamard(block), f"{name}.matrix")], f"{name}.turned")
    return insert("Reshape", [turned, shape], name, allowzero=1)  # also of no tokens
