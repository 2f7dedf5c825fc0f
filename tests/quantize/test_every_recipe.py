"""Every recipe from every kind of bundle, to its end: made, valid ONNX, written, opened, and near fp32."""

from __future__ import annotations

import copy
import dataclasses
import re
import shutil

import numpy as np
import onnx
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from bertport.export import export
from bertport.export.graph.tracing import OPSETS
from bertport.measure.budget import Budget
from bertport.quantize import evaluation as evaluation_module
from bertport.quantize.evaluation import evaluate, open_reference
from bertport.quantize.graph.builder import MICROSOFT, GraphBuilder
from bertport.quantize.graph.fusion import LEAST_OPSET, _quiet, _split_skips, fuse, load_plain, sort_nodes
from bertport.quantize.graph.rewrite import linears
from bertport.quantize.job import Options
from bertport.quantize.quantizer import quantize
from bertport.quantize.recipes.table import RECIPES
from bertport.quantize.recipes.weight_only import INT8_COMPUTE
from bertport.quantize.texts import read_evaluation
from bertport.runtime import load
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import BundleError
from tests.conftest import build_checkpoint
from tests.quantize.conftest import session
from tests.quantize.every_recipe import GRAPHS, Source, near, to_its_end


def exported(place, model_class="BertForPreTraining", *, opset=17, weights="float32", change=None, **config):
    """Export a very small checkpoint of one kind."""
    checkpoint = build_checkpoint(place / "checkpoint", model_class, **({"num_hidden_layers": 1} | config))
    if change:
        model = getattr(transformers, model_class).from_pretrained(checkpoint)
        change(model)
        model.save_pretrained(checkpoint)
    return export(checkpoint, place / "bundle", opset=opset, weights=weights)


KINDS = {
    "the oldest opset": {"opset": 14},
    "relative positions": {"position_embedding_type": "relative_key_query", "num_hidden_layers": 2},
}


def kinds(named):
    """Return the names of kinds, those marked that only transformers before 5 computes."""
    only_before_5 = {name for name, settings in named.items() if "position_embedding_type" in settings}
    return [pytest.param(name, marks=pytest.mark.optimum if name in only_before_5 else ()) for name in named]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Return a function that makes each kind of bundle once."""
    made = {}

    def source(kind):
        if kind not in made:
            made[kind] = Source(exported(tmp_path_factory.mktemp("kind"), **KINDS[kind]))
        return made[kind]

    return source


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("kind", kinds(KINDS))
def test_every_recipe_runs_to_its_end(sources, kind, name, held_out, tmp_path):
    to_its_end(sources(kind), name, held_out, tmp_path)


def accuracies(monkeypatch, bundle, candidate, evaluation, **how):
    """Return what is measured of a graph with the texts of one length together, and with each alone."""
    found = []
    for tokens in (evaluation_module.TOGETHER, 0):
        monkeypatch.setattr(evaluation_module, "TOGETHER", tokens)
        reference = open_reference(bundle)
        found.append(evaluate(bundle, reference, candidate, evaluation, stability=0, progress=lambda *_: None, **how))
        runs = len(reference._cache)
        assert runs == len(evaluation.samples) if tokens == 0 else runs < 0.8 * len(evaluation.samples)
    return found


@pytest.mark.parametrize("name", GRAPHS)
def test_texts_measured_in_one_batch_answer_to_the_bit_as_each_alone(sources, name, held_out, monkeypatch):
    source, recipe = sources("the oldest opset"), RECIPES[name]
    evaluation = read_evaluation(source.bundle, held_out, sample="evaluation", positions=120, pairs=60)
    candidate = recipe.make(source.graph_source(recipe, held_out)).SerializeToString()
    together, alone = accuracies(monkeypatch, source.bundle, candidate, evaluation, exact="cpu" not in recipe.providers)
    if name != "int4-weight-only" or not last_bits():
        assert together == alone
        return
    one, other = (figures(dataclasses.asdict(each)) for each in (together, alone))
    assert one.keys() == other.keys()
    # What a rounding of float32 can move them by: an answer that changed would move agreement by 1 in 120.
    np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-4, atol=1e-5)


def figures(value, name=""):
    """Return the numbers in nested dictionaries and lists, by their place."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    found = {place: each for key, part in items for place, each in figures(part, f"{name}/{key}").items()}
    return found or ({name: value} if isinstance(value, int | float) else {})


