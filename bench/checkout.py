"""The checkout that benchmarks run in: its root, its commit, and pages, or sections of them, that programs write."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "RESTORE",
    "ROOT",
    "check_files",
    "check_section",
    "commit",
    "environment",
    "is_made_of",
    "number",
    "origin",
    "provenance",
    "read_data",
    "wrapped",
    "write_files",
    "write_section",
]

ROOT = Path(__file__).resolve().parents[1]
"""Root directory of the checkout."""
RESTORE = ("bertport.runtime", "restore")
"""The command that writes a bundle's weights as a transformers checkpoint: `python -m … BUNDLE OUT`."""
MEASURED = "measured"
"""Name in the marks of a page's section, unless it has several."""


def commit() -> str:
    """Return the commit that is measured; `unknown` outside a checkout."""
    git = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def provenance() -> dict[str, Any]:
    """Return what is measured, when and where: the commit, the time and the machine."""
    from bertport.measure.machine import describe_machine  # not above: programs that measure memory import this module

    return {
        "commit": commit(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": dataclasses.asdict(describe_machine()),
    }


def origin(data: Mapping[str, Any]) -> str:
    """Return of which version something was measured, when and at which commit; `data` has what `provenance` returns.

    Figures that were measured before programs wrote a commit have, as `recorded_by`, the one that added them.
    """
    commit = f"commit {data['commit'][:7]}" if "commit" in data else f"recorded by commit {data['recorded_by'][:7]}"
    return f"bertport {data['machine']['versions']['bertport']}, {data['date'][:10]}, {commit}"


def read_data(path: Path, program: str) -> dict[str, Any]:
    """Read what a program has measured.

    Raises:
        SystemExit: with a sentence, where there are no data, or the file is cut.
    """
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    if not path.exists():
        sys.exit(f"there is no {shown}: run python -m {program}")
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        sys.exit(f"{shown} is no JSON ({error}): take it from git again, or run python -m {program}")
    return data


def environment() -> dict[str, str]:
    """Return the environment without what is meant for the Python that runs this: another one is to be started."""
    own = ("PYTHON", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}


def is_made_of(stamp: Path, text: str) -> bool:
    """Return whether a stamp beside something that is kept says that it was made of this."""
    return stamp.is_file() and stamp.read_text(encoding="ascii") == text


def number(text: str) -> int:
    """Read a whole number of 1 or more, as argparse asks for an option's `type`.

    Raises:
        ArgumentTypeError: for anything else.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


def wrapped(paragraph: str) -> list[str]:
    """Return a paragraph in lines of a page; links and words with hyphens stay whole."""
    return textwrap.wrap(paragraph, 120, break_long_words=False, break_on_hyphens=False)


def write_files(made: Mapping[Path, str]) -> None:
    """Write whole pages and plots, each as the data give it."""
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")


def check_files(made: Mapping[Path, str], program: str) -> None:
    """Compare whole pages and plots with what the data give.

    Raises:
        SystemExit: with a sentence, where one differs or is missing.
    """
    for path, text in made.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            _differs(path, program)


def _differs(path: Path, program: str) -> NoReturn:
    sys.exit(f"{path.relative_to(ROOT)} is not what the data say: run python -m {program}")


def _marks(name: str) -> tuple[str, str]:
    """Return the marks around a section."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def check_section(page: Path, text: str, program: str, name: str = MEASURED) -> None:
    """Compare the section between a page's marks with the text that the data give.

    Raises:
        SystemExit: with a sentence, where they differ.
    """
    written = page.read_text(encoding="utf-8") if page.exists() else ""
    begin, end = _marks(name)
    if written.partition(begin)[2].partition(end)[0].strip("\n") != text.strip("\n"):
        _differs(page, program)


def write_section(page: Path, text: str, name: str = MEASURED) -> None:
    """Put the section between its marks, at the page's end when it has none."""
    begin, end = _marks(name)
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    if begin not in old:
        old = f"{old.rstrip()}\n\n{begin}\n{end}\n"
    before, _, rest = old.partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n{text}{end}{after}", encoding="utf-8")
