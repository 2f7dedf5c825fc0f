"""embeddings and sentence-similarity: the vectors and scores of sentence-transformers, and its parameters."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

from bertport.runtime import load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.manifest import SIMILARITIES, EmbeddingModule
from bertport.runtime.bundle.writer import write_manifest
from bertport.runtime.errors import InputTextError, MissingHeadError, UnknownNameError, UsageError
from bertport.runtime.heads import EMBEDDING
from bertport.runtime.tasks.embeddings import LONGEST_PROMPT
from bertport.runtime.tasks.inputs import MOST_ROWS
from bertport.runtime.tasks.vectors import SIMILARITY_FUNCTIONS
from tests.sentence_models import DIMENSION

TEXTS = [
    "the man went to the store",
    "a",
    "",
    "Hello there, we are ten men in the city of Paris. " * 3,
    "milk and bread",
]
ATOL, UNIT_ATOL = 1e-4, 1e-5
"""Tolerances of a vector before it is normalized, and of one of length 1."""


@pytest.fixture(scope="module")
def model(sentence_bundle):
    return load(sentence_bundle)


@pytest.fixture(scope="module")
def reference(sentence_checkpoint):
    library = pytest.importorskip("sentence_transformers")
    return library.SentenceTransformer(str(sentence_checkpoint), device="cpu")


def vectors(model, texts, **parameters):
    return np.stack(list(model.predict("embeddings", texts, **parameters)))


OPTIONS = {
    "as they are": ({}, {}),
    "of length 1": ({"normalize": True}, {"normalize_embeddings": True}),
    "cut": ({"truncate_dim": 5}, {"truncate_dim": 5}),
    "cut, then of length 1": (
        {"truncate_dim": 5, "normalize": True},
        {"truncate_dim": 5, "normalize_embeddings": True},
    ),
    "with a prompt": ({"prompt": "to read: "}, {"prompt": "to read: "}),
    "with no prompt": ({"prompt": ""}, {"prompt": ""}),
    "with a named prompt": ({"prompt_name": "query"}, {"prompt_name": "query"}),
    "with an empty prompt": ({"prompt_name": "document"}, {"prompt_name": "document"}),
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_vectors_are_those_of_sentence_transformers(model, reference, kind):
    ours, theirs = OPTIONS[kind]
    embedded, expected = vectors(model, TEXTS, **ours), reference.encode(TEXTS, **theirs)
    assert (embedded.shape, embedded.dtype) == (expected.shape, np.float32)
    assert np.abs(embedded - expected).max() < (UNIT_ATOL if "normalize" in ours else ATOL)


def test_a_long_text_is_cut_where_sentence_transformers_cuts_it_if_the_caller_says_so(model, reference):
    long = "the man went to the store of the city " * 20
    with pytest.raises(InputTextError, match="the input has 182 tokens and the model takes 64"):
        vectors(model, [long])
    assert np.abs(vectors(model, [long], truncation=True) - reference.encode([long])).max() < ATOL
    cut = {"prompt": "a city of the ", "truncation": True}
    assert np.abs(vectors(model, [long], **cut) - reference.encode([long], prompt=cut["prompt"])).max() < ATOL


@pytest.fixture
def stating(sentence_bundle, tmp_path):
    """A function that loads the bundle with other facts about its vectors in its manifest."""

    def changed(**stated):
        path = shutil.copytree(sentence_bundle, tmp_path / "stating")
        manifest = Bundle.open(path).manifest
        entry = manifest.heads[EMBEDDING]
        entry = dataclasses.replace(entry, embedding=dataclasses.replace(entry.embedding, **stated))
        write_manifest(path, dataclasses.replace(manifest, heads=manifest.heads | {EMBEDDING: entry}))
        return load(path)

    return changed


def test_what_the_model_states_is_the_default(stating, reference):
    model = stating(default_prompt="query", truncate_dim=7)
    expected = reference.encode(TEXTS, prompt_name="query", truncate_dim=7)
    assert np.abs(vectors(model, TEXTS) - expected).max() < ATOL
    whole = vectors(model, TEXTS, prompt="", truncate_dim=DIMENSION)
    assert np.abs(whole - reference.encode(TEXTS)).max() < ATOL


def test_a_pooling_that_leaves_out_prompts_takes_none(stating):
    model = stating(modules=(EmbeddingModule(kind="pooling", modes=("mean",), include_prompt=False),), prompts={})
    assert vectors(model, ["a"], prompt="").shape == (1, DIMENSION)
    with pytest.raises(UsageError, match=r"makes vectors without the tokens of a prompt \(include_prompt\)"):
        model.bind("embeddings", prompt="query: ")


@pytest.mark.parametrize("name", SIMILARITIES)
def test_scores_are_those_of_sentence_transformers(stating, reference, monkeypatch, name):
    model = stating(similarity=name)
    monkeypatch.setattr(reference, "similarity_fn_name", name)
    source, *others = TEXTS
    question = {"source_sentence": source, "sentences": others}
    [scores] = model.predict("sentence-similarity", [question])
    encoded = reference.encode(TEXTS)
    expected = reference.similarity(encoded[:1], encoded[1:]).numpy()[0]
    assert np.abs(np.array(scores) - expected).max() < ATOL
    [cut] = model.predict("sentence-similarity", [question], truncate_dim=3, prompt_name="query")
    encoded = reference.encode(TEXTS, truncate_dim=3, prompt_name="query")
    assert np.abs(np.array(cut) - reference.similarity(encoded[:1], encoded[1:]).numpy()[0]).max() < ATOL


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarities_of_any_vectors(name):
    util = pytest.importorskip("sentence_transformers.util")
    rng = np.random.default_rng(3)
    a, b = (rng.normal(size=(count, 9)).astype(np.float32) for count in (40, 30))
    a[0] = 0
    b[:5] = a[:5]
    similarities = SIMILARITY_FUNCTIONS[name](a, b)
    expected = util.SimilarityFunction.to_similarity_fn(name)(a, b).numpy()
    assert similarities.dtype == np.float32
    # torch takes distances from products of more than 25 vectors, whose rounding shows where they are 0
    assert np.abs(similarities - expected).max() < (5e-3 if name == "euclidean" else 1e-5)
    exact = -np.sqrt(((a[:, None].astype(np.float64) - b) ** 2).sum(-1))
    assert name != "euclidean" or np.abs(similarities - exact).max() < 1e-5


def test_many_texts_are_answered_in_order_whatever_their_lengths(model, reference):
    rng = np.random.default_rng(4)
    words = ["the", "man", "went", "to", "the", "store", "of", "a", "large", "city"]
    texts = [" ".join(rng.choice(words, size=rng.integers(1, 40))) for _ in range(100)]
    assert np.abs(vectors(model, texts) - reference.encode(texts)).max() < ATOL
    assert list(model.predict("embeddings", [])) == []


WRONG = {
    "two prompts": ({"prompt": "a", "prompt_name": "query"}, UsageError, "a prompt and a prompt_name were given"),
    "no such prompt": ({"prompt_name": "passage"}, UnknownNameError, "query, document"),
    "no text": ({"prompt": 1}, UsageError, "prompt is a text, not 1"),
    "no name": ({"prompt_name": ["query"]}, UsageError, r"prompt_name is a text, not \['query'\]"),
    "too long": (
        {"prompt": "a" * (LONGEST_PROMPT + 1)},
        UsageError,
        "the prompt has 4,097 characters and may have 4,096",
    ),
    "no numbers": ({"truncate_dim": 0}, UsageError, "truncate_dim is a number from 1 to 12, not 0"),
    "too many": ({"truncate_dim": 13}, UsageError, "truncate_dim is a number from 1 to 12, not 13"),
    "no number": ({"truncate_dim": True}, UsageError, "truncate_dim is a number from 1 to 12, not True"),
    "neither": ({"normalize": "yes"}, UsageError, "normalize is True or False, not 'yes'"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_parameters_that_are_none(model, kind):
    parameters, error, said = WRONG[kind]
    with pytest.raises(error, match=said):
        model.bind("embeddings", **parameters)


@pytest.mark.parametrize(
    "value",
    [
        "a",
        {"source_sentence": "a"},
        {"source_sentence": "a", "sentences": []},
        {"source_sentence": "a", "sentences": "b"},
        {"source_sentence": "a", "sentences": ["b", 1]},
        {"source_sentence": 1, "sentences": ["b"]},
        {"source_sentence": "a", "sentences": ["b"], "more": 1},
    ],
)
def test_inputs_of_sentence_similarity_that_are_none(model, value):
    with pytest.raises(InputTextError, match=r"sentence-similarity takes .*one sentence at least, not"):
        list(model.predict("sentence-similarity", [value]))


def test_too_many_sentences_are_refused_before_they_are_copied(model):
    with pytest.raises(InputTextError, match="with 16,383 others at most, and 16,384 were given"):
        list(model.predict("sentence-similarity", [{"source_sentence": "a", "sentences": ["b"] * MOST_ROWS}]))


@pytest.mark.parametrize("task", ["embeddings", "sentence-similarity"])
def test_a_bundle_without_the_head_says_what_to_do(tiny_bundle, task):
    with pytest.raises(
        MissingHeadError, match=rf"{task} needs the head 'embedding'.*or ask for features with a pooling"
    ):
        load(tiny_bundle).bind(task)


def test_embed_and_similarity(model, reference):
    embedded = model.embed(TEXTS, normalize=True)
    assert np.abs(embedded - reference.encode(TEXTS, normalize_embeddings=True)).max() < UNIT_ATOL
    assert model.embed(TEXTS[0]).shape == (DIMENSION,)
    assert model.embed([]).shape == (0, DIMENSION)
    assert model.embed([], truncate_dim=3).shape == (0, 3)
    expected = reference.similarity(embedded, embedded[:2]).numpy()
    assert np.abs(model.similarity(embedded, embedded[:2]) - expected).max() < UNIT_ATOL
    assert model.similarity(embedded[0].tolist(), embedded).shape == (1, len(TEXTS))


def test_vectors_of_two_dimensions_are_not_compared(model):
    with pytest.raises(UsageError, match=r"those given have the shapes \[2, 3\] and \[4\]: give what embed returns"):
        model.similarity(np.zeros((2, 3)), np.zeros(4))


@pytest.mark.parametrize("given", ["a cup of tea", ["a cup of tea"], [[1.0, 2.0], [3.0]]])
def test_what_is_no_vectors_is_not_compared(model, given):
    with pytest.raises(UsageError, match=r"similarity compares vectors, not .*: give what embed returns"):
        model.similarity(np.zeros(2), given)
