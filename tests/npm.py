"""Packages from the npm registry, for tests that run Node.js."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


SILENT = ("--ignore-scripts", "--no-audit", "--no-fund")
"""What npm is told: no script of a package runs, and nothing is asked of the registry but the packages."""


def installed(package: str, name: str) -> Path:
    """Return the directory, `.tools/NAME`, of a package at the version asked for."""
    return _made(name, package, {"package.json": '{"private": true}\n'}, "install", "--no-save", package)


def locked(folder: Path, name: str) -> Path:
    """Return the directory, `.tools/NAME`, with the packages of a folder's package-lock.json."""
    files = {each: (folder / each).read_text() for each in ("package.json", "package-lock.json")}
    return _made(name, hashlib.sha256("".join(files.values()).encode()).hexdigest(), files, "ci")


def _made(name: str, stamp: str, files: dict[str, str], *command: str) -> Path:
    """Return a directory in which npm has run a command; it is kept until the stamp is another."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("Node.js and npm are not installed")
    place = ROOT / ".tools" / name
    written = place / "installed"
    if not (written.is_file() and written.read_text() == stamp):
        place.mkdir(parents=True, exist_ok=True)
        for each, content in files.items():
            (place / each).write_text(content)
        npm = [str(shutil.which("npm")), *command, *SILENT]
        done = subprocess.run(npm, cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        written.write_text(stamp)
    return place
