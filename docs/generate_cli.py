"""Write docs/reference/cli.md from every command's `--help`: `python docs/generate_cli.py`; `--check` only compares."""

from __future__ import annotations

import importlib
import sys
import tomllib
from pathlib import Path

import click

from bertport.runtime.cli import OWN, app

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "cli.md"
WIDTH = 100
HEAD = """# The command line

Generated from the commands' own `--help` by `docs/generate_cli.py`; edit the commands, not this page.

Results go to stdout, progress and warnings to stderr. The exit code is 0 on success, 2 for a mistake in what was asked
(a name, an option, a text without a mask, a path), 3 for a variant that is slower than fp32 or, from
`compare --against`, a figure that has become worse, 130 after Ctrl-C, and 1 for any other failure.

An error is one sentence. `BERTPORT_TRACEBACK=1` also prints the traceback of one that nothing expected.
"""


def commands() -> dict[str, click.Command]:
    """Return the subcommands by name, those of other areas as pyproject.toml registers them.

    The checkout's file is read, not the installed package's metadata, which lags behind until the next installation.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    places = OWN | dict(sorted(project["entry-points"]["bertport.commands"].items()))
    named: dict[str, click.Command] = {}
    for name, place in places.items():
        module, _, attribute = place.partition(":")
        named[name] = getattr(importlib.import_module(module), attribute)
    return named


def page() -> str:
    """Return the page's text."""
    above = click.Context(app, info_name="bertport", **app.context_settings)
    sections = [HEAD]
    for name, command in commands().items():
        sections += _sections(command, name, above)
    return "\n".join(sections)


def _sections(command: click.Command, name: str, above: click.Context) -> list[str]:
    context = click.Context(command, info_name=name, parent=above, terminal_width=WIDTH, max_content_width=WIDTH)
    sections = [f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"]
    if isinstance(command, click.Group):
        for subcommand in command.list_commands(context):
            below = command.get_command(context, subcommand)
            if below is not None:
                sections += _sections(below, subcommand, context)
    return sections


def main() -> None:
    """Write the page; with `--check`, exit with 1 where it is not what would be written."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit("docs/reference/cli.md is not what the commands say: run python docs/generate_cli.py")


if __name__ == "__main__":
    main()
