"""Encoders of other families over HTTP: tasks of their own heads, their mask, and no segments."""

from __future__ import annotations

import json

import pytest

from bertport.runtime import load
from tests.family_bundles import family_bundle
from tests.serve.running import Running

DISCRIMINATOR = "ElectraForPreTraining"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    named = {"albert": None, "electra": DISCRIMINATOR, "roberta": None}
    return {family: family_bundle(tmp_path_factory, family, kind)[1] for family, kind in named.items()}


@pytest.fixture(scope="module")
def server(bundles):
    arguments = [f"{name}={path}" for name, path in bundles.items()]
    with Running(*arguments, "--variant", "fp32") as running:
        yield running
        assert running.stop() == 0


@pytest.fixture(scope="module")
def models(bundles):
    return {name: load(path, variant="fp32", provider="cpu") for name, path in bundles.items()}


def text(*texts):
    names = ("text", "text_pair")
    return [{"name": name, "shape": [1], "datatype": "BYTES", "data": [each]} for name, each in zip(names, texts)]  # noqa: B905 — one text or two


def alike(answer, expected):
    """Whether two answers are the same but for the last digits of their scores."""
    return json.loads(json.dumps(answer), parse_float=rounded) == json.loads(json.dumps(expected), parse_float=rounded)


def rounded(number):
    return round(float(number), 5)


@pytest.mark.slow
def test_the_metadata_lists_what_each_model_takes_and_gives(server):
    found = {}
    for name in ("albert", "electra", "roberta"):
        said = json.loads(server.get(f"/v2/models/{name}")[1])
        found[name] = [{each["name"] for each in said[side]} for side in ("inputs", "outputs")]
    assert found["roberta"][0] == {"input_ids", "attention_mask", "masked_positions", "text", "text_pair"}
    assert found["electra"][0] == {"input_ids", "attention_mask", "token_type_ids", "text", "text_pair"}
    assert {"logits", "sentence_order_logits", "order_probabilities"} <= found["albert"][1]
    assert {"replaced_token_logits", "answer", "embedding"} <= found["electra"][1]
    assert "probabilities" not in found["albert"][1] | found["electra"][1] | found["roberta"][1]
    served = {each["name"]: each for each in json.loads(server.get("/models")[1])}
    assert {name: each["mask_token"] for name, each in served.items()} == {
        "albert": "[MASK]",
        "electra": "[MASK]",
        "roberta": "<mask>",
    }
    assert {"text-classification", "sentence-order"} <= set(served["albert"]["tasks"])
    assert {"token-classification", "replaced-tokens"} <= set(served["electra"]["tasks"])
    assert set(served["roberta"]["tasks"]) == {"fill-mask", "feature-extraction", "sentence-similarity", "features"}


@pytest.mark.slow
def test_the_hub_s_client_asks_each_for_what_it_has(server, models):
    from huggingface_hub import InferenceClient

    pair = {"text": "the king went home", "text_pair": "he was old"}
    [best, other] = InferenceClient(model=f"{server.url}/models/albert").text_classification(pair)
    expected = models["albert"].sentence_order(*pair.values())
    assert (best.label, rounded(best.score)) == (expected["label"], rounded(expected["score"]))
    assert rounded(best.score + other.score) == 1
    rows = models["electra"].replaced_tokens(pair["text"])
    for place, settings in (("", {"ignore_labels": []}), ("/tasks/token-classification", {})):
        client = InferenceClient(model=f"{server.url}/models/electra{place}")
        given = [{key: each[key] for key in rows[0]} for each in client.token_classification(pair["text"], **settings)]
        assert alike(given, rows)
    filled = InferenceClient(model=f"{server.url}/models/roberta").fill_mask("the king <mask> home", top_k=2)
    assert [each.sequence for each in filled] == [
        each["sequence"] for each in models["roberta"].fill_mask("the king <mask> home", top_k=2)
    ]


@pytest.mark.slow
def test_tasks_of_their_own_names_and_tensors_answer(server, models):
    order = models["albert"].sentence_order("a", "b")
    body = {"inputs": {"text": "a", "text_pair": "b"}}
    assert alike(server.post("/models/albert/tasks/sentence-order", body)[1], order)
    status, answer = server.post("/v2/models/albert/infer", {"inputs": text("a", "b")})
    assert status == 200
    [said, shares] = answer["outputs"]
    assert alike(json.loads(said["data"][0]), order)
    assert alike(shares["data"], list(order["probabilities"].values()))
    many = models["electra"].replaced_tokens(["the king", "a"], ignore_labels=["original"])
    body = {"inputs": ["the king", "a"], "parameters": {"ignore_labels": ["original"]}}
    assert alike(server.post("/models/electra/tasks/replaced-tokens", body)[1], many)
    status, answer = server.post("/v2/models/electra/infer", {"inputs": text("the king")})
    assert alike(json.loads(answer["outputs"][0]["data"][0]), models["electra"].replaced_tokens("the king"))
    ids = {"name": "input_ids", "shape": [1, 3], "datatype": "INT64", "data": [0, 5, 2]}
    asked = {"inputs": [ids], "outputs": [{"name": "replaced_token_logits"}]}
    status, answer = server.post("/v2/models/electra/infer", asked)
    assert (status, answer["outputs"][0]["shape"]) == (200, [1, 3, 2])
    assert answer["outputs"][0]["data"][::2] == [0, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/models/roberta", {"inputs": "the [MASK]", "parameters": {}}, 422, "No mask_token (<mask>) found on"),
        ("/models/electra", {"inputs": "a", "parameters": {"stride": 2}}, 422, "stride is not supported"),
        (
            "/models/electra",
            {"inputs": "a", "parameters": {"aggregation_strategy": "simple"}},
            422,
            "aggregation_strategy is 'none' here, a row for each token, not 'simple'",
        ),
        ("/models/electra/tasks/replaced-tokens", {"inputs": ["a", "b"], "parameters": {"top_k": 1}}, 422, "top_k"),
        ("/models/roberta/tasks/sentence-order", {"inputs": {"text": "a", "text_pair": "b"}}, 422, "the head 'sop'"),
        ("/models/roberta", {"inputs": {"text": "a", "text_pair": "b"}}, 422, "the head 'sequence-classification'"),
    ],
)
def test_what_a_model_cannot_do_is_said(server, path, body, status, message):
    code, answer = server.post(path, body)
    assert code == status
    assert message in answer["error"]


@pytest.mark.slow
def test_an_input_that_a_model_has_not_is_refused(server):
    inputs = [
        {"name": name, "shape": [1, 3], "datatype": "INT64", "data": [0, 0, 0]}
        for name in ("input_ids", "token_type_ids")
    ]
    status, answer = server.post("/v2/models/roberta/infer", {"inputs": inputs})
    assert status == 400
    assert (
        "there is no input 'token_type_ids' beside input_ids (there is: input_ids, attention_mask," in answer["error"]
    )


@pytest.mark.slow
def test_rows_that_would_be_too_large_are_refused_before_they_are_computed(bundles):
    with Running(f"electra={bundles['electra']}", "--variant", "fp32", "--max-answer-bytes", "20000") as running:
        path = "/models/electra/tasks/replaced-tokens"
        assert running.post(path, {"inputs": "the king"})[0] == 200
        status, answer = running.post(path, {"inputs": ["the king " * 20] * 10})
        assert status == 413
        assert "send fewer texts at once" in answer["error"]
