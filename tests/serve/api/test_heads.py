"""The heads of fine-tuned models over HTTP: the Hub's own client, other servers' addresses, Open Inference."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace

import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from bertport.runtime import load
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION
from bertport.serve.api.outputs import LABEL_SCORES
from bertport.serve.errors import Unprocessable
from tests.serve.api.tei import REQUESTS
from tests.serve.conftest import LABELS
from tests.serve.running import undisturbed

ATOL = 1e-5
"""Batches differ in their last bits."""
TEXT = "The king of France drank a cup of tea."
CONTEXT = f"{TEXT} " * 3


@pytest.fixture(scope="module")
def heads(head_bundles):
    """A server of all of them, the classifier first."""
    named = [f"{name}={path}" for name, path in head_bundles.items()]
    with undisturbed(*named, "--variant", "fp32", "--no-warm-up") as running:
        yield running


@pytest.fixture(scope="module")
def models(head_bundles):
    """The same bundles in this process."""
    return {name: load(path, variant="fp32") for name, path in head_bundles.items()}


def client(heads, bundle):
    return InferenceClient(model=f"{heads.url}/models/{bundle}")


def rows(elements):
    """The fields of a client's answer that are not None."""
    return [{name: value for name, value in element.items() if value is not None} for element in elements]


def same(ours, theirs):
    assert [{**row, "score": 0} for row in ours] == [{**row, "score": 0} for row in theirs]
    assert [row["score"] for row in ours] == pytest.approx([row["score"] for row in theirs], abs=ATOL)


def test_text_classification(heads, models):
    hub = client(heads, "classifier")
    for parameters in ({}, {"top_k": 2}, {"function_to_apply": "sigmoid"}, {"top_k": 1, "function_to_apply": "none"}):
        [wanted] = models["classifier"].predict("text-classification", [TEXT], **{"top_k": None, **parameters})
        same(rows(hub.text_classification(TEXT, **parameters)), wanted)
    pair = {"text": TEXT, "text_pair": "He slept."}
    [wanted] = models["classifier"].predict("text-classification", [pair], top_k=None)
    same(rows(hub.text_classification(pair)), wanted)


def test_two_texts_are_a_batch_of_the_hub_and_a_pair_of_tei(heads, models):
    first, second, pair = models["classifier"].predict(
        "text-classification", [TEXT, "He slept.", (TEXT, "He slept.")], top_k=None
    )
    status, answer = heads.post("/", {"inputs": [TEXT, "He slept."]})
    assert status == 200
    for ours, theirs in zip(answer, (first, second), strict=True):
        same(ours, theirs)
    status, answer = heads.post("/predict", {"inputs": [TEXT, "He slept."]})
    assert status == 200
    same(answer, pair)
    status, answer = heads.post("/predict", {"inputs": [[TEXT], [TEXT, "He slept."]]})
    assert status == 200
    for ours, theirs in zip(answer, (first, pair), strict=True):
        same(ours, theirs)
    for one in (TEXT, [TEXT]):
        same(heads.post("/predict", {"inputs": one})[1], first)
    [wanted] = models["classifier"].predict("text-classification", [TEXT], top_k=None, function_to_apply="none")
    same(heads.post("/predict", {"inputs": TEXT, "raw_scores": True, "truncate": True})[1], wanted)


@pytest.mark.parametrize(
    ("body", "status", "kind", "said"),
    [
        ({}, 400, "Validation", '"inputs"'),
        ({"inputs": []}, 400, "Empty", "at least one"),
        ({"inputs": [[]]}, 422, "Validation", "neither a text nor a pair"),
        ({"inputs": ["a", "b", "c"]}, 422, "Validation", "neither a text nor a pair"),
        ({"inputs": ["a", ["b"]]}, 422, "Validation", "neither a text nor a pair"),
        ({"inputs": [["a", "b", "c"]]}, 422, "Validation", "neither a text nor a pair"),
        ({"inputs": [["a"], [1]]}, 422, "Validation", "neither a text nor a pair"),
        ({"inputs": {"text": "a"}}, 422, "Validation", "a list of such lists"),
        ({"inputs": [["a"]] * 257}, 413, "Validation", "257 texts"),
        ({"inputs": "a", "raw_scores": 1}, 422, "Validation", "raw_scores"),
        ({"inputs": "a", "truncation_direction": "Left"}, 422, "Validation", "truncation_direction"),
        ({"inputs": "word " * 300}, 422, "Validation", "the model takes"),
        ({"inputs": "a", "top_k": 2}, 422, "Validation", "top_k"),
    ],
)
def test_bodies_that_predict_refuses(heads, body, status, kind, said):
    answered, answer = heads.post("/predict", body)
    assert (answered, answer["error_type"]) == (status, kind), answer
    assert said in answer["error"]


