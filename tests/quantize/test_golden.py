"""Golden vectors of quantized variants: added with each, passed by it, and failed by arithmetic that is wrong."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bertport.measure.budget import Budget
from bertport.quantize import quantizer
from bertport.quantize.evaluation import Speed
from bertport.quantize.job import Options
from bertport.quantize.quantizer import quantize
from bertport.runtime.bundle.changes import replace_golden
from bertport.runtime.bundle.digest import sealed
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.golden import read_golden, with_variant
from bertport.runtime.golden import verify_golden
from bertport.runtime.golden_making import golden_of
from bertport.runtime.providers.cpu import cpu
from tests.broken import copied

ROOT = Path(__file__).resolve().parents[2]


def test_quantizing_adds_those_of_the_variant(quantized, tiny):
    bundle, outcome = quantized
    before, after = read_golden(tiny), read_golden(bundle)
    assert {name: after.variants[name] for name in before.variants} == before.variants
    assert (before.texts, before.batches) == (after.texts, after.batches)
    assert set(after.variants) == {*before.variants, outcome.name}
    assert verify_golden(bundle.path).failures == ()
    assert bundle.verify() == ()


def test_the_tolerance_is_the_distance_from_fp32(quantized):
    bundle, outcome = quantized
    golden = read_golden(bundle)
    made, _ = golden_of(bundle)  # by the runtime alone, without what quantizing had open
    for name, output in golden.variants[outcome.name].outputs.items():
        rows = zip(output.rows, golden.variants["fp32"].outputs[name].rows, strict=True)
        seen = max(abs(a - b) for row, right in rows for a, b in zip(row.values, right.values, strict=False)) * 2
        assert output.tolerance > 1e-4
        assert made.variants[outcome.name].outputs[name].tolerance == output.tolerance
        if name != "logits":  # of which other columns are listed
            assert seen <= output.tolerance * 1.1


def edited(bundle, target, change):
    """Return a copy of a bundle with a change to the INT8 graph's initialisers that have two axes."""
    variant = bundle.manifest.variants["int8-dynamic"]

    def edit(content):
        model = onnx.load_from_string(content, format="protobuf")
        onnx.external_data_helper.load_external_data_for_model(model, str((bundle.path / variant.file).parent))
        change(model.graph)
        onnx.external_data_helper.convert_model_from_external_data(model)
        return model.SerializeToString()

    def unlist(manifest):
        manifest["variants"]["int8-dynamic"]["external_data"] = []

    return copied(bundle.path, target, manifest=unlist, onnx_model_int8_dynamic_onnx=edit)


def eight_bits(graph):
    names = {name for node in graph.node for name in node.input}
    return [
        tensor
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2 and tensor.name in names
    ]


def test_a_layer_of_zeros_is_seen(quantized, tmp_path):
    bundle, _ = quantized

    def zero(graph):
        tensor = eight_bits(graph)[2]
        zeros = np.zeros_like(numpy_helper.to_array(tensor))
        tensor.CopyFrom(numpy_helper.from_array(zeros, tensor.name))

    report = verify_golden(edited(bundle, tmp_path / "wrong", zero), variants=["int8-dynamic"])
    assert any(" is up to " in sentence for sentence in report.failures)


def test_a_graph_that_was_only_written_again_passes(quantized, tmp_path):
    bundle, _ = quantized
    assert verify_golden(edited(bundle, tmp_path / "same", lambda _: None), variants=["int8-dynamic"]).failures == ()


def options(text, **changes):
    """Options that take seconds, and let a tiny model be slower than fp32 and far from it."""
    return Options(text=text, budget=Budget.parse("top1=0.1"), positions=60, pairs=5, force=True, **changes)


@pytest.mark.slow  # Reading ONNX Runtime's library takes objdump 20 seconds.
def test_sums_that_saturate_are_seen(tiny_bundle, held_out, tmp_path):
    """Full-range weights made for VNNI, on AVX2 without it: ONNX Runtime's own wrong kernel."""
    if cpu().instruction_set not in {"amx", "avx512_vnni"}:
        pytest.skip(f"this CPU ({cpu().instruction_set}) sums in 16 bits itself, or has no AVX-512 to hide")
    if sys.platform != "linux" or not (shutil.which("cc") and shutil.which("objdump")):
        pytest.skip("hiding AVX-512 needs Linux, a C compiler and objdump")
    path = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    quantize(path, options=options(held_out, isa="avx512_vnni"))
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    manifest["variants"]["int8-dynamic"]["requires"]["isa"] = None  # or it would be refused there
    (path / "manifest.json").write_bytes(sealed(manifest))
    assert verify_golden(path, variants=["int8-dynamic"]).failures == ()
    verify = [sys.executable, "-m", "bertport.runtime", "verify", str(path), "--golden", "--json"]
    command = [sys.executable, "-m", "bench.avx2", "--package", "onnxruntime", *verify]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1, done.stderr
    failures = json.loads(done.stdout)["golden"]["failures"]
    assert any(sentence.startswith("variant 'int8-dynamic' on cpu: logits is up to ") for sentence in failures)
    assert all("'int8-dynamic'" in sentence for sentence in failures)


def test_a_file_that_another_process_moves_meanwhile_costs_nothing(tiny_bundle, held_out, tmp_path, monkeypatch):
    path = shutil.copytree(tiny_bundle, tmp_path / "bundle")

    def time_and_move(*_, **__):
        opened = Bundle.open(path)
        replace_golden(opened, with_variant(read_golden(opened), "portable", None))
        return {"1x16": Speed(reference_ms=2.0, ms=1.0, speedup=2.0, low=1.9, high=2.1)}

    monkeypatch.setattr(quantizer, "time_against", time_and_move)
    quantize(path, ["int8-weight-only"], options=options(held_out))
    bundle = Bundle.open(path)
    assert set(read_golden(bundle).variants) == {"fp32", "int8-weight-only"}
    assert verify_golden(path, variants=["int8-weight-only"]).failures == ()
    assert bundle.verify() == ()


def test_a_variant_that_is_not_for_the_provider_it_was_forced_onto_has_none(
    tiny_bundle, held_out, tmp_path, monkeypatch
):
    twice = Speed(reference_ms=2.0, ms=1.0, speedup=2.0, low=1.9, high=2.1)
    monkeypatch.setattr(quantizer, "time_against", lambda *_, **__: {"1x16": twice})
    path = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    [outcome] = quantize(path, ["fp16"], options=options(held_out))
    if outcome.variant.fidelity["provider"] != "cpu":
        pytest.skip("this machine has a provider that fp16 is for")
    bundle = Bundle.open(path)
    assert set(read_golden(bundle).variants) == {"portable", "fp32"}
    assert bundle.verify() == ()


@pytest.mark.slow  # Quantizing takes seconds.
def test_a_variant_that_is_made_again_gets_new_ones(quantized, held_out, tmp_path):
    bundle, _ = quantized
    path = shutil.copytree(bundle.path, tmp_path / "again")
    golden = read_golden(bundle)
    spoilt = dataclasses.replace(golden.variants["int8-dynamic"], outputs={})
    replace_golden(Bundle.open(path), with_variant(golden, "int8-dynamic", spoilt))
    quantize(path, options=options(held_out, overwrite=True))
    again = Bundle.open(path)
    assert again.manifest.golden_vectors.file == "golden-2.json"  # a name that was free again
    assert read_golden(again).variants["int8-dynamic"].outputs
    assert verify_golden(path).failures == ()
    assert again.verify() == ()
