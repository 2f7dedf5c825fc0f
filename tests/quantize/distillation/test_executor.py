"""Graphs computed by torch: what ONNX Runtime computes, to the step, and gradients through what is rounded."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from bertport.quantize.distillation.executor import TorchGraph, require_torch
from bertport.quantize.distillation.operators import OPERATORS
from bertport.quantize.graph.vectors import read_vectors, replace_vectors
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import MissingDependencyError, UsageError
from tests.families import TINY
from tests.quantize.conftest import STATIC, feeds, session

NEAR = 2e-5
"""Products of float32 in another order differ by some units of the last of 24 bits."""


def check_same_steps(model, fed, outputs):
    """Every rounded activation is ONNX Runtime's but for ties, and what is computed from its integers is its output.

    A value on the edge of two steps goes either way with the last bit of a sum, and what follows would differ by
    that step: so the integers that follow are ONNX Runtime's own.
    """
    rounding = {node.output[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert rounding
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    watched = onnx.ModelProto.FromString(model.SerializeToString())
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, types[node.input[2]], None) for name, node in rounding.items()
    )
    names = [*outputs, *rounding]
    expected = dict(zip(names, session(watched, as_defined=True).run(names, fed), strict=True))
    moved = []

    def compared(name):
        def adjust(found):
            integers = torch.from_numpy(expected[name]).float()
            moved.append((found - integers).abs().flatten())
            return integers

        return adjust

    with torch.no_grad():
        values = TorchGraph(model).run(fed, outputs, {name: compared(name) for name in rounding})
    assert len(moved) == len(rounding)
    assert torch.cat(moved).max() <= 1
    assert (torch.cat(moved) > 0).double().mean() < 1e-3  # about one in 10,000 is a tie
    for name, value in zip(outputs, values, strict=True):
        assert value.shape == expected[name].shape
        np.testing.assert_allclose(value.numpy(), expected[name], atol=NEAR, rtol=NEAR)


@pytest.mark.parametrize("recipe", STATIC)
def test_a_static_graph_is_computed_as_onnx_runtime_computes_it(static_graphs, tiny_source, recipe):
    check_same_steps(static_graphs[recipe], tiny_source.feeds, tiny_source.outputs)


@pytest.mark.slow
@pytest.mark.parametrize("family", TINY)
def test_graphs_of_every_family_are_computed_as_onnx_runtime_computes_them(family_bundle, family):
    bundle = Bundle.open(family_bundle(family))
    path = bundle.file(bundle.manifest.variants["fp32"].file)
    reference = session(path)
    known = {given.name for given in reference.get_inputs()}
    entries = min(400, bundle.manifest.architecture.vocab_size)
    fed = {name: value for name, value in feeds(entries=entries).items() if name in known}
    fed["attention_mask"][1, 9:] = 0
    outputs = [output.name for output in reference.get_outputs()]
    with torch.no_grad():
        values = TorchGraph(onnx.load(path)).run(fed, outputs)
    for value, expected in zip(values, reference.run(outputs, fed), strict=True):
        np.testing.assert_allclose(value.numpy(), expected, atol=NEAR, rtol=NEAR)


def test_gradients_pass_rounding_and_end_where_values_are_cut_off():
    values = torch.tensor([-9.0, -0.26, 0.1, 0.26, 9.0], requires_grad=True)
    step, middle = torch.tensor(0.5), torch.tensor(128, dtype=torch.uint8)
    integers = OPERATORS["QuantizeLinear"]([values, step, middle], {})
    narrow = OPERATORS["QuantizeLinear"]([100 * values, step, middle], {})
    assert integers.tolist() == [110, 127, 128, 129, 146]
    assert narrow.tolist() == [0, 76, 148, 180, 255]
    OPERATORS["DequantizeLinear"]([narrow, step, middle], {}).sum().backward()
    assert values.grad.tolist() == [0, 100, 100, 100, 0]


def test_vectors_are_biases_and_normalizations_and_get_gradients(static_graphs, tiny_source):
    model = static_graphs["int8-static-cpu"]
    vectors = read_vectors(model)
    assert {name.rpartition(".")[2] for name in vectors} == {"bias", "weight"}
    assert sum(name.endswith("LayerNorm.weight") for name in vectors) == 2 * 2 + 2  # of layers, embeddings, MLM's head
    graph = TorchGraph(model, vectors)
    sum(value.square().sum() for value in graph.run(tiny_source.feeds, tiny_source.outputs)).backward()
    unmoved = {name for name, value in graph.parameters.items() if not value.grad.abs().max() > 1e-6}
    assert {name.partition(".self.")[2] for name in unmoved} <= {"key.bias"}  # the same for every key: softmax drops it
    other = {name: value + 1 for name, value in vectors.items()}
    changed = replace_vectors(onnx.ModelProto.FromString(model.SerializeToString()), other)
    assert {name: value.tolist() for name, value in read_vectors(changed).items()} == {
        name: value.tolist() for name, value in other.items()
    }
    outputs = session(changed, as_defined=True).run(None, tiny_source.feeds)
    assert abs(outputs[0] - session(model, as_defined=True).run(None, tiny_source.feeds)[0]).max() > 0.1


def test_outputs_that_are_not_asked_for_are_not_computed(static_graphs):
    fed = feeds()
    del fed["masked_positions"]
    with torch.no_grad():
        [hidden] = TorchGraph(static_graphs["int8-static-cpu"]).run(fed, ["last_hidden_state"])
    assert hidden.shape[:2] == fed["input_ids"].shape


def test_an_operator_that_is_not_known_is_named(fused):
    with pytest.raises(UsageError, match=r"has com\.microsoft\.\w+ \(.+\), which is none of them: leave --distill out"):
        TorchGraph(fused)
    node = helper.make_node("Einsum", ["x"], ["y"], name="odd", equation="ij->ji")
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])
    graph = helper.make_graph([node], "odd", [value], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    with pytest.raises(UsageError, match=r"has Einsum \(odd\)"):
        TorchGraph(helper.make_model(graph))


def test_training_without_torch_is_one_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"needs the package torch, which is not installed: .*distill"):
        require_torch()
