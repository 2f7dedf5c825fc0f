"""Vectors of a graph that can be trained without changing its form: biases, and LayerNormalization's weights."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    Vectors = Mapping[str, NDArray[np.float32]]

__all__ = ["read_vectors", "replace_vectors"]

AFFINE = {"LayerNormalization": (1, 2), "Gemm": (2,), "Add": (0, 1)}
"""Operators that a trained vector may go into, and as which of their inputs: weight and bias, C, either term."""


def read_vectors(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """Return a graph's biases and LayerNormalization weights, by name: float32 of shape (channels,), more than one.

    A vector that anything else uses as well is left out. So are shifts and scales that suppress outliers (`Sub`,
    `Mul`): the integers of the weights go with them.
    """
    from onnx import TensorProto, numpy_helper

    uses = defaultdict(set)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            uses[name].add(index in AFFINE.get(node.op_type, ()) and node.domain in ("", "ai.onnx"))
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT
        and len(tensor.dims) == 1
        and tensor.dims[0] > 1
        and uses[tensor.name] == {True}
    }


def replace_vectors(model: onnx.ModelProto, vectors: Vectors) -> onnx.ModelProto:
    """Put other values in place of a graph's vectors, by name; return the graph, which is changed."""
    from onnx import numpy_helper

    for tensor in model.graph.initializer:
        if tensor.name in vectors:
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(vectors[tensor.name], dtype=np.float32), tensor.name))
    return model
