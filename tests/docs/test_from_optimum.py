"""Both sides of the rows of Optimum on the page for people who come from it."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from bertport.runtime import load, pipeline
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION
from tests.heads import head_bundle

pytestmark = pytest.mark.filterwarnings("ignore")  # of Optimum's exporter, which torch warns

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "from-transformers.md"
TEXTS = ["the king went home", "a cup of tea"]
ATOL = 1e-4
"""Tolerance of logits: both sides compute in float32, by graphs of two exporters."""
ROWS = {
    "`optimum-cli export onnx --model NAME DIR`": "test_a_model_that_is_exported",
    "`ORTModelForSequenceClassification.from_pretrained(NAME, export=True)`": "test_a_model_that_is_opened",
    '`pipeline("ner", model=ort_model, tokenizer=tokenizer)`': "test_a_pipeline",
    "`ORTQuantizer` with `AutoQuantizationConfig.avx512_vnni(is_static=False)`": "test_a_quantizer",
    '`provider="CUDAExecutionProvider"`': None,  # takes a GPU
    '`ORTModelForMaskedLM.from_pretrained("DIR")`': "test_a_bundle_that_optimum_opens",
}
"""Optimum's side of each row, and what runs it."""


def test_each_row_of_the_page_is_run():
    section = PAGE.read_text(encoding="utf-8").partition("\n## Optimum\n")[2].partition("\n## ")[0]
    sides = [re.split(r" *\| *", line)[1] for line in section.splitlines() if line.startswith("| `")]
    assert sides == list(ROWS)
    assert {name for name in ROWS.values() if name} <= globals().keys()


@contextmanager
def opened(kind, checkpoint):
    """Return a checkpoint as a class of Optimum opens it: exported into a directory that is removed afterwards."""
    model = kind.from_pretrained(checkpoint, export=True)
    yield model
    model._model_save_dir_tempdirectory_instance.cleanup()  # noqa: SLF001 — left to the collector, it warns


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """Return a checkpoint that classifies, and its bundle."""
    return head_bundle(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION)


def logits_of(model, checkpoint):
    """Return what a model of Optimum computes of the texts."""
    from transformers import AutoTokenizer

    encoded = AutoTokenizer.from_pretrained(checkpoint)(TEXTS, padding=True, return_tensors="pt")
    return model(**encoded).logits.numpy()


def logits_of_ours(bundle):
    """Return what a bundle computes of the texts, in the order of its labels."""
    model = load(bundle, variant="fp32")
    labels = model.bundle.manifest.heads[SEQUENCE_CLASSIFICATION].labels
    answers = model.classify(TEXTS, top_k=None, function_to_apply="none")
    scores = [{row["label"]: row["score"] for row in answer} for answer in answers]
    return np.array([[each[label] for label in labels] for each in scores])


@pytest.mark.optimum
def test_a_model_that_is_exported(classifier, tmp_path):
    from optimum.onnxruntime import ORTModelForSequenceClassification

    checkpoint, bundle = classifier
    program = Path(sys.executable).with_name("optimum-cli")
    command = [program, "export", "onnx", "--model", checkpoint, "--task", "text-classification", tmp_path / "out"]
    subprocess.run(command, check=True, capture_output=True)
    theirs = logits_of(ORTModelForSequenceClassification.from_pretrained(tmp_path / "out"), checkpoint)
    np.testing.assert_allclose(logits_of_ours(bundle), theirs, rtol=0, atol=ATOL)


@pytest.mark.optimum
def test_a_model_that_is_opened(classifier):
    from optimum.onnxruntime import ORTModelForSequenceClassification

    checkpoint, bundle = classifier
    with opened(ORTModelForSequenceClassification, checkpoint) as model:
        theirs = logits_of(model, checkpoint)
    np.testing.assert_allclose(logits_of_ours(bundle), theirs, rtol=0, atol=ATOL)


@pytest.mark.optimum
def test_a_pipeline(tmp_path_factory):
    import transformers
    from optimum.onnxruntime import ORTModelForTokenClassification

    checkpoint, bundle = head_bundle(tmp_path_factory, "bert", TOKEN_CLASSIFICATION)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    with opened(ORTModelForTokenClassification, checkpoint) as ort_model:
        theirs = transformers.pipeline("ner", model=ort_model, tokenizer=tokenizer)(TEXTS)
    ours = pipeline("ner", model=bundle)(TEXTS)
    assert [len(rows) for rows in ours] == [len(rows) for rows in theirs]
    assert any(ours)
    for mine, other in zip(chain(*ours), chain(*theirs), strict=True):
        assert mine.keys() == other.keys()
        assert mine["score"] == pytest.approx(float(other["score"]), abs=ATOL)
        assert {key: mine[key] for key in mine if key != "score"} == {key: other[key] for key in mine if key != "score"}


@pytest.mark.optimum
def test_a_quantizer(classifier, tmp_path):
    """On our side tests/quantize says what a variant is and when it is added."""
    from optimum.onnxruntime import ORTModelForSequenceClassification, ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    checkpoint, _ = classifier
    with opened(ORTModelForSequenceClassification, checkpoint) as model:
        model.save_pretrained(tmp_path / "fp32")
        expected = logits_of(model, checkpoint)
    settings = AutoQuantizationConfig.avx512_vnni(is_static=False)
    ORTQuantizer.from_pretrained(tmp_path / "fp32").quantize(save_dir=tmp_path / "int8", quantization_config=settings)
    int8 = ORTModelForSequenceClassification.from_pretrained(tmp_path / "int8", file_name="model_quantized.onnx")
    found = logits_of(int8, checkpoint)
    assert not np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.3)  # random weights, and overflow on some CPUs


@pytest.mark.optimum
def test_a_bundle_that_optimum_opens(classifier, tiny_bundle):
    from optimum.onnxruntime import ORTModelForMaskedLM, ORTModelForSequenceClassification
    from transformers import AutoTokenizer

    checkpoint, bundle = classifier
    theirs = logits_of(ORTModelForSequenceClassification.from_pretrained(bundle), checkpoint)
    np.testing.assert_allclose(logits_of_ours(bundle), theirs, rtol=0, atol=ATOL)
    tokenizer = AutoTokenizer.from_pretrained(tiny_bundle)
    encoded = tokenizer("the [MASK] went home", return_tensors="pt")
    [place] = (encoded.input_ids[0] == tokenizer.mask_token_id).nonzero().flatten().tolist()
    best = ORTModelForMaskedLM.from_pretrained(tiny_bundle)(**encoded).logits[0, place].argmax().item()
    assert best == load(tiny_bundle, variant="fp32").fill_mask("the [MASK] went home", top_k=1)[0]["token"]
