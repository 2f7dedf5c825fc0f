"""The models of bench.performance in every form that a subject loads, made once and kept in `out/bench`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import dev
from bench.checkout import RESTORE, ROOT
from bertport.measure.text import sample_path
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle

KEPT = ROOT / "out" / "bench"
FEW = 10
"""Paragraphs of the calibration sample that random weights are fitted to."""
OPENVINO = "openvino==2026.4.1"
"""What the OpenVINO subjects run, in an environment of their own: it is no dependency of bertport."""

SEEDED = """
import sys, torch
from transformers import BertConfig, BertForPreTraining
torch.manual_seed(0)
small = dict(num_hidden_layers=2, hidden_size=64, num_attention_heads=2, intermediate_size=128)
BertForPreTraining(BertConfig(**(small if sys.argv[2] == "tiny" else {}))).save_pretrained(sys.argv[1])
"""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """One model in every form."""

    name: str
    """What the report calls it."""
    bundle: Path
    """For bertport, and its portable graph for ONNX Runtime and OpenVINO."""
    checkpoint: Path
    """For transformers: the same weights."""
    optimum: Path | None
    """Optimum's own export, `fp32` and `int8`; None where nothing can make and run it."""
    optimum_python: str | None
    """The interpreter that makes and runs it."""
    variants: tuple[str, ...]
    """The bundle's variants to measure: fp32, and the 8-bit one that is fastest."""


def prepare(name: str, *, instruction_set: str, quantize: bool = True, optimum_python: str | None = None) -> Prepared:
    """Make a model's forms, as far as they are not kept from before.

    Args:
        name: `default`, or `base` for a BERT-base with seeded random weights, or `tiny` for trying this program.
        instruction_set: of this machine, for Optimum's preset.
        quantize: whether an 8-bit variant is made where the bundle has none.
        optimum_python: an interpreter that has optimum-onnx; without one, Optimum's export is not made.
    """
    place = KEPT / name
    place.mkdir(parents=True, exist_ok=True)
    checkpoint, bundle, optimum = (
        place / form for form in ("checkpoint", "bundle", f"optimum-{preset(instruction_set)}")
    )
    if name == "default":
        source = default_bundle()
        _fresh(place, source / "manifest.json")
        if not checkpoint.exists():
            _run(
                "restore the checkpoint",
                [sys.executable, "-m", *RESTORE, str(source), str(checkpoint)],
            )
        if not bundle.exists():
            shutil.copytree(source, bundle)
    elif not bundle.exists():
        shutil.rmtree(checkpoint, ignore_errors=True)
        checkpoint.mkdir()
        _run("make a seeded checkpoint", [sys.executable, "-c", SEEDED, str(checkpoint), name])
        for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
            shutil.copy(default_bundle() / file, checkpoint / file)
        _run("export it", [_program("bertport"), "export", str(checkpoint), str(bundle), "--overwrite"])
    if quantize and _int8(bundle) is None:
        # The default's 8-bit variant is right on every CPU; one that is made here is made for this one.
        fp32, bundle = bundle, place / f"bundle-{preset(instruction_set)}"
        if not bundle.exists():
            shutil.copytree(fp32, bundle)
        if _int8(bundle) is None:
            # The figures in the manifest are not used here, so few samples do; random weights would hold no budget,
            # and have nothing to gain from being fitted to all of the calibration text, which takes many minutes.
            few = place / "calibration.txt"
            few.write_text(few_texts(FEW), encoding="utf-8")
            options = ["--recipe", "int8-dynamic", "--accuracy-budget", "none", "--positions", "100", "--pairs", "10"]
            options += ["--calibration", str(few), "--force"]
            _run("quantize it", [_program("bertport"), "quantize", str(bundle), *options])
    if optimum_python and not optimum.exists():
        unfinished = optimum.with_name(f"{optimum.name}.tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        _run(
            "export and quantize it with Optimum",
            [optimum_python, "-c", OPTIMUM, str(checkpoint), str(unfinished), preset(instruction_set)],
        )
        unfinished.rename(optimum)
    int8 = _int8(bundle)
    return Prepared(
        name=name,
        bundle=bundle,
        checkpoint=checkpoint,
        optimum=optimum if optimum_python else None,
        optimum_python=optimum_python,
        variants=("fp32", *([int8] if int8 else [])),
    )


def few_texts(count: int) -> str:
    """Return the first paragraphs of the calibration sample."""
    lines = sample_path("calibration").read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join([line for line in lines if line.strip()][:count])


def preset(instruction_set: str) -> str:
    """Name Optimum's preset of dynamic quantization for an instruction set."""
    return {"avx512_vnni": "avx512_vnni", "amx": "avx512_vnni", "avx512": "avx512", "arm64": "arm64"}.get(
        instruction_set, "avx2"
    )


def optimum_python() -> str | None:
    """Return the interpreter of dev.py's environment with optimum-onnx, which is made once; None where it cannot be.

    optimum-onnx needs a transformers that today's programs are not installed beside.
    """
    try:
        return str(dev.executable(dev.environment("optimum"), "python"))
    except (subprocess.CalledProcessError, SystemExit):
        return None


def openvino_python() -> str | None:
    """Return the interpreter of an environment that holds OpenVINO, which is made once; None where it cannot be."""
    place = ROOT / ".tools" / "openvino"
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = place / "installed"
    if not (stamp.is_file() and stamp.read_text() == OPENVINO):
        try:
            _run("make an environment for OpenVINO", [sys.executable, "-m", "venv", str(place)])
            install = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
            _run("install OpenVINO", [*install, OPENVINO, "tokenizers", "numpy"])
        except subprocess.CalledProcessError:
            return None
        stamp.write_text(OPENVINO)
    return str(python)


def _fresh(place: Path, source: Path) -> None:
    """Throw away what was made of another default bundle."""
    kept = place / "bundle" / "manifest.json"
    if kept.exists() and kept.read_bytes() != source.read_bytes():
        shutil.rmtree(place)
        place.mkdir(parents=True)


def _int8(bundle: Path) -> str | None:
    """Name the bundle's fastest 8-bit variant for the CPU: the one that load() would take goes first."""
    manifest = Bundle.open(bundle).manifest
    names = [manifest.default_variant, *manifest.variants]
    dynamic = (name for name in names if manifest.variants[name].recipe.startswith("int8-dynamic"))
    return next(
        dynamic, next((name for name in names if manifest.variants[name].recipe.startswith("int8-static")), None)
    )


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _run(what: str, command: list[str]) -> None:
    print(f"performance: {what}", file=sys.stderr, flush=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-4000:], sep="\n", file=sys.stderr)
        raise subprocess.CalledProcessError(done.returncode, command)
