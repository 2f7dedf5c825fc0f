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
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.checkout import ROOT, provenance
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
    here = [each["token_str"] for each in load().fill_mask(TEXT)]
    with tempfile.TemporaryDirectory() as scratch:
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", scratch, str(ROOT)]
        subprocess.run(build, env=_clean(), stdout=subprocess.DEVNULL, check=True)
        wheel = next(Path(scratch).glob("*.whl"))
        rows = [_row(path, wheel, Path(scratch) / str(number), here) for number, path in enumerate(interpreters)]
    figures = {"command": "python -m bench.pythons INTERPRETER...", **provenance(), "interpreters": rows}
    OUTPUT.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(f"{row['python']}: {'answers as here' if not row['failed'] else row['failed']}")
    if any(row["failed"] for row in rows):
        sys.exit(1)


def _row(interpreter: Path, wheel: Path, place: Path, here: list[str]) -> dict[str, Any]:
    """Return what one interpreter came to."""
    place.mkdir()
    prefix, seen = [str(interpreter)], place
    if interpreter.suffix == ".tar":
        unpack = ["tar", "--extract", "--file", str(interpreter), "--directory", str(place)]
        subprocess.run(unpack, check=True)
        for name in ("resolv.conf", "ssl/certs/ca-certificates.crt"):
            shutil.copyfile(Path("/etc") / name, place / "etc" / name)
        (place / "work").mkdir()
        prefix, seen = ["chroot", str(place), "python3"], place / "work"
    inside = Path("/work") if seen != place else place
    shutil.copy(wheel, seen)
    programs = ["chroot", str(place)] if seen != place else []
    python = [*programs, str(inside / "venv" / "bin" / "python")]
    install = ("-m", "pip", "install", "--quiet", f"{inside / wheel.name}[cpu]")
    version = _run([*prefix, "-c", "import platform; print(platform.python_version())"])[1].strip()
    row: dict[str, Any] = {"python": version, "root": interpreter.name if seen != place else "", "failed": ""}
    bertport = [*python, "-m", "bertport.runtime"]
    steps = [[*prefix, "-m", "venv", str(inside / "venv")], [*python, *install]]
    for command in (*steps, *([*bertport, *step] for step in STEPS)):
        code, said = _run(command)
        if code:
            row["failed"] = said.strip().splitlines()[-1] if said.strip() else f"exit code {code}"
            return row
    listed = _run([*python, "-m", "pip", "list", "--format=json"])[1]
    packages = {each["name"]: each["version"] for each in json.loads(listed[listed.index("[") :].splitlines()[0])}
    row["packages"] = {name: packages[name] for name in ("numpy", "onnxruntime", "tokenizers")}
    answered = json.loads(_run([*bertport, "fill-mask", TEXT, "--json"])[1])
    words = [each["token_str"] for each in answered]
    if words != here:
        row["failed"] = f"answers {words}, here {here}"
    return row


def _run(command: list[str]) -> tuple[int, str]:
    done = subprocess.run(command, env=_clean(), cwd="/", capture_output=True, text=True, check=False)
    return done.returncode, done.stdout if not done.returncode else done.stderr + done.stdout


def _clean() -> dict[str, str]:
    """Return the environment without what is meant for the Python that runs this."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


if __name__ == "__main__":
    main()