def test_token_classification(heads, models):
    hub = client(heads, "tagger")
    for parameters in (
        {"aggregation_strategy": "none"},
        {"aggregation_strategy": "first", "ignore_labels": []},
        {"aggregation_strategy": "max"},
    ):
        [wanted] = models["tagger"].predict("token-classification", [TEXT], **parameters)
        same(rows(hub.token_classification(TEXT, **parameters)), wanted)
    [wanted] = models["tagger"].predict("token-classification", [TEXT], aggregation_strategy="simple")
    same(rows(hub.token_classification(TEXT)), wanted)  # as the Hub's own servers answer
    long = CONTEXT * 5
    [wanted] = models["tagger"].predict("token-classification", [long], aggregation_strategy="simple", stride=8)
    same(rows(hub.token_classification(long, stride=8)), wanted)
    assert wanted[-1]["end"] > len(CONTEXT)
    assert heads.post("/models/tagger/tasks/token-classification", {"inputs": [TEXT]})[1] == [
        heads.post("/models/tagger", {"inputs": TEXT})[1]
    ]


def test_question_answering(heads, models):
    hub, question = client(heads, "answerer"), "Who drank tea?"
    asked = {"question": question, "context": CONTEXT}
    for parameters in ({}, {"top_k": 3, "max_answer_len": 4}, {"max_seq_len": 24, "doc_stride": 4, "top_k": 2}):
        [wanted] = models["answerer"].predict("question-answering", [asked], **parameters)
        answer = hub.question_answering(**asked, **parameters)
        ours = rows(answer if isinstance(answer, list) else [answer])
        theirs = wanted if isinstance(wanted, list) else [wanted]
        assert [row["answer"] for row in ours] == [row["answer"] for row in theirs]
        same(ours, theirs)
    taken = inspect.signature(hub.question_answering).parameters.keys() - {"question", "context", "model"}
    given = {"top_k": 2, "max_answer_len": 4, "max_seq_len": 24, "doc_stride": 4}
    given |= {"handle_impossible_answer": True, "align_to_words": False}
    assert taken == {*given, "max_question_len"}
    [wanted] = models["answerer"].predict("question-answering", [asked], **given)
    same(rows(hub.question_answering(**asked, **given, max_question_len=1)), wanted)  # no question is cut
    one = heads.post("/models/answerer", {"inputs": asked})[1]
    assert heads.post("/models/answerer", {"inputs": [asked]})[1] == [one]
    texts = [
        {"name": name, "shape": [1], "datatype": "BYTES", "data": [text]}
        for name, text in (("text", question), ("text_pair", CONTEXT))
    ]
    status, answer = heads.post("/v2/models/answerer/infer", {"inputs": texts})
    assert (status, json.loads(answer["outputs"][0]["data"][0])["answer"]) == (200, one["answer"])


@pytest.mark.parametrize(
    ("inputs", "parameters", "status", "said"),
    [
        ({"question": "a", "context": ""}, {}, 422, "the context is empty"),
        ({"question": "", "context": "a"}, {}, 422, "the question is empty"),
        ({"question": "a"}, {}, 422, "question-answering takes"),
        ({"question": "a", "context": ["b"]}, {}, 422, "question-answering takes"),
        ({"question": "a", "context": "b"}, {"top_k": 0}, 422, "top_k"),
        ({"question": "a", "context": "b"}, {"top_k": 10**9, "max_answer_len": 10**9}, 422, "top_k is a number"),
        ({"question": "a", "context": "word " * 4_000}, {"top_k": 100}, 422, "lower top_k"),
        ({"question": "a", "context": "word " * 20_000}, {}, 422, "more than 256 windows"),
        ({"question": "a", "context": "b"}, {"max_question_len": 0}, 422, "max_question_len is a number"),
        ({"question": "a", "context": "b"}, {"max_questions": 3}, 422, "unknown parameter"),
        ({"question": "word " * 300, "context": "b"}, {}, 422, "a window of"),
    ],
)
def test_what_an_answerer_refuses(heads, inputs, parameters, status, said):
    answered, answer = heads.post("/models/answerer", {"inputs": inputs, "parameters": parameters})
    assert (answered, said in answer["error"]) == (status, True), answer


