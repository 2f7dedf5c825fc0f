"""A serving graph run by torch, so that gradients reach its vectors; quantization is computed as ONNX defines it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from bertport.quantize.distillation.operators import OPERATORS, as_tensor
from bertport.runtime.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    import numpy as np
    import onnx
    import torch
    from numpy.typing import NDArray

    Adjust = Callable[[str, torch.Tensor], torch.Tensor]

__all__ = ["TorchGraph", "refuse_unknown_operators", "require_torch"]


def require_torch() -> None:
    """Look for torch.

    Raises:
        MissingDependencyError: where it is not installed.
    """
    try:
        import torch  # noqa: F401 — whether it can be imported
    except ImportError as error:
        raise MissingDependencyError("quantize --distill", "torch", "cpu,quantize,distill") from error


def refuse_unknown_operators(model: onnx.ModelProto) -> None:
    """Refuse a graph that torch cannot run here.

    Raises:
        UsageError: for an operator that is not in the table.
    """
    for node in model.graph.node:
        standard = node.domain in ("", "ai.onnx")
        if not standard or node.op_type not in (*OPERATORS, "Constant"):
            name = node.op_type if standard else f"{node.domain}.{node.op_type}"
            raise UsageError(
                f"--distill trains graphs of the operators that it can compute in torch, and this model's has {name} "
                f"({node.name or node.output[0]}), which is none of them: leave --distill out"
            )


class TorchGraph:
    """A graph of standard operators, computed by torch on the CPU in float32.

    Args:
        model: The graph, its weights in memory; it is not changed, nor kept.
        trained: Names of the initialisers that get gradients.

    Raises:
        UsageError: for an operator that is not known.
    """

    def __init__(self, model: onnx.ModelProto, trained: Collection[str] = ()) -> None:
        from onnx import helper, numpy_helper

        refuse_unknown_operators(model)
        self.parameters: dict[str, torch.Tensor] = {}
        self._constants: dict[str, torch.Tensor] = {}
        for tensor in model.graph.initializer:
            value = as_tensor(numpy_helper.to_array(tensor))
            if tensor.name in trained:
                self.parameters[tensor.name] = value.requires_grad_()
            else:
                self._constants[tensor.name] = value
        self._nodes: list[_Node] = []
        for node in model.graph.node:
            attributes = {given.name: helper.get_attribute_value(given) for given in node.attribute}
            if "value" in attributes:
                attributes["value"] = as_tensor(numpy_helper.to_array(attributes["value"]))
            if node.op_type == "Constant":
                # Exporters write `value`; the other forms are single numbers and lists of them.
                [(name, value)] = attributes.items()
                self._constants[node.output[0]] = value if name == "value" else _constant(name, value)
                continue
            step = _Node(node, attributes)
            if step.inputs and all(not name or name in self._constants for name in step.inputs):
                self._constants.update(step.run(self._constants))  # once for all runs
            else:
                self._nodes.append(step)
        self._needed: dict[tuple[str, ...], list[_Node]] = {}

    def run(
        self,
        feeds: Mapping[str, NDArray[np.int64]],
        outputs: Sequence[str],
        adjust: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] | None = None,
    ) -> list[torch.Tensor]:
        """Return some of the graph's activations, with their gradients where `torch` records them.

        Args:
            feeds: The graph's inputs, by name; those that it does not have are passed over.
            outputs: Names of activations.
            adjust: What takes the place of an activation once it is computed, by its name.
        """
        values: dict[str, Any] = {**self._constants, **self.parameters}
        values.update((name, as_tensor(value)) for name, value in feeds.items())
        for node in self._steps(tuple(outputs)):
            made = node.run(values)
            for name in adjust or ():
                if name in made:
                    made[name] = (adjust or {})[name](made[name])
            values.update(made)
        return [values[name] for name in outputs]

    def _steps(self, outputs: tuple[str, ...]) -> list[_Node]:
        """Return the nodes that some activations depend on, in their order."""
        if outputs not in self._needed:
            wanted, steps = set(outputs), []
            for node in reversed(self._nodes):
                if wanted.intersection(node.outputs):
                    wanted.update(node.inputs)
                    steps.append(node)
            self._needed[outputs] = steps[::-1]
        return self._needed[outputs]


class _Node:
    """A node, with what computes it."""

    def __init__(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        self.inputs, self.outputs = list(node.input), list(node.output)
        self._attributes = attributes
        compute: Any = OPERATORS[node.op_type]
        self._compute = partial(compute, outputs=len(self.outputs)) if node.op_type == "Split" else compute

    def run(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the node's outputs, by name."""
        made = self._compute([values[name] if name else None for name in self.inputs], self._attributes)
        return dict(zip(self.outputs, made if isinstance(made, tuple) else (made,), strict=False))


def _constant(name: str, value: float | Iterable[float]) -> torch.Tensor:
    """Return the value of a Constant that is written as a number, or as a list of them."""
    import numpy as np

    return as_tensor(np.array(value, dtype=np.int64 if name.startswith("value_int") else np.float32))
