"""Choosing the likeliest words in the graph, so that a handful of numbers leave a GPU and not a row of logits per mask.

A row of BERT's vocabulary is 122 kB. On the CPU nothing is saved, and the graph is left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertport.runtime import onnx_wire as pb

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["DEFAULT_TOP_K", "IDS", "LOG_PROBABILITIES", "TOP_K", "Best", "appended"]

LOG_PROBABILITIES = "best_log_probabilities"
"""The output with their logarithmic probabilities."""
IDS = "best_ids"
"""The output with their ids."""
TOP_K = "top_k"
"""The input that says how many; when it is not given, `DEFAULT_TOP_K`."""
DEFAULT_TOP_K = 5
"""Answers to a mask where nobody says how many, as in transformers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The likeliest words at some positions, best first, in place of their logits."""

    log_probabilities: NDArray[np.float32]
    """Over the full vocabulary `[positions, k]`."""
    ids: NDArray[np.int64]
    """Token ids `[positions, k]`."""

    def __getitem__(self, rows: slice) -> Best:
        """Return some of the positions."""
        return Best(log_probabilities=self.log_probabilities[rows], ids=self.ids[rows])


def appended(output: str) -> bytes:
    """Return what is merged into a serving graph: LogSoftmax and TopK of an output `[positions, classes]`.

    Neither operator needs an attribute from opset 13 on, so it suits every bundle. `top_k` is an initializer that is
    also an input: whoever does not feed it gets its value.
    """
    log_probabilities = "log_probabilities"
    return pb.field(
        7,
        pb.graph(
            nodes=[
                pb.node("LogSoftmax", [output], [log_probabilities]),
                pb.node("TopK", [log_probabilities, TOP_K], [LOG_PROBABILITIES, IDS]),
            ],
            initializers=[pb.tensor(TOP_K, pb.INT64, [1], [DEFAULT_TOP_K])],
            inputs=[pb.value(TOP_K, pb.INT64, [1])],
            outputs=[
                pb.value(LOG_PROBABILITIES, pb.FLOAT, ["masked", "best"]),
                pb.value(IDS, pb.INT64, ["masked", "best"]),
            ],
        ),
    )
