"""Golden vectors of a bundle in other runtimes: the process that runs them, and its results."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT
from bench.node import packages
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.golden import read_golden
from bertport.runtime.errors import BertportError, BundleError, UnknownNameError
from bertport.serve.site import web_runtime

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["RUNTIMES", "holds", "job_of", "proven", "tensorrt_rules"]

TOOLS = ROOT / ".tools" / "runtimes"
HERE = Path(__file__).parent
NODE, WEB = "onnxruntime-node", "onnxruntime-web"
RUNTIMES: dict[str, tuple[str, tuple[str, ...]]] = {
    "onnxruntime": ("onnxruntime", ()),
    "onnxruntime oldest": ("onnxruntime", ("onnxruntime==1.24.4",)),
    "openvino": ("openvino", ("openvino==2026.4.1", "openvino-telemetry")),
    "onnx.reference": ("onnx.reference", ()),
    NODE: (NODE, ()),
    WEB: (WEB, ()),
}
"""By name: what `probe.py` calls it, and packages that are fetched for it; none where the environment has it."""
OF_ALL = ("the ids", "the segments", "the tokenizer refuses", "the graph fails")
"""Beginnings of what the package of `js/` says of no output in particular."""
LIMIT = 900
"""Seconds for one bundle; the reference evaluator, which computes in Python, takes the longest."""


class RuntimeMissingError(BertportError, RuntimeError):
    """A runtime was asked for that cannot be started here."""


def job_of(bundle: Path, variants: Collection[str] = ()) -> dict[str, Any]:
    """Return what is asked of a bundle, every file of which was compared with its hash.

    Args:
        bundle: its directory.
        variants: those to try; all that have golden vectors when not given.

    Raises:
        PathError, BundleError: where there is no such bundle, it is damaged, or it has no golden vectors.
        UnknownNameError: for a variant that it does not have, or has no golden vectors of.
    """
    opened = Bundle.open(bundle)
    opened.check(opened.manifest.files)
    golden = read_golden(opened)
    if golden is None:
        raise BundleError(
            f"{bundle} has no golden vectors to prove a runtime by: add them with bertport golden {bundle}"
        )
    for name in variants:
        if name not in golden.variants:
            raise UnknownNameError("variant with golden vectors", name, golden.variants)
    return {"bundle": str(bundle.resolve()), "variants": list(variants or golden.variants)}


def proven(runtime: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the runtime's version, and by variant its outputs, the words in which it is refused, or that it is silent.

    Raises:
        UnknownNameError: for a runtime that there is not.
        RuntimeMissingError: where it cannot be started here.
    """
    if runtime not in RUNTIMES:
        raise UnknownNameError("runtime", runtime, RUNTIMES)
    name, wanted = RUNTIMES[runtime]
    if name in {NODE, WEB}:
        return _in_node(name, job)
    command = [sys.executable, str(HERE / "probe.py"), name]
    variables = _environment(wanted)
    _started(runtime)
    version, variants = "", {}
    left = list(job["variants"])
    while left:  # after one that ends the process, or does not come to an end, the others are asked again
        printed, ended = _run(command, {**job, "variants": left}, variables)
        for answer in (json.loads(line) for line in printed.splitlines() if line.startswith("{")):
            version = answer.get("version", version)
            if "variant" in answer:
                variants[answer["variant"]] = {key: answer[key] for key in ("outputs", "refused") if key in answer}
        first, left = left[0], [each for each in left if each not in variants]
        if left and ("refused" in ended or left[0] == first):  # where time ran out, it is given the whole time first
            variants[left.pop(0)] = ended
    return {"version": version, "variants": variants}


def holds(found: Mapping[str, Any]) -> bool:
    """Return whether a runtime gives every output of every variant within its tolerance."""
    return all(
        variant.get("outputs")  # of none at all nothing was compared
        and all(
            row["difference"] is not None and row["difference"] <= row["tolerance"] and "said" not in row
            for row in variant["outputs"].values()
        )
        for variant in found["variants"].values()
    )


