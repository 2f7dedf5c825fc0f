"""Every recipe for every family: all stored matrices are in 8 bits, and named as the family names them."""

import pytest

from bertport.quantize.graph.rewrite import linears
from bertport.runtime.bundle.directory import Bundle
from tests.families import TINY
from tests.quantize.conftest import rewritten_in_float, session
from tests.quantize.every_recipe import GRAPHS, Source, to_its_end

NAMES = {
    "bert": {"encoder.layer.1.attention.qkv", "encoder.layer.0.output.dense", "cls.predictions.decoder"},
    "roberta": {"encoder.layer.1.attention.qkv", "lm_head.dense", "lm_head.decoder"},
    "distilbert": {"transformer.layer.1.attention.out_lin", "transformer.layer.0.ffn.lin2", "vocab_projector"},
    "electra": {"embeddings_project", "generator_predictions.dense", "generator_lm_head"},
    "mpnet": {"encoder.layer.1.attention.attn.q", "lm_head.decoder"},
    "albert": {
        "encoder.embedding_hidden_mapping_in",
        "encoder.albert_layer_groups.0.albert_layers.0.ffn",
        "predictions.decoder",
    },
    "deberta-v2": {"encoder.layer.1.attention.self.query_proj", "cls.predictions.decoder"},
    "modernbert": {"layers.1.attn.Wqkv", "layers.0.mlp.Wi", "head.dense", "decoder"},
    "mobilebert": {"embeddings.embedding_transformation", "encoder.layer.0.bottleneck.input.dense"},
}
"""Some of each family's layers, by the names that people are shown."""
LEAST = {"int4-weight-only": 0.85, "int8-static": 0.9, "int8-static-cpu": 0.9}
"""The least cosines where they are below those of BERT: an ELECTRA's embeddings have 16 channels."""
DIFFERENT = ("roberta", "distilbert", "albert", "modernbert")
"""Families that differ from each other in what the rewriting must know."""


@pytest.fixture(scope="module")
def sources(family_bundle):
    """Return a function that reads each family's graph once."""
    made = {}

    def source(family):
        if family not in made:
            made[family] = Source(Bundle.open(family_bundle(family)))
        return made[family]

    return source


def check_layers(source, family):
    """What is left in float32 are products of activations, and what no recipe stores in 8 bits."""
    layers = linears(source.fused)
    assert {layer.name for layer in layers} >= NAMES.get(family, set())
    assert not [layer.name for layer in layers if "::" in layer.name or layer.name.startswith("/")]
    for graph in (source.plain, source.fused):
        taken = [layer.output for layer in linears(graph)]
        stored = {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer}
        products = [
            node
            for node in graph.graph.node
            if node.op_type in ("MatMul", "Gemm") and min(stored.get(node.input[1], (0,))) >= 16
        ]
        assert [node.name for node in products if node.output[0] not in taken] == []
    real = source.feeds["attention_mask"] == 1
    expected = source.expected[source.outputs.index("last_hidden_state")]
    [hidden] = session(rewritten_in_float(source.fused)).run(["last_hidden_state"], source.feeds)
    assert abs(hidden[real] - expected[real]).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("family", DIFFERENT)
def test_a_family_is_quantized_to_its_end(sources, family, held_out, tmp_path):
    check_layers(sources(family), family)
    to_its_end(sources(family), "int8-dynamic", held_out, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", TINY)
def test_every_recipe_runs_to_its_end_for_every_family(sources, family, held_out, tmp_path):
    check_layers(sources(family), family)
    for name in GRAPHS:
        (tmp_path / name).mkdir()
        to_its_end(sources(family), name, held_out, tmp_path / name, least=LEAST.get(name))
