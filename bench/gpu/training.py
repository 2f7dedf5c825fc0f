"""The weights that a training on a GPU starts from, and those that come back.

    python -m bench.gpu.training split RUN PARTS    # there: what models/pretrain.py wrote, in 16 bits and small parts
    python -m bench.gpu.training join PARTS RUN     # here: checks the parts, and makes a run of them

Python's own library is enough to join them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from bench.gpu.parts import join, split

MOST = (16 << 20) - 1
"""Bytes of a file that comes back, at most: less than 16 MiB."""


def thin(checkpoint: Path) -> None:
    """Store a checkpoint's matrices in 16 bits, as the default bundle does."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    file = checkpoint / "model.safetensors"
    tensors = {name: x.astype(np.float16) if x.ndim > 1 else x for name, x in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def split_run(run: Path, folder: Path) -> int:
    """Write a run's model in 16 bits, its record and its log in parts that may come back; return their number.

    A run that was ended early may have no log yet.
    """
    if not (run / "model").is_dir():
        sys.exit(f"{run} has no model: see training.log for what became of the training")
    with tempfile.TemporaryDirectory() as directory:
        model = shutil.copytree(run / "model", Path(directory) / "model")
        thin(model)
        told = [file for name in ("run.json", "log.jsonl") if (file := run / name).is_file()]
        return split((model, *told), folder, MOST)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("split", "join"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    given = parser.parse_args()
    {"split": split_run, "join": join}[given.what](given.source, given.target)


if __name__ == "__main__":
    main()
