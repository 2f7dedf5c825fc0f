"""Packages from the npm registry, for tests that run Node.js."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def installed(package: str, name: str) -> Path:
    """Return the directory, `.tools/NAME`, of a package at the version asked for; no script of a package runs."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("Node.js and npm are not installed")
    place = ROOT / ".tools" / name
    stamp = place / "installed"
    if not (stamp.is_file() and stamp.read_text() == package):
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_text('{"private": true}\n')
        npm = [str(shutil.which("npm")), "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", package]
        done = subprocess.run(npm, cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        stamp.write_text(package)
    return place