def tensorrt_rules(made: Mapping[str, Path]) -> dict[str, dict[str, list[str]]]:
    """Return by bundle and variant which of TensorRT's rules its 8-bit graph breaks, a phrase each."""
    import onnx

    from bertport.quantize.graph.tensorrt_rules import broken_rules

    found: dict[str, dict[str, list[str]]] = {}
    for title, place in made.items():
        for name, variant in Bundle.open(place).manifest.variants.items():
            if name.startswith("int8-static"):
                broken = broken_rules(onnx.load(place / variant.file))
                found.setdefault(title, {})[name] = [f"{len(broken)} in all, such as: {broken[0]}"] if broken else []
    return found


def _in_node(name: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the package of `js/` finds, which reads the manifest, the hashes and the golden vectors itself."""
    if reason := packages.missing():
        raise RuntimeMissingError(f"{name} was asked for and {reason}: install them, or name another runtime")
    place = _package()
    if name == NODE:
        modules, entry = place / "node_modules" / NODE, "dist/index.js"
        provider: tuple[str, ...] = ()
    else:
        pinned = packages.installed(f"{WEB}@{web_runtime.PINNED.version}", WEB)
        modules, entry, provider = pinned / "node_modules" / WEB, "dist/ort.node.min.mjs", ("wasm",)
    arguments = ("prove.mjs", str(place), str(modules / entry), *provider)
    said = packages.run(HERE, "node", *arguments, standard_input=json.dumps(dict(job)))
    proofs = json.loads(said.strip().splitlines()[-1])["proofs"]
    manifest = Bundle.open(job["bundle"]).manifest
    heads = {head.output: head_name for head_name, head in manifest.heads.items()}
    variants = {}
    for variant, proof in proofs.items():
        if "message" in proof:
            variants[variant] = {"refused": proof["message"][:300]}
            continue
        outputs = {}
        for output, found in proof["outputs"].items():
            outputs[output] = {
                "head": heads.get(output, "encoder"),
                "difference": found["worst"],
                "tolerance": found["tolerance"],
            }
            wrong = [words for words in proof["differences"] if words.startswith((f"{output},", f"{output} "))]
            if wrong:
                outputs[output]["said"] = wrong[0]
        said_of_all = [words for words in proof["differences"] if words.startswith(OF_ALL)]
        if said_of_all and not outputs:  # the graph failed in its first batch
            variants[variant] = {"refused": said_of_all[-1][:300]}
            continue
        all_said = {"said": said_of_all[0]} if said_of_all else {}
        variants[variant] = {"outputs": {output: row | all_said for output, row in outputs.items()}}
    version = json.loads((modules / "package.json").read_text(encoding="utf-8"))["version"]
    return {"version": version, "variants": variants}


@functools.cache
def _package() -> Path:
    """Return the directory of the package of `js/`, built once."""
    return packages.built()


def _environment(wanted: Collection[str]) -> dict[str, str]:
    """Return the variables under which packages are found before the environment's own.

    Raises:
        RuntimeMissingError: where they cannot be installed.
    """
    variables = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    if not wanted:
        return variables
    place = TOOLS / "+".join(wanted)
    if not (place / "installed").is_file():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
        done = subprocess.run([*command, "--target", str(place), *wanted], check=False, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            raise RuntimeMissingError(
                f"{next(iter(wanted))} was asked for and cannot be installed ({last}): name other runtimes"
            )
        (place / "installed").touch()
    return {**variables, "PYTHONPATH": str(place)}


@functools.cache
def _started(runtime: str) -> None:
    """Import a runtime once, in a process of its own.

    Raises:
        RuntimeMissingError: where that fails.
    """
    name, wanted = RUNTIMES[runtime]
    command = [sys.executable, "-c", f"import {name}"]
    done = subprocess.run(command, env=_environment(wanted), check=False, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RuntimeMissingError(
            f"{runtime} was asked for and does not start here ({last}): install it, or name another runtime"
        )


def _run(command: list[str], job: Mapping[str, Any], variables: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """Run a program on a job; return what it prints, and what is said of a variant that it has not told of."""
    try:
        done = subprocess.run(
            command,
            input=json.dumps(dict(job)),
            env=variables,
            check=False,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"").decode(), {"no_answer_seconds": LIMIT}
    last = (done.stderr.strip().splitlines() or ["no word"])[-1]
    return done.stdout, {"refused": f"the process ended with {done.returncode}: {last}"[:300]}
