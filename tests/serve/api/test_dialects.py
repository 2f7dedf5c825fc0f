"""OpenAI's embeddings and the addresses of Text Embeddings Inference: their requests, their answers, their errors."""

from __future__ import annotations

import base64
import json
import urllib.request

import numpy as np
import pytest

from bertport.serve.api.dialects import OPENAI, TEI, dialect_of
from bertport.serve.api.openapi import document
from bertport.serve.api.questions import MEANS
from bertport.serve.errors import (
    BackendFailure,
    Empty,
    Loading,
    MissingHead,
    Overloaded,
    Problem,
    TooLarge,
    Unprocessable,
)
from tests.serve.api.tei import KINDS, REQUESTS
from tests.serve.running import Running

ATOL = 1e-5
"""Batches differ in their last bits."""
TEXTS = ["What is deep learning?", "A cup of tea."]


@pytest.fixture(scope="module")
def vectors(model):
    return model.features(TEXTS, pooling="mean", normalize=True)


def test_openai_embeddings_of_one_and_of_several(server, model, vectors):
    status, answer = server.post("/v1/embeddings", {"input": TEXTS, "model": "tiny"})
    assert status == 200
    assert [answer["object"], answer["model"]] == ["list", "tiny"]
    assert [(row["object"], row["index"]) for row in answer["data"]] == [("embedding", 0), ("embedding", 1)]
    np.testing.assert_allclose([row["embedding"] for row in answer["data"]], vectors, atol=ATOL)
    tokens = sum(len(model.features(text)) for text in TEXTS)
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    status, answer = server.post("/v1/embeddings", {"input": TEXTS[0], "encoding_format": "base64", "user": "a"})
    assert status == 200
    [row] = answer["data"]
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(row["embedding"]), "<f4"), vectors[0], atol=ATOL)
    before = server.metric("bertport_requests_total", bundle="org/other", task="feature-extraction")
    assert server.post("/v1/embeddings", {"input": TEXTS, "model": "org/other"})[0] == 200
    assert server.metric("bertport_requests_total", bundle="org/other", task="feature-extraction") == before + 1


