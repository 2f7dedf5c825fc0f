"""Tracing: the PyTorch model to ONNX through Optimum, with a config of ours that keeps every head."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.heads import output_names
from bertport.runtime.errors import CheckpointError, UsageError
from bertport.runtime.heads import is_per_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bertport.export.graph.wrapper import BertWithHeads

__all__ = ["DEFAULT_OPSET", "OPSETS", "check_opset", "trace"]

OPSETS = {14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9}
"""The IR version that came with each opset: the oldest that allows it, so that old runtimes read the graph
(a newer stamp is refused whatever the graph holds, microsoft/onnxruntime#23602)."""

DEFAULT_OPSET = 17
"""The first with LayerNormalization as one operator; read by every ONNX Runtime since 1.12 and TensorRT since 8.6."""


DYNAMIC = {False: {0: "batch_size"}, True: {0: "batch_size", 1: "sequence_length"}}
"""Names of the axes that are not fixed, of outputs with a row per text and of those with a row per token."""


def check_opset(opset: int | None) -> int:
    """Return the opset to export with.

    Raises:
        UsageError: for one that PyTorch's exporter cannot write.
    """
    if opset is None:
        return DEFAULT_OPSET
    if opset not in OPSETS:
        known = f"one from {min(OPSETS)} to {max(OPSETS)} (default {DEFAULT_OPSET})"
        raise UsageError(f"opset {opset} cannot be exported: choose {known}")
    return opset


def trace(model: BertWithHeads, opset: int, path: Path) -> None:
    """Write the model as ONNX with dynamic batch and sequence.

    Args:
        model: the model, in evaluation mode.
        opset: version of the standard operator set.
        path: the file to write; weights over 2 GB go to `<path>_data` beside it.

    Raises:
        CheckpointError: when it has an operation that this opset cannot express.
    """
    from optimum.exporters.onnx.convert import export_pytorch  # type: ignore[import-untyped]  # it ships no types
    from optimum.exporters.onnx.model_configs import BertOnnxConfig  # type: ignore[import-untyped]  # the same

    class BertWithHeadsOnnxConfig(BertOnnxConfig):  # type: ignore[misc]  # a base without types
        """The model's inputs, of those that Optimum knows, and all its outputs: no task of Optimum's has both heads."""

        @property
        def inputs(self) -> dict[str, dict[int, str]]:
            return {name: given for name, given in super().inputs.items() if name in model.inputs}

        @property
        def outputs(self) -> dict[str, dict[int, str]]:
            return {name: DYNAMIC[is_per_token(name)] for name in output_names(model.heads)}

        def generate_dummy_inputs(self, *args: Any, **options: Any) -> dict[str, Any]:  # noqa: ANN401 — Optimum's
            inputs: dict[str, Any] = super().generate_dummy_inputs(*args, **options)
            # Optimum draws token types from 0 and 1, whatever the size of their embedding.
            if "token_type_ids" in inputs:
                inputs["token_type_ids"] %= model.config.type_vocab_size
            return inputs

    with _quiet():
        config: Any = BertWithHeadsOnnxConfig(model.config, task="feature-extraction")
        shapes = {"batch_size": 2, "sequence_length": min(8, model.config.max_position_embeddings)}
        try:
            export_pytorch(model, config, opset, path, input_shapes=shapes)
        except (RuntimeError, NotImplementedError) as error:  # the exporter's own errors derive from RuntimeError
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CheckpointError(
                f"the model cannot be traced with opset {opset} ({reason}): choose another --opset"
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings: users cannot act on them, and the validation is what counts."""
    # A handful of Python conditions on shapes are traced as constants, and Optimum calls the exporter that
    # PyTorch deprecates; both are known, and every traced graph is compared on a grid of shapes.
    level = logging.getLogger("optimum").level
    logging.getLogger("optimum").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("optimum").setLevel(level)
