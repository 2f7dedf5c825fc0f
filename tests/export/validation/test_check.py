"""The grid is the one promised, and a graph that is wrong anywhere fails the export."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from bertport.export.checkpoint.read import read_checkpoint
from bertport.export.checkpoint.source import locate
from bertport.export.exporter import export
from bertport.export.graph import build as graphs
from bertport.export.graph.build import make_graphs
from bertport.export.graph.tracing import Tracing
from bertport.export.graph.wrapper import build
from bertport.export.progress import Stages
from bertport.export.validation.cases import SEEDS, Attention, Vocabulary, cases, grid
from bertport.export.validation.check import validate, worst_difference
from bertport.runtime.errors import ValidationError
from tests.export.passes import as_pass

VOCABULARY = Vocabulary(ordinary=range(5, 100), cls=1, sep=2, pad=0, mask=3)


@given(max_length=st.integers(1, 600), segments=st.integers(1, 5))
def test_the_grid(max_length, segments):
    cases = list(grid(VOCABULARY, max_length=max_length, segments=segments))
    lengths = {min(length, max_length) for length in (2, 16, 128, max_length)}
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
        (batch, length, padded) for batch in (1, 3) for length in lengths for padded in (False, True)[:length]
    }
    assert len(cases) == 2 * (2 * len(lengths) - (max_length == 1)) * min(segments, 2)
    if max_length >= 16:
        every = np.concatenate([case.inputs["token_type_ids"].ravel() for case in cases])
        assert np.unique(every).tolist() == list(range(segments))
    assert any(not len(positions) for case in cases for positions in case.positions)


def test_the_grid_is_that_of_the_promise():
    names = [case.name for case in grid(VOCABULARY, max_length=512, segments=2)]
    assert len(names) == len(set(names)) == 32
    assert names[0] == "batch 1, length 2, full, 1 segment"
    assert names[-1] == "batch 3, length 512, padded, 2 segments"


def test_local_attention_is_compared_beyond_its_window():
    lengths = Attention(heads=12, window=128).lengths(8192)
    assert lengths == [2, 16, 128, 256, 2364]
    assert Attention(heads=4, window=8).lengths(64) == [2, 16, 64]
    assert Attention(heads=16).lengths(512) == [2, 16, 128, 512]


def test_no_batch_takes_more_attention_than_memory_holds():
    cases = list(grid(VOCABULARY, max_length=8192, segments=1, attention=Attention(heads=12)))
    shapes = {case.inputs["input_ids"].shape for case in cases}
    assert {length for _, length in shapes} == {2, 16, 128, 2364}
    assert (1, 2364) in shapes
    assert (3, 2364) not in shapes
    assert all(rows * 12 * length**2 <= 2**26 for rows, length in shapes)


def test_the_grid_is_the_same_every_time():
    first, second = (list(cases(VOCABULARY, max_length=20, segments=2)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert all(np.array_equal(one.inputs[name], other.inputs[name]) for name in one.inputs)


@given(max_length=st.integers(1, 600), segments=st.integers(1, 3))
def test_each_further_seed_fills_a_few_padded_batches(max_length, segments):
    every = list(cases(VOCABULARY, max_length=max_length, segments=segments))
    assert {case.seed for case in every} == set(SEEDS)
    assert len({case.name for case in every}) == len(every)
    whole = len(list(grid(VOCABULARY, max_length=max_length, segments=segments)))
    further = every[whole:]
    assert all(case.seed == SEEDS[0] for case in every[:whole])
    lengths = {min(length, max_length) for length in (16, 128)}
    assert len(further) == 3 * len(lengths) * min(segments, 2)
    assert {case.inputs["input_ids"].shape for case in further} == {(3, length) for length in lengths}
    if max_length > 1:
        assert not any(case.inputs["attention_mask"].all() for case in further)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_infinitely_wrong(value):
    one, other = np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32)
    other[1, 0] = value
    assert worst_difference(one, other) == (np.inf, [1, 0])
    assert worst_difference(other, other) == (np.inf, [1, 0])


@pytest.mark.parametrize("block", [1, 7, 2**16])
def test_the_worst_element_is_found_in_whichever_block_it_is(monkeypatch, block):
    monkeypatch.setattr("bertport.export.validation.check.BLOCK", block)
    one, other = np.zeros((3, 4, 5), np.float32), np.zeros((3, 4, 5), np.float32)
    other[0, 3, 4], other[2, 1, 3] = 2, 1
    rows = np.ones((3, 4), bool)
    rows[0, 3] = False
    assert worst_difference(one, other) == (2, [0, 3, 4])
    assert worst_difference(one, other, rows) == (1, [2, 1, 3])


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
                return model
        raise AssertionError(name)

    return change


def wrong_row(model):
    """Gather the position before the one asked for, the last for the first."""
    model.graph.initializer.append(numpy_helper.from_array(np.array(-1), "minus_one"))
    gather = next(node for node in model.graph.node if "masked_positions" in node.input)
    gather.input[1] = "before"
    node = onnx.helper.make_node("Add", ["masked_positions", "minus_one"], ["before"])
    model.graph.node.insert(0, node)
    return model


def lost_padding(model):
    """Attend to padding too."""
    for node in model.graph.node:
        node.input[:] = ["all_ones" if name == "attention_mask" else name for name in node.input]
    nodes = [
        onnx.helper.make_node("Mul", ["attention_mask", "zero"], ["zeros"]),
        onnx.helper.make_node("Add", ["zeros", "one"], ["all_ones"]),
    ]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    for name, value in (("zero", 0), ("one", 1)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    return model


@pytest.mark.parametrize(
    ("stage", "damage", "output"),
    [
        ("name_weights", change_weight("cls.seq_relationship.bias", 1, 3e-4), "seq_relationship_logits"),
        pytest.param(
            "name_weights", change_weight("cls.predictions.bias", 200, 3e-4), "logits", marks=pytest.mark.slow
        ),
        pytest.param(
            "name_weights",
            change_weight("bert.pooler.dense.bias", 3, 1e-1),
            "seq_relationship_logits|pooler_output",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "name_weights",
            change_weight("bert.embeddings.position_embeddings.weight", (159, 0), 1.0),
            "logits|last_hidden_state",
            marks=pytest.mark.slow,
        ),
        pytest.param("name_weights", lost_padding, "logits", marks=pytest.mark.slow),
    ],
    ids=["nsp bias", "one word's bias", "pooler bias", "the last position", "padding"],
)
def test_a_wrong_graph_fails_the_export(  # noqa: PLR0913, PLR0917 — fixtures
    stage, damage, output, tiny_checkpoint, tmp_path, monkeypatch
):
    """Each is a mistake that one output, one element or one case of the grid alone shows."""
    monkeypatch.setattr(graphs, stage, as_pass(damage))
    with pytest.raises(ValidationError, match=rf"at worst in output ({output}) of \w+, shape \[.*element \[") as caught:
        export(tiny_checkpoint, tmp_path / "out")
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_wrong_serving_graph_fails_the_export(tiny_checkpoint, tmp_path, monkeypatch):
    honest, damage = graphs.gather_positions, as_pass(wrong_row)
    monkeypatch.setattr(graphs, "gather_positions", lambda model, output: damage(honest(model, output)[0]))
    with pytest.raises(ValidationError, match="output logits of fp32"):
        export(tiny_checkpoint, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_does_not_run_is_refused(tiny_checkpoint, tmp_path, monkeypatch):
    def out_of_bounds(model):
        gather = next(node for node in model.graph.node if "masked_positions" in node.input)
        gather.input[1] = "far"
        model.graph.initializer.append(numpy_helper.from_array(np.array([10**6]), "far"))
        return model

    honest = graphs.gather_positions
    monkeypatch.setattr(
        graphs, "gather_positions", lambda model, output: as_pass(out_of_bounds)(honest(model, output)[0])
    )
    with pytest.raises(ValidationError, match=r"cannot run the exported graph fp32 \(batch 1, length 2, full"):
        export(tiny_checkpoint, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_operators_of_others_are_refused(tiny_checkpoint, tmp_path, monkeypatch):
    @as_pass
    def foreign(model):
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
        return model

    monkeypatch.setattr(graphs, "set_ir_version", foreign)
    with pytest.raises(ValidationError, match=r"operators of com\.microsoft"):
        export(tiny_checkpoint, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_cannot_be_loaded_is_refused(tiny_checkpoint, tmp_path, monkeypatch):
    @as_pass
    def broken(model):
        model.graph.node[-1].op_type = "Nonsense"
        return model

    monkeypatch.setattr(graphs, "set_ir_version", broken)
    with pytest.raises(ValidationError, match="not valid ONNX"):
        export(tiny_checkpoint, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


class Exported:
    """The tiny model and its two graphs, and what validates changed ones."""

    def __init__(self, checkpoint, place, change=None):
        located = locate(str(checkpoint))
        self.model = build(read_checkpoint(located))
        if change:
            change(self.model)
        make_graphs(
            self.model, place, Tracing(opset=17), half=False, external_above=10**9, stages=Stages(lambda _: None)
        )
        self.place = place
        self.graphs = {name: onnx.load(place / file) for name, file in graphs.FILES.items()}
        self.cases = {
            seed: [
                case
                for case in grid(VOCABULARY, max_length=160, segments=2, seed=seed)
                if case.inputs["input_ids"].shape == (3, 16)
            ]
            for seed in range(6)
        }

    def validate(self, damage=None, *, seed=0, graph="portable", atol=1e-4):
        """Compare one graph, changed by a function of it, on a few batches of one seed."""
        model = copy.deepcopy(self.graphs[graph])
        if damage:
            damage(model)
        path = self.place / "changed.onnx"
        onnx.save(model, path)
        return validate(self.model, {graph: path}, self.cases[seed], atol=atol)[graph]


@pytest.fixture(scope="module")
def exported(tiny_checkpoint, tmp_path_factory):
    return Exported(tiny_checkpoint, tmp_path_factory.mktemp("exported"))


def swapped_weights(model):
    """Queries for keys: no other shape, no other operator."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    one, other = (stored[f"bert.encoder.layer.1.attention.self.{name}.weight"] for name in ("query", "value"))
    one.raw_data, other.raw_data = other.raw_data, one.raw_data


