"""Plugins of ONNX Runtime, for real: the wheels are installed beside, and run on what devices this machine has.

OpenVINO's lists a CPU of Intel's alone: on others it runs by `bench.intel`, which says of the CPU that Intel made it.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bertport.runtime.providers.options import OPENVINO, WEBGPU
from bertport.runtime.providers.table import PROVIDERS
from tests.hub_cache import in_hub_cache
from tests.wheels import ROOT, plugin

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not sys.platform.startswith("linux") or platform.machine() != "x86_64", reason="the wheels are those of Linux"
    ),
]
PROGRAM = Path(__file__).with_name("plugin_program.py")
FP32 = 1e-4
"""The largest difference of fp32 on any provider from fp32 on the CPU; seen were 1e-6 for the tiny model."""


def run(*command, disguised, **more):
    """Run a command with the plugins' packages on its path, and on a machine of another make as on Intel's."""
    if disguised and not (shutil.which("cc") and shutil.which("objdump")):
        pytest.skip("saying that Intel made the CPU needs a C compiler and objdump")
    paths = [plugin(name) for name in ("openvino", "webgpu")] + [ROOT / "runtime", ROOT]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), **more}
    before = [sys.executable, "-m", "bench.intel"] if disguised else []
    command = [*before, sys.executable, *map(str, command)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture(scope="module")
def told(tiny_bundle, tmp_path_factory):
    linked = in_hub_cache(tiny_bundle, tmp_path_factory.mktemp("hub"))
    done = run(PROGRAM, tiny_bundle, linked, disguised=True)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "copying onnxruntime" not in line] == []
    return json.loads(done.stdout)


def test_fp32_is_fp32_on_every_provider_that_runs_here(told):
    assert told["obstacles"]["openvino"] is None
    assert told["fp32"].keys() == {name for name, reason in told["obstacles"].items() if reason is None}
    for name, differences in told["fp32"].items():
        assert max(differences) < FP32, name
    assert told["threads"] < FP32
    assert told["bf16"] is None or FP32 < told["bf16"] < 0.1


def test_every_node_runs_there_with_the_threads_that_are_asked_for(told):
    said = told["described"]
    assert said["provider"] == "openvino"
    assert said["nodes"].keys() == {"OpenVINOExecutionProvider"}
    assert json.loads(said["provider_options"]["load_config"]) == {
        "CPU": {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    }
    assert told["registered"] == 1  # the library was registered before, and is not again


def test_answers_are_those_of_the_cpu_wherever_the_bundle_lies(told):
    others = {name: scores for name, scores in told["scores"].items() if name != "cpu"}
    assert others
    for name, scores in others.items():
        assert scores == pytest.approx(told["scores"]["cpu"], abs=1e-5), name
    vocabulary = told["empty"][0][1]
    assert told["empty"] == [[0, vocabulary], True]
    assert told["together"]


def test_what_cannot_be_is_one_sentence(told):
    assert " does not multiply in bf16: choose a variant in fp32, or another provider" in told["refused"]["bf16"]
    for name, start in {
        "precision": "UsageError: the provider option load_config.CPU.INFERENCE_PRECISION_HINT=bf16 keeps 'openvino' ",
        "old option": "UnknownNameError: unknown option of the provider 'openvino' 'precision' (available: load",
        "property": "ProviderError: provider 'openvino' cannot multiply two small matrices with the options ",
        "device": "UsageError: the provider option 'load_config' is for 'GPU', and has no effect where ",
        "another's option": "UnknownNameError: unknown option of the provider 'openvino' 'use_tf32'",
        "memory": "UsageError: memory bounds only the provider 'cpu', not 'openvino'",
        "two": "UnknownNameError: unknown provider 'openvino,cpu' (available: auto, ",
        "not in it": "ProviderError: libonnxruntime_providers_openvino_plugin.so has no provider 'webgpu' for this ",
        "left over": "ProviderError: provider 'openvino' left computing to the CPU (1 FastGelu): choose a variant ",
        "built in": "UsageError: provider 'cpu' comes with ONNX Runtime, not in a library of its own",
    }.items():
        assert told["refused"][name].startswith(start), told["refused"][name]
        assert "\n" not in told["refused"][name]


def test_an_unknown_plugin_that_computes_fp32_in_less_is_refused(told):
    silent, mended, several = told["unknown"]
    if told["bf16"] is not None:
        assert silent.startswith(
            "ProviderError: provider 'OpenVINOExecutionProvider' computes fp32 in lower precision: a product"
        )
    assert mended == "loaded: OpenVINOExecutionProvider"
    assert "holds OpenVINOExecutionProvider, OpenVINOExecutionProvider.AUTO: name one of them" in several


def test_a_cpu_that_it_does_not_take_says_what_it_takes(tiny_bundle):
    if "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        pytest.skip("Intel made this CPU")
    asked = ["-m", "bertport.runtime", "fill-mask", "a [MASK]", "-m", tiny_bundle, "--provider", "openvino"]
    done = run(*asked, disguised=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "bertport: error: provider 'openvino' does not start here: libonnxruntime_providers_openvino_plugin.so lists "
        "no device for it here (it takes Intel's CPUs): choose --provider cpu, or another provider\n"
    )


def test_the_options_are_those_that_the_libraries_know():
    for name, allowed in (("openvino", OPENVINO), ("webgpu", WEBGPU)):
        row = PROVIDERS[name].plugin
        content = (plugin(name) / row.module / f"lib{row.file}.so").read_bytes()
        before = b"ep.webgpuexecutionprovider." if name == "webgpu" else b""
        assert not [option for option in sorted(allowed) if before + option.encode() + b"\0" not in content]
