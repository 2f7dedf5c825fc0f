"""The models of bench.performance in every form that a subject loads, made once and kept in `out/bench`."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.checkout import RESTORE, ROOT, commit, is_made_of
from bench.performance.environments import say
from bench.performance.programs import INTEL, OPTIMUM, SEEDED, SENTENCE_INTEL, SENTENCE_OPTIMUM
from bench.performance.shares import add_like
from bench.performance.subjects import BF16
from bench.tasks.tables import CHANGED
from bertport.measure.text import sample_path
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.select import CPU, suits
from bertport.runtime.providers.cpu import cpu

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FEW", "KEPT", "Prepared", "few_texts", "fresh_copy", "made_of", "prepare", "preset"]

KEPT = ROOT / "out" / "bench"
FEW = 10
"""Paragraphs of the calibration sample that NNCF, and other benchmarks, fit random weights to."""
TIME_LIMIT = "15m"
"""Time limit of the search for a variant within the budget."""
FITTED = 100
"""Paragraphs that NNCF calibrates the default model on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """One model in every form."""

    name: str
    """Name of the model in the report."""
    bundle: Path
    """For bertport, and its portable graph for ONNX Runtime and OpenVINO."""
    checkpoint: Path
    """For transformers: the same weights."""
    variants: tuple[str, ...]
    """The bundle's variants to measure: fp32, the 8-bit one that is its default or the first, and others."""
    exports: Mapping[str, Path] = field(default_factory=dict)
    """Exports that other libraries have made of it, by name: `optimum`, `optimum-intel`, and for sentence-transformers
    `sentence-onnx` and `sentence-openvino`; those that nothing here can make are missing."""


def prepare(
    name: str,
    *,
    instruction_set: str,
    quantize: bool = True,
    adds: bool = False,
    pythons: Mapping[str, str] | None = None,
) -> Prepared:
    """Make a model's forms, as far as they are not kept from before.

    Args:
        name: `default`, or `base` for a BERT-base with seeded random weights, or `tiny` for trying this program.
        instruction_set: of this machine, for Optimum's preset.
        quantize: whether an 8-bit variant is made where the bundle has none.
        adds: whether the variants are added, too, that `load` may take once they are there: a search, for minutes.
        pythons: interpreters that have other libraries, by name: `optimum`, and rows of
            `bench.performance.environments.ENVIRONMENTS`; without one, its exports are not made.
    """
    place = KEPT / name
    place.mkdir(parents=True, exist_ok=True)
    checkpoint, bundle = place / "checkpoint", place / "bundle"
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
    if quantize and (adds or _int8(bundle) is None):
        # The default's 8-bit variant is right on every CPU; those that are made here are made for this one.
        given, bundle = bundle, place / f"bundle-{preset(instruction_set)}"
        fresh_copy(given, bundle)
        if _int8(bundle) is None:
            say("quantize it with what held the budget on the default model")
            add_like(bundle, default_bundle(), instruction_set=instruction_set)
        if adds:
            _add_variants(bundle, (pythons or {}).get("openvino-plugin"), trained=name == "default")
    bf16 = "bf16" in Bundle.open(bundle).manifest.variants
    return Prepared(
        name=name,
        bundle=bundle,
        checkpoint=checkpoint,
        variants=("fp32", *_eight_bit(bundle), *(["bf16"] if bf16 else [])),
        exports=_exports(place, checkpoint, instruction_set, pythons or {}),
    )


def _add_variants(bundle: Path, plugin: str | None, *, trained: bool) -> None:
    """Add what else `load` may take on this CPU, each held to the budget where somebody trained the model.

    Args:
        bundle: The bundle.
        plugin: What runs with OpenVINO's plugin; None where that cannot be.
        trained: Whether somebody trained the model: there is no budget that random weights would hold.
    """
    wanted = {"int8-static-cpu": sys.executable} if trained else {}
    if plugin is not None and not BF16.isdisjoint(cpu().flags):
        wanted["bf16"] = plugin
    loose = ["--accuracy-budget", "none", "--positions", "100", "--pairs", "10"]
    options = ["--force", *(["--time-limit", TIME_LIMIT] if trained else loose)]
    for recipe, python in wanted.items():
        refused = bundle.with_name(f"{bundle.name}-without-{recipe}")  # not searched for again by the same code
        if recipe in Bundle.open(bundle).manifest.variants or (
            refused.is_file() and refused.read_text(encoding="ascii") == commit()
        ):
            continue
        command = [python, "-m", "bertport.runtime", "quantize", str(bundle), "--recipe", recipe, *options]
        try:
            _run(f"add {recipe}", command)
        except subprocess.CalledProcessError:
            say(f"{recipe} does not hold the budget, or cannot be measured: its rows are left out")
            refused.write_text(commit(), encoding="ascii")


