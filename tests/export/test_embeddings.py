"""Vectors of texts: the graph's against sentence-transformers', for each way of pooling, family and kind of module."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch

from bertport.export import export
from bertport.export.checkpoint.embedding import MODES
from bertport.export.graph.embedding import Pooling
from bertport.export.restorer import restore
from bertport.runtime import load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.manifest import EmbeddingModule
from tests.families import TINY, tiny
from tests.sentence_models import EVERY_KIND, sentence_model

pytestmark = pytest.mark.slow

TEXTS = ["the man went to the store", "a", "hello there, we are ten men in the city of paris", "milk and bread"]


@pytest.mark.parametrize("modes", [*((mode,) for mode in MODES), ("lasttoken", "cls"), tuple(MODES)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_pooling_is_that_of_the_library(modes, side):
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(4, 9, 8, generator=generator)
    mask = torch.tensor([[1] * real + [0] * (9 - real) for real in (9, 1, 4, 8)])
    if side == "left":
        mask = mask.flip(1)
    features = {"token_embeddings": states, "attention_mask": mask}
    expected = modules.Pooling(8, modes)(features)["sentence_embedding"]
    pooled = Pooling(modes)(states, mask)
    assert (pooled - expected).abs().max() < 1e-6


def differences(directory, out, *, texts=TEXTS, **options):
    """Export a model, and return how far its vectors are from those of the library."""
    library = pytest.importorskip("sentence_transformers")
    model = load(export(directory, out, **options).path)
    # One at a time: transformers' MobileBERT lets padding move the state of a text's last token.
    expected = library.SentenceTransformer(str(directory), device="cpu").encode(texts, batch_size=1)
    return np.abs(model.embed(texts) - expected)


@pytest.mark.parametrize("family", TINY)
def test_vectors_of_families(family, tmp_path):
    directory = sentence_model(tmp_path / "model", tiny(family, tmp_path / "encoder"))
    assert differences(directory, tmp_path / "out").max() < 1e-5


@pytest.mark.parametrize("opset", [14, 20])
def test_every_way_of_pooling_in_the_oldest_and_newest_opset(opset, tiny_checkpoint, tmp_path):
    modules = (EmbeddingModule(kind="pooling", modes=tuple(MODES)), *EVERY_KIND[1:], EmbeddingModule(kind="normalize"))
    directory = sentence_model(tmp_path / "model", tiny_checkpoint, modules)
    assert differences(directory, tmp_path / "out", opset=opset).max() < 1e-5
    graph = onnx.load(tmp_path / "out" / "onnx" / "model.onnx", load_external_data=False).graph
    assert not {"If", "Loop"} & {node.op_type for node in graph.node}
    held = {tensor.name for tensor in graph.initializer}
    assert {"embedding.1.linear.weight", "embedding.1.linear.bias", "embedding.3.linear.weight"} <= held


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_text_is_lower_cased_where_the_settings_say_so(family, make_checkpoint, tmp_path):
    make = {"bert": lambda path: make_checkpoint(path, cased=True)}.get(family, lambda path: tiny(family, path))
    directory = sentence_model(tmp_path / "model", make(tmp_path / "encoder"))
    settings = {"max_seq_length": 64, "do_lower_case": True}
    (directory / "sentence_bert_config.json").write_text(json.dumps(settings))
    assert differences(directory, tmp_path / "out", texts=[text.upper() for text in TEXTS]).max() < 1e-5
    assert Bundle.open(tmp_path / "out").manifest.lowercase


@pytest.mark.parametrize("weights", ["float32", "float16"])
def test_what_is_restored_is_a_model_of_the_library_with_equal_vectors(weights, sentence_checkpoint, tmp_path):
    library = pytest.importorskip("sentence_transformers")
    bundle = export(sentence_checkpoint, tmp_path / "bundle", weights=weights)
    restored = library.SentenceTransformer(str(restore(bundle, tmp_path / "restored")), device="cpu")
    given = library.SentenceTransformer(str(sentence_checkpoint), device="cpu")
    assert [type(module) for module in restored] == [type(module) for module in given]
    assert (restored.prompts, restored.similarity_fn_name) == (given.prompts, given.similarity_fn_name)
    assert restored.max_seq_length == given.max_seq_length == 64
    if weights == "float32":
        assert np.array_equal(restored.encode(TEXTS), given.encode(TEXTS))
    assert np.abs(restored.encode(TEXTS) - load(bundle.path).embed(TEXTS)).max() < 1e-5
