"""A bundle directory opens unmodified in the Hub's own tools, with the answers of the PyTorch model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

TEXTS = ["the capital of france is [MASK].", "Hello I'm a [MASK] model, and [MASK] été 日本語"]


@pytest.fixture(scope="module")
def encoded(tiny_checkpoint):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_checkpoint)(TEXTS, padding=True, return_tensors="pt")


@pytest.fixture(scope="module")
def expected(tiny_checkpoint, encoded):
    from transformers import BertForPreTraining

    with torch.no_grad():
        return BertForPreTraining.from_pretrained(tiny_checkpoint).eval()(**encoded)


def test_the_tokenizer_is_the_checkpoints(tiny_bundle, encoded):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_bundle)
    written = tokenizer(TEXTS, padding=True, return_tensors="pt")
    assert written.keys() == encoded.keys()
    assert all(torch.equal(written[name], encoded[name]) for name in encoded)
    assert tokenizer.mask_token == "[MASK]"  # noqa: S105 — a token of text, not of access


@pytest.mark.optimum
def test_optimum(tiny_bundle, encoded, expected):
    from optimum.onnxruntime import ORTModelForMaskedLM

    model = ORTModelForMaskedLM.from_pretrained(tiny_bundle, subfolder="onnx", file_name="model.onnx")
    torch.testing.assert_close(model(**encoded).logits, expected.prediction_logits, rtol=0, atol=1e-4)


@pytest.mark.optimum
def test_optimum_finds_the_graph_by_itself(tiny_bundle, encoded, expected):
    """`model.onnx` in `onnx/` is what it looks for, and no serving graph gets in its way."""
    from optimum.onnxruntime import ORTModelForMaskedLM

    model = ORTModelForMaskedLM.from_pretrained(tiny_bundle)
    torch.testing.assert_close(model(**encoded).logits, expected.prediction_logits, rtol=0, atol=1e-4)


@pytest.mark.optimum
def test_optimums_pipeline(tiny_bundle, tiny_checkpoint):
    from optimum.onnxruntime import ORTModelForMaskedLM
    from transformers import AutoTokenizer, pipeline

    model = ORTModelForMaskedLM.from_pretrained(tiny_bundle, subfolder="onnx", file_name="model.onnx")
    answers = pipeline("fill-mask", model=model, tokenizer=AutoTokenizer.from_pretrained(tiny_bundle))(TEXTS[0])
    reference = pipeline("fill-mask", model=str(tiny_checkpoint))(TEXTS[0])
    assert [answer["token"] for answer in answers] == [answer["token"] for answer in reference]
    np.testing.assert_allclose(
        [answer["score"] for answer in answers], [answer["score"] for answer in reference], atol=1e-5
    )


def test_onnx_runtime_alone(tiny_bundle, encoded, expected, run_graph):
    outputs = run_graph(tiny_bundle / "onnx/model.onnx", {name: tensor.numpy() for name, tensor in encoded.items()})
    np.testing.assert_allclose(outputs["logits"], expected.prediction_logits.numpy(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(
        outputs["seq_relationship_logits"], expected.seq_relationship_logits.numpy(), rtol=0, atol=1e-4
    )


def test_the_serving_graph_in_onnx_runtime_alone(tiny_bundle, encoded, expected, run_graph):
    feeds = {name: tensor.numpy() for name, tensor in encoded.items()}
    positions = np.flatnonzero(feeds["input_ids"] == 14)
    assert len(positions) == 3
    outputs = run_graph(tiny_bundle / "onnx/model_serving.onnx", feeds | {"masked_positions": positions})
    rows = expected.prediction_logits.numpy().reshape(-1, outputs["logits"].shape[-1])
    np.testing.assert_allclose(outputs["logits"], rows[positions], rtol=0, atol=1e-4)


def test_a_copy_of_the_directory_is_the_same_bundle(tiny_bundle, tmp_path, encoded, run_graph):
    """Moved and copied as one: nothing in it knows where it was made."""
    import shutil

    from bertport.runtime.bundle.directory import Bundle

    copy = shutil.copytree(tiny_bundle, tmp_path / "elsewhere")
    assert Bundle.open(copy).verify() == ()
    feeds = {name: tensor.numpy() for name, tensor in encoded.items()} | {"masked_positions": np.array([3])}
    outputs, original = (run_graph(directory / "onnx/model_serving.onnx", feeds) for directory in (copy, tiny_bundle))
    assert all(np.array_equal(outputs[name], original[name]) for name in original)
    for path in copy.rglob("*"):
        if path.is_file():
            assert str(tiny_bundle.parent).encode() not in path.read_bytes(), path
