"""bf16: fp32's files in another precision. They stay fp32's whatever becomes of the variant, and nothing forces it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from bertport.quantize import job
from bertport.quantize.card import section
from bertport.quantize.cli import quantize
from bertport.quantize.job import provider_for
from bertport.quantize.recipes.table import RECIPES
from bertport.runtime.bundle.changes import add_variant
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.workspace import Workspace
from bertport.runtime.errors import ProviderError, UsageError
from bertport.runtime.providers.cpu import cpu
from bertport.runtime.providers.table import PROVIDERS
from tests.wheels import ROOT, plugin

BF16, OPENVINO = RECIPES["bf16"], PROVIDERS["openvino"]


def on_a_cpu(monkeypatch, *flags):
    here = dataclasses.replace(cpu(), model="a test's CPU", flags=frozenset(flags))
    monkeypatch.setattr(job, "cpu", lambda: here)
    monkeypatch.setattr("bertport.runtime.providers.cpu.cpu", lambda: here)


def variant_of(bundle, **fidelity):
    fp32 = bundle.manifest.variants["fp32"]
    requires = dataclasses.replace(fp32.requires, precision="bf16")
    return dataclasses.replace(fp32, recipe="bf16", requires=requires, validation=None, fidelity=fidelity or None)


def added(path, variant, *, overwrite=False):
    with Workspace.beside(Bundle.open(path)) as work:
        return add_variant(work, "bf16", variant, {}, overwrite=overwrite)


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_cpu_that_does_not_multiply_bf16_is_told_so_before_anything_runs(tiny_bundle, monkeypatch, force):
    on_a_cpu(monkeypatch, "avx2", "avx512f")
    answer = CliRunner().invoke(quantize, [str(tiny_bundle), "--recipe", "bf16", *force])
    assert isinstance(answer.exception, ProviderError)
    assert answer.exception.message == (
        "bf16 needs a CPU that multiplies bfloat16 (AVX512-BF16 or AMX-BF16), and a test's CPU does not, so it "
        "would be slower than fp32: choose another recipe"
    )
    assert not answer.output


@pytest.mark.skipif(OPENVINO.plugin.library is not None, reason="OpenVINO's plugin is installed")
def test_a_missing_plugin_is_told_with_what_installs_it(monkeypatch):
    on_a_cpu(monkeypatch, "avx512_bf16")
    with pytest.raises(ProviderError) as raised:
        provider_for(BF16, force=True)
    assert raised.value.message == (
        "bf16 needs the provider 'openvino', which does not start here: the package onnxruntime-ep-openvino is not "
        f"installed: {OPENVINO.install}, or choose another provider"
    )


def test_there_are_no_layers_to_explain(tiny_bundle):
    answer = CliRunner().invoke(quantize, [str(tiny_bundle), "--explain", "--recipe", "bf16"])
    assert isinstance(answer.exception, UsageError)
    assert answer.exception.message.startswith("bf16 has no layers to rank: choose one of int8-dynamic, ")


def test_the_files_stay_those_of_fp32(quantized, tmp_path):
    path = shutil.copytree(quantized[0].path, tmp_path / "bundle")
    before = Bundle.open(path)
    once = added(path, variant_of(before))
    assert once.manifest.files == before.manifest.files
    twice = added(path, variant_of(before, budget="none"), overwrite=True)
    assert twice.manifest.files == before.manifest.files
    assert twice.manifest.variants["bf16"].fidelity == {"budget": "none"}
    assert not twice.verify()
    shared = {twice.manifest.variants[name].file for name in ("fp32", "bf16")}
    assert len(shared) == 1


def test_the_card_says_that_it_adds_no_file(quantized):
    bundle, outcome = quantized
    record = outcome.variant.fidelity | {"provider": "openvino", "reference_provider": "cpu"}
    record["size"] = record["size"] | {"further_bytes": 0}
    variants = bundle.manifest.variants | {"bf16": variant_of(bundle, **record)}
    text = section(dataclasses.replace(bundle.manifest, variants=variants))
    [row] = [line for line in text.splitlines() if line.startswith("| bf16 |")]
    assert "| fp32's files |" in row
    assert row.endswith(f"| {record['machine']['instruction_set']}, on openvino |")


SIDE_BY_SIDE = """
import json, sys
from bertport.runtime import load
for variant, provider in ((None, "auto"), ("bf16", "auto"), (None, "openvino"), ("fp32", "cpu")):
    model = load(sys.argv[1], variant=variant, provider=provider)
    answer = model.fill_mask("the [MASK] is small .", top_k=1)[0]["score"]
    print(json.dumps(model.describe() | {"answer": answer}))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or not (shutil.which("cc") and shutil.which("objdump")), reason="bench.intel"
)
@pytest.mark.skipif(not cpu().bf16, reason="this CPU does not multiply bfloat16")
def test_the_variant_is_measured_and_answers_on_openvino(tiny_bundle, held_out, tmp_path):
    path = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    place = plugin("openvino")
    paths = [*filter(None, [os.environ.get("PYTHONPATH")]), str(place)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}

    def run(*arguments):
        command = [sys.executable, "-m", "bench.intel", sys.executable, *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    few = ["--text", held_out, "--positions", 60, "--pairs", 8, "--force", "--json"]
    made = run("-m", "bertport.runtime", "quantize", path, "--recipe", "bf16", *few)
    assert made.returncode == 0, made.stderr
    record = json.loads(made.stdout)["bf16"]["fidelity"]
    assert (record["provider"], record["reference_provider"]) == ("openvino", "cpu")
    assert record["size"]["further_bytes"] == 0
    kl = record["accuracy"]["mlm"]["kl"]["value"]
    assert 0 < kl < 1e-3  # not fp32 again, and near it
    bundle = Bundle.open(path)
    before, after = (
        {name: entry for name, entry in known.manifest.files.items() if name.startswith("onnx/")}
        for known in (Bundle.open(tiny_bundle), bundle)
    )
    assert after == before
    proof = run("-m", "bertport.runtime", "verify", path, "--golden", "--variant", "bf16", "--json")
    assert proof.returncode == 0, proof.stderr
    [proven] = json.loads(proof.stdout)["golden"]["variants"]
    assert (proven["name"], proven["provider"]) == ("bf16", "openvino")
    assert proven["outputs"]["logits"]["tolerance"] > 1e-4  # its distance from fp32
    again = run("-m", "bertport.runtime", "quantize", path, "--remeasure", *few)
    assert again.returncode == 0, again.stderr
    assert list(json.loads(again.stdout)) == ["bf16"]  # it is among those that are measured here
    done = run("-c", SIDE_BY_SIDE, path)
    assert done.returncode == 0, done.stderr
    best, named, openvino, fp32 = map(json.loads, done.stdout.splitlines())
    assert best["chosen"]
    for told in (named, openvino):
        assert (told["variant"], told["provider"]) == ("bf16", "openvino")
        assert json.loads(told["provider_options"]["load_config"])["CPU"]["INFERENCE_PRECISION_HINT"] == "bf16"
        assert told["answer"] != fp32["answer"]
        assert told["answer"] == pytest.approx(fp32["answer"], rel=0.05)
    assert (fp32["variant"], fp32["provider"]) == ("fp32", "cpu")
