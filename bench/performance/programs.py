"""Programs that make what a peer loads, run by the interpreter that has it: each recipe is the library's own."""

from __future__ import annotations

import bertport.runtime  # noqa: F401 — turns ONNX Runtime's telemetry off, for child processes too

__all__ = ["INTEL", "OPTIMUM", "SEEDED", "SENTENCE_INTEL", "SENTENCE_OPTIMUM"]

SEEDED = """
import sys, torch
from transformers import BertConfig, BertForPreTraining
torch.manual_seed(0)
small = dict(num_hidden_layers=2, hidden_size=64, num_attention_heads=2, intermediate_size=128)
BertForPreTraining(BertConfig(**(small if sys.argv[2] == "tiny" else {}))).save_pretrained(sys.argv[1])
"""
"""A checkpoint of seeded random weights: OUT SIZE."""
OPTIMUM = """
import sys
from pathlib import Path
from optimum.onnxruntime import ORTModelForFeatureExtraction, ORTModelForMaskedLM, ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig
from transformers import AutoTokenizer
source, out, preset = sys.argv[1:]
for task, kind in (("fill-mask", ORTModelForMaskedLM), ("features", ORTModelForFeatureExtraction)):
    kind.from_pretrained(source, export=True).save_pretrained(Path(out) / "fp32" / task)
    settings = getattr(AutoQuantizationConfig, preset)(is_static=False, per_channel=True)
    quantizer = ORTQuantizer.from_pretrained(Path(out) / "fp32" / task)
    quantizer.quantize(save_dir=Path(out) / "int8" / task, quantization_config=settings)
for name in ("fp32", "int8"):
    AutoTokenizer.from_pretrained(source).save_pretrained(Path(out) / name)
"""
"""Optimum's export, and the same in its 8-bit preset: CHECKPOINT OUT PRESET."""
INTEL = """
import sys
from pathlib import Path
import nncf
from optimum.intel import OVConfig, OVModelForFeatureExtraction, OVModelForMaskedLM, OVQuantizationConfig, OVQuantizer
from transformers import AutoTokenizer
source, out, texts = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(source)
lines = [line for line in Path(texts).read_text(encoding="utf-8").splitlines() if line.strip()]
rows = [dict(tokenizer(line, truncation=True, max_length=128, return_tensors="np")) for line in lines]
for task, kind in (("fill-mask", OVModelForMaskedLM), ("features", OVModelForFeatureExtraction)):
    model = kind.from_pretrained(source, export=True, compile=False)
    model.save_pretrained(Path(out) / "fp32" / task)
    names = [given.any_name for given in model.model.inputs]
    dataset = nncf.Dataset([{name: row[name] for name in names} for row in rows])
    config = OVConfig(quantization_config=OVQuantizationConfig(bits=8, num_samples=len(rows)))
    OVQuantizer.from_pretrained(model).quantize(dataset, ov_config=config, save_directory=Path(out) / "int8" / task)
for name in ("fp32", "int8"):
    tokenizer.save_pretrained(Path(out) / name)
"""
"""optimum-intel's export, and the same in 8 bits by NNCF, calibrated: CHECKPOINT OUT TEXTS."""
_SENTENCE = """
import sys
from pathlib import Path
from sentence_transformers import SentenceTransformer, models
source, out, argument = sys.argv[1:]
encoder = models.Transformer(source)
pooling = models.Pooling(encoder.get_word_embedding_dimension(), pooling_mode="mean")
SentenceTransformer(modules=[encoder, pooling], device="cpu").save(out)
"""
SENTENCE_OPTIMUM = f"""{_SENTENCE}
from sentence_transformers import export_dynamic_quantized_onnx_model
model = SentenceTransformer(out, backend="onnx", model_kwargs={{"export": True}})
model.save_pretrained(out)
model = SentenceTransformer(out, backend="onnx", model_kwargs={{"file_name": "onnx/model.onnx"}})
export_dynamic_quantized_onnx_model(model, argument, out, file_suffix="int8")
"""
"""A checkpoint that averages tokens for sentence-transformers, for its ONNX backend too, and 8 bits: CHECKPOINT OUT
PRESET."""
SENTENCE_INTEL = f"""{_SENTENCE}
import shutil
model = SentenceTransformer(out, backend="openvino", model_kwargs={{"export": True}})
model.save_pretrained(out)
for ending in ("xml", "bin"):
    made = Path(argument) / "int8" / "features" / f"openvino_model.{{ending}}"
    shutil.copy(made, Path(out) / "openvino" / f"openvino_model_int8.{{ending}}")
"""
"""The same for its OpenVINO backend, in 8 bits as optimum-intel made it: CHECKPOINT OUT OPTIMUM_INTEL."""
