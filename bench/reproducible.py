"""Build the distributions twice, each from a clone of its own under other circumstances, and compare their bytes.

    python -m bench.reproducible

The two clones of the commit differ in the length of their path, the umask they were written and built with, the times
of their files, the time zone, the language and Python's seed of hashes; SOURCE_DATE_EPOCH is the commit's time in both,
and the address of the repository is given. In each, `python -m build` makes the source distribution and a wheel of it;
in the first, a wheel is also made of the clone itself. The backend is the one that is installed here. Writes
docs/data/reproducible-build.json, with the exit code 1 where two bytes differ; it takes half a minute of one core.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from bench.checkout import ROOT, commit, environment, provenance

OUTPUT = ROOT / "docs" / "data" / "reproducible-build.json"
ADDRESS = "https://example.org/bertport/bertport"
CIRCUMSTANCES = (
    ("a", 0o022, {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "1"}),
    ("a/much/longer/path with a space", 0o077, {"TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "2"}),
)
"""Circumstances of each build: the clone's place, its umask, and further environment variables."""


def main() -> None:
    """Build, compare, write the figures."""
    with tempfile.TemporaryDirectory() as scratch:
        built = [_built(Path(scratch), place, umask, own) for place, umask, own in CIRCUMSTANCES]
        sizes = {path.name: path.stat().st_size for path in sorted(built[0].iterdir())}
        hashes = [{path.name: _sha256(path) for path in sorted(folder.iterdir())} for folder in built]
        direct = _wheel_of_the_clone(Path(scratch) / CIRCUMSTANCES[0][0] / "clone")
        wheel = next(name for name in hashes[0] if name.endswith(".whl"))
        equal = {name: hashes[1].get(name) == digest for name, digest in hashes[0].items()}
        equal["wheel of the clone, and of the source distribution"] = _sha256(direct) == hashes[0][wheel]
    figures = {
        "command": "python -m bench.reproducible",
        **provenance(),
        "backend": f"hatchling {version('hatchling')}",
        "python": sys.version.split()[0],
        "bytes": sizes,
        "sha256": hashes[0],
        "equal": equal,
    }
    OUTPUT.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    for name, same in equal.items():
        print(f"{'equal' if same else 'DIFFERENT'}: {name}")
    if not all(equal.values()):
        sys.exit("the builds differ: unpack both and compare them, for instance with diffoscope")


def _built(scratch: Path, place: str, umask: int, own: dict[str, str]) -> Path:
    """Return a folder with the distributions that one clone came to."""
    clone, out = scratch / place / "clone", scratch / place / "dist"
    clone.parent.mkdir(parents=True)
    command = ["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)]
    subprocess.run(command, check=True, umask=umask)
    for path in clone.rglob("*"):
        if ".git" not in path.parts and path.is_file():
            os.utime(path, (1_000_000_000 + umask, 1_000_000_000 + umask))
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(clone)]
    subprocess.run(build, env=_environment(own), stdout=subprocess.DEVNULL, check=True, umask=umask)
    return out


def _wheel_of_the_clone(clone: Path) -> Path:
    """Return the wheel that a clone makes without a source distribution in between."""
    out = clone.parent / "direct"
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(clone)]
    subprocess.run(build, env=_environment({}), stdout=subprocess.DEVNULL, check=True)
    return next(out.iterdir())


def _environment(own: dict[str, str]) -> dict[str, str]:
    git = ["git", "show", "--no-patch", "--format=%ct", commit()]
    said = subprocess.check_output(git, cwd=ROOT, text=True)
    return {**environment(), "SOURCE_DATE_EPOCH": said.strip(), "BERTPORT_REPOSITORY": ADDRESS, **own}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
