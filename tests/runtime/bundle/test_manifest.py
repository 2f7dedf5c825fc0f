"""Manifests: true of the default graphs, shown to people, and read in time that grows with their length alone."""

from __future__ import annotations

import dataclasses
import json
import time

import onnx
import pytest

from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.manifest import FORMAT_VERSION, Embedding, EmbeddingModule, heads_of
from bertport.runtime.bundle.reading import from_json, read_manifest
from bertport.runtime.bundle.requirements import requires_of
from bertport.runtime.commands import render
from bertport.runtime.errors import BundleError
from bertport.runtime.heads import EMBEDDING
from tests.conftest import OLD


def test_a_key_that_is_there_twice_is_found_in_one_pass():
    """Counting each key among all of them took minutes here."""
    content = "{" + ", ".join(f'"{number}": 0' for number in (*range(60_000), 59_999)) + "}"
    began = time.process_time()
    with pytest.raises(BundleError, match="the key '59999' is there twice"):
        read_manifest(content.encode())
    assert time.process_time() - began < 20


def test_the_default_bundle_says_what_its_graphs_need():
    """Its manifest was upgraded without looking into them."""
    bundle = Bundle.open(default_bundle())
    assert bundle.format_version == FORMAT_VERSION
    for variant in bundle.manifest.variants.values():
        graph = onnx.load(bundle.file(variant.file), load_external_data=False)
        stated = variant.requires
        assert stated == requires_of(graph, precision=stated.precision, isa=stated.isa)


@pytest.mark.parametrize("path", [OLD, default_bundle()])
def test_inspect_shows_the_digest_and_the_format(path):
    text = render.manifest(Bundle.open(path))
    assert Bundle.open(path).digest in text
    assert (f"1 (bertport upgrade {path})" in text) is (path == OLD)


FACTS = Embedding(
    dimension=8,
    normalized=True,
    similarity="dot",
    modules=(
        EmbeddingModule(kind="pooling", modes=("cls", "mean")),
        EmbeddingModule(kind="dense", activation="Tanh"),
        EmbeddingModule(kind="normalize"),
    ),
    prompts={"query": "query: "},
    default_prompt="query",
    truncate_dim=4,
)


@pytest.fixture
def with_vectors():
    """A bundle whose head makes vectors of texts, as its manifest states it."""
    bundle = Bundle.open(OLD)
    entry = dataclasses.replace(heads_of([EMBEDDING])[EMBEDDING], embedding=FACTS)
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, heads={EMBEDDING: entry}))


def test_what_makes_vectors_of_texts_is_written_read_and_shown(with_vectors):
    content = with_vectors.manifest.to_bytes()
    assert read_manifest(content).manifest == with_vectors.manifest
    assert b'"similarity": "dot"' in content
    assert b"include_prompt" not in content
    assert "8 numbers, of length 1, cut to 4; compared by dot; prompts: query (default)" in render.manifest(
        with_vectors
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"similarity": "angle"}, "compares vectors by 'angle', which is none of cosine, dot, euclidean, manhattan"),
        ({"dimension": 0}, "gives vectors of 0 numbers"),
        ({"dimension": 2}, "cuts vectors of 2 numbers to 4"),
        ({"truncate_dim": 0}, "cuts vectors of 8 numbers to 0"),
        ({"default_prompt": "passage"}, "names the prompt 'passage', which it does not state"),
        ({"modules": [{}]}, "lacks the field 'kind'"),
    ],
)
def test_facts_about_vectors_that_cannot_be_are_refused(with_vectors, wrong, said):
    value = json.loads(with_vectors.manifest.to_bytes())
    value["heads"][EMBEDDING]["embedding"] |= wrong
    with pytest.raises(BundleError, match=said):
        from_json(value)