def test_embeddings(heads, models):
    hub, texts = client(heads, "embedder"), [TEXT, "He slept."]
    for theirs, ours in (
        ({}, {}),
        ({"normalize": True}, {"normalize": True}),
        ({"prompt_name": "query"}, {"prompt_name": "query"}),
        ({"dimensions": 5, "normalize": True}, {"truncate_dim": 5, "normalize": True}),
    ):
        wanted = models["embedder"].embed(texts, **ours)
        np.testing.assert_allclose(hub.feature_extraction(texts, **theirs), wanted, atol=1e-4)
        np.testing.assert_allclose(hub.feature_extraction(TEXT, **theirs), wanted[0], atol=1e-4)
    pooled = InferenceClient(model=f"{heads.url}/models/embedder/tasks/features").feature_extraction("a")
    np.testing.assert_allclose(pooled, models["embedder"].features("a"), atol=ATOL)
    status, answer = heads.post("/models/embedder", {"inputs": TEXT, "pooling": "mean"})
    assert status == 200
    np.testing.assert_allclose(answer, models["embedder"].features(TEXT, pooling="mean"), atol=ATOL)
    [wanted] = models["embedder"].predict(
        "sentence-similarity", [{"source_sentence": TEXT, "sentences": [TEXT, "He slept."]}]
    )
    assert hub.sentence_similarity(TEXT, [TEXT, "He slept."]) == pytest.approx(wanted, abs=1e-4, rel=1e-4)
    wanted = models["embedder"].embed([TEXT], truncate_dim=7, normalize=True)
    body = {"input": TEXT, "model": "embedder", "dimensions": 7}
    status, answer = heads.post("/v1/embeddings", body)
    assert status == 200
    np.testing.assert_allclose(answer["data"][0]["embedding"], wanted[0], atol=ATOL)
    described = json.loads(heads.get("/v2/models/embedder")[1])["outputs"]
    shapes = {output["name"]: output["shape"] for output in described}
    size = len(models["embedder"].embed(TEXT))
    assert (shapes["sentence_embedding"], shapes["embedding"]) == ([-1, size], [-1, size])
    asked = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [TEXT]}]}
    status, answer = heads.post("/v2/models/embedder/infer", asked | {"outputs": [{"name": "embedding"}]})
    assert (status, answer["outputs"][0]["shape"]) == (200, [1, size])
    np.testing.assert_allclose(answer["outputs"][0]["data"], models["embedder"].embed(TEXT), atol=1e-4)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"dimensions": 0}, "truncate_dim"),
        ({"dimensions": 10_000}, "truncate_dim"),
        ({"prompt_name": "nobody"}, "unknown prompt"),
        ({"prompt_name": 3}, "prompt_name"),
        ({"normalize": 1}, "normalize"),
        ({"encoding_format": "base64"}, "encoding_format"),
        ({"truncation_direction": "left"}, "truncation_direction"),
        ({"truncate": "yes"}, "truncation"),
        ({"nonsense": 1}, "unknown parameter"),
        ({"prompt_name": "query", "parameters": {"prompt": "a"}}, "leave one of them out"),
    ],
)
def test_what_an_embedder_refuses(heads, more, said):
    status, answer = heads.post("/models/embedder/tasks/feature-extraction", {"inputs": TEXT, **more})
    assert (status, said in answer["error"]) == (422, True), answer


def test_zero_shot_classification(heads, models):
    hub, labels = client(heads, "classifier"), ["drinks", "sports", "the king"]
    for parameters in ({}, {"multi_label": True, "hypothesis_template": "It is about {}."}):
        [wanted] = models["classifier"].predict(
            "zero-shot-classification", [TEXT], candidate_labels=labels, **parameters
        )
        answer = rows(hub.zero_shot_classification(TEXT, labels, **parameters))
        assert [row["label"] for row in answer] == wanted["labels"]
        assert [row["score"] for row in answer] == pytest.approx(wanted["scores"], abs=ATOL)
    status, answer = heads.post("/", {"inputs": [TEXT, "a"], "parameters": {"candidate_labels": labels}})
    assert (status, [len(ranked) for ranked in answer]) == (200, [3, 3])


def test_multiple_choice(heads, models):
    question = {"prompt": TEXT, "choices": ["He was thirsty.", "He bought a car.", "The king"]}
    [wanted] = models["chooser"].predict("multiple-choice", [question])
    for path, body in (("/models/chooser", {"inputs": question}), ("/models/chooser", question)):
        status, answer = heads.post(path, body)
        assert (status, answer["label"], answer["choice"]) == (200, wanted["label"], wanted["choice"])
        assert answer["probabilities"] == pytest.approx(wanted["probabilities"], abs=ATOL)


