"""Export a checkpoint that TensorFlow wrote as Google's BERT code did, and compare it with the model in TensorFlow.

    python -m bench.tensorflow_checkpoint

It makes an environment below out/bench, in which the packages of this one are seen and TensorFlow is installed beside
them; there the checkpoint is written, run and exported. Writes docs/data/tensorflow-checkpoint.json. With --fixture DIR
it writes the tiny checkpoint of tests/data instead.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
from pathlib import Path
from typing import Any

import numpy as np

from bench.checkout import ROOT, commit
from bench.tensorflow_checkpoint.google import SMALL, TINY, Sizes, erf_gelu, forward, tanh_gelu, write
from bertport.export import export
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.session import open_session, session_options

PLACE = ROOT / "out" / "bench" / "tensorflow"
OUTPUT = ROOT / "docs" / "data" / "tensorflow-checkpoint.json"
SHAPES = ((1, 1), (1, 16), (3, 20), (2, 128), (1, 512))
"""Batches and lengths that are compared; of more than one text, all but the first are padded."""
BOUND = 1e-4
"""Largest difference from TensorFlow in any output: the export's own tolerance."""


def environment() -> Path:
    """Return the interpreter of an environment with TensorFlow, whose other packages are those of this one."""
    python = PLACE / "venv" / "bin" / "python"
    if not python.exists():
        venv.create(python.parents[1], with_pip=True)
        site = next((python.parents[1] / "lib").glob("python*/site-packages"))
        # Also what is installed there from a checkout, which a path alone would not bring.
        beside = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
        (site / "beside.pth").write_text(beside, encoding="utf-8")
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        wanted = project["optional-dependencies"]["tensorflow"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
    return python


def batches(sizes: Sizes) -> list[dict[str, np.ndarray[Any, np.dtype[np.int64]]]]:
    """Return seeded inputs of every shape, with two segments each."""
    random = np.random.default_rng(11)
    feeds = []
    for rows, length in SHAPES:
        ids = random.integers(5, sizes.vocab_size, (rows, length))
        mask = np.ones_like(ids)
        for row in range(1, rows):
            mask[row, length - 3 * row :] = 0
        types = np.zeros_like(ids)
        types[:, length // 2 :] = 1
        feeds.append({"input_ids": ids, "attention_mask": mask, "token_type_ids": types})
    return feeds


def compare(checkpoint: Path, bundle: Path, sizes: Sizes) -> dict[str, Any]:
    """Return the largest difference of each output, padding apart, from TensorFlow by either activation."""
    session = open_session(bundle / "onnx" / "model.onnx", session_options(threads=None, config={}))
    names = [output.name for output in session.get_outputs()]
    worst: dict[str, dict[str, float]] = {"erf": {}, "tanh": {}}
    for batch in batches(sizes):
        outputs = dict(zip(names, session.run(names, batch), strict=True))
        for kind, gelu in (("erf", erf_gelu), ("tanh", tanh_gelu)):
            expected = forward(checkpoint / "bert_model.ckpt", sizes, batch, gelu)
            for name, value in expected.items():
                differences = np.abs(outputs[name] - value)
                if value.ndim == 3:  # noqa: PLR2004 — a row for each token
                    differences = differences[batch["attention_mask"] == 1]
                worst[kind][name] = max(worst[kind].get(name, 0.0), float(differences.max()))
    return {"worst_difference": worst["erf"], "worst_difference_from_tanh_gelu": worst["tanh"]}


def measured() -> None:
    """Write, export and compare; what runs in the environment with TensorFlow."""
    with tempfile.TemporaryDirectory(dir=PLACE) as scratch:
        checkpoint = Path(scratch) / "google"
        write(checkpoint, SMALL)
        shutil.copy(default_bundle() / "vocab.txt", checkpoint)
        notes: list[str] = []
        bundle = export(
            checkpoint,
            Path(scratch) / "bundle",
            progress=lambda event: notes.append(event.text) if event.kind == "note" else None,
        )
        result = {
            "commit": commit(),
            "versions": {
                name: importlib.metadata.version(name)
                for name in ("tensorflow-cpu", "transformers", "torch", "onnxruntime", "numpy", "protobuf")
            },
            "files": {path.name: path.stat().st_size for path in sorted(checkpoint.iterdir())},
            "heads": list(bundle.manifest.heads),
            "parameters": bundle.manifest.architecture.parameters,
            "source": bundle.manifest.source.weights_sha256,
            "notes": notes,
            "shapes": [list(shape) for shape in SHAPES],
            **compare(checkpoint, bundle.path, SMALL),
        }
    OUTPUT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(OUTPUT.read_text(encoding="utf-8"))
    worst = max(result["worst_difference"].values())
    if not worst <= BOUND:
        sys.exit(f"an output differs from TensorFlow's by {worst:g}, more than {BOUND:g}")


def main() -> None:
    """Make the environment, and run the rest in it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fixture", type=Path, help="write the tiny checkpoint there, and nothing else")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.inside:
        PLACE.mkdir(parents=True, exist_ok=True)
        again = [str(environment()), "-m", "bench.tensorflow_checkpoint", *sys.argv[1:], "--inside"]
        sys.exit(subprocess.run(again, check=False).returncode)
    if arguments.fixture:
        write(arguments.fixture, TINY)
        letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters][: TINY.vocab_size]
        (arguments.fixture / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    else:
        measured()


if __name__ == "__main__":
    main()