def wrong_epsilon(model):
    """PyTorch's own default for LayerNorm, where BERT has 1e-12."""
    for node in model.graph.node:
        if node.op_type == "LayerNormalization":
            next(attribute for attribute in node.attribute if attribute.name == "epsilon").f = 1e-5


def rounded_weights(model):
    """Weights in 16 bits that nobody asked for."""
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 2:
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16).astype(np.float32), tensor.name))


def wrong_segments(model):
    """The second segment's embedding for the first one's."""
    stored = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("token_type_embeddings.weight"))
    values = numpy_helper.to_array(stored)[::-1].copy()
    stored.CopyFrom(numpy_helper.from_array(values, stored.name))


FAULTS = [swapped_weights, wrong_epsilon, rounded_weights, wrong_segments, lost_padding]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_refused_at_every_seed(exported, fault):
    for seed in exported.cases:
        for graph in exported.graphs:
            with pytest.raises(ValidationError, match="float64, the graph"):
                exported.validate(fault, seed=seed, graph=graph)


def test_a_sound_graph_passes_at_every_seed_and_says_so(exported):
    for seed in exported.cases:
        for graph in exported.graphs:
            validation = exported.validate(seed=seed, graph=graph)
            assert validation.seeds == (seed,)
            assert validation.cases == 4
            assert validation.worst.keys() == {value.name for value in exported.graphs[graph].graph.output}
            assert validation.worst_padding.keys() == {"logits", "last_hidden_state"}
            assert validation.decided_by_float64 == 0
            assert max(validation.worst.values()) < 1e-4