def last_bits(inputs=256, outputs=256):
    """Return the largest difference between a row of MatMulNBits of 4 bits alone, and the same among others.

    Relative to the largest value of the product: 0 where the kernel of one row sums as that of several does.
    """
    rng = np.random.default_rng(0)
    packed = rng.integers(0, 256, size=(outputs, inputs // 32, 16), dtype=np.uint8)
    scales = rng.uniform(0.001, 0.01, size=outputs * inputs // 32).astype(np.float32)
    builder = GraphBuilder(LEAST_OPSET)
    stored = [onnx.numpy_helper.from_array(each, name) for name, each in (("packed", packed), ("scales", scales))]
    kind = {"K": inputs, "N": outputs, "bits": 4, "block_size": 32, "accuracy_level": INT8_COMPUTE}
    builder.node("MatMulNBits", ["x", "packed", "scales"], "y", domain=MICROSOFT, **kind)
    ends = [onnx.helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, None) for end in "xy"]
    graph = onnx.helper.make_graph(builder.nodes, "rows", ends[:1], ends[1:], initializer=stored)
    imports = [onnx.helper.make_opsetid("", LEAST_OPSET), onnx.helper.make_opsetid(MICROSOFT, 1)]
    opened = session(onnx.helper.make_model(graph, opset_imports=imports, ir_version=8))
    x = rng.standard_normal((8, inputs)).astype(np.float32)
    [several], [one] = (opened.run(None, {"x": rows}) for rows in (x, x[:1]))
    np.testing.assert_array_equal(several[:2], opened.run(None, {"x": x[:2]})[0])  # one row alone differs, two do not
    return float(np.abs(several[0] - one[0]).max() / np.abs(several).max())


def test_a_row_of_four_bits_alone_differs_in_its_last_bits_at_most():
    """The bound that docs/reference/quantization.md tells users."""
    assert last_bits() < 1e-6


@pytest.mark.slow
def test_texts_in_one_batch_answer_as_each_alone_at_a_real_width(monkeypatch):
    bundle = Bundle.open(default_bundle())
    evaluation = read_evaluation(bundle, None, sample="evaluation", positions=60, pairs=60)
    together, alone = accuracies(monkeypatch, bundle, "int8-dynamic", evaluation)
    assert together == alone


OTHERS = {
    "float16 weights": {"weights": "float16"},
    "float16 weights in the oldest opset": {"weights": "float16", "opset": 14},
    "only hidden states": {"model_class": "BertModel"},
    "only the MLM head": {"model_class": "BertForMaskedLM"},
    "relative keys": {"position_embedding_type": "relative_key", "opset": 15},
    "a decoder of its own": {"tie_word_embeddings": False},
    "relu": {"hidden_act": "relu"},
    "the tanh form of GELU": {"hidden_act": "gelu_new"},
    "silu": {"hidden_act": "silu"},
    "GELU cut at 10": {"hidden_act": "gelu_10"},
    "one head, an odd width": {"num_attention_heads": 1, "hidden_size": 33, "intermediate_size": 49},
    "chunks": {"chunk_size_feed_forward": 4},
    **{f"opset {opset}": {"opset": opset} for opset in OPSETS if opset != min(OPSETS)},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds(OTHERS))
def test_every_recipe_runs_to_its_end_from_every_other_bundle(kind, held_out, tmp_path):
    source = Source(exported(tmp_path, **OTHERS[kind]))
    for name in GRAPHS:
        (tmp_path / name).mkdir()
        to_its_end(source, name, held_out, tmp_path / name)


@pytest.fixture(scope="module")
def default():
    """The default model's bundle; fitting weights takes most of a minute here, and is tried on the small ones."""
    return Source(Bundle.open(default_bundle()), calibrates=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_every_recipe_runs_to_its_end_from_the_default_model(default, name, held_out, tmp_path):
    to_its_end(default, name, held_out, tmp_path)


@pytest.mark.slow
def test_the_command_adds_every_recipe_and_each_answers(tiny_bundle, held_out, tmp_path):
    place = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    options = Options(text=held_out, calibration=held_out, budget=Budget(bounds={}), positions=60, pairs=8, force=True)
    assert [outcome.name for outcome in quantize(place, GRAPHS, options=options)] == GRAPHS
    bundle = Bundle.open(place)
    assert not bundle.verify()
    for name in GRAPHS:
        path = bundle.file(bundle.manifest.variants[name].file)
        onnx.checker.check_model(str(path), full_check=True)
        if "cpu" in RECIPES[name].providers:
            [*answers] = load(place, variant=name, provider="cpu").fill_mask("the [MASK] is small .", top_k=3)
            assert len(answers) == 3


@pytest.fixture(scope="module")
def wrong(sources, tmp_path_factory):
    """A bundle whose graph has two matrices in each other's place, compared with the right answers."""
    right = sources("the oldest opset")
    changed = load_plain(right.path)
    stored = {
        tensor.name.removeprefix("bert.encoder.layer.0.attention."): tensor for tensor in changed.graph.initializer
    }
    one, other = stored["self.value.weight"], stored["output.dense.weight"]
    one.raw_data, other.raw_data = other.raw_data, one.raw_data
    path = tmp_path_factory.mktemp("wrong") / "model.onnx"
    onnx.save(changed, path)
    source = copy.copy(right)
    source.plain, source.calibrator = changed, None
    source.fused = fuse(load_plain(path), right.bundle.manifest.architecture)
    return source


@pytest.mark.parametrize("name", GRAPHS)
def test_the_bound_tells_a_wrong_graph(wrong, name, held_out):
    recipe = RECIPES[name]
    assert wrong.distance(recipe.make(wrong.graph_source(recipe, held_out))) < near(name) - 0.05


def test_raising_the_opset_changes_no_output(sources):
    source = sources("the oldest opset")
    before = onnx.load(source.path)
    assert before.opset_import[0].version < LEAST_OPSET == source.plain.opset_import[0].version
    for one, two in zip(source.expected, session(source.plain).run(source.outputs, source.feeds), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
    onnx.checker.check_model(source.plain, full_check=True)
    operators = [node.op_type for node in source.plain.graph.node]
    assert operators.count("LayerNormalization") == 4  # embeddings, two in the layer, one in the MLM head
    assert "ReduceMean" not in operators


@pytest.mark.parametrize("kind", kinds(KINDS))
def test_shapes_that_are_inferred_without_weights_fuse_the_same_graph(sources, kind):
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    source = sources(kind)
    architecture = source.bundle.manifest.architecture
    options = FusionOptions("bert")
    options.use_raw_attention_mask()
    with _quiet():
        stock = optimize_model(
            load_plain(source.path),
            num_heads=architecture.attention_heads,
            hidden_size=architecture.hidden_size,
            opt_level=0,
            optimization_options=options,
        ).model
    assert "SkipLayerNormalization" in {node.op_type for node in stock.graph.node}
    _split_skips(stock)
    assert unnamed(stock) == unnamed(source.fused)


def unnamed(model):
    """Return a copy of a graph without the names of tensors in its constants, which say nothing."""
    copied = copy.deepcopy(model)
    for node in copied.graph.node:
        for attribute in node.attribute:
            attribute.t.ClearField("name")
    return copied


def test_an_operator_that_the_newer_opset_changed_is_refused(sources, tmp_path):
    model = onnx.load(sources("the oldest opset").path)
    model.graph.node.append(onnx.helper.make_node("ScatterElements", ["a", "b", "c"], ["d"]))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(
        BundleError, match=r"opset 14, and its operator ScatterElements means something else in opset 16"
    ):
        load_plain(tmp_path / "model.onnx")


@given(order=st.permutations(range(8)))
def test_nodes_are_sorted_from_any_order(order):
    nodes = [
        onnx.helper.make_node("Add", [f"{max(0, number - 1)}", f"{number // 2}"], [f"{number + 1}"])
        for number in range(8)
    ]
    graph = onnx.helper.make_graph([nodes[number] for number in order], "graph", [], [])
    model = onnx.helper.make_model(graph)
    sort_nodes(model)
    seen = {"0"}
    for node in model.graph.node:
        assert seen.issuperset(node.input)
        seen.update(node.output)
    assert len(seen) == 9
    again = [node.output[0] for node in model.graph.node]
    sort_nodes(model)
    assert [node.output[0] for node in model.graph.node] == again


def share_layers(model):
    """Make the second layer share the first one's matrices, and keys and values those of queries."""
    import torch

    with torch.no_grad():
        state = model.state_dict()
        for name, tensor in state.items():
            first = name.replace(".layer.1.", ".layer.0.")
            tensor.copy_(state[re.sub(r"\.(key|value)\.weight$", ".query.weight", first)])


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A bundle of which several products take one matrix: exporters store equal ones once."""
    place = tmp_path_factory.mktemp("shared")
    source = Source(exported(place, change=share_layers, num_hidden_layers=2))
    names = [layer.name for layer in linears(source.plain)]
    assert len(set(names)) < len(names)
    return source


@pytest.mark.parametrize("name", GRAPHS)
def test_a_matrix_of_several_layers_runs_to_its_end(shared, name, held_out, tmp_path):
    to_its_end(shared, name, held_out, tmp_path)


@pytest.mark.parametrize("in_float", [False, True])
@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.emitter])
def test_layers_in_higher_precision_run_to_their_end(shared, name, in_float, held_out):
    recipe = RECIPES[name]
    source = shared.graph_source(recipe, held_out)
    layers = linears(recipe.graph(source))
    every = frozenset(layer.name for layer in layers)
    for higher in (every, frozenset({layers[0].name})):
        model = recipe.make(dataclasses.replace(source, high_precision_layers=higher, float_fallback=in_float))
        onnx.checker.check_model(model, full_check=True)
        assert shared.distance(model) > near(name)


def test_a_name_stands_for_one_value():
    builder = GraphBuilder(17)
    for _ in range(2):
        builder.node("Abs", ["x"], "y")
    assert [node.op_type for node in builder.nodes] == ["Abs"]
    assert builder.has("y")
    for operator, source in (("Neg", "x"), ("Abs", "z")):
        with pytest.raises(ValueError, match="y is computed by y/Abs already, in another way"):
            builder.node(operator, [source], "y")
