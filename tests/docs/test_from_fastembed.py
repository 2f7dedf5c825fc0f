"""Both sides of the rows of fastembed on the page for people who come from it, on local models."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bertport.runtime import load
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION
from tests.heads import head_bundle
from tests.wheels import directory_of

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "from-sentence-transformers.md"
PACKAGES = ("fastembed==0.9.1", "loguru==0.7.3", "mmh3==5.3.1", "py_rust_stemmers==0.1.8")
"""fastembed, and what it asks for that is not here."""
TEXTS = ["a cup of tea", "the king went home", "the day was long"]
QUERY = "who went home?"
PROGRAM = """
import json, sys
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from fastembed.rerank.cross_encoder import TextCrossEncoder
embedder, ranker, texts, query = json.load(sys.stdin)
source = ModelSource(hf="acme/none")
TextEmbedding.add_custom_model(
    "acme/embedder", pooling=PoolingType.DISABLED, normalization=False, sources=source, dim=12,
    output_name="sentence_embedding",
)
model = TextEmbedding("acme/embedder", specific_model_path=embedder)
TextCrossEncoder.add_custom_model("acme/ranker", sources=source)
encoder = TextCrossEncoder("acme/ranker", specific_model_path=ranker)
said = {
    "embed": list(model.embed(texts)),
    "generator": list(model.embed((text for text in texts), batch_size=2)),
    "query": list(model.query_embed(query)),
    "passage": list(model.passage_embed(texts)),
}
said = {name: [vector.tolist() for vector in vectors] for name, vectors in said.items()}
print(json.dumps(said | {"rerank": list(encoder.rerank(query, texts))}))
"""
NOT_RUN = {
    '`TextEmbedding("BAAI/bge-small-en-v1.5")`',  # comes from the Hub
    "`cuda=True`",  # takes a GPU
    "`SparseTextEmbedding`, `LateInteractionTextEmbedding`, `ImageEmbedding`",  # not offered
}
"""fastembed's side of the rows that nothing here can run."""


def test_what_each_row_names_is_run():
    section = PAGE.read_text(encoding="utf-8").partition("\n## fastembed\n")[2].partition("\n## ")[0]
    sides = [re.split(r" *\| *", line)[1] for line in section.splitlines() if line.startswith("| `")]
    assert set(sides) >= NOT_RUN
    names = [name for side in sides if side not in NOT_RUN for name in re.findall(r"(\w+)(?:\(|=)", side)]
    assert {"add_custom_model", "embed", "query_embed", "rerank"} <= set(names)
    assert not [name for name in names if name not in PROGRAM and name != "parallel"]  # more processes


@pytest.fixture(scope="module")
def said(sentence_bundle, ranker):
    """Return what fastembed answers, which opens the bundles' own graphs."""
    asked = json.dumps([str(sentence_bundle), str(ranker), TEXTS, QUERY])
    path = os.pathsep.join([str(directory_of("fastembed-0.9.1", *PACKAGES)), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, input=asked, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def ranker(tmp_path_factory):
    """Return the bundle of a model that ranks."""
    return head_bundle(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION, labels=("LABEL_0",))[1]


@pytest.mark.slow
def test_both_sides_give_the_same(said, sentence_bundle, ranker):
    model = load(sentence_bundle)
    vectors = model.embed(TEXTS)
    for name in ("embed", "generator", "passage"):
        np.testing.assert_allclose(said[name], vectors, atol=1e-5)
    np.testing.assert_allclose(list(model.predict("embeddings", iter(TEXTS))), vectors, atol=1e-5)
    np.testing.assert_allclose(said["query"][0], model.embed(QUERY), atol=1e-5)
    rows = load(ranker).rank(QUERY, TEXTS, function_to_apply="none")
    np.testing.assert_allclose([row["score"] for row in rows], sorted(said["rerank"], reverse=True), atol=1e-5)
    assert [row["corpus_id"] for row in rows] == np.argsort(said["rerank"])[::-1].tolist()
