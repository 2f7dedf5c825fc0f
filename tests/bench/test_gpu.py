"""What the page says of a GPU is what its program writes, measured or not, and what a kit for one is made of."""

from __future__ import annotations

import json
import subprocess

import pytest

from bench.checkout import ROOT
from bench.gpu import __main__ as gpu
from bench.gpu.page import NEVER, page

PAGE = ROOT / "docs" / "research" / "gpu.md"
MEASURED = {
    "tests_passed": True,
    "rows": [
        {
            "row": "bertport:fp16:cuda",
            "gpu": ["a GPU"],
            "peak_gflops": 100.0,
            "shapes": {"1x16": {"ms": 1.0, "gflops": 50.0}},
            "fidelity": {"top1_agreement": 0.99, "kl": 1e-4, "nsp_flips": 0.0},
        },
        {"row": "bertport:fp16:tensorrt", "failed": "no such library"},
    ],
}


def test_the_page_is_what_the_program_writes():
    assert PAGE.read_text(encoding="utf-8") == page(None)


def test_what_has_run_is_no_more_among_what_never_has():
    text = page(MEASURED)
    assert "| bertport:fp16:cuda | 1.00 (50%) | 99.0% | 0.0001 | 0.0% |" in text
    assert "bertport:fp16:tensorrt did not run: no such library" in text
    never = {name for name, _ in NEVER if f"\n| {name} | " in text}
    assert never == {"TensorRT", "arm64"}


def test_what_ran_emulated_is_not_denied():
    assert (PAGE.parent / "arm64.md").is_file()
    assert "[emulated](arm64.md)" in dict(NEVER)["arm64"]


def test_a_kit_is_made_anew_of_another_default_bundle_and_of_wheels_alone(tmp_path, monkeypatch):
    default, kit = tmp_path / "checkout" / "models" / "default", tmp_path / "kit"
    default.mkdir(parents=True)
    called = []
    monkeypatch.setattr(gpu, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr(gpu, "call", lambda *command: called.append(command))
    monkeypatch.setattr(gpu, "works", lambda *_: False)  # no TensorRT can be had, which ends nothing
    for digest in ("sha256:1", "sha256:2"):
        manifest = {"digest": digest, "variants": dict.fromkeys(gpu.RECIPES)}
        (default / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        gpu.prepare(kit)
        assert json.loads((kit / "bundle" / "manifest.json").read_text(encoding="utf-8")) == manifest
        assert not (kit / "checkpoint").exists()
        (kit / "checkpoint").mkdir()  # as the command would have made it
    assert not [command for command in called if "download" in command]


def test_what_was_measured_is_kept_where_a_run_is_cut(tmp_path, monkeypatch):
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "installed").touch()

    def run(command, **_):
        if "bertport:fp16:cuda" in command:
            raise KeyboardInterrupt
        return subprocess.CompletedProcess(command, 0, '{"load_s": [2, 1]}\n', "")

    monkeypatch.setattr(gpu.subprocess, "run", run)
    with pytest.raises(KeyboardInterrupt):
        gpu.run(tmp_path)
    measured = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert measured == {"tests_passed": True, "rows": [{"row": "bertport:fp32:cuda", "load_s": [2, 1]}]}
