"""Install the wheel under other interpreters, and compare the answers with the golden vectors there.

    python -m bench.pythons INTERPRETER...

An interpreter is a program, or the archive of a root file system that holds one, which chroot runs as root (such as
`mmdebstrap --variant=minbase --include=python3,python3-venv,ca-certificates forky forky.tar` writes). Under each, a
fresh environment gets `bertport[cpu]` with the newest packages; `bertport verify --golden`, `bertport doctor` and an
answer are run there. Writes docs/data/pythons.json; an interpreter where something fails is in it with what was said.
It takes a minute for each. The runtime's own tests are not run: they need what exports.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.checkout import ROOT, environment, provenance
from bertport.runtime import load

OUTPUT = ROOT / "docs" / "data" / "pythons.json"
TEXT = "He poured her a cup of [MASK]."
STEPS = (("verify", "--golden"), ("doctor",))
"""Commands of bertport that have to end with 0."""


def main() -> None:
    """Run every interpreter, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("interpreters", nargs="+", metavar="INTERPRETER", type=Path)
    interpreters = parser.parse_args().interpreters
    if missing := [str(each) for each in interpreters if not (each.is_file() or shutil.which(each))]:
        sys.exit(
            f"there is no interpreter {', '.join(missing)}, so nothing was run: give programs, or archives of roots"
        )
    here = [each["token_str"] for each in load().fill_mask(TEXT)]
    with tempfile.TemporaryDirectory() as scratch:
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", scratch, str(ROOT)]
        subprocess.run(build, env=environment(), stdout=subprocess.DEVNULL, check=True)
        wheel = next(Path(scratch).glob("*.whl"))
        rows = [row_of(path, wheel, Path(scratch) / str(number), here) for number, path in enumerate(interpreters)]
    figures = {"command": "python -m bench.pythons INTERPRETER...", **provenance(), "interpreters": rows}
    OUTPUT.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    for interpreter, row in zip(interpreters, rows, strict=True):
        print(f"{interpreter} {row['python']}: {row['failed'] or 'answers as here'}")
    if any(row["failed"] for row in rows):
        sys.exit(1)


def row_of(interpreter: Path, wheel: Path, place: Path, here: list[str]) -> dict[str, Any]:
    """Return what one interpreter came to."""
    place.mkdir()
    root = interpreter.suffix == ".tar"
    row: dict[str, Any] = {"python": "", "root": interpreter.name if root else "", "failed": ""}
    try:
        _try(row, interpreter, wheel, place, here)
    except (subprocess.CalledProcessError, OSError) as error:
        said = (error.stderr or error.stdout or "").strip() if isinstance(error, subprocess.CalledProcessError) else ""
        row["failed"] = said.splitlines()[-1] if said else str(error)
    return row


def _try(row: dict[str, Any], interpreter: Path, wheel: Path, place: Path, here: list[str]) -> None:
    """Install and ask; what is known so far is in the row where something fails.

    Raises:
        CalledProcessError: when a command fails.
        OSError: when an interpreter cannot be started, or an archive cannot be unpacked.
    """
    programs, outside, inside, python = [], place, place, str(Path(shutil.which(interpreter) or interpreter).absolute())
    if row["root"]:
        _run(["tar", "--extract", "--file", str(interpreter.resolve()), "--directory", str(place)])
        for name in ("resolv.conf", "ssl/certs/ca-certificates.crt"):
            shutil.copyfile(Path("/etc") / name, place / "etc" / name)
        # ONNX Runtime opens files by /proc; mounted in a namespace of its own, it ends with the program.
        mounted = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
        programs = ["unshare", "--mount", "sh", "-c", mounted, str(place)]
        outside, inside, python = place / "work", Path("/work"), "python3"
        outside.mkdir()
    shutil.copy(wheel, outside)
    row["python"] = _run([*programs, python, "-c", "import platform; print(platform.python_version())"]).strip()
    _run([*programs, python, "-m", "venv", str(inside / "venv")])
    own = [*programs, str(inside / "venv" / "bin" / "python"), "-m"]
    _run([*own, "pip", "install", "--quiet", f"{inside / wheel.name}[cpu]"])
    for step in STEPS:
        _run([*own, "bertport.runtime", *step])
    listed = _run([*own, "pip", "list", "--format=json"])
    packages = {each["name"]: each["version"] for each in json.loads(listed[listed.index("[") :].splitlines()[0])}
    row["packages"] = {name: packages[name] for name in ("numpy", "onnxruntime", "tokenizers")}
    words = [each["token_str"] for each in json.loads(_run([*own, "bertport.runtime", "fill-mask", TEXT, "--json"]))]
    if words != here:
        row["failed"] = f"answers {words}, here {here}"


def _run(command: list[str]) -> str:
    """Return what a command prints, run outside the checkout."""
    done = subprocess.run(command, env=environment(), cwd="/", capture_output=True, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    main()
