"""Speed of one fp32 matrix product: its graph, built without the onnx package, and its timer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bertport.runtime import onnx_wire as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    Matrix = np.ndarray[tuple[int, int], np.dtype[np.float32]]

__all__ = ["fastest_gflops", "matmul_model"]


def matmul_model(right: Matrix) -> bytes:
    """Serialize y = a @ right.

    The right matrix is a constant, as weights are, so that ONNX Runtime packs it once.
    """
    rows, columns = right.shape
    return pb.model(
        pb.graph(
            name="matmul",
            nodes=[pb.node("MatMul", ["a", "b"], ["y"])],
            initializers=[pb.tensor("b", pb.FLOAT, [rows, columns], right.tobytes())],
            inputs=[pb.value("a", pb.FLOAT, ["rows", rows])],
            outputs=[pb.value("y", pb.FLOAT, ["rows", columns])],
        ),
        opset=13,
    )


def fastest_gflops(multiply: Callable[[], object], left: Matrix, right: Matrix, *, seconds: float) -> float:
    """Return the GFLOP/s of the fastest product of two matrices.

    Args:
        multiply: Computes it once.
        left: Shape: (rows, inner)
        right: Shape: (inner, columns)
        seconds: How long to try for a faster run.
    """
    (rows, inner), (_, columns) = left.shape, right.shape
    fastest, end = float("inf"), time.perf_counter() + seconds
    while (began := time.perf_counter()) < end or fastest == float("inf"):
        multiply()
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * rows * inner * columns / fastest / 1e9
