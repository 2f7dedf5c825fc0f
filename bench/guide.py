"""Run each page of the guide in a fresh environment that has the wheel, and what the page says it needs, and no more.

    python -m bench.guide [--work DIR]

In the guide's order, an environment of its own gets the extras that each page names, and its packages; then the page's
examples are run there, as a user types them, by the tests of the pages, from a copy that has no sources of bertport.
Writes docs/data/guide.json, and ends with 1 where a page failed. It takes a quarter of an hour, most of it for pip.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import dev
from bench import pythons
from bench.checkout import ROOT, environment, provenance

DATA = ROOT / "docs" / "data" / "guide.json"
GUIDE = ROOT / "docs" / "guide"
COPIED = (*pythons.COPIED, "docs", "README.md")
"""What the tests of the pages read of the checkout."""


class Needs(NamedTuple):
    """What a page says that it needs beside what the pages before it do."""

    extras: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


PAGES = {
    "install": Needs(("cpu", "export", "quantize", "serve")),
    "ask": Needs(),
    "embeddings": Needs(),
    "export": Needs(("hub",)),
    "fine-tuned": Needs(("evaluate",), ("sentence-transformers",)),
    "quantize": Needs(),
    "serve": Needs(packages=("huggingface_hub", "openai", "tritonclient[http]")),
    "batch": Needs(("batch",)),
}
"""In the guide's order, each page and what it needs."""


def main(arguments: list[str] | None = None) -> None:
    """Run every page, and write what became of each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, help="where the environment is made, which stays; else a temporary place")
    given = parser.parse_args(arguments)
    origin = provenance()
    with tempfile.TemporaryDirectory() as scratch:
        place = (given.work or Path(scratch)).absolute()
        if (place / "venv").exists():
            parser.error(f"{place} holds the environment of an earlier run: name another directory, or remove it")
        place.mkdir(parents=True, exist_ok=True)
        pages = run(place)
    DATA.write_text(json.dumps({**origin, "pages": pages}, indent=1) + "\n", encoding="utf-8")
    if failed := [name for name, page in pages.items() if page["exit"]]:
        sys.exit(f"{len(failed)} of {len(pages)} pages failed, see {DATA}: {', '.join(failed)}")
    print(f"{len(pages)} pages of the guide, each with exit code 0")


def run(place: Path) -> dict[str, dict[str, Any]]:
    """Run every page in a new environment within a directory, and return what became of each."""
    wheel = pythons.build_wheel(place)
    pythons.copy_tests(place / "checkout", COPIED)
    subprocess.run([sys.executable, "-m", "venv", str(place / "venv")], check=True)
    python = place / "venv" / "bin" / "python"
    dev.install_torch(python)
    pages = {}
    for name, needs in PAGES.items():
        extras = f"{wheel}[{','.join(needs.extras)}]"
        dev.pip(python, *([extras] if needs.extras else []), *needs.packages, *pythons.TESTING)
        pages[name] = {"extras": needs.extras, "packages": needs.packages, **examples_of(name, place, python)}
        print(f"{pages[name]['exit']}  {pages[name]['seconds']:7.1f} s  {name}", file=sys.stderr, flush=True)
    return pages


def examples_of(name: str, place: Path, python: Path) -> dict[str, Any]:
    """Run the examples of a page; return the seconds, the exit code, and the end of what was said where it failed."""
    copy = place / "checkout"
    test = f"{copy}/tests/docs/test_examples.py::test_examples_of[docs/guide/{name}.md]"
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(copy / "pyproject.toml"), test]
    told = environment() | {"PATH": f"{python.parent}:/usr/bin:/bin", "HOME": str(place)}
    began = time.monotonic()
    done = subprocess.run(command, env=told, cwd=copy, capture_output=True, text=True, check=False)
    failed = {"said": done.stdout[-4000:]} if done.returncode else {}
    return {"seconds": round(time.monotonic() - began, 1), "exit": done.returncode, **failed}


if __name__ == "__main__":
    main()
