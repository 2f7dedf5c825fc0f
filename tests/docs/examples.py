"""Find the examples of a Markdown page and run them.

What runs: blocks marked `python` (executed in order, one namespace a page; a line `>>> ` makes it a doctest)
and `console` (each line `$ command` in a shell, its output compared with the lines below it, where there are
any). Blocks of any other mark are only shown. Numbers may differ in the last digits from machine to machine,
and `...` stands for anything.
"""

from __future__ import annotations

import doctest
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
TOLERANCE = 0.01
"""Relative to the larger number, or absolute: INT8 kernels differ between instruction sets."""
RUN = ("python", "console")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One block of a page."""

    language: str
    """The word behind its marks: `python`, `console` or another."""
    text: str
    """Its lines."""
    line: int
    """Line of the page where it begins, counted from 1."""


def examples(page: str) -> Iterator[Example]:
    """Return the blocks of a page that run, in order."""
    return (block for block in blocks(page) if block.language in RUN)


def blocks(page: str) -> Iterator[Example]:
    """Return all blocks of a page, in order."""
    language, begin, lines = None, 0, []
    for number, line in enumerate(page.splitlines(), start=1):
        if language is None and (fence := re.match(r"```(\w*)", line)):
            language, begin, lines = fence[1], number + 1, []
        elif language is not None and line.startswith("```"):
            yield Example(language=language, text="\n".join(lines) + "\n", line=begin)
            language = None
        elif language is not None:
            lines.append(line)


def commands(example: Example) -> list[tuple[str, str]]:
    """Return each command of a console block with the output expected below it (empty: any)."""
    found: list[list[str]] = []
    for line in example.text.splitlines():
        if line.startswith("$ "):
            found.append([line[2:], ""])
        elif found and found[-1][0].endswith("\\"):
            found[-1][0] += "\n" + line.removeprefix("> ")
        elif found:
            found[-1][1] += line + "\n"
    return [(command, expected) for command, expected in found]


def run_command(command: str, directory: Path, environment: Mapping[str, str]) -> str:
    """Run a command line and give what it printed on stdout; raises CalledProcessError when it fails."""
    shell = ["bash", "-euo", "pipefail", "-c", command]
    return subprocess.run(
        shell, cwd=directory, env=dict(environment), capture_output=True, text=True, check=True, timeout=240
    ).stdout


def run_python(example: Example, namespace: dict[str, Any], name: str) -> None:
    """Execute a Python block; raises what it raises, or AssertionError where a doctest differs."""
    if ">>> " not in example.text:
        exec(compile("\n" * (example.line - 1) + example.text, name, "exec"), namespace)  # noqa: S102 — that is the test
        return
    parsed = doctest.DocTestParser().get_doctest(example.text, namespace, name, name, example.line - 1)
    report: list[str] = []
    runner = doctest.DocTestRunner(Checker(), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(parsed, out=report.append, clear_globs=False)
    namespace.update(parsed.globs)
    assert not runner.failures, "".join(report)


class Checker(doctest.OutputChecker):
    """doctest's own comparison, after numbers that are nearly equal were made equal."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return super().check_output(want, got, optionflags) or super().check_output(
            want, with_numbers_of(want, got), optionflags
        )


def same_output(want: str, got: str) -> bool:
    """Compare what a page shows with what was printed."""
    return Checker().check_output(want, got, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)


def same_but_for_numbers(want: str, got: str) -> bool:
    """Compare what a page shows with what was printed, whatever the numbers are, such as those of a trained model."""
    return same_output(*(re.sub(rf"[+-]?{NUMBER.pattern}", "0", text) for text in (want, got)))


def with_numbers_of(want: str, got: str) -> str:
    """Return `got` with each number replaced by its counterpart in `want`, where the two are nearly equal."""
    if "..." in want:
        return got  # the counterparts cannot be told
    shown = iter(NUMBER.findall(want))

    def choose(match: re.Match[str]) -> str:
        counterpart = next(shown, None)
        if counterpart is None:
            return match[0]
        found, expected = float(match[0]), float(counterpart)
        near = abs(found - expected) <= TOLERANCE * max(1.0, abs(found), abs(expected))
        return counterpart if near and "." in counterpart else match[0]

    return NUMBER.sub(choose, got)
