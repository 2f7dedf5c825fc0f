"""doctor: what works here and what does not, in words and in JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import metadata

import pytest
from click.testing import CliRunner

from bertport.runtime import cli, doctor
from bertport.runtime.installation import install_command
from bertport.runtime.providers.cpu import cpu
from bertport.runtime.providers.native import file_name
from bertport.runtime.providers.table import PROVIDERS


@pytest.fixture
def run(tiny_bundle, monkeypatch):
    monkeypatch.setattr(doctor, "SIZE", 64)  # of the matrices: the figure is not tested

    def invoke(*arguments):
        place = [str(tiny_bundle) if argument == "BUNDLE" else str(argument) for argument in arguments]
        return CliRunner().invoke(cli.app, ["doctor", *place], catch_exceptions=False)

    return invoke


def test_a_healthy_installation(run, tiny_bundle):
    done = run("BUNDLE", "--json")
    assert done.exit_code == 0
    said = json.loads(done.stdout)
    assert said["ok"]
    assert said["onnxruntime"]["problem"] is None
    assert said["onnxruntime"]["wheel"].split()[0] in said["onnxruntime"]["recorded"]
    assert said["machine"]["instruction_set"] == cpu().instruction_set
    assert said["machine"]["usable_cores"] > 0
    assert said["machine"]["memory_bytes"] > 1 << 28
    assert said["providers"].keys() == PROVIDERS.keys()
    assert said["providers"]["cpu"] == {"works": True}
    for name, trial in said["providers"].items():
        assert trial["works"] or f"provider {name!r} is not available here" in trial["reason"]
        assert trial["works"] or "install" in trial["reason"]
    assert said["bundle"]["path"] == str(tiny_bundle)
    assert said["bundle"]["variant"] == "fp32"
    assert said["bundle"]["nodes"]["CPUExecutionProvider"] > 20
    assert said["speed"]["task"] == "fill-mask"
    assert said["speed"]["texts_per_second"] > 1
    assert said["speed"]["matmul_gflops"] > 0


def test_in_words(run):
    done = run("BUNDLE")
    assert done.exit_code == 0
    for said in (
        "ONNX Runtime",
        "providers",
        "cpu",
        "works",
        "every file as it was exported",
        "texts a second",
        "ready",
    ):
        assert said in done.stdout


def test_a_damaged_bundle_is_told_and_fails(run, edited):
    bundle = edited()
    (bundle / "vocab.txt").write_text("changed")
    done = run(bundle, "--json")
    assert done.exit_code == 1
    said = json.loads(done.stdout)
    assert not said["ok"]
    assert "vocab.txt is not the file that was exported" in said["bundle"]["problem"]
    assert said["providers"]["cpu"]["works"]
    done = run(bundle)
    assert done.exit_code == 1
    assert "vocab.txt is not the file that was exported" in done.stdout
    assert done.stdout.rstrip().endswith("not ready: see above")


def test_no_bundle_is_told(run, tmp_path):
    done = run(tmp_path / "nowhere")
    assert done.exit_code == 1
    assert "no bundle at" in done.stdout


def test_two_wheels_over_each_other_are_told(run, monkeypatch):
    known = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1.31.1" if name == "onnxruntime-gpu" else known(name))
    said = json.loads(run("BUNDLE", "--json").stdout)
    assert (
        "2 wheels of ONNX Runtime are installed over each other (onnxruntime, onnxruntime-gpu)"
        in (said["onnxruntime"]["problem"])
    )
    assert not said["ok"]


def test_a_wheel_in_another_directory_of_packages_is_hidden_and_no_problem(run, tmp_path, monkeypatch):
    """As with `pip install --target`, or in an environment above another one."""
    record = tmp_path / "onnxruntime_gpu-1.31.1.dist-info" / "METADATA"
    record.parent.mkdir()
    record.write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.31.1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    said = json.loads(run("BUNDLE", "--json").stdout)
    assert said["onnxruntime"]["recorded"]["onnxruntime-gpu"] == "1.31.1"
    assert said["onnxruntime"]["problem"] is None
    assert said["ok"]


def test_a_provider_that_starts_and_fails_when_it_runs_is_told(run, monkeypatch):
    """A session opens on a GPU that ONNX Runtime has no kernels for, and its first run fails."""
    product = doctor._product  # noqa: SLF001 — its first run, as no provider here fails so

    def failing(provider, *arguments):
        if provider.name == "webgpu":
            raise RuntimeError("CUDA failure 209:\nno kernel image")
        return product(provider, *arguments)

    monkeypatch.setattr(doctor, "_product", failing)
    monkeypatch.setattr(doctor, "candidates", lambda _: ())
    monkeypatch.setattr(doctor, "obstacle", lambda row: None if row.name in {"cpu", "webgpu"} else "it is a test")
    done = run("BUNDLE", "--json")
    assert done.exit_code == 0
    told = json.loads(done.stdout)["providers"]
    assert told["webgpu"] == {
        "works": False,
        "reason": "provider 'webgpu' starts and fails to compute ('CUDA failure 209: no kernel image'): choose "
        "another provider",
    }
    assert told["cpu"] == {"works": True}


def test_a_bundle_that_loads_and_gives_no_answer_is_told(run, monkeypatch):
    def failing(*_):
        raise RuntimeError("CUDA failure 209")

    monkeypatch.setattr(doctor, "providers", list)
    monkeypatch.setattr("bertport.runtime.model.Model.predict", failing)
    done = run("BUNDLE", "--json")
    assert done.exit_code == 1
    problem = json.loads(done.stdout)["bundle"]["problem"]
    assert problem.startswith("variant 'fp32' on ")
    assert problem.endswith("loads and gives no answer ('CUDA failure 209'): choose another provider")


def test_a_folder_for_temporary_files_that_takes_nothing_is_told(run, tmp_path, monkeypatch):
    """It is no fault of a provider: as on a full disk, or a read-only file system without /tmp."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    done = run("BUNDLE", "--json")
    assert done.exit_code == 1
    said = json.loads(done.stdout)
    told = "nothing can be written in the folder for temporary files (No such file or directory): make room there, or"
    assert said["providers"]["cpu"]["reason"].startswith(told)
    assert said["bundle"]["problem"].startswith(told)


