"""Install the wheel under other interpreters, and compare the answers with the golden vectors there.

    python -m bench.pythons INTERPRETER...

An interpreter is a program, or the archive of a root file system that holds one, which chroot runs as root (such as
`mmdebstrap --variant=minbase --include=python3,python3-venv,ca-certificates forky forky.tar` writes). Under each, a
fresh environment gets `bertport[cpu]` with the newest packages; `bertport verify --golden`, `bertport doctor` and an
answer are run there, and those of the runtime's tests that need nothing else than a bundle, which is made here: the
others compare with PyTorch, or export. Writes docs/data/pythons.json; an interpreter where something fails is in it
with what was said. It takes two minutes for each.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT, environment, provenance
from bertport.runtime import load

if TYPE_CHECKING:
    from collections.abc import Sequence

OUTPUT = ROOT / "docs" / "data" / "pythons.json"
TEXT = "He poured her a cup of [MASK]."
STEPS = (("verify", "--golden"), ("doctor",))
"""Commands of bertport that have to end with 0."""
TESTS = (
    *(f"test_{name}.py" for name in ("cli", "deprecated", "doctor", "excerpts", "memory", "top_k")),
    *(f"bundle/test_{name}.py" for name in ("measured", "task_metrics")),
    *(f"commands/test_{name}.py" for name in ("progress", "render")),
    "providers/test_cpu.py",
    *(f"tasks/test_{name}.py" for name in ("columns", "text_ranking")),
)
"""Files in tests/runtime that need no package but these, and nothing of the checkout but what is copied."""
TESTING = ("filelock", "hypothesis", "pytest>=8.4", "pytest-timeout")
COPIED = ("tests", "models/default", "dev.py", "pyproject.toml")
OF_DOCS = "test_the_committed_page_is_what_the_commands_say"
APART = "not slow and not gpu and not node and not optimum and not ray"


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
        wheel, bundle = build_wheel(Path(scratch)), tiny_bundle(Path(scratch))
        rows = [
            row_of(path, wheel, Path(scratch) / str(number), here, bundle) for number, path in enumerate(interpreters)
        ]
    figures = {"command": "python -m bench.pythons INTERPRETER...", **provenance(), "interpreters": rows}
    OUTPUT.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    for interpreter, row in zip(interpreters, rows, strict=True):
        found = row["failed"] or f"answers as here; of the tests {row['tests']}"
        print(f"{interpreter} {row['python']}: {found}")
    if any(row["failed"] for row in rows):
        sys.exit(1)


def build_wheel(place: Path) -> Path:
    """Build bertport's wheel in a directory, and return its path."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(place), str(ROOT)]
    subprocess.run(build, env=environment(), stdout=subprocess.DEVNULL, check=True)
    return next(place.glob("*.whl"))


def tiny_bundle(place: Path) -> Path:
    """Export the checkpoint that the tests share into a directory of its own, and return the bundle."""
    from bertport.export import export

    build_checkpoint = importlib.import_module("tests.conftest").build_checkpoint
    build_checkpoint(place / "tiny-bert")  # a bundle is named after its checkpoint, and tests read the name
    export(place / "tiny-bert", place / "bundle")
    return place / "bundle"


def row_of(interpreter: Path, wheel: Path, place: Path, here: list[str], bundle: Path | None = None) -> dict[str, Any]:
    """Return what one interpreter came to; without a bundle its tests are not run."""
    place.mkdir()
    root = interpreter.suffix == ".tar"
    row: dict[str, Any] = {"python": "", "root": interpreter.name if root else "", "failed": ""}
    try:
        _try(row, interpreter, wheel, place, here, bundle)
    except (subprocess.CalledProcessError, OSError) as error:
        said = (error.stderr or error.stdout or "").strip() if isinstance(error, subprocess.CalledProcessError) else ""
        row["failed"] = said.splitlines()[-1] if said else str(error)
    return row


def _try(  # noqa: PLR0913, PLR0917 — as `row_of`
    row: dict[str, Any], interpreter: Path, wheel: Path, place: Path, here: list[str], bundle: Path | None
) -> None:
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
        # ONNX Runtime opens files by /proc, and tests open terminals; in its own namespace, both end with the program.
        mounted = (
            'mount -t proc proc "$0/proc" && mount -t devpts -o newinstance,ptmxmode=0666 devpts "$0/dev/pts" && '
            'mount --bind "$0/dev/pts/ptmx" "$0/dev/ptmx" && exec chroot "$0" "$@"'
        )
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
    if bundle is not None:
        row["tests"] = _tested(own, outside, inside, bundle)


def _tested(own: list[str], outside: Path, inside: Path, bundle: Path) -> str:
    """Run the runtime's tests in a copy of what they read, and return pytest's last line.

    Args:
        own: the command line that runs a module of the interpreter's environment.
        outside: directory of the copy, as this process names it.
        inside: the same as the interpreter names it.
        bundle: the bundle that tests share.

    Raises:
        CalledProcessError: when a test fails.
    """
    copy_tests(outside / "checkout")
    shutil.copytree(bundle, outside / "bundle")
    _run([*own, "pip", "install", "--quiet", *TESTING])
    said = _run([*own, *tests(inside / "checkout", TESTS)], BERTPORT_TINY_BUNDLE=str(inside / "bundle"))
    return said.strip().splitlines()[-1]


def copy_tests(place: Path, names: Sequence[str] = COPIED) -> None:
    """Copy tests, with all of the checkout that they read, into a directory; the runtime's when nothing is named."""
    for name in names:
        source, target = ROOT / name, place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)


def tests(copy: Path, names: Sequence[str]) -> list[str]:
    """Return the arguments after `python -m` that run tests of a copy; BERTPORT_TINY_BUNDLE names their bundle."""
    options = ["-q", "-p", "no:cacheprovider", "-c", str(copy / "pyproject.toml"), "-m", APART, "-k", f"not {OF_DOCS}"]
    return ["pytest", *options, *(str(copy / "tests" / "runtime" / name) for name in names)]


def _run(command: list[str], **variables: str) -> str:
    """Return what a command prints, run outside the checkout."""
    told = environment() | variables
    done = subprocess.run(command, env=told, cwd="/", capture_output=True, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    main()
