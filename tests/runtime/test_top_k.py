"""The likeliest words chosen in the graph are those chosen from its logits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.heads import HEADS, MLM
from bertport.runtime.model import Model
from bertport.runtime.providers.table import PROVIDERS
from bertport.runtime.session import open_graph
from bertport.runtime.top_k import IDS, LOG_PROBABILITIES, top_k_head
from tests.runtime.parity import assert_same_fillings

TEXTS = ["a [MASK]", "the king of [MASK] is old", "[MASK] [MASK] x"]


@pytest.fixture(scope="module")
def small(tiny_bundle, model):
    """The tiny bundle with what a GPU gets, on the CPU: ONNX Runtime runs the same operators."""
    bundle = Bundle.open(tiny_bundle)
    path = bundle.file(bundle.manifest.variants["fp32"].file)
    graph = open_graph(path, PROVIDERS["cpu"], appended=top_k_head(HEADS[MLM].output))
    return Model(bundle, "fp32", graph, model.tokens)


def test_the_graph_keeps_its_inputs_and_outputs_and_gains_two(small, model):
    assert small.graph.inputs == model.graph.inputs
    assert small.graph.outputs == model.graph.outputs | {IDS, LOG_PROBABILITIES}
    assert small.graph.optional == {"top_k"}


@pytest.mark.parametrize("top_k", [1, 5, 40, None])
def test_answers_are_the_same(small, model, top_k):
    for ours, theirs in zip(small.fill_mask(TEXTS, top_k=top_k), model.fill_mask(TEXTS, top_k=top_k), strict=True):
        assert_same_fillings(theirs, ours)


def test_only_the_chosen_leave_the_graph(small, monkeypatch):
    fetched = []
    run = type(small.graph).run

    def note(graph, feeds, outputs):
        fetched.append((list(outputs), feeds.get("top_k")))
        return run(graph, feeds, outputs)

    monkeypatch.setattr(type(small.graph), "run", note)
    small.fill_mask("a [MASK]", top_k=7)
    small.fill_mask("a [MASK]", targets=["king", "queen"])  # anywhere in the vocabulary: every logit is needed
    small.features("a")
    assert fetched == [([IDS, LOG_PROBABILITIES], [7]), (["logits"], None), (["last_hidden_state"], None)]


def test_tasks_mixed_in_a_batch_get_their_shares(small, model):
    fill = small.bind("fill-mask", top_k=3).prepare(["a b [MASK] [MASK]", "[MASK] a"])
    more = small.bind("fill-mask", top_k=9).prepare(["[MASK] b c d"])
    vectors = small.bind("features").prepare(["a b c"])
    ours = small.run([fill[0], *vectors, *more, fill[1]])
    assert_same_fillings(model.fill_mask("a b [MASK] [MASK]", top_k=3), ours[0])
    np.testing.assert_allclose(ours[1], model.features("a b c"), atol=1e-5)
    assert_same_fillings(model.fill_mask("[MASK] b c d", top_k=9), ours[2])
    assert_same_fillings(model.fill_mask("[MASK] a", top_k=3), ours[3])


@pytest.fixture
def decoded(monkeypatch, small):
    """The numbers of positions that graphs are given, in a list that grows with each run."""
    counts = []
    run = type(small.graph).run

    def note(graph, feeds, outputs):
        counts.append(len(feeds["masked_positions"]))
        return run(graph, feeds, outputs)

    monkeypatch.setattr(type(small.graph), "run", note)
    return counts


def test_a_graph_that_chooses_words_is_never_run_without_a_position(small, decoded):
    small.features("a")
    small.next_sentence("a", "b")
    assert decoded == [1, 1]


def test_tensors_without_a_position_are_not_run_without_one_and_have_no_logits(small, model, decoded):
    ids = np.full((2, 5), 20)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    feeds["masked_positions"] = np.zeros(0, dtype=np.int64)
    names = ["logits", "pooler_output"]
    outputs, wanted = (loaded.graph.run_in_slices(feeds, names, most=8) for loaded in (small, model))
    assert decoded == [1, model.graph.least_positions]
    assert outputs["logits"].shape == wanted["logits"].shape == (0, model.bundle.manifest.architecture.vocab_size)
    np.testing.assert_allclose(outputs["pooler_output"], wanted["pooler_output"], atol=1e-6)


@pytest.mark.parametrize(("version", "least"), [("1.24.4", 1), ("1.31.1", 1), ("1.32.0", 0), ("2.0.0", 0)])
def test_a_graph_that_looks_for_the_largest_value_is_given_a_row_where_onnx_runtime_needs_one(
    model, monkeypatch, version, least
):
    """Up to 1.31 features of the default model failed: ReduceMax gives no rows another shape."""
    monkeypatch.setattr("onnxruntime.__version__", version)
    assert model.graph.least_positions == 0
    placed = dataclasses.replace(model.graph, placement={"CPUExecutionProvider": {"MatMul": 3, "ReduceMax": 1}})
    assert placed.least_positions == least


def test_a_provider_that_takes_no_empty_tensor_is_given_a_position(small):
    provider = dataclasses.replace(small.graph.provider, least_positions=1)
    graph = dataclasses.replace(small.graph, provider=provider)
    model = Model(small.bundle, "fp32", graph, small.tokens)
    [work] = model.bind("next-sentence").prepare([("a", "b")])
    [fill] = model.bind("fill-mask").prepare(["a [MASK] b"])
    assert model.run([work]) == small.run([work])
    assert_same_fillings(small.run([fill])[0], model.run([fill])[0])
