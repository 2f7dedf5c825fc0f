"""Graph pass: give outputs a second time, under the names by which other runtimes look for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import onnx_ir as ir

__all__ = ["drop_names", "name_for_others"]


def name_for_others(model: ir.Model, names: Mapping[str, Collection[str]]) -> tuple[ir.Model, bool]:
    """Add outputs behind those that there are: copies of them, or columns of their last axis.

    Args:
        model: the portable graph; it is changed in place.
        names: by the name of an output one more name for the whole of it, or one name for each column of its last
            axis, without that axis: of `span_logits` [batch, sequence, 2] two outputs [batch, sequence].

    Declines where there is no name to add.
    """
    import numpy as np
    import onnx_ir as ir

    graph = model.graph
    outputs = {value.name: value for value in graph.outputs}
    for output, further in names.items():
        source = outputs[output]
        for column, name in enumerate(further):
            whole = len(further) == 1
            dims = list(source.shape) if source.shape is not None else None
            shape = None if dims is None else ir.Shape(dims if whole else dims[:-1])
            value = ir.Value(name=name, shape=shape, type=source.type)
            if whole:
                node = ir.node("Identity", [source], outputs=[value], name=f"/{name}")
            else:
                index = ir.Value(name=f"{name}.column")
                index.const_value = ir.tensor(np.asarray(column, dtype=np.int64), name=index.name)
                graph.initializers.add(index)
                node = ir.node("Gather", [source, index], {"axis": -1}, outputs=[value], name=f"/{name}")
            graph.append(node)
            graph.outputs.append(value)
    return model, bool(names)


def drop_names(model: ir.Model, names: Mapping[str, Collection[str]]) -> tuple[ir.Model, bool]:
    """Take the outputs of `name_for_others` out again, which serving graphs do without."""
    graph = model.graph
    for name in (name for further in names.values() for name in further):
        [value] = [value for value in graph.outputs if value.name == name]
        graph.outputs.remove(value)
        node = value.producer()
        if node is None:  # the pass above gives each of them one
            raise TypeError(f"no node makes the output {name}")
        for index in node.inputs[1:]:
            if index is not None and index.name is not None:
                node.replace_input_with(1, None)
                del graph.initializers[index.name]
        graph.remove(node, safe=True)
    return model, bool(names)