def test_without_onnx_runtime(run, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    done = run("BUNDLE", "--json")
    assert done.exit_code == 1
    said = json.loads(done.stdout)
    assert install_command("cpu") in said["onnxruntime"]["problem"]
    assert said["providers"] == {}
    assert not any(plugin["devices"] for plugin in said["plugins"].values())
    assert "not ready" in run("BUNDLE").stdout


def test_plugins_that_are_broken_and_those_that_are_not_installed(run, tmp_path, monkeypatch):
    webgpu, openvino = (PROVIDERS[name] for name in ("webgpu", "openvino"))
    if openvino.plugin.library:
        pytest.skip("the plugin is installed")
    package = tmp_path / webgpu.plugin.module
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('the package was imported')")
    (package / file_name(webgpu.plugin.file)).write_text("no library")
    monkeypatch.syspath_prepend(tmp_path)
    xeon = replace(cpu(), model="Xeon", flags=cpu().flags | {"avx512_bf16"}, vendor="GenuineIntel")
    monkeypatch.setattr("bertport.runtime.providers.cpu.cpu", lambda: xeon)
    done = run("BUNDLE", "--json")
    assert done.exit_code == 0
    said = json.loads(done.stdout)
    assert "does not register with ONNX Runtime" in said["providers"]["webgpu"]["reason"]
    assert said["plugins"]["webgpu"]["devices"] == []
    assert said["plugins"]["openvino"]["brings"] == "bf16 on Xeon"
    assert said["plugins"]["openvino"]["install"] == install_command("openvino")
    lines = {line.split()[0]: line for line in run("BUNDLE").stdout.partition("\nplugins\n")[2].splitlines() if line}
    assert f"no device: it takes {webgpu.plugin.takes}" in lines["webgpu"]
    assert f"would bring bf16 on Xeon: {install_command('openvino')}" in lines["openvino"]