def padding_moved_by(amount):
    """Return a function that adds to the hidden states of padding, and to nothing else."""

    def change(model, *_):
        output = next(value for value in model.graph.output if value.name == "last_hidden_state")
        name = output.name
        for node in model.graph.node:
            node.output[:] = ["inner" if value == name else value for value in node.output]
            node.input[:] = ["inner" if value == name else value for value in node.input]
        for constant, value in (("amount", np.float32(amount)), ("one", np.float32(1)), ("last", np.array([-1]))):
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), constant))
        model.graph.node.extend(
            [
                onnx.helper.make_node("Cast", ["attention_mask"], ["real"], to=onnx.TensorProto.FLOAT),
                onnx.helper.make_node("Equal", ["real", "one"], ["is_real"]),
                onnx.helper.make_node("Unsqueeze", ["is_real", "last"], ["column"]),
                onnx.helper.make_node("Add", ["inner", "amount"], ["moved"]),
                onnx.helper.make_node("Where", ["column", "inner", "moved"], [name]),
            ]
        )

    return change


def test_padding_is_judged_apart(exported):
    """1.4e-4 at a padded position made a sound all-MiniLM-L6-v2 fail."""
    validation = exported.validate(padding_moved_by(1.4e-4))
    assert validation.worst["last_hidden_state"] < 1e-5
    assert validation.worst_padding["last_hidden_state"] == pytest.approx(1.4e-4, rel=0.1)
    assert validation.worst_padding["logits"] < 1e-5


