"""Each command line that a page shows, run or not, is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from functools import cache

import click
import pytest

from bertport.runtime import cli
from tests.docs import examples
from tests.docs.test_pages import PAGES, quoted

START = ("bertport ", "$ bertport ")


@cache
def command_named(name):
    """Return a subcommand; None for a name that there is not."""
    with click.Context(cli.app) as parent:
        return cli.app.get_command(parent, name)


def faults(line, *, whole=True):
    """Return what the command line says of one that it does not take.

    Args:
        line: `bertport …`, up to where the shell does something else.
        whole: whether it has every argument; what is quoted within a sentence may leave them out, or name them.
    """
    words = shlex.split(line, comments=True)[1:]
    ends = [place for place, word in enumerate(words) if word in {"|", "&", "&&", ";"} or re.match(r"\d?>", word)]
    name, *arguments = words[: min(ends, default=len(words))]
    if name.startswith("-"):
        return []
    if (command := command_named(name)) is None:
        return [f"no command {name}"]
    try:
        command.make_context(name, arguments)
    except (click.MissingParameter, click.BadParameter, click.BadOptionUsage) as error:
        return [error.format_message()] if whole else []
    except click.exceptions.Exit:  # of --help
        return []
    except click.ClickException as error:
        return [error.format_message()]
    return []


def lines_of(page):
    """Return the command lines in a page's blocks, each with the lines that continue it."""
    found = []
    for block in examples.blocks(page):
        text = block.text.replace("\\\n> ", "").replace("\\\n", "")
        found += [line.removeprefix("$ ") for line in text.splitlines() if line.startswith(START)]
    return found


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "bertport " in page.read_text(encoding="utf-8")], ids=lambda path: path.name
)
def test_command_lines_are_taken(page):
    """Those of blocks whole; those that are quoted within sentences as far as they go."""
    shown = lines_of(page.read_text(encoding="utf-8"))
    named = [code for code in quoted(page) if code.startswith("bertport ") and not re.search(r"[\[…<]", code)]
    assert not [(line, said) for line in shown if (said := faults(line))]
    assert not [(line, said) for line in named if (said := faults(line, whole=False))]


@pytest.mark.parametrize(
    "line", ["bertport fill-maks a", "bertport quantize b --acuracy-budget none", "bertport answer"]
)
def test_what_the_command_line_does_not_take_is_noticed(line):
    assert faults(line)
