"""A head is a row in each of four tables, and a family one row: a new one of each goes the whole way."""

from __future__ import annotations

import ast
import json
import shutil

import numpy as np
import pytest

from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import CheckpointError
from tests import invented
from tests.invented import COLOURS, LABELS
from tests.test_layout import TREE
from tests.ways import ROOT

TEXTS = ["the red house", "a green tree", "blue water"]


@pytest.fixture
def rows(monkeypatch):
    """The rows of the invented head, for the time of a test."""
    invented.add_head(monkeypatch.setitem)


@pytest.fixture(scope="module")
def painted_checkpoint(tiny_checkpoint, tmp_path_factory):
    """A checkpoint that holds the invented head."""
    return invented.painted(tiny_checkpoint, tmp_path_factory.mktemp("painted") / "checkpoint")


@pytest.fixture(scope="module")
def painted_bundle(painted_checkpoint, tmp_path_factory):
    """Its bundle; not to be changed."""
    from bertport.export import export

    with pytest.MonkeyPatch.context() as patch:
        invented.add_head(patch.setitem)
        return export(painted_checkpoint, tmp_path_factory.mktemp("painted") / "bundle").path


def expected(checkpoint, texts):
    """Return the answers of transformers' own BERT and two lines of PyTorch to texts."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, BertModel

    tensors = load_file(checkpoint / "model.safetensors")
    model = BertModel.from_pretrained(checkpoint).eval()
    inputs = AutoTokenizer.from_pretrained(checkpoint)(texts, return_tensors="pt", padding=True)
    with torch.inference_mode():
        logits = model(**inputs).pooler_output @ tensors["paint.weight"].T + tensors["paint.bias"]
    return torch.softmax(logits, dim=-1).numpy()


@pytest.mark.usefixtures("rows")
def test_an_invented_head_is_exported_and_answers(painted_checkpoint, painted_bundle):
    from bertport.runtime import load

    model, manifest = load(painted_bundle, variant="fp32"), Bundle.open(painted_bundle).manifest
    head = manifest.heads[COLOURS]
    assert (head.output, head.labels, head.problem_type) == ("colour_logits", LABELS, "single_label_classification")
    assert {"mlm", "nsp", "pooler"} < set(manifest.heads)
    assert manifest.architecture.model_class == "BertForColours"
    assert "colours: says which of three a text has" in (painted_bundle / "README.md").read_text(encoding="utf-8")
    answers = list(model.predict("colour", TEXTS))
    assert [list(each) for each in answers] == [list(LABELS)] * len(TEXTS)
    found = np.array([list(each.values()) for each in answers])
    np.testing.assert_allclose(found, expected(painted_checkpoint, TEXTS), atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("rows")
def test_an_invented_head_is_measured(painted_bundle, held_out, tmp_path):
    """Quantized within a budget of its own, its figures in the manifest."""
    from bertport.measure.budget import Budget
    from bertport.quantize.job import Options
    from bertport.quantize.quantizer import quantize
    from bertport.runtime import load

    bundle = shutil.copytree(painted_bundle, tmp_path / "bundle")
    budget = Budget.parse("colour=0.5")
    options = Options(text=held_out, budget=budget, positions=120, pairs=20, force=True)
    quantize(bundle, options=options)
    model = load(bundle, variant="int8-dynamic")
    figures = Bundle.open(bundle).manifest.variants["int8-dynamic"].fidelity["accuracy"][COLOURS]
    assert 0.5 <= figures["agreement"]["value"] <= 1
    assert 0 < figures["change"]["value"] < 1
    assert [list(each) for each in model.predict("colour", TEXTS)] == [list(LABELS)] * len(TEXTS)


def test_an_invented_head_is_served(painted_checkpoint, painted_bundle):
    """By a server in a process of its own, as JSON and as a tensor of the Open Inference Protocol."""
    from tests.serve.running import Running

    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom tests.invented import add_head\n"
    before = f"{program}add_head(dict.__setitem__)"
    wanted = expected(painted_checkpoint, TEXTS)
    with Running(f"tiny={painted_bundle}", "--variant", "fp32", before=before) as running:
        status, answers = running.post("/tasks/colour", {"inputs": TEXTS})
        assert status == 200
        np.testing.assert_allclose([list(each.values()) for each in answers], wanted, atol=1e-5)
        status, metadata = running.get("/v2/models/tiny")
        assert {"colours", "colour_logits"} <= {each["name"] for each in json.loads(metadata)["outputs"]}
        assert "/tasks/colour" in json.loads(running.get("/openapi.json")[1])["paths"]
        inputs = [{"name": "text", "shape": [len(TEXTS)], "datatype": "BYTES", "data": TEXTS}]
        status, answer = running.post("/v2/models/tiny/infer", {"inputs": inputs, "outputs": [{"name": "colours"}]})
        assert status == 200
        [output] = answer["outputs"]
        assert output["shape"] == [len(TEXTS), len(LABELS)]
        np.testing.assert_allclose(np.reshape(output["data"], wanted.shape), wanted, atol=1e-5)
        assert running.stop() == 0


def test_without_its_rows_the_head_is_a_stranger(painted_checkpoint, tmp_path):
    from bertport.export import export

    with pytest.raises(CheckpointError, match="is a BertForColours, which cannot be exported"):
        export(painted_checkpoint, tmp_path / "bundle")


def test_a_new_family_is_exported_and_answers(tmp_path, monkeypatch):
    import torch
    from transformers import AutoTokenizer, Data2VecTextForMaskedLM

    from bertport.export import export
    from bertport.runtime import load

    checkpoint = invented.of_family(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match="is a Data2VecTextForMaskedLM, which cannot be exported"):
        export(checkpoint, tmp_path / "bundle")
    invented.add_family(monkeypatch.setitem)
    bundle = export(checkpoint, tmp_path / "bundle")
    assert set(bundle.manifest.heads) == {"mlm"}
    assert set(bundle.manifest.inputs) == {"input_ids", "attention_mask"}
    assert bundle.manifest.max_length == 64  # of 65 rows, that of padding's id is no token's
    assert "A data2vec encoder as ONNX graphs" in (bundle.path / "README.md").read_text(encoding="utf-8")
    masked = ["the capital of france is [MASK]", "[MASK] and the dog"]
    tokenizer, model = AutoTokenizer.from_pretrained(checkpoint), Data2VecTextForMaskedLM.from_pretrained(checkpoint)
    inputs = tokenizer(masked, padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model.eval()(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    wanted = torch.softmax(logits[inputs["input_ids"] == tokenizer.mask_token_id], dim=-1)
    for found, scores in zip(load(bundle.path, variant="fp32").predict("fill-mask", masked), wanted, strict=True):
        ids = [each["token"] for each in found]
        assert ids == scores.topk(len(ids)).indices.tolist()
        np.testing.assert_allclose([each["score"] for each in found], scores[ids], atol=1e-6)


def test_heads_are_named_in_their_table_alone():
    """A budget's bound may be called as a head is; that is a user's word."""
    names = {"mlm", "nsp", "sop", "rtd"}
    allowed = {"bertport.runtime.heads", "bertport.measure.quality.heads"}
    found = {
        name
        for name, module in TREE.modules.items()
        for node in ast.walk(ast.parse(module.path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in names and name not in allowed
    }
    assert not found