@pytest.mark.parametrize("amount", [0.1, np.inf, np.nan])
def test_padding_that_is_wildly_wrong_or_no_number_fails(exported, amount):
    with pytest.raises(ValidationError, match=r"output last_hidden_state of portable, shape \[[13], 16, 32\]"):
        exported.validate(padding_moved_by(amount))


@pytest.fixture(scope="module")
def straying(tiny_checkpoint, tmp_path_factory):
    """A model whose words all lie far from 0, which LayerNorm subtracts: float32 has few digits left for the rest."""

    def move(model):
        model.bert.embeddings.word_embeddings.weight.data += 10

    return Exported(tiny_checkpoint, tmp_path_factory.mktemp("straying"), move)


def test_where_both_stray_float64_decides(straying):
    validation = straying.validate(atol=1e-5)
    assert validation.decided_by_float64 > 0
    assert max(validation.worst.values()) > 1e-5
    assert straying.validate(atol=10).decided_by_float64 == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_where_both_stray_a_fault_is_still_refused(straying, fault):
    with pytest.raises(ValidationError, match="float64, the graph"):
        straying.validate(fault, atol=1e-5)


def bias_off_by(amount, index=100):
    """The bias of one word is another."""

    def change(model, *_):
        change_weight("cls.predictions.bias", index, np.float32(amount))(model)

    return change


@pytest.fixture(scope="module", params=[-1e4, -1e6, -1e30, float(np.finfo(np.float32).min)], ids=str)
def filled(tiny_checkpoint, tmp_path_factory, request):
    """A model that never gives three words: float32 has few digits, or none, for what is added to their biases."""

    def fill(model):
        model.cls.predictions.bias.data[3:6] = request.param

    return Exported(tiny_checkpoint, tmp_path_factory.mktemp("filled"), fill)


@pytest.mark.slow
def test_values_without_digits_decide_for_themselves_alone(filled):
    """The last digit of -1e4 is 0.001, and let every other word's bias be wrong by as much."""
    for graph in filled.graphs:
        filled.validate(graph=graph)
        filled.validate(graph=graph, atol=1e-7)
        for amount in (1e-3, 1.4e-3, 0.08):
            with pytest.raises(ValidationError, match=r"column 100 PyTorch is up to .* from float64, the graph"):
                filled.validate(bias_off_by(amount), graph=graph)


