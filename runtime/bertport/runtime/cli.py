"""The command line: finds subcommands in every area, and turns errors into one sentence and an exit code.

This module and those it imports stay light: `bertport --help` loads no numpy, no ONNX Runtime and no framework, because
it takes the first lines of the commands' docstrings out of their source; `--help` of the runtime's own commands loads
no numpy either.
"""

from __future__ import annotations

import ast
import errno
import importlib
import io
import os
import sys
import warnings
from importlib.machinery import PathFinder
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

import click

from bertport.runtime.commands.output import ADVICE, UnwrittenError, bounded, finish, guard, report, show, unwritten
from bertport.runtime.errors import NO_ROOM, BertportError, MissingDependencyError, UsageError
from bertport.runtime.excerpts import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from importlib.metadata import EntryPoint

    from click.shell_completion import CompletionItem

__all__ = ["Commands", "app", "main"]

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells give it: 128 and the signal's number."""

TRACEBACK = "BERTPORT_TRACEBACK"
"""The variable that shows the traceback of an unexpected error."""

LONGEST = 300
"""Characters of an unexpected error's own text that are shown."""

ENTRY_POINTS = "bertport.commands"
"""The entry point group in which areas and other packages register subcommands."""

OWN = {
    "fill-mask": "bertport.runtime.commands.ask:fill_mask",
    "next-sentence": "bertport.runtime.commands.ask:next_sentence",
    "sentence-order": "bertport.runtime.commands.ask:sentence_order",
    "replaced-tokens": "bertport.runtime.commands.ask:replaced_tokens",
    "features": "bertport.runtime.commands.ask:features",
    "classify": "bertport.runtime.commands.fine_tuned:classify",
    "tag": "bertport.runtime.commands.fine_tuned:tag",
    "answer": "bertport.runtime.commands.fine_tuned:answer",
    "rank": "bertport.runtime.commands.fine_tuned:rank",
    "embed": "bertport.runtime.commands.fine_tuned:embed",
    "predict": "bertport.runtime.commands.predict:predict",
    "inspect": "bertport.runtime.commands.bundles:inspect",
    "verify": "bertport.runtime.commands.bundles:verify",
    "golden": "bertport.runtime.commands.bundles:golden",
    "pack": "bertport.runtime.commands.bundles:pack",
    "upgrade": "bertport.runtime.commands.bundles:upgrade",
    "push": "bertport.runtime.commands.push:push",
    "doctor": "bertport.runtime.commands.doctor:doctor",
}
"""The runtime's subcommands, in the order of the help."""


class Commands(click.Group):
    """The subcommands of all areas, imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 — click's signature
        """Name the subcommands: the runtime's own, then those of other areas."""
        return [*OWN, *sorted({entry.name for entry in _entry_points()} - set(OWN))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 — click's signature
        """Import one subcommand; None for an unknown name."""
        if cmd_name in OWN:
            module, _, attribute = OWN[cmd_name].partition(":")
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        for entry in _entry_points():
            if entry.name != cmd_name:
                continue
            try:
                loaded: click.Command = entry.load()
            except ImportError as error:
                return _unavailable(cmd_name, error)
            return loaded
        return None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the subcommands that begin so, and options; as in a list of them, hardly any is imported."""
        from click.shell_completion import CompletionItem

        known = self._described(ctx, beginning=incomplete)
        items = [CompletionItem(name, help=command.get_short_help_str()) for name, command in known]
        return items + click.Command.shell_complete(self, ctx, incomplete)  # a Group's own would import all

    def _described(self, ctx: click.Context, beginning: str = "") -> list[tuple[str, click.Command]]:
        """Return subcommands with the help that their source has; those that it has none of are imported."""
        places = {**{entry.name: entry.value for entry in _entry_points()}, **OWN}
        commands: list[tuple[str, click.Command]] = []
        for name in self.list_commands(ctx):
            if name.startswith(beginning):
                text = _docstring(places[name])
                command = click.Command(name, help=text) if text else self.get_command(ctx, name)
                if command is not None:
                    commands.append((name, command))
        return commands

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands with what each does, without importing those whose source says it."""
        commands = self._described(ctx)
        width = formatter.width - 6 - max(len(name) for name, _ in commands)  # what click leaves for the text
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(width)) for name, command in commands])

    def invoke(self, ctx: click.Context) -> None:
        """Run a subcommand; a user's mistake ends in one sentence and its exit code, never in a traceback."""
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)  # every target that is replaced, not only the first
            warnings.filterwarnings("default", category=FutureWarning, module=r"bertport\.")
            warnings.showwarning = _show_warning
            try:
                super().invoke(ctx)
            except BertportError as error:
                report(f"bertport: error: {error.message}")
                ctx.exit(error.exit_code)
            except KeyboardInterrupt:  # click would say "Aborted!"
                ctx.exit(INTERRUPTED)
            except EOFError as error:  # click takes it for the end of an input
                ctx.exit(_unexpected(error))


def _entry_points() -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points  # not above: it reads every installed distribution

    return entry_points(group=ENTRY_POINTS)


