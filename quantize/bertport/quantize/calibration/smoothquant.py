"""Moving the outliers of activations into the weights, where 8 bits bear them (Xiao et al. 2022, SmoothQuant).

Channel j of an activation is divided by s_j, row j of the weights behind it is multiplied by s_j, and s_j is divided
out where the activation is made: in LayerNormalization's gamma and beta, or for what attention gives, in the columns of
the values. BERT adds a LayerNormalization's output to the next one's input too, which takes a multiplication by s_j.
All s_j are powers of two, so that nothing is rounded: the rescaled graph gives the same answers bit by bit.

What GELU gives is not rescaled, since GELU stands between it and the weights that could take 1 / s_j; nor is the last
hidden state, which the graph gives out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    from bertport.quantize.graph.rewrite import Linear

__all__ = ["factors", "smooth", "smoothable"]

SMOOTHED = ".smoothed"
"""What the name of a rescaled activation ends with."""
LARGEST = 2.0**8
"""No channel is moved by more: beyond, the weights would be what 8 bits cannot bear."""


def factors(maxima: NDArray[np.floating], weights: Sequence[NDArray[np.float32]], alpha: float) -> NDArray[np.float32]:
    """Return the powers of two nearest to max|x_j|^alpha / max|w_j|^(1 - alpha).

    Args:
        maxima: Largest absolute value of each channel of the activation. Shape: (channels,)
        weights: The matrices that it is multiplied by. Shape of each: (channels, outputs)
        alpha: From 0 (all in the activations) to 1 (all in the weights).

    Returns:
        Shape: (channels,)
    """
    by_channel = np.max([np.abs(matrix).max(axis=1) for matrix in weights], axis=0).astype(np.float64)
    largest = np.asarray(maxima, dtype=np.float64)
    usable = (largest > 0) & (by_channel > 0)
    ratio = np.ones_like(largest)
    ratio[usable] = largest[usable] ** alpha / by_channel[usable] ** (1 - alpha)
    # The middle channel keeps its scale: a factor common to all changes nothing.
    ratio[usable] /= np.median(ratio[usable]) if usable.any() else 1.0
    return np.exp2(np.rint(np.log2(np.clip(ratio, 1 / LARGEST, LARGEST)))).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What can take 1 / s_j where an activation is made."""

    vectors: tuple[str, ...]
    """Initialisers with one number for each channel."""
    matrix: str | None
    """The values' weights, whose columns are channels; None for a LayerNormalization."""


def smoothable(model: onnx.ModelProto, layers: Sequence[Linear]) -> dict[str, tuple[Origin, tuple[Linear, ...]]]:
    """Find the activations that can be rescaled: their origin, and all layers that multiply them, by name."""
    found = {}
    finder = _Finder(model)
    for source in dict.fromkeys(layer.source for layer in layers):
        behind = tuple(layer for layer in layers if layer.source == source)
        origin = finder.origin(source)
        if origin is not None and all(finder.plain(layer) for layer in behind):
            found[source] = origin, behind
    return found


def smooth(
    model: onnx.ModelProto, layers: Sequence[Linear], maxima: Mapping[str, NDArray[np.floating]], alpha: float
) -> onnx.ModelProto:
    """Return the graph with its activations rescaled; its outputs stay what they were, bit by bit.

    Args:
        model: The serving graph of standard operators, its weights in memory; it is not changed.
        layers: Its linear layers, as `layer_times.linears` lists them.
        maxima: Largest absolute value of each channel, by name of the activation.
        alpha: As in `factors`.
    """
    import onnx
    from onnx import helper, numpy_helper

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in changed.graph.initializer}

    def scale(name: str, by: NDArray[np.float32]) -> None:
        stored[name].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(stored[name]) * by, name))

    restored = {}
    for source, (origin, behind) in smoothable(model, layers).items():
        by = factors(maxima[source], [layer.weights for layer in behind], alpha)
        for name in origin.vectors:
            scale(name, np.reciprocal(by))
        if origin.matrix:
            scale(origin.matrix, np.reciprocal(by))
        else:
            restored[source] = numpy_helper.from_array(by, f"{source}.factors")
        for layer in behind:
            scale(_matrix_of(model, layer), by[:, None])
    taken = {layer.output for layer in layers if layer.source in restored}
    nodes = []
    for node in changed.graph.node:
        if taken.intersection(node.output):
            node.input[0] += SMOOTHED
        nodes.append(node)
        if node.op_type == "LayerNormalization" and node.output[0] in restored:
            name = node.output[0]
            node.output[0] = f"{name}{SMOOTHED}"
            inputs = [node.output[0], restored[name].name]
            nodes.append(helper.make_node("Mul", inputs, [name], name=f"{name}/restored"))
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del changed.graph.node[:]
    changed.graph.node.extend(kept)
    changed.graph.initializer.extend(restored.values())
    return changed


class _Finder:
    """Follows activations back to where they are made."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.stored = {tensor.name for tensor in model.graph.initializer}
        self.producers = {output: node for node in model.graph.node for output in node.output}
        self.outputs = {each.name for each in model.graph.output}
        # Who asks for a shape does not see the values.
        self.uses = Counter(name for node in model.graph.node if node.op_type != "Shape" for name in node.input)

    def plain(self, layer: Linear) -> bool:
        """Tell whether a layer is a MatMul with a matrix that nothing else uses."""
        node = self.producers[layer.output]
        return node.op_type == "MatMul" and layer.table is None and self._own(node.input[1])

    def origin(self, source: str) -> Origin | None:
        """Find where an activation can be rescaled; None where it cannot."""
        node = self.producers.get(source)
        if node is None or source in self.outputs:
            return None
        if node.op_type == "LayerNormalization":
            vectors = tuple(node.input[1:3])
            return Origin(vectors=vectors, matrix=None) if all(map(self._own, vectors)) else None
        attention = self._path(source, "Reshape", "Transpose", "MatMul")
        values = self._path(attention.input[1], "Transpose", "Reshape", "Add") if attention else None
        if values is None:
            return None
        biases = [name for name in values.input if self._own(name)]
        products = [self._path(name, "MatMul") for name in values.input if name not in biases]
        if len(biases) != 1 or products[0] is None or not self._own(products[0].input[1]):
            return None
        return Origin(vectors=(biases[0],), matrix=products[0].input[1])

    def _path(self, name: str, *operators: str) -> onnx.NodeProto | None:
        """Go back through these operators; None where another one comes, or something else uses a value on the way.

        A Transpose must swap the middle two of four axes, as for heads: channels then keep their places.
        """
        node = None
        for operator in operators:
            node = self.producers.get(name)
            if node is None or node.op_type != operator or self.uses[name] != 1 or name in self.outputs:
                return None
            if operator == "Transpose" and list(node.attribute[0].ints) != [0, 2, 1, 3]:
                return None
            name = node.input[0]
        return node

    def _own(self, name: str) -> bool:
        return name in self.stored and self.uses[name] == 1


def _matrix_of(model: onnx.ModelProto, layer: Linear) -> str:
    return next(str(node.input[1]) for node in model.graph.node if layer.output in node.output)
