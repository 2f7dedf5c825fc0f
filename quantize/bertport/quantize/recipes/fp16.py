"""The fp16 variant: the serving graph of standard operators in 16 bits, for CUDA and TensorRT."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bertport.quantize.graph.fusion import sort_nodes
from bertport.runtime.providers.table import onnxruntime

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from bertport.quantize.recipes.source import GraphSource

__all__ = ["LARGEST_MASK", "convert_to_fp16", "soften"]

LARGEST_MASK = 1e4
"""What stands for the -3.4e38 that masks add: in float16 that would be -inf, and a row of masks NaN. exp(-1e4) is 0."""
IN_FLOAT32 = ["LayerNormalization", "Softmax"]
"""Operators kept in float32: their sums of squares and exponentials leave float16's range on outlier channels."""


def convert_to_fp16(source: GraphSource) -> onnx.ModelProto:
    """Convert the plain serving graph; inputs and outputs stay as they are, so every caller can use it.

    Raises:
        UsageError: for weights that float16 cannot hold.
    """
    import copy
    import warnings

    onnxruntime()
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = copy.deepcopy(source.plain)
    soften(model)
    with warnings.catch_warnings():
        # It warns of every constant that float16 rounds to its smallest number; LayerNormalization's stays float32.
        warnings.simplefilter("ignore")
        converted: onnx.ModelProto = convert_float_to_float16(
            model, keep_io_types=True, op_block_list=IN_FLOAT32, disable_shape_infer=False
        )
    sort_nodes(converted)  # it puts every Cast that it adds at the end
    return converted


def soften(model: onnx.ModelProto) -> None:
    """Bring constants beyond float16 within `LARGEST_MASK`, in place; refuse weights that large.

    Raises:
        UsageError: for weights that float16 cannot hold.
    """
    from onnx import numpy_helper

    from bertport.runtime.errors import UsageError

    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size > 1 and np.abs(values).max() > np.finfo(np.float16).max:
            raise UsageError(
                f"fp16 cannot hold the weights {tensor.name} (up to {np.abs(values).max():.3g}): use another recipe"
            )
        if values.dtype == np.float32 and values.size == 1:
            tensor.CopyFrom(numpy_helper.from_array(_within(values), tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                values = numpy_helper.to_array(attribute.t)
                if values.dtype == np.float32:
                    attribute.t.CopyFrom(numpy_helper.from_array(_within(values), attribute.t.name))


def _within(values: NDArray[np.float32]) -> NDArray[np.float32]:
    large = np.abs(values) > np.finfo(np.float16).max
    return np.where(large, np.sign(values) * np.float32(LARGEST_MASK), values).astype(np.float32)
