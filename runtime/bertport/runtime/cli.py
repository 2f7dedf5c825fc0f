"""The command line: finds subcommands in every area, and turns errors into one sentence and an exit code.

This module and those it imports stay light: `bertport --help` loads no ONNX Runtime and no framework, and `--help` of
the runtime's own commands no numpy either.
"""

from __future__ import annotations

import errno
import importlib
import warnings
from typing import IO, TYPE_CHECKING, Any, NoReturn

import click

from bertport.runtime.errors import BertportError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from importlib.metadata import EntryPoint

__all__ = ["Commands", "main"]

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the operating system says of a full disk, a quota, and a file that may not grow."""

ENTRY_POINTS = "bertport.commands"
"""The entry point group in which areas and other packages register subcommands."""

OWN = {
    "fill-mask": "bertport.runtime.commands.ask:fill_mask",
    "next-sentence": "bertport.runtime.commands.ask:next_sentence",
    "features": "bertport.runtime.commands.ask:features",
    "predict": "bertport.runtime.commands.predict:predict",
    "inspect": "bertport.runtime.commands.bundles:inspect",
    "verify": "bertport.runtime.commands.bundles:verify",
    "doctor": "bertport.runtime.commands.doctor:doctor",
}
"""The runtime's subcommands, in the order of the help."""


class Commands(click.Group):
    """The subcommands of all areas, imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 — click's signature
        """Name the subcommands: the runtime's own, then those of other areas."""
        return [*OWN, *sorted({entry.name for entry in _entry_points()} - set(OWN))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 — click's signature
        """Import one subcommand; None for a name that there is not."""
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

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 — click's signature
        """Run a subcommand; a user's mistake ends in one sentence and its exit code, never in a traceback."""
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)  # every target that is replaced, not only the first
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except BertportError as error:
                _fail(ctx, error.message, error.exit_code)
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise  # click ends quietly when whoever reads the output has left
                where = error.filename or "the output"
                _fail(ctx, f"cannot write {where} ({error.strerror}): free some room, or write elsewhere", 1)


def _fail(ctx: click.Context, message: str, code: int) -> NoReturn:
    click.echo(f"bertport: error: {message}", err=True)
    ctx.exit(code)


def _entry_points() -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points  # not above: it reads every installed distribution

    return entry_points(group=ENTRY_POINTS)


def _unavailable(name: str, error: ImportError) -> click.Command:
    """Give a command that says what it lacks, so that one broken area does not take the others along."""

    def refuse() -> None:
        package = error.name or str(error)
        raise MissingDependencyError(name, package.partition(".")[0], name) from error

    settings: dict[str, Any] = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    summary = f"(not available: pip install 'bertport[{name}]')"
    return click.Command(name, callback=refuse, context_settings=settings, short_help=summary)


def _show_warning(  # noqa: PLR0913, PLR0917 — the signature of warnings.showwarning
    message: Warning | str,
    category: type[Warning],  # noqa: ARG001
    filename: str,  # noqa: ARG001
    lineno: int,  # noqa: ARG001
    file: IO[str] | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    click.echo(f"bertport: warning: {message}", err=True)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="bertport", prog_name="bertport")
def app() -> None:
    """Ship BERT encoders, with both pretraining heads, anywhere ONNX Runtime runs.

    Results go to stdout, progress and warnings to stderr. The exit code is 0 only on success.
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line, and exit."""
    app.main(args=list(args) if args is not None else None, prog_name="bertport")
