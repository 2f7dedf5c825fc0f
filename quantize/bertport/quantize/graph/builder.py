"""Writing a graph node by node: names that cannot clash, and constants stored once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

__all__ = ["LEAST_OPSET", "MICROSOFT", "GraphBuilder"]

LEAST_OPSET = 17
"""The first with LayerNormalization as one operator, which every recipe writes or keeps in float32."""

MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""
AXES_AS_INPUT = 18
"""The opset from which ReduceMax takes its axes as an input, and Split how many parts to make."""


class GraphBuilder:
    """Collects the nodes and initialisers of a new graph.

    Args:
        opset: Version of the standard operator set to write.
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self._made: dict[str, onnx.NodeProto] = {}
        self._initializers: dict[str, onnx.TensorProto] = {}

    def has(self, output: str) -> bool:
        """Return whether a node with this output was added."""
        return output in self._made

    def constant(self, name: str, values: NDArray[Any] | float) -> str:
        """Store an array under a name, once; return the name."""
        from onnx import numpy_helper

        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def scalar(self, value: float, dtype: type[np.generic]) -> str:
        """Store a scalar under a name that tells its value."""
        from onnx import numpy_helper

        name = f"constant.{np.dtype(dtype).name}.{value:.9g}"
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(np.asarray(value, dtype=dtype), name)
        return name

    def copy(self, tensor: onnx.TensorProto) -> str:
        """Take an initialiser over as it is, once."""
        return self._initializers.setdefault(tensor.name, tensor).name

    def node(
        self,
        operator: str,
        inputs: list[str],
        output: str,
        *,
        domain: str = "",
        **attributes: Any,  # noqa: ANN401 — whatever an attribute can be
    ) -> str:
        """Add a node with one output; return the output's name."""
        self.nodes_out(operator, inputs, [output], domain=domain, **attributes)
        return output

    def nodes_out(
        self,
        operator: str,
        inputs: list[str],
        outputs: list[str],
        *,
        domain: str = "",
        **attributes: Any,  # noqa: ANN401 — whatever an attribute can be
    ) -> None:
        """Add a node with several outputs, named after the first; one that is there already is not added again.

        Several products may read one activation, and each writes what it needs of it.

        Raises:
            ValueError: when another node has the name, which would compute something else.
        """
        from onnx import helper

        name = f"{outputs[0]}/{operator}"
        node = helper.make_node(operator, inputs, outputs, name=name, domain=domain, **attributes)
        for output in outputs:
            if self._made.get(output, node) != node:
                raise ValueError(
                    f"{output} is computed by {self._made[output].name} already, in another way than by {name}"
                )
        if outputs[0] not in self._made:
            self._made.update(dict.fromkeys(outputs, node))
            self.nodes.append(node)

    def reduce_max(self, values: str, output: str) -> str:
        """Add the largest value along the last axis, which keeps length 1."""
        if self.opset < AXES_AS_INPUT:
            return self.node("ReduceMax", [values], output, axes=[-1], keepdims=1)
        last = self.constant("constant.last_axis", np.array([-1], dtype=np.int64))
        return self.node("ReduceMax", [values, last], output, keepdims=1)

    def halves(self, values: str, outputs: list[str]) -> list[str]:
        """Split values along their first axis into two parts of one length."""
        count: dict[str, Any] = {} if self.opset < AXES_AS_INPUT else {"num_outputs": 2}
        self.nodes_out("Split", [values], outputs, axis=0, **count)
        return outputs

    def keep(self, node: onnx.NodeProto) -> None:
        """Add a node as it is."""
        self._made.update(dict.fromkeys(node.output, node))
        self.nodes.append(node)

    def model(self, like: onnx.ModelProto) -> onnx.ModelProto:
        """Return the graph as a model with the inputs and outputs of another; unused initialisers are left out."""
        from onnx import helper

        used = {name for node in self.nodes for name in node.input}
        graph = helper.make_graph(
            self.nodes,
            like.graph.name,
            list(like.graph.input),
            list(like.graph.output),
            [tensor for name, tensor in self._initializers.items() if name in used],
        )
        opsets = [helper.make_opsetid("", self.opset)]
        if any(node.domain == MICROSOFT for node in self.nodes):
            opsets.append(helper.make_opsetid(MICROSOFT, 1))
        ir_version = max(like.ir_version, helper.find_min_ir_version_for(opsets[:1]))
        return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, producer_name="bertport")
