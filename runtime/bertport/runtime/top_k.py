"""Top-k in the graph: a few numbers leave a GPU for each mask, in place of its logits over the vocabulary.

The logits of one mask are 122 kB for BERT. On the CPU nothing is saved, and the graph is left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertport.runtime import onnx_wire as pb
from bertport.runtime.heads import DEFAULT_TOP_K

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["IDS", "LOG_PROBABILITIES", "TOP_K", "TopKResult", "top_k_head"]

LOG_PROBABILITIES = "best_log_probabilities"
"""The output with the log-probabilities of the k likeliest classes."""
IDS = "best_ids"
"""The output with the indices of the k likeliest classes."""
TOP_K = "top_k"
"""The input that states k; `DEFAULT_TOP_K` where it is not given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopKResult:
    """The k likeliest classes at some positions, best first, in place of their logits."""

    log_probabilities: NDArray[np.float32]
    """Log-probabilities over all classes `[positions, k]`."""
    ids: NDArray[np.int64]
    """Token ids `[positions, k]`."""

    def __getitem__(self, rows: slice) -> TopKResult:
        """Return some of the positions."""
        return TopKResult(log_probabilities=self.log_probabilities[rows], ids=self.ids[rows])


def top_k_head(output: str) -> bytes:
    """Return the serialized nodes that are merged into a serving graph: LogSoftmax and TopK of an output.

    The output is `[positions, classes]`. From opset 13 on neither operator needs an attribute, so that the head suits
    every bundle. `top_k` is an initializer that is also an input: a run that does not feed it uses its value.
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
