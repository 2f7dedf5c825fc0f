"""Vectors of texts by every recipe: layers behind the encoder are quantized like any other, and their output stays."""

import pytest

from bertport.quantize.graph.rewrite import linears
from bertport.runtime.bundle.directory import Bundle
from tests.quantize.conftest import cosine, session
from tests.quantize.every_recipe import GRAPHS, Source, near, to_its_end

pytestmark = pytest.mark.slow

OUTPUT = "sentence_embedding"


@pytest.fixture(scope="module")
def source(sentence_bundle):
    return Source(Bundle.open(sentence_bundle))


@pytest.mark.parametrize("name", GRAPHS)
def test_vectors_of_texts_stay_near(source, name, held_out, tmp_path):
    assert "embedding.1.linear" in {layer.name for layer in linears(source.fused)}
    to_its_end(source, name, held_out, tmp_path)
    [vectors] = session(tmp_path / "model.onnx").run([OUTPUT], source.feeds)
    assert cosine(source.expected[source.outputs.index(OUTPUT)], vectors).min() > near(name) - 0.02
