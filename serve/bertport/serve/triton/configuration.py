"""The configuration of a model as Triton reads it: `config.pbtxt`, in protobuf's text format (model_config.proto)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertport.runtime.commands.render import printable
from bertport.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bertport.serve.triton.signature import Signature, Tensor

__all__ = ["DEVICES", "OPTIMIZATIONS", "Configuration"]

DEVICES = {"cpu": "KIND_CPU", "gpu": "KIND_GPU"}
"""Kinds of device that instances run on, as Triton names them, by the names of the command line."""
OPTIMIZATIONS = {"all": None, "extended": 1, "basic": -1, "none": 2}
"""Levels of graph optimization as Triton's ONNX Runtime backend numbers them; None for its default."""
TYPES = {
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "bfloat16": "TYPE_BF16",
    "bool": "TYPE_BOOL",
    **{f"{sign}int{bits}": f"TYPE_{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
"""Triton's element types by NumPy's names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Triton's configuration of one model."""

    name: str
    """Name of the model for clients, and of its directory."""
    file: str
    """The graph's file in the directory of a version."""
    signature: Signature
    """Inputs and outputs of the graph."""
    max_batch_size: int
    """Rows that Triton may put into one run; 0 for a graph that is run with each request as it is."""
    max_queue_delay: int
    """Microseconds that a request may wait for others to be run with."""
    instances: int
    """Runs at the same time, on each device."""
    device: str
    """`cpu` or `gpu`."""
    threads: int
    """Threads of a run on the CPU; 0 for one per core."""
    optimization: str
    """A key of `OPTIMIZATIONS`."""
    comments: Sequence[str] = ()
    """Lines for people, at the top."""

    def __post_init__(self) -> None:
        """Refuse what Triton would refuse, or batch wrongly.

        Raises:
            UsageError: for a graph that cannot be batched and is to be.
        """
        ragged = self.signature.not_batched()
        if self.max_batch_size and ragged is not None:
            raise UsageError(
                f"Triton cannot batch the graph {self.file}, whose {ragged!r} has no row for each text: choose a "
                "variant where all have, such as portable, or --max-batch-size 0, to run each request by itself"
            )

    def to_text(self) -> str:
        """Return the content of `config.pbtxt`."""
        comments = (f"# {printable(line)}".rstrip() for line in self.comments)  # names of a bundle's may have line ends
        return "\n".join([*comments, *self._lines()]) + "\n"

    def _lines(self) -> Iterator[str]:
        yield f"name: {_quoted(self.name)}"
        yield 'backend: "onnxruntime"'
        yield f"default_model_filename: {_quoted(self.file)}"
        yield f"max_batch_size: {self.max_batch_size}"
        for field, tensors in (("input", self.signature.inputs), ("output", self.signature.outputs)):
            yield f"{field} ["
            yield ",\n".join(map(self._tensor, tensors))
            yield "]"
        if self.max_batch_size:
            yield f"dynamic_batching {{ max_queue_delay_microseconds: {self.max_queue_delay} }}"
        yield f"instance_group [ {{ count: {self.instances}, kind: {DEVICES[self.device]} }} ]"
        level = OPTIMIZATIONS[self.optimization]
        if level is not None:
            yield f"optimization {{ graph {{ level: {level} }} }}"
        # One thread across operators: the graphs are sequences of them.
        for key, value in (("intra_op_thread_count", self.threads), ("inter_op_thread_count", 1)):
            yield f'parameters {{ key: "{key}", value: {{ string_value: "{value}" }} }}'

    def _tensor(self, tensor: Tensor) -> str:
        axes = tensor.axes[1:] if self.max_batch_size else tensor.axes
        dims = ", ".join(str(axis if isinstance(axis, int) else -1) for axis in axes)
        return f"  {{ name: {_quoted(tensor.name)}, data_type: {TYPES[tensor.dtype]}, dims: [ {dims} ] }}"


def _quoted(text: str) -> str:
    """Return a string of protobuf's text format: JSON's escapes are among its own."""
    return json.dumps(text)
