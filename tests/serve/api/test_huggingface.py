"""The Hub's format over a real socket: its own client, and curl."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request

import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from bertport.runtime.tasks.poolings import CLS_CHANGED

ATOL = 1e-5
"""Batches differ in their last bits."""


@pytest.fixture(scope="module")
def client(server):
    return InferenceClient(model=server.url)


def same_rows(ours, theirs):
    assert [word["token"] for word in ours] == [word["token"] for word in theirs]
    assert [word["token_str"] for word in ours] == [word["token_str"] for word in theirs]
    assert [word["sequence"] for word in ours] == [word["sequence"] for word in theirs]
    assert [word["score"] for word in ours] == pytest.approx([word["score"] for word in theirs], abs=ATOL)


def test_fill_mask(client, model):
    text = "The king of [MASK] is old."
    same_rows(client.fill_mask(text), model.fill_mask(text))
    same_rows(client.fill_mask(text, top_k=3), model.fill_mask(text, top_k=3))
    wanted = model.fill_mask(text, targets=["france", "paris"])
    same_rows(client.fill_mask(text, targets=["france", "paris"]), wanted)


def test_several_masks_give_a_list_for_each(server, model):
    status, answer = server.post("/", {"inputs": "[MASK] and [MASK]"})
    assert status == 200
    for ours, theirs in zip(answer, model.fill_mask("[MASK] and [MASK]"), strict=True):
        same_rows(ours, theirs)


def test_the_query_or_the_header_names_the_task(server, model):
    pair = {"text": "He went out.", "text_pair": "It rained."}
    wanted = model.next_sentence(*pair.values())
    assert "follows" not in server.post("/", {"inputs": pair})[1][0]  # by its form it is text classification
    for path, headers in (("/?task=next-sentence", {}), ("/", {"x_bertport_task": "next-sentence"})):
        status, answer = server.post(path, {"inputs": pair}, **headers)
        assert (status, answer["follows"]) == (200, wanted["follows"])


def test_feature_extraction(client, model):
    text = "He drank a cup of tea."
    np.testing.assert_allclose(client.feature_extraction(text), model.features(text, pooling="mean"), atol=ATOL)
    np.testing.assert_allclose(
        client.feature_extraction(text, normalize=True),
        model.features(text, pooling="mean", normalize=True),
        atol=ATOL,
    )
    batch = client.feature_extraction([text, "tea"])
    np.testing.assert_allclose(batch, model.features([text, "tea"], pooling="mean"), atol=ATOL)
    long = "tea " * 500
    vector = client.feature_extraction(long, truncate=True)
    np.testing.assert_allclose(vector, model.features(long, pooling="mean", truncation=True), atol=ATOL)
    tokens = InferenceClient(model=f"{client.model}/tasks/features").feature_extraction("[MASK] tea")
    np.testing.assert_allclose(tokens, model.features("[MASK] tea"), atol=ATOL)


def test_cls_is_answered_and_its_change_is_told_in_a_header_and_once_in_the_log(server, model):
    text = "He drank a cup of tea."
    for address in ("feature-extraction", "features", "features"):
        for pooling, wanted in (("cls", model.features(text)[0]), ("pooler", model.features(text, pooling="pooler"))):
            body = json.dumps({"inputs": text, "parameters": {"pooling": pooling}}).encode()
            with urllib.request.urlopen(f"{server.url}/tasks/{address}", data=body) as answer:  # noqa: S310 — ours
                assert answer.headers["x-bertport-note"] == (CLS_CHANGED if pooling == "cls" else None)
                np.testing.assert_allclose(json.load(answer), wanted, atol=ATOL)
    told = [line for line in server.lines if CLS_CHANGED in line["message"]]
    assert [(line["level"], line["bundle"]) for line in told] == [("warning", "tiny")]


def test_sentence_similarity(client, model):
    texts = ["A cup of tea.", "The king is old."]
    vectors = model.features(["a cup", *texts], pooling="mean", normalize=True)
    assert client.sentence_similarity("a cup", texts) == pytest.approx((vectors[1:] @ vectors[0]).tolist(), abs=ATOL)


def test_next_sentence_as_text_classification_of_a_pair(client, model):
    wanted = model.next_sentence("He went home.", "It was night.")["probabilities"]
    answer = client.text_classification({"text": "He went home.", "text_pair": "It was night."})
    assert [prediction.label for prediction in answer] == sorted(wanted, key=lambda label: -wanted[label])
    assert {prediction.label: prediction.score for prediction in answer} == pytest.approx(wanted, abs=ATOL)
    assert len(client.text_classification({"text": "a", "text_pair": "b"}, top_k=1)) == 1


def test_each_address_says_how_it_is_sent_a_pair(server):
    """A text alone is refused by a bundle that judges pairs, and each form that the error names is answered."""
    for address in ("/tasks/text-classification", "/predict"):
        status, answer = server.post(address, {"inputs": "a"})
        assert (status, "judges a pair of texts" in answer["error"]) == (422, True)
        named = re.findall(r'\{"inputs".*?\}+', answer["error"])
        assert named
        assert [server.post(address, json.loads(body))[0] for body in named] == [200] * len(named)


def test_next_sentence_as_its_own_task(server, model):
    wanted = model.next_sentence("a", "b")
    for path, value in (
        ("/tasks/next-sentence", {"inputs": {"text": "a", "text_pair": "b"}}),
        ("/?task=next-sentence", {"inputs": {"text": "a", "text_pair": "b"}}),
        ("/models/tiny/tasks/next-sentence", {"inputs": {"text": "a", "text_pair": "b"}}),
    ):
        status, answer = server.post(path, value)
        assert (status, answer["label"], answer["follows"]) == (200, wanted["label"], wanted["follows"])
        assert answer["probabilities"] == pytest.approx(wanted["probabilities"], abs=ATOL)
    status, answer = server.post("/tasks/next-sentence", {"inputs": [["a", "b"], {"text": "a", "text_pair": "c"}]})
    assert [one["score"] for one in answer] == pytest.approx(
        [wanted["score"], model.next_sentence("a", "c")["score"]], abs=ATOL
    )


def test_a_batch_gives_a_list_also_of_one(server):
    one = server.post("/", {"inputs": "a [MASK]"})[1]
    assert server.post("/", {"inputs": ["a [MASK]"]})[1] == [one]
    assert server.post("/", ["a [MASK]"])[1] == [one]
    assert len(server.post("/", {"inputs": ["a [MASK]"] * 3, "parameters": {"top_k": 1}})[1]) == 3


@pytest.mark.parametrize(
    ("ask", "status", "said"),
    [
        (lambda client: client.fill_mask("no mask here"), 422, "No mask_token"),
        (lambda client: client.fill_mask("a [MASK]", top_k=100_000), 422, "top_k"),
        (lambda client: client.fill_mask("word " * 300 + "[MASK]"), 422, "the model takes 160"),
        (lambda client: client.fill_mask(""), 422, "No mask_token"),
        (lambda client: client.feature_extraction("word " * 300), 422, "the model takes 160"),
        (lambda client: client.feature_extraction("a", prompt_name="query"), 422, "no prompts"),
        (lambda client: client.feature_extraction("a", truncation_direction="Left"), 422, "truncation_direction"),
        (lambda client: client.text_classification({"text": "a"}), 422, "No mask_token"),
        (lambda client: client.text_classification({"text": "a", "text_pair": 3}), 422, "two texts"),
        (lambda client: client.sentence_similarity("a", []), 422, "sentences"),
    ],
)
def test_the_client_gets_its_own_error_with_our_sentence(client, ask, status, said):
    with pytest.raises(HfHubHTTPError) as caught:
        ask(client)
    assert caught.value.response.status_code == status
    assert said in caught.value.response.json()["error"]
    assert said in str(caught.value)


def test_variants_are_picked_by_query_and_header(server):
    for request in ({"path": "/?variant=portable"}, {"path": "/", "x_bertport_variant": "portable"}):
        before = server.metric("bertport_requests_total", variant="portable", bundle="tiny")
        path = request.pop("path")
        assert server.post(path, {"inputs": "a [MASK]"}, **request)[0] == 200
        assert server.metric("bertport_requests_total", variant="portable", bundle="tiny") == before + 1
    status, answer = server.post("/?variant=int9", {"inputs": "a [MASK]"})
    assert (status, answer["error_type"]) == (404, "not_found")
    assert answer["error"] == "unknown variant of tiny 'int9' (available: fp32, portable)"


def test_several_bundles(server):
    _, text = server.get("/models")
    first, second = json.loads(text)
    assert (first["name"], second["name"]) == ("tiny", "org/other")
    assert [(variant["variant"], variant["default"]) for variant in first["variants"]] == [
        ("fp32", True),
        ("portable", False),
    ]
    assert "fill-mask" in first["tasks"]
    assert "/tmp" not in text  # noqa: S108 — paths of this machine are nobody's business
    before = server.metric("bertport_requests_total", bundle="org/other")
    assert server.post("/models/org/other", {"inputs": "a [MASK]"})[0] == 200
    assert server.metric("bertport_requests_total", bundle="org/other") == before + 1
    assert server.post("/models/nobody", {"inputs": "a [MASK]"})[0] == 404


def test_tokens_and_options_are_ignored_without_an_api_key(server):
    value = {"inputs": "a [MASK]", "options": {"wait_for_model": True}}
    assert server.post("/", value, authorization="Bearer hf_something", x_wait_for_model="true")[0] == 200


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_curl_of_the_model_cards(server, model):
    command = ["curl", "--silent", "--show-error", "-X", "POST", server.url]
    command += ["-H", "Authorization: Bearer hf_xxx", "-d", '"The king of [MASK] is old."']
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    same_rows(json.loads(done.stdout), model.fill_mask("The king of [MASK] is old."))


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "empty"),
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"{}", 400, "inputs"),
        (b'{"inputs": []}', 400, "empty"),
        (b'{"inputs": "a [MASK]", "parameters": 3}', 422, "parameters"),
        (b'{"inputs": "a [MASK]", "parameters": {"nonsense": 3}}', 422, "unknown parameter of fill-mask"),
        (b'{"inputs": "a [MASK]", "parameters": {"task": "a"}}', 422, "unknown parameter of fill-mask 'task'"),
        (b'{"inputs": "a [MASK]", "self": 3}', 422, "unknown parameter of fill-mask 'self'"),
        (b'{"inputs": "a [MASK]", "parameters": {"targets": {"a": 1}}}', 422, "targets"),
        (b'{"inputs": "a [MASK]", "parameters": {"targets": [1]}}', 422, "a target is a word"),
        (b'{"inputs": "a [MASK]", "parameters": {"top_k": "5"}}', 422, "top_k"),
        (b'{"inputs": "a [MASK]", "parameters": {"top_k": true}}', 422, "top_k"),
        (b'{"inputs": "a [MASK]", "parameters": {"truncation": 1}}', 422, "truncation"),
        (b'{"inputs": 3, "parameters": {}}', 422, "takes a text"),
        (b'{"inputs": null}', 422, "takes a text"),
        (b'{"inputs": ["a [MASK]", 3]}', 422, "input 2"),
        (b'{"inputs": {"text": "a"}, "pooling": "max"}', 422, "pooling"),
        (b'{"inputs": "a", "pooling": ["none"]}', 422, "pooling"),
        (b'"\\ud800 [MASK]"', 400, "not JSON"),
        (b"[" * 5000, 400, "not JSON"),
        (b"[" * 500 + b"]" * 500, 400, "nested"),
    ],
)
def test_bad_bodies_are_told_what_is_wrong_with_them(server, body, status, said):
    code, text = server.request("POST", "/", body)
    answer = json.loads(text)
    assert (code, said in answer["error"]) == (status, True), answer
    assert "Traceback" not in text


def test_a_task_that_there_is_not(server):
    status, answer = server.post("/tasks/translation", {"inputs": "a"})
    assert status == 422
    assert "unknown task 'translation'" in answer["error"]
