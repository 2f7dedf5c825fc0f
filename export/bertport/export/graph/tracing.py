"""Tracing: the PyTorch model to ONNX, through PyTorch's exporter itself or through Optimum's."""

from __future__ import annotations

import functools
import logging
import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.config import max_positions, normalized
from bertport.runtime.errors import BertportError, CheckpointError, UsageError
from bertport.runtime.heads import is_per_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch

    from bertport.export.graph.wrapper import EncoderWithHeads

__all__ = ["DEFAULT_OPSET", "OPSETS", "TRACERS", "Tracing", "check_opset", "trace"]

OPSETS = {14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9}
"""The IR version that came with each opset: the oldest that allows it, so that old runtimes read the graph
(a newer stamp is refused whatever the graph holds, microsoft/onnxruntime#23602)."""

DEFAULT_OPSET = 17
"""The first with LayerNormalization as one operator; read by every ONNX Runtime since 1.12 and TensorRT since 8.6."""


DYNAMIC = {False: {0: "batch_size"}, True: {0: "batch_size", 1: "sequence_length"}}
"""Names of the axes that are not fixed, of outputs with a row per text and of those with a row per token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracing:
    """Settings of tracing a model."""

    opset: int
    """Version of the standard operator set."""
    tracer: str = "torch"
    """Tracer: a name of `TRACERS`."""


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


def trace(model: EncoderWithHeads, tracing: Tracing, path: Path, *, weights: bool = True) -> dict[str, torch.Tensor]:
    """Write the model as ONNX with dynamic batch and sequence.

    Args:
        model: the model, in evaluation mode.
        tracing: how.
        path: the file to write; weights over 2 GB go beside it.
        weights: whether they are written too; if not, they are inputs of the graph, after the model's own. Optimum's
            exporter writes them in any case.

    Returns:
        The weights by the names that the graph has for them, what the exporter computed of them when it folded
        constants included; none where its version keeps them to itself.

    Raises:
        CheckpointError: when it has an operation that this opset cannot express, or cannot run at all.
    """
    from bertport.export.graph.wrapper import compute

    with _quiet(), _unscripted(model), _weights() as named:
        try:
            TRACERS[tracing.tracer](model, tracing.opset, path, weights=weights)
        except (BertportError, OSError, MemoryError):
            raise
        except Exception as error:
            compute(model, example_inputs(model))  # what a model cannot run, no opset expresses
            if not isinstance(error, RuntimeError):  # from which the exporter's own errors derive
                raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CheckpointError(
                f"the model cannot be traced with opset {tracing.opset} ({reason}): choose another --opset"
            ) from error
    return named


def _with_torch(model: EncoderWithHeads, opset: int, path: Path, *, weights: bool) -> None:
    """Trace with PyTorch's exporter, on an example of Optimum's."""
    import torch

    outputs = model.outputs
    axes = dict.fromkeys(model.inputs, DYNAMIC[True]) | {name: DYNAMIC[is_per_token(name)] for name in outputs}
    torch.onnx.export(
        model,
        (example_inputs(model),),
        path,
        input_names=list(model.inputs),
        output_names=list(outputs),
        dynamic_axes=axes,
        opset_version=opset,
        export_params=weights,
        dynamo=False,
    )


def example_inputs(model: EncoderWithHeads) -> dict[str, torch.Tensor]:
    """Return a batch of Optimum's to trace with: every input int64 [2, 8], or less where the model takes less."""
    from optimum.utils import DummyTextInputGenerator  # type: ignore[import-untyped]  # it ships no types

    generator = DummyTextInputGenerator("feature-extraction", normalized(model.family, model.config), **_shape(model))
    inputs: dict[str, torch.Tensor] = {name: generator.generate(name) for name in model.inputs}
    return _known_segments(inputs, model)


def _with_optimum(model: EncoderWithHeads, opset: int, path: Path, *, weights: bool) -> None:  # noqa: ARG001 — it writes them
    """Trace with Optimum's export, with a config of ours that keeps every head."""
    from optimum.exporters.onnx.convert import export_pytorch  # type: ignore[import-untyped]  # it ships no types
    from optimum.exporters.tasks import TasksManager  # type: ignore[import-untyped]  # the same

    try:
        make: Any = TasksManager.get_exporter_config_constructor(
            "onnx", model_type=model.family.name, task="feature-extraction", library_name="transformers"
        )
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"Optimum has no export of {model.family.title} encoders ({model.family.name}): leave out --tracer optimum"
        ) from error

    class OnnxConfig(make.func):  # type: ignore[misc]  # a base without types
        """The model's inputs, of those that Optimum knows, and all its outputs: no task of Optimum's has both heads."""

        @property
        def inputs(self) -> dict[str, dict[int, str]]:
            return {name: given for name, given in super().inputs.items() if name in model.inputs}

        @property
        def outputs(self) -> dict[str, dict[int, str]]:
            return {name: DYNAMIC[is_per_token(name)] for name in model.outputs}

        def generate_dummy_inputs(self, *args: Any, **options: Any) -> dict[str, Any]:  # noqa: ANN401 — Optimum's
            return _known_segments(super().generate_dummy_inputs(*args, **options), model)

    export_pytorch(model, OnnxConfig(model.config, task="feature-extraction"), opset, path, input_shapes=_shape(model))


TRACERS = {"torch": _with_torch, "optimum": _with_optimum}
"""Tracers of a model, by their names on the command line."""


def _shape(model: EncoderWithHeads) -> dict[str, int]:
    longest = max_positions(model.family, model.config)
    return {"batch_size": 2, "sequence_length": min(8, longest)}


def _known_segments(inputs: dict[str, Any], model: EncoderWithHeads) -> dict[str, Any]:
    """Return inputs of segments that the model knows: Optimum draws from 0 and 1, whatever their embedding's size."""
    if "token_type_ids" in inputs:
        inputs["token_type_ids"] %= model.config.type_vocab_size
    return inputs


@contextmanager
def _unscripted(model: EncoderWithHeads) -> Iterator[None]:
    """Trace the functions that the family's row names as Python instead of TorchScript, without branches on shapes."""
    module = sys.modules[type(model.get_submodule(model.part)).__module__]
    compiled = {name: vars(module)[name] for name in model.family.unscripted if name in vars(module)}
    for name, function in compiled.items():
        setattr(module, name, getattr(function, "_torchdynamo_inline", function))  # what torch.jit.script was given
    try:
        yield
    finally:
        for name, function in compiled.items():
            setattr(module, name, function)


@contextmanager
def _weights() -> Iterator[dict[str, torch.Tensor]]:
    """Collect the weights of a traced graph, by name, where this version of PyTorch has the function that makes it."""
    named: dict[str, torch.Tensor] = {}
    module = sys.modules.get("torch.onnx._internal.torchscript_exporter.utils")
    make = getattr(module, "_model_to_graph", None)
    if make is None:
        yield named
        return

    @functools.wraps(make)
    def noting(*args: Any, **options: Any) -> Any:  # noqa: ANN401 — PyTorch's own
        graph, weights, outputs = make(*args, **options)
        named.update(weights)
        return graph, weights, outputs

    vars(module)["_model_to_graph"] = noting
    try:
        yield named
    finally:
        vars(module)["_model_to_graph"] = make


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