@pytest.mark.parametrize(
    ("body", "status", "code", "said"),
    [
        ({}, 400, "bad_request", '"input"'),
        ([], 400, "bad_request", '"input"'),
        ({"input": []}, 400, "bad_request", "at least one"),
        ({"input": None}, 400, "bad_request", "input"),
        ({"input": 3}, 400, "unprocessable", "a text or a list"),
        ({"input": [1, 2, 3]}, 400, "unprocessable", "token ids"),
        ({"input": [[1, 2], [3]]}, 400, "unprocessable", "token ids"),
        ({"input": ["a", {}]}, 400, "unprocessable", "not a text"),
        ({"input": "a", "model": "text-embedding-3-small"}, 404, "model_not_found", "available: tiny"),
        ({"input": "a", "model": 3}, 400, "unprocessable", "model"),
        ({"input": "a", "encoding_format": "int8"}, 400, "unprocessable", "encoding_format"),
        ({"input": "a", "encoding_format": ["float"]}, 400, "unprocessable", "encoding_format"),
        ({"input": "a", "dimensions": 0}, 400, "unprocessable", "dimensions"),
        ({"input": "a", "dimensions": "4"}, 400, "unprocessable", "dimensions"),
        ({"input": "a", "truncate": 1}, 400, "unprocessable", "truncate"),
        ({"input": "a", "nonsense": 1}, 400, "unprocessable", "nonsense"),
        ({"input": "word " * 300}, 400, "unprocessable", "the model takes 160"),
        ({"input": ["a"] * 257}, 413, "too_large", "257 texts"),
    ],
)
def test_openai_errors(server, body, status, code, said):
    answered, answer = server.post("/v1/embeddings", body)
    assert answered == status, answer
    assert list(answer) == ["error"]
    error = answer["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, None)
    assert said in error["message"]


def test_tei_embed(server, vectors):
    status, answer = server.post("/embed", {"inputs": TEXTS[0]})
    assert (status, len(answer)) == (200, 1)
    np.testing.assert_allclose(answer, vectors[:1], atol=ATOL)
    status, answer = server.post("/embed", {"inputs": TEXTS, "truncate": False, "normalize": True, "prompt_name": None})
    assert status == 200
    np.testing.assert_allclose(answer, vectors, atol=ATOL)
    status, [plain] = server.post("/embed", {"inputs": TEXTS[0], "normalize": False})
    assert abs(np.linalg.norm(plain) - 1) > ATOL
    status, [cut] = server.post("/embed", {"inputs": "word " * 300, "truncate": True, "truncation_direction": "Right"})
    assert (status, len(cut)) == (200, len(vectors[0]))


def test_means_in_place_of_vectors_are_told(server):
    for path, field in (("/embed", "inputs"), ("/v1/embeddings", "input")):
        body = json.dumps({field: "a"}).encode()
        with urllib.request.urlopen(server.url + path, data=body) as answer:  # noqa: S310 — ours
            assert answer.headers["x-bertport-note"] == MEANS
    assert MEANS in [line["message"].removeprefix("a client is told: ") for line in server.lines]


@pytest.mark.parametrize(
    ("body", "status", "kind", "said"),
    [
        ({}, 400, "Validation", '"inputs"'),
        ("a", 400, "Validation", '"inputs"'),
        ({"inputs": []}, 400, "Empty", "at least one"),
        ({"inputs": 3}, 422, "Validation", "a text or a list"),
        ({"inputs": [[1, 2]]}, 422, "Validation", "token ids"),
        ({"inputs": "a", "normalize": "yes"}, 422, "Validation", "normalize"),
        ({"inputs": "a", "truncation_direction": "Left"}, 422, "Validation", "truncation_direction"),
        ({"inputs": "a", "prompt_name": "query"}, 422, "Validation", "prompts"),
        ({"inputs": "a", "dimensions": 8}, 422, "Validation", "dimensions"),
        ({"inputs": "word " * 300}, 422, "Validation", "the model takes 160"),
        ({"inputs": ["a"] * 257}, 413, "Validation", "257 texts"),
    ],
)
def test_tei_errors(server, body, status, kind, said):
    answered, answer = server.post("/embed", body)
    assert (answered, answer["error_type"]) == (status, kind), answer
    assert said in answer["error"]


@pytest.mark.parametrize(
    ("problem", "openai", "tei"),
    [
        (Empty("e"), (400, "invalid_request_error", "bad_request"), "Empty"),
        (Unprocessable("e"), (400, "invalid_request_error", "unprocessable"), "Validation"),
        (MissingHead("e"), (400, "invalid_request_error", "unprocessable"), "Backend"),
        (TooLarge("e"), (413, "invalid_request_error", "too_large"), "Validation"),
        (Overloaded("e", retry_after=1), (429, "invalid_request_error", "rate_limit_exceeded"), "Overloaded"),
        (BackendFailure("e"), (424, "invalid_request_error", "backend"), "Backend"),
        (Loading("e"), (503, "server_error", "loading"), "Unhealthy"),
        (Problem("e"), (500, "server_error", "internal"), "Backend"),
    ],
)
def test_every_problem_has_a_form_in_each_dialect(problem, openai, tei):
    error = OPENAI.body(problem)["error"]
    assert (OPENAI.status(problem), error["type"], error["code"]) == openai
    assert TEI.status(problem) == (424 if isinstance(problem, MissingHead) else problem.status)
    assert TEI.body(problem)["error_type"] == tei
    assert dialect_of("/").body(problem) == problem.to_json()


@pytest.mark.parametrize(("path", "theirs"), REQUESTS.items())
def test_the_fields_of_tei_are_those_of_its_document(path, theirs):
    operation = document()["paths"][path]["post"]
    ours = operation["requestBody"]["content"]["application/json"]["schema"]
    assert ours["required"] == theirs["required"]
    assert ours["properties"].keys() == theirs["properties"].keys()
    for name, field in theirs["properties"].items():
        assert ours["properties"][name].get("type") == field.get("type")
    assert operation["responses"].keys() == {"200", "424", "429", "default"}


def test_the_kinds_of_errors_are_those_of_tei():
    problems = [Empty("e"), Unprocessable("e"), MissingHead("e"), Overloaded("e", retry_after=1), Loading("e")]
    assert {TEI.body(problem)["error_type"] for problem in (*problems, BackendFailure("e"), Problem("e"))} <= KINDS


def test_what_comes_before_a_body_is_read_is_told_in_the_dialect_too(tiny_bundle):
    with Running(f"tiny={tiny_bundle}", "--variant", "fp32", "--no-warm-up", "--api-key", "k") as running:
        for path in ("/v1/embeddings", "/embed"):
            status, text = running.request("POST", path, b"{}")
            error = json.loads(text)["error"]
            assert status == 401
            assert (error["code"] == "invalid_api_key") if path != "/embed" else ("API key" in error)
            assert running.request("GET", path, None, authorization="Bearer k")[0] == 405
