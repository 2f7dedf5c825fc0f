"""The package for JavaScript, built once from the checkout's sources with the packages of its lock file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests import npm

SOURCES = Path(__file__).parents[2] / "js"
PARTS = ("src", "test", "tsconfig.json", "biome.json", "README.md", "LICENSE")
"""What the package is made of, beside package.json and its lock file."""


def run(package: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program in the package's directory."""
    return subprocess.run(
        [str(shutil.which(str(command[0]))), *map(str, command[1:])],
        cwd=package,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def package() -> Path:
    """The directory of the built package."""
    place = npm.locked(SOURCES, "js")
    for name in (*PARTS, "build"):
        shutil.rmtree(place / name, ignore_errors=True)
    for name in PARTS:
        source = SOURCES / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, place / name)
    done = run(place, "npm", "run", "build", "--silent")
    assert done.returncode == 0, done.stdout
    return place
