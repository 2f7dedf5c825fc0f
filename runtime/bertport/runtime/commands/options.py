"""Options that several subcommands share, written once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from bertport.runtime.providers import AUTO, PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["as_json", "model_options", "truncation"]

F = TypeVar("F", bound="Callable[..., Any]")

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")

truncation = click.option("--truncation", is_flag=True, help="Cut texts that are too long instead of refusing them.")


def model_options(command: F) -> F:
    """Add the options that say which bundle to load and where to run it."""
    for option in reversed(
        (
            click.option(
                "-m", "--model", "path", metavar="BUNDLE", help="Bundle directory.  [default: the embedded one]"
            ),
            click.option("--variant", metavar="NAME", help="Variant of the bundle.  [default: the bundle's own]"),
            click.option(
                "--provider",
                default=AUTO,
                show_default=True,
                metavar="NAME",
                help=f"{', '.join(PROVIDERS)}, or {AUTO} for the best that works here.",
            ),
            click.option(
                "--threads", type=int, metavar="N", help="Threads of the CPU.  [default: one per physical core]"
            ),
        )
    ):
        command = option(command)
    return command
