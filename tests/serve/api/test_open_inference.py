"""The Open Inference Protocol with the client that Triton ships."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # gevent's, at import
    import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

ATOL = 1e-5


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}", network_timeout=120) as client:
        yield client


def tensor(name, values, *, binary=True):
    values = np.asarray(values)
    datatype = "BYTES" if values.dtype == object else "INT64"
    infer_input = triton.InferInput(name, list(values.shape), datatype)
    return infer_input.set_data_from_numpy(values, binary_data=binary)


def texts(name, *values, binary=True):
    return tensor(name, np.array([value.encode() for value in values], dtype=object), binary=binary)


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("org/other", "portable")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata()["name"] == "bertport"
    metadata = client.get_model_metadata("org/other")
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == (
        "org/other",
        ["fp32", "portable"],
        "onnx_onnxv1",
    )
    assert {"name": "input_ids", "datatype": "INT64", "shape": [-1, -1]} in metadata["inputs"]
    assert {output["name"] for output in metadata["outputs"]} >= {"logits", "last_hidden_state", "answer", "embedding"}


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("version", ["", "portable"])
def test_raw_tensors(client, model, binary, version):
    encoded = [work.ids for work in model.bind("features").prepare(["a cup of tea", "the king"])]
    ids = np.zeros((2, 8), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(encoded):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    inputs = [tensor("input_ids", ids, binary=binary), tensor("attention_mask", mask, binary=binary)]
    wanted = ["last_hidden_state", "pooler_output", "logits", "seq_relationship_logits"]
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in wanted]
    result = client.infer("tiny", inputs, outputs=outputs, model_version=version, request_id="seven")
    assert result.get_response()["id"] == "seven"
    assert result.get_response()["model_version"] == (version or "fp32")
    hidden = result.as_numpy("last_hidden_state")
    for row, text in enumerate(["a cup of tea", "the king"]):
        np.testing.assert_allclose(hidden[row, : len(encoded[row])], model.features(text), atol=ATOL)
        pooled = model.features(text, pooling="pooler")
        np.testing.assert_allclose(result.as_numpy("pooler_output")[row], pooled, atol=ATOL)
    assert result.as_numpy("logits").shape == (2, 8, model.bundle.manifest.architecture.vocab_size)
    # No outputs asked for: all of them, and only some positions decoded.
    few = client.infer("tiny", [*inputs, tensor("masked_positions", [9, 1])], model_version=version)
    np.testing.assert_allclose(few.as_numpy("logits")[0], result.as_numpy("logits")[1, 1], atol=ATOL)
    np.testing.assert_allclose(few.as_numpy("logits")[1], result.as_numpy("logits")[0, 1], atol=ATOL)


def test_many_rows_are_split_and_put_together_again(client, model):
    rng = np.random.default_rng(0)
    ids = rng.integers(15, 300, size=(40, 100))
    positions = rng.permutation(4000)[:50]
    outputs = [triton.InferRequestedOutput(name) for name in ("logits", "pooler_output")]
    result = client.infer("tiny", [tensor("input_ids", ids), tensor("masked_positions", positions)], outputs=outputs)
    feeds = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
        "masked_positions": positions,
    }
    wanted = model.graph.run(feeds, ["logits", "pooler_output"])
    np.testing.assert_allclose(result.as_numpy("logits"), wanted["logits"], atol=1e-4)
    np.testing.assert_allclose(result.as_numpy("pooler_output"), wanted["pooler_output"], atol=1e-4)


def test_a_variant_may_be_named_as_at_other_addresses(client):
    ids = [tensor("input_ids", [[1, 2]])]
    for named in ({"headers": {"x-bertport-variant": "portable"}}, {"query_params": {"variant": "portable"}}):
        assert client.infer("tiny", ids, **named).get_response()["model_version"] == "portable"
        assert client.infer("tiny", ids, "fp32", **named).get_response()["model_version"] == "fp32"
    assert not client.is_model_ready("tiny", query_params={"variant": "nobody"})


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_text(client, model, binary, compression):
    result = client.infer(
        "tiny",
        [texts("text", "The king of [MASK].", "\u00e4 [MASK] [MASK]", binary=binary)],
        outputs=[triton.InferRequestedOutput("answer", binary_data=binary)],
        parameters={"top_k": 2},
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    answers = [json.loads(line) for line in result.as_numpy("answer")]
    wanted = model.fill_mask(["The king of [MASK].", "\u00e4 [MASK] [MASK]"], top_k=2)
    assert [word["sequence"] for word in answers[0]] == [word["sequence"] for word in wanted[0]]
    ours, theirs = ([[word["token"] for word in words] for words in several[1]] for several in (answers, wanted))
    assert ours == theirs


def test_pairs_and_embeddings(client, model):
    result = client.infer("tiny", [texts("text", "a", "b"), texts("text_pair", "c", "d")])
    wanted = [list(model.next_sentence(*pair)["probabilities"].values()) for pair in (("a", "c"), ("b", "d"))]
    np.testing.assert_allclose(result.as_numpy("probabilities"), wanted, atol=ATOL)
    assert json.loads(result.as_numpy("answer")[0])["label"] == model.next_sentence("a", "c")["label"]
    outputs = [triton.InferRequestedOutput("embedding")]
    vectors = client.infer("tiny", [texts("text", "a cup", "tea")], outputs=outputs).as_numpy("embedding")
    np.testing.assert_allclose(vectors, model.features(["a cup", "tea"], pooling="mean"), atol=ATOL)


@pytest.mark.parametrize(
    ("inputs", "options", "said"),
    [
        ([("input_ids", [[1, 2, 999_999]])], {}, "outside 0 to"),
        ([("input_ids", [[-1]])], {}, "outside 0 to"),
        ([("input_ids", [[1] * 200])], {}, "the model takes 1 to 160"),
        ([("input_ids", [1, 2])], {}, r"integers \[rows, tokens\]"),
        ([("input_ids", [[1, 2]]), ("attention_mask", [[1]])], {}, r"attention_mask is \[1, 1\]"),
        ([("input_ids", [[1, 2]]), ("attention_mask", [[1, 7]])], {}, "outside 0 to 1"),
        ([("input_ids", [[1, 2]]), ("token_type_ids", [[0, 2]])], {}, "outside 0 to 1"),
        ([("input_ids", [[1, 2]]), ("masked_positions", [2])], {}, "outside 0 to 1"),
        ([("input_ids", [[1, 2]]), ("nonsense", [[1, 2]])], {}, "no input 'nonsense'"),
        ([("nonsense", [[1, 2]])], {}, "no input 'nonsense'"),
        ([("text", [[1, 2]])], {}, "datatype BYTES"),
        ([("input_ids", [[1, 2]])], {"outputs": "nothing"}, "no output 'nothing'"),
        ([("input_ids", [[1, 2]])], {"model_name": "nobody"}, "unknown bundle 'nobody'"),
        ([("input_ids", [[1, 2]])], {"model_version": "9"}, "unknown variant"),
    ],
)
def test_errors_are_the_clients_own(client, inputs, options, said):
    outputs = [triton.InferRequestedOutput(options.pop("outputs"))] if "outputs" in options else None
    with pytest.raises(InferenceServerException, match=said):
        client.infer(
            **({"model_name": "tiny"} | options),
            inputs=[tensor(name, values) for name, values in inputs],
            outputs=outputs,
        )


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("9999", b'{"inputs": []}'),
        ("-3", b"{}"),
        ("x", b"{}"),
        ("2", b"{}rest"),
        (None, b'{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a", "b"]}]}'),
        (None, b'{"inputs": [{"name": "text", "shape": [1, -1], "datatype": "BYTES", "data": ["a"]}]}'),
        (None, b'{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [3]}]}'),
        (None, b'{"inputs": [{"name": "input_ids", "shape": [1, 1], "datatype": "INT64", "data": [1.5]}]}'),
        (None, b'{"inputs": [{"name": "input_ids", "shape": [1, 1], "datatype": "INT8", "data": [300]}]}'),
        (None, b'{"inputs": [{"name": "input_ids", "shape": [1, 1], "datatype": "WORD", "data": [1]}]}'),
        (None, b'{"inputs": [{"name": "input_ids", "shape": [99999999999, 99999999999], "datatype": "INT64"}]}'),
        (None, b'{"inputs": [{"name": 3}]}'),
        (None, b'{"inputs": 3}'),
        (None, b"[]"),
    ],
)
def test_malformed_requests_are_refused(server, header, body):
    headers = {} if header is None else {"inference_header_content_length": header}
    status, text = server.request("POST", "/v2/models/tiny/infer", body, **headers)
    assert status in (400, 422), text
    assert set(json.loads(text)) == {"error", "error_type"}


def test_text_cut_short_is_refused(server):
    head = b'{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": %d}}]}'
    for tail in (b"\x05\x00\x00\x00ab", b"\xff\xff\xff\xff", b"\x01", b"\x01\x00\x00\x00\xff", b""):
        json_part = head % len(tail)
        status, text = server.request(
            "POST",
            "/v2/models/tiny/infer",
            json_part + tail,
            inference_header_content_length=str(len(json_part)),
        )
        assert status == 400, text