def _docstring(place: str) -> str | None:
    """Return the docstring of a function at `module:function` out of its source; None where there is none to read."""
    module, _, attribute = place.partition(":")
    try:
        file = _source(module)
        tree = ast.parse(file.read_text(encoding="utf-8") if file else "")
    except (OSError, ValueError, SyntaxError):
        return None
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == attribute)
    return next((ast.get_docstring(function) for function in functions), None)


def _source(module: str) -> Path | None:
    """Return the source file of a module, found as an import finds it, but without importing the packages around it."""
    name, below, spec = "", None, None
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, below)
        if spec is None:
            return None
        below = spec.submodule_search_locations
    return Path(spec.origin) if spec and spec.origin else None


def _unavailable(name: str, error: ImportError) -> click.Command:
    """Return a command that says what it lacks, so that one broken area does not take the others along."""

    def refuse() -> None:
        package = error.name or str(error)
        raise MissingDependencyError(name, package.partition(".")[0], name) from error

    settings: dict[str, Any] = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    summary = f"(not available: `bertport {name}` says what it lacks)"
    return click.Command(name, callback=refuse, context_settings=settings, short_help=summary)


def _show_warning(  # noqa: PLR0913, PLR0917 — the signature of warnings.showwarning
    message: Warning | str,
    category: type[Warning],
    filename: str,  # noqa: ARG001
    lineno: int,  # noqa: ARG001
    file: IO[str] | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    kind = "note" if issubclass(category, FutureWarning) else "warning"
    report(f"bertport: {kind}: {message}")


FIRST = """\
bertport answers from encoders, with the heads they hold, wherever ONNX Runtime runs. Three things to begin with:

  bertport fill-mask "The capital of France is [MASK]."   ask the model that is built in
  bertport export CHECKPOINT BUNDLE                       turn a checkpoint of yours into a verified bundle
  bertport serve BUNDLE                                   answer over HTTP

bertport --help lists all commands, bertport COMMAND --help says what one takes, and bertport doctor what works here."""
"""Greeting printed by `bertport` without arguments."""


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="bertport", prog_name="bertport")
@click.pass_context
def app(context: click.Context) -> None:
    """Ship encoders, with the heads they hold, anywhere ONNX Runtime runs.

    Results go to stdout, progress and warnings to stderr. The exit code is 0 only on success.
    """
    if context.invoked_subcommand is None:
        show(FIRST)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, and exit."""
    guard()
    code = _run(args)
    try:
        finish()
    except UnwrittenError as error:
        report(f"bertport: error: {error.message}")
        code = code or error.exit_code
    sys.exit(code)


def _run(args: Sequence[str] | None) -> int:
    """Run the command line and give the exit code; whatever happens is one sentence."""
    try:
        # Its result is the code that ended it, or nothing.
        return int(
            app.main(args=None if args is None else list(args), prog_name="bertport", standalone_mode=False) or 0
        )
    except SystemExit as end:
        if isinstance(end.code, str):
            report(end.code)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        click.echo(bounded(said.getvalue().rstrip()), file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BertportError as error:
        report(f"bertport: error: {error.message}")
        return error.exit_code
    except Exception as error:  # noqa: BLE001 — the last guard
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    """Return the sentence and exit code of an error that no layer below expected, with a traceback where asked for."""
    if os.environ.get(TRACEBACK, "0") not in {"", "0"}:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    sentence, code = _sentence(error)
    report(f"bertport: error: {sentence}")
    return code


def _sentence(error: Exception) -> tuple[str, int]:  # noqa: PLR0911 — a row for each kind
    """Return the sentence for an error that nothing below has made one of ours, and its exit code."""
    said = bounded(one_line(error), LONGEST)
    match error:
        case OSError(filename=None) if error.errno in {*NO_ROOM, errno.EBADF}:  # click's own printing of a help
            return unwritten(error).message, 1
        case OSError(filename=None, strerror=str()):
            return f"input or output failed ({error.strerror}): check what is read and written", 1
        case OSError(strerror=str()) if error.errno in NO_ROOM:
            return f"cannot write {error.filename} ({error.strerror}): {ADVICE}", 1
        case OSError(strerror=str()):
            where = f"{error.filename} ({error.strerror})"
            return f"cannot use {where}: check its path and who may read and write it", 1
        case UnicodeEncodeError(reason="surrogates not allowed"):
            # Bytes that are no text, in an argument or the name of a file: native code takes only text.
            given = ascii(str(error.object)[:LONGEST])
            return f"{given} is not Unicode text: write it, or name the file, in UTF-8", UsageError.exit_code
        case ValueError() if said.startswith("embedded null"):
            return "a path holds a NUL character, which no path can: give another", UsageError.exit_code
        case MemoryError():
            return f"out of memory ({said or type(error).__name__}): ask for less at once", 1
    return (
        f"unexpected {type(error).__name__}{f' ({said})' if said else ''}: this is a fault of bertport: "
        f"set {TRACEBACK}=1 and report what it prints then"
    ), 1
