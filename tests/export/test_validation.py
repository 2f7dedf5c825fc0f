"""The grid is the one promised, and a graph that is wrong anywhere fails the export."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from bertport.export import graphs
from bertport.export.exporter import export
from bertport.export.grid import Vocabulary, grid
from bertport.export.validation import worst_difference
from bertport.runtime.errors import ValidationError

VOCABULARY = Vocabulary(ordinary=range(5, 100), cls=1, sep=2, pad=0, mask=3)


@given(max_length=st.integers(2, 600), segments=st.integers(1, 3))
def test_the_grid(max_length, segments):
    cases = list(grid(VOCABULARY, max_length=max_length, segments=segments))
    lengths = {min(each, max_length) for each in (2, 16, 128, max_length)}
    seen = set()
    for case in cases:
        ids, mask, types = (case.inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids"))
        seen.add((*ids.shape, bool((mask == 0).any()), bool(types.any())))
        assert ids.dtype == mask.dtype == types.dtype == np.int64
        assert ((ids >= 0) & (ids < 100)).all()
        assert (mask[:, 0] == 1).all()
        assert (ids[mask == 0] == 0).all()
        assert (types[mask == 0] == 0).all()
        assert types.max() < segments
        for positions in case.positions:
            assert ((positions >= 0) & (positions < ids.size)).all()
    assert {shape[:2] for shape in seen} == {(batch, length) for batch in (1, 3) for length in lengths}
    assert {(batch, length, padded) for batch, length, padded, _ in seen} == {
        (batch, length, padded) for batch in (1, 3) for length in lengths for padded in (False, True)
    }
    assert len(cases) == 2 * len(lengths) * 2 * min(segments, 2)
    assert any(not len(positions) for case in cases for positions in case.positions)


def test_the_grid_is_that_of_the_promise():
    cases = [case.name for case in grid(VOCABULARY, max_length=512, segments=2)]
    assert len(cases) == len(set(cases)) == 32
    assert cases[0] == "batch 1, length 2, full, 1 segment"
    assert cases[-1] == "batch 3, length 512, padded, 2 segments"


def test_the_grid_is_the_same_every_time():
    first, second = (list(grid(VOCABULARY, max_length=20, segments=2)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert all(np.array_equal(one.inputs[name], other.inputs[name]) for name in one.inputs)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_infinitely_wrong(value):
    one, other = np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32)
    other[1, 0] = value
    assert worst_difference(one, other) == (np.inf, [1, 0])
    assert worst_difference(other, other) == (np.inf, [1, 0])


def test_another_shape_is_infinitely_wrong():
    assert worst_difference(np.zeros((2, 2), np.float32), np.zeros((2, 1), np.float32)) == (np.inf, [])
    assert worst_difference(np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)) == (0.0, [])


def change_weight(name, index, amount):
    def change(model):
        for tensor in model.graph.initializer:
            if tensor.name == name:
                value = numpy_helper.to_array(tensor).copy()
                value[index] += amount
                tensor.CopyFrom(numpy_helper.from_array(value, name))
                return model, True
        raise AssertionError(name)

    return change


def wrong_row(model):
    """Gather the position before the one asked for, the last for the first."""
    model.graph.initializer.append(numpy_helper.from_array(np.array(-1), "minus_one"))
    gather = next(node for node in model.graph.node if "masked_positions" in node.input)
    gather.input[1] = "before"
    node = onnx.helper.make_node("Add", ["masked_positions", "minus_one"], ["before"])
    model.graph.node.insert(0, node)
    return model, True


def lost_padding(model):
    """Attend to padding too."""
    for node in model.graph.node:
        node.input[:] = ["all_ones" if each == "attention_mask" else each for each in node.input]
    nodes = [
        onnx.helper.make_node("Mul", ["attention_mask", "zero"], ["zeros"]),
        onnx.helper.make_node("Add", ["zeros", "one"], ["all_ones"]),
    ]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    for name, value in (("zero", 0), ("one", 1)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    return model, True


@pytest.mark.parametrize(
    ("stage", "damage", "output"),
    [
        ("name_weights", change_weight("cls.seq_relationship.bias", 1, 3e-4), "seq_relationship_logits"),
        ("name_weights", change_weight("cls.predictions.bias", 200, 3e-4), "logits"),
        ("name_weights", change_weight("bert.pooler.dense.bias", 3, 1e-1), "seq_relationship_logits|pooler_output"),
        (
            "name_weights",
            change_weight("bert.embeddings.position_embeddings.weight", (159, 0), 1.0),
            "logits|last_hidden_state",
        ),
        ("name_weights", lost_padding, "logits"),
    ],
    ids=["nsp bias", "one word's bias", "pooler bias", "the last position", "padding"],
)
def test_a_wrong_graph_fails_the_export(  # noqa: PLR0913, PLR0917 — fixtures
    stage, damage, output, tiny_checkpoint, tmp_path, monkeypatch
):
    """Each is a mistake that one output, one element or one case of the grid alone shows."""
    monkeypatch.setattr(graphs, stage, damage)
    with pytest.raises(ValidationError, match=rf"at worst in output ({output}) of \w+, shape \[.*element \[") as caught:
        export(tiny_checkpoint, tmp_path / "out")
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_serving_graph_fails_the_export(tiny_checkpoint, tmp_path, monkeypatch):
    honest = graphs.gather_positions
    monkeypatch.setattr(graphs, "gather_positions", lambda model: wrong_row(honest(model)[0]))
    with pytest.raises(ValidationError, match="output logits of fp32"):
        export(tiny_checkpoint, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_does_not_run_is_refused(tiny_checkpoint, tmp_path, monkeypatch):
    def out_of_bounds(model):
        gather = next(node for node in model.graph.node if "masked_positions" in node.input)
        gather.input[1] = "far"
        model.graph.initializer.append(numpy_helper.from_array(np.array([10**6]), "far"))
        return model, True

    honest = graphs.gather_positions
    monkeypatch.setattr(graphs, "gather_positions", lambda model: out_of_bounds(honest(model)[0]))
    with pytest.raises(ValidationError, match=r"cannot run the exported graph fp32 \(batch 1, length 2, full"):
        export(tiny_checkpoint, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_operators_of_others_are_refused(tiny_checkpoint, tmp_path, monkeypatch):
    def foreign(model, *_):
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
        return model, True

    monkeypatch.setattr(graphs, "set_ir_version", foreign)
    with pytest.raises(ValidationError, match=r"operators of com\.microsoft"):
        export(tiny_checkpoint, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_cannot_be_loaded_is_refused(tiny_checkpoint, tmp_path, monkeypatch):
    def broken(model, *_):
        model.graph.node[-1].op_type = "Nonsense"
        return model, True

    monkeypatch.setattr(graphs, "set_ir_version", broken)
    with pytest.raises(ValidationError, match="not valid ONNX"):
        export(tiny_checkpoint, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