def test_ranking(heads, models):
    documents = ["Tea is a drink.", "The train was late.", "The king of France"]
    question = {"query": "What is tea?", "documents": documents}
    [wanted] = models["ranker"].predict("text-ranking", [question], return_documents=True)
    status, answer = heads.post("/models/ranker", {"inputs": question, "parameters": {"return_documents": True}})
    assert status == 200
    same(answer, wanted)


def test_tei_rerank(heads, models):
    # The ranker is not the first bundle: the first that can answer does.
    query, texts = "What is tea?", ["Tea is a drink.", "The train was late.", "The king of France"]
    for raw, function in ((False, "sigmoid"), (True, "none")):
        asked = {"query": query, "documents": texts}
        [wanted] = models["ranker"].predict("text-ranking", [asked], function_to_apply=function)
        status, answer = heads.post("/rerank", {"query": query, "texts": texts, "raw_scores": raw})
        assert (status, [row["index"] for row in answer]) == (200, [row["corpus_id"] for row in wanted])
        assert [row["score"] for row in answer] == pytest.approx([row["score"] for row in wanted], abs=ATOL)
    status, answer = heads.post("/rerank", {"query": query, "texts": texts, "return_text": True})
    assert [row["text"] for row in answer] == [texts[row["index"]] for row in answer]
    for body, status, kind, said in (
        ({}, 400, "Validation", '"query", "texts"'),
        ({"query": query}, 400, "Validation", "texts"),
        ({"query": query, "texts": []}, 400, "Empty", "at least one"),
        ({"query": query, "texts": "a"}, 422, "Validation", "a list of texts"),
        ({"query": [query], "texts": ["a"]}, 422, "Validation", "query is a text"),
        ({"query": query, "texts": ["a", None]}, 422, "Validation", "not a text"),
        ({"query": query, "texts": ["a"] * 257}, 413, "Validation", "257 texts"),
        ({"query": query, "texts": ["word " * 300]}, 422, "Validation", "the model takes"),
        ({"query": query, "texts": ["a"], "return_text": "yes"}, 422, "Validation", "return_text"),
    ):
        answered, answer = heads.post("/rerank", body)
        assert (answered, answer["error_type"]) == (status, kind), (body, answer)
        assert said in answer["error"]
    assert heads.post("/rerank", {"query": query, "texts": ["word " * 300], "truncate": True})[0] == 200


def test_tei_addresses_of_bundles_that_cannot(server):
    # The status by which TEI says that its model is of another kind; the Hub's addresses keep 422.
    status, answer = server.post("/rerank", {"query": "a", "texts": ["b"]})
    assert (status, answer["error_type"]) == (424, "Backend")
    assert "needs the head 'sequence-classification'" in answer["error"]
    assert server.post("/tasks/text-ranking", {"inputs": ["a", "b"]})[0] == 422


@pytest.mark.parametrize(("path", "schema"), REQUESTS.items())
def test_tei_takes_every_field_of_its_document(heads, path, schema):
    fields = schema["properties"]
    whole = {name: field["example"] for name, field in fields.items() if "example" in field}
    bodies = [whole, {name: whole[name] for name in schema["required"]}]
    bodies += [whole | {name: None} for name, field in fields.items() if field.get("nullable")]
    bodies += [whole | {"truncation_direction": "Right"}, whole | {"truncate": True}]
    for body in bodies:
        status, answer = heads.post(path, body)
        assert (status, type(answer)) == (200, list), (body, answer)
        for part in answer:
            if path == "/embed":
                assert {type(number) for number in part} == {float}
            else:
                assert part.keys() == {"/predict": {"label", "score"}, "/rerank": {"index", "score"}}[path]


@pytest.mark.parametrize(
    ("bundle", "ask", "said"),
    [
        ("classifier", lambda hub: hub.text_classification("a", function_to_apply="relu"), "function_to_apply"),
        ("classifier", lambda hub: hub.text_classification("a", top_k=0), "top_k"),
        ("classifier", lambda hub: hub.text_classification({"text": "a", "text_pair": 1}), "a text"),
        ("classifier", lambda hub: hub.token_classification("a", aggregation_strategy="none"), "needs the head"),
        ("classifier", lambda hub: hub.zero_shot_classification("a", []), "candidate_labels"),
        ("classifier", lambda hub: hub.zero_shot_classification("a", ["b"], hypothesis_template="c"), "template"),
        ("tagger", lambda hub: hub.zero_shot_classification("a", ["b"]), "needs the head"),
        ("ranker", lambda hub: hub.zero_shot_classification("a", ["b"]), "a label that begins with 'entail'"),
        ("classifier", lambda hub: hub.zero_shot_classification("a", ["b"] * 257), "may make 256"),
        ("tagger", lambda hub: hub.token_classification("a", aggregation_strategy="mean"), "aggregation_strategy"),
        ("tagger", lambda hub: hub.token_classification("a", ignore_labels=[1]), "ignore_labels"),
        ("tagger", lambda hub: hub.token_classification("a", stride=8, aggregation_strategy="none"), "stride"),
        ("tagger", lambda hub: hub.token_classification("a", stride=10**9), "stride"),
        ("tagger", lambda hub: hub.token_classification("a " * 5000, stride=60), "windows"),
    ],
)
def test_the_client_gets_a_sentence(heads, bundle, ask, said):
    with pytest.raises(HfHubHTTPError) as caught:
        ask(client(heads, bundle))
    assert caught.value.response.status_code == (413 if "may make" in said else 422)
    assert said in caught.value.response.json()["error"]


