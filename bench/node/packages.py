"""Packages from the npm registry in directories of `.tools`, and the package of `js/`, built there.

`python -m bench.node.packages` renews the files of the page that `bertport site` writes, which `js/` is the source of.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from typing import TYPE_CHECKING

from bench.checkout import ROOT

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PLAYWRIGHT", "TRANSFORMERS_JS", "built", "installed", "locked", "missing", "run", "site"]

PLAYWRIGHT = "playwright-core@1.65.1"
"""What drives the browser of the system; it brings none."""
TRANSFORMERS_JS = "@huggingface/transformers@4.3.2"
"""transformers.js, in the version that programs and tests ask."""

SOURCES = ROOT / "js"
SILENT = ("--ignore-scripts", "--no-audit", "--no-fund")
"""Options of npm: no script of a package runs, and nothing is asked of the registry but the packages."""
PARTS = ("src", "site", "test", "pack-site.mjs", "tsconfig.json", "biome.json", "README.md", "LICENSE")
"""Files and folders of which the package is made, beside package.json and its lock file."""


def missing() -> str | None:
    """Return what has to be installed first; None where Node.js and npm are here."""
    return None if shutil.which("node") and shutil.which("npm") else "Node.js and npm are not installed"


def installed(package: str, name: str) -> Path:
    """Return the directory, `.tools/NAME`, of a package at the version asked for."""
    return _made(name, package, {"package.json": '{"private": true}\n'}, "install", "--no-save", package)


def locked(folder: Path, name: str) -> Path:
    """Return the directory, `.tools/NAME`, with the packages of a folder's package-lock.json."""
    files = {each: (folder / each).read_text() for each in ("package.json", "package-lock.json")}
    return _made(name, hashlib.sha256("".join(files.values()).encode()).hexdigest(), files, "ci")


def built() -> Path:
    """Return the directory, `.tools/js`, of the package of `js/`, built from its sources as they are now."""
    place = locked(SOURCES, "js")
    files = sorted(path for name in PARTS for path in (SOURCES / name, *(SOURCES / name).rglob("*")) if path.is_file())
    stamp = hashlib.sha256((place / "installed").read_bytes())
    for path in files:
        stamp.update(f"{path.relative_to(SOURCES)}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    made_of = place / "built"
    if made_of.is_file() and made_of.read_text() == stamp.hexdigest():
        return place
    made_of.unlink(missing_ok=True)
    for name in (*PARTS, "build"):
        old = place / name
        if old.is_dir():
            shutil.rmtree(old)
        old.unlink(missing_ok=True)
    for name in PARTS:
        source = SOURCES / name
        if source.is_dir():
            shutil.copytree(source, place / name)
        else:
            shutil.copy(source, place / name)
    run(place, "npm", "run", "build", "--silent")
    made_of.write_text(stamp.hexdigest())
    return place


def site(target: Path) -> None:
    """Write the files of the page of `bertport site` into a directory, as the sources of `js/` give them now."""
    run(built(), "npm", "run", "site", "--silent", "--", str(target.absolute()))


def run(directory: Path, program: str, *arguments: str, standard_input: str | None = None) -> str:
    """Run a program in a directory and return what it prints.

    Raises:
        RuntimeError: with what it prints, where it fails.
    """
    command = [str(shutil.which(program)), *arguments]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, input=standard_input)
    if done.returncode:
        raise RuntimeError(f"{program} {' '.join(arguments)} failed: {done.stdout}{done.stderr}")
    return done.stdout


def _made(name: str, stamp: str, files: dict[str, str], *command: str) -> Path:
    """Return a directory in which npm has run a command; it is kept until the stamp is another."""
    place = ROOT / ".tools" / name
    written = place / "installed"
    if not (written.is_file() and written.read_text() == stamp):
        place.mkdir(parents=True, exist_ok=True)
        for each, content in files.items():
            (place / each).write_text(content)
        run(place, "npm", *command, *SILENT)
        written.write_text(stamp)
    return place


if __name__ == "__main__":  # renews the page of `bertport site`: python -m bench.node.packages
    site(ROOT / "serve" / "bertport" / "serve" / "site" / "files")