def _exports(place: Path, checkpoint: Path, instruction_set: str, pythons: Mapping[str, str]) -> dict[str, Path]:
    """Have other libraries make what they load, each by its own interpreter."""
    texts = place / "texts.txt"
    texts.write_text(few_texts(FITTED if place.name == "default" else FEW), encoding="utf-8")
    optimum, intel = place / f"optimum-{preset(instruction_set)}", place / "optimum-intel"
    onnx, openvino = place / f"sentence-onnx-{preset(instruction_set)}", place / "sentence-openvino"
    made = (
        ("optimum", "optimum", OPTIMUM, optimum, preset(instruction_set)),
        ("optimum-intel", "optimum-intel", INTEL, intel, str(texts)),
        ("sentence-onnx", "sentence-transformers", SENTENCE_OPTIMUM, onnx, preset(instruction_set)),
        ("sentence-openvino", "optimum-intel", SENTENCE_INTEL, openvino, str(intel)),
    )
    exports = {}
    for name, environment, program, out, argument in made:
        if environment not in pythons or (name.startswith("sentence") and place.name == "base"):
            continue  # vectors are compared on the default model alone
        if not out.exists():
            unfinished = out.with_name(f"{out.name}.{os.getpid()}")
            command = [pythons[environment], "-c", program, str(checkpoint), str(unfinished), argument]
            try:
                _run(f"export and quantize it for {name}", command)
            except subprocess.CalledProcessError:
                say(f"{name} cannot be made: its rows are left out")
                continue
            try:
                unfinished.rename(out)
            except OSError:  # another command was faster
                shutil.rmtree(unfinished)
        exports[name] = out
    return exports


def few_texts(count: int) -> str:
    """Return the first paragraphs of the calibration sample."""
    lines = sample_path("calibration").read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join([line for line in lines if line.strip()][:count])


def preset(instruction_set: str) -> str:
    """Name Optimum's preset of dynamic quantization for an instruction set."""
    return {"avx512_vnni": "avx512_vnni", "amx": "avx512_vnni", "avx512": "avx512", "arm64": "arm64"}.get(
        instruction_set, "avx2"
    )


def _fresh(place: Path, source: Path) -> None:
    """Throw away what was made of another default bundle."""
    kept = place / "bundle" / "manifest.json"
    if kept.exists() and kept.read_bytes() != source.read_bytes():
        shutil.rmtree(place)
        place.mkdir(parents=True)


def made_of() -> str:
    """Return a stamp of what variants are made of: the default bundle, and the recipes of today."""
    manifest = (default_bundle() / "manifest.json").read_bytes()
    return f"{hashlib.sha256(manifest).hexdigest()} {' '.join(CHANGED)}\n"


def fresh_copy(given: Path, bundle: Path) -> None:
    """Copy a bundle to add variants to; a copy stays as long as what they are made of does.

    Figures are those of the checkout that measures: variants of earlier recipes are thrown away, and so is a copy that
    was interrupted.
    """
    stamp = bundle.with_name(f"{bundle.name}.made-of")
    if bundle.exists() and is_made_of(stamp, made_of()):
        return
    stamp.unlink(missing_ok=True)  # a copy without one is not whole
    shutil.rmtree(bundle, ignore_errors=True)
    shutil.copytree(given, bundle)
    stamp.write_text(made_of(), encoding="ascii")


def _int8(bundle: Path) -> str | None:
    """Name the bundle's 8-bit variant for the CPU: the default, or else the first that there is."""
    names = _eight_bit(bundle)
    return names[0] if names else None


def _eight_bit(bundle: Path) -> tuple[str, ...]:
    """Name the bundle's variants that multiply in 8 bits on the CPU, the default first."""
    manifest = Bundle.open(bundle).manifest
    return tuple(
        name
        for name in dict.fromkeys([manifest.default_variant, *manifest.variants])
        if manifest.variants[name].requires.precision.startswith(("int8-dynamic", "int8-static"))
        and suits(manifest.variants[name].requires, CPU)
    )


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _run(what: str, command: list[str]) -> None:
    say(what)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-4000:], sep="\n", file=sys.stderr)
        raise subprocess.CalledProcessError(done.returncode, command)