def test_next_sentence_is_text_classification_only_without_a_classifier(heads, server):
    pair = {"inputs": {"text": "a", "text_pair": "b"}}
    labels = {row["label"] for row in server.post("/", pair)[1][0]}
    assert labels == {"is_next", "not_next"}
    assert {row["label"] for row in heads.post("/", pair)[1][0]} == set(LABELS)
    same(server.post("/predict", {"inputs": ["a", "b"]})[1], server.post("/", pair)[1][0])


def test_tensors_of_a_classifier(heads, models):
    manifest = models["classifier"].bundle.manifest
    described = json.loads(heads.get("/v2/models/classifier")[1])["outputs"]
    shapes = {output["name"]: output["shape"] for output in described}
    assert (shapes["class_logits"], shapes["label_scores"]) == ([-1, 3], [-1, 3])
    texts = {"name": "text", "shape": [2], "datatype": "BYTES", "data": [TEXT, "He slept."]}
    pairs = texts | {"name": "text_pair", "data": ["a", "b"]}
    for inputs in ([texts], [texts, pairs]):
        status, answer = heads.post("/v2/models/classifier/infer", {"inputs": inputs})
        assert status == 200
        [told, scores] = answer["outputs"]
        assert (told["name"], scores["name"], scores["shape"]) == ("answer", "label_scores", [2, 3])
        for row, ranked in zip(np.reshape(scores["data"], (2, 3)), map(json.loads, told["data"]), strict=True):
            by_label = {one["label"]: one["score"] for one in ranked}
            labels = manifest.heads[SEQUENCE_CLASSIFICATION].labels
            np.testing.assert_allclose(row, [by_label[label] for label in labels], atol=1e-6)
    cut = {"inputs": [texts], "parameters": {"top_k": 1}, "outputs": [{"name": "label_scores"}]}
    status, answer = heads.post("/v2/models/classifier/infer", cut)
    assert (status, "has no output" in answer["error"]) == (422, True)
    ids = {"name": "input_ids", "shape": [1, 3], "datatype": "INT64", "data": [2, 9, 3]}
    status, answer = heads.post("/v2/models/tagger/infer", {"inputs": [ids], "outputs": [{"name": "token_logits"}]})
    assert (status, answer["outputs"][0]["shape"]) == (200, [1, 3, 5])


def test_scores_of_labels_of_one_name_are_no_tensor(models):
    manifest = models["classifier"].bundle.manifest
    entry = replace(manifest.heads[SEQUENCE_CLASSIFICATION], labels=("a", "b", "a"))
    twice = replace(manifest, heads={SEQUENCE_CLASSIFICATION: entry})
    with pytest.raises(Unprocessable, match="two labels of the bundle have one name"):
        LABEL_SCORES.make([[{"label": "a", "score": 0.5}]], twice)


def test_what_each_bundle_says_of_its_heads(heads, models):
    told = {bundle["name"]: bundle for bundle in json.loads(heads.get("/models")[1])}
    assert told["classifier"]["head_labels"] == {SEQUENCE_CLASSIFICATION: list(LABELS)}
    assert told["classifier"]["labels"] == list(LABELS)
    assert "zero-shot-classification" in told["classifier"]["tasks"]
    assert "text-ranking" not in told["classifier"]["tasks"]
    assert {"text-ranking", "text-classification"} < set(told["ranker"]["tasks"])
    assert {"feature-extraction", "sentence-similarity", "embeddings"} < set(told["embedder"]["tasks"])
    assert "embeddings" not in told["classifier"]["tasks"]
    embedding = told["embedder"]["embedding"]
    assert embedding["dimension"] == len(models["embedder"].embed(TEXT))
    assert (embedding["similarity"], "query" in embedding["prompts"]) == ("dot", True)
    assert told["classifier"]["embedding"] is None