@pytest.fixture(scope="module")
def noisy_word(tiny_checkpoint, tmp_path_factory):
    """A model one of whose words has a large row: its logits are far from 0, and as many digits worse."""

    def enlarge(model):
        head = model.cls.predictions
        head.decoder.weight = type(head.decoder.weight)(head.decoder.weight.clone())
        head.decoder.weight.data[3] *= 1e5

    return Exported(tiny_checkpoint, tmp_path_factory.mktemp("noisy"), enlarge)


def test_a_word_that_strays_decides_for_itself_alone(noisy_word):
    validation = noisy_word.validate()
    assert validation.decided_by_float64 > 0
    assert validation.worst["logits"] > 3e-3
    with pytest.raises(ValidationError, match="column 100 PyTorch"):
        noisy_word.validate(bias_off_by(1e-3))


@pytest.fixture(scope="module")
def deep(make_checkpoint, tmp_path_factory):
    """Return a function that makes models of four layers with large matrices, each of which amplifies rounding."""
    checkpoint = make_checkpoint(tmp_path_factory.mktemp("deep") / "checkpoint", num_hidden_layers=4)

    def make(scale):
        def enlarge(model):
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.data *= scale

        return Exported(checkpoint, tmp_path_factory.mktemp("deep"), enlarge)

    return make


@pytest.fixture(scope="module")
def chaotic(deep):
    """A model whose answers rounding decides as much as its weights do."""
    return deep(20)


@pytest.mark.parametrize("fault", [None, wrong_epsilon], ids=["sound", "epsilon"])
def test_a_model_that_rounding_decides_cannot_be_verified(chaotic, fault):
    """The wrong epsilon moved the next sentence's scores by 1.1, and passed: PyTorch strays by 0.3 itself."""
    with pytest.raises(ValidationError, match=r"ill-conditioned in float32: column \d+ .* --atol above") as caught:
        chaotic.validate(fault)
    needed = float(str(caught.value).split("--atol above ")[1].split()[0])
    assert chaotic.validate(fault, atol=1.01 * needed).decided_by_float64 == 0


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault is not wrong_epsilon])
@pytest.mark.slow
def test_where_rounding_decides_no_fault_passes(chaotic, fault):
    for seed in chaotic.cases:
        with pytest.raises(ValidationError, match="nothing was written"):
            chaotic.validate(fault, seed=seed)  # the epsilon is less than rounding at some seeds


def test_a_sound_graph_passes_where_pytorch_was_lucky(deep):
    """All values of the text that strays most are off by little in PyTorch and by 20 times as much in the graph."""
    amplifying = deep(8)
    for seed in amplifying.cases:
        assert amplifying.validate(seed=seed).decided_by_float64 > 0


@pytest.mark.slow
def test_each_row_of_segments_is_compared(make_checkpoint, tmp_path, monkeypatch):
    checkpoint = make_checkpoint(tmp_path / "checkpoint", type_vocab_size=4)
    change = change_weight("bert.embeddings.token_type_embeddings.weight", (3, 0), 1.0)
    monkeypatch.setattr(graphs, "name_weights", as_pass(change))
    with pytest.raises(ValidationError, match="4 segments"):
        export(checkpoint, tmp_path / "out")


def test_a_model_whose_own_outputs_are_not_finite_is_named(exported, tiny_checkpoint, tmp_path):
    def enlarge(model):
        model.bert.embeddings.word_embeddings.weight.data *= 1e20

    with pytest.raises(ValidationError, match="the model's own output logits is not finite in PyTorch"):
        Exported(tiny_checkpoint, tmp_path, enlarge).validate()
    with pytest.raises(ValidationError, match="exported graph differs"):
        exported.validate(padding_moved_by(np.nan))
