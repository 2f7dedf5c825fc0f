"""Shell completion for options and arguments whose values are known: directories and names."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from bertport.runtime.bundle.digest import ALGORITHM
from bertport.runtime.errors import BertportError
from bertport.runtime.providers.table import AUTO, PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import click
    from click.shell_completion import CompletionItem

__all__ = ["directories", "providers", "tasks", "variants"]

BUNDLES = frozenset({"path", "bundle", "bundles"})
"""Names of the arguments that name bundles; each is the first of its command."""
EMBEDDED = "default"
"""The embedded bundle, as `bertport batch` names it."""


def directories(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001 — click's signature
    """Return what makes the shell complete directories by itself."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir")]


def providers(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 — as above
    """Return the providers of the table that begin so."""
    return [name for name in (AUTO, *PROVIDERS) if name.startswith(incomplete)]


def tasks(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 — as above
    """Return the tasks that begin so."""
    from bertport.runtime.tasks.table import TASKS

    return [name for name in TASKS if name.startswith(incomplete)]


def variants(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 — as above
    """Return the variants that begin so, of the bundles that the line names before; no Hub is asked."""
    from bertport.runtime.bundle.default import default_bundle
    from bertport.runtime.bundle.directory import Bundle

    offered: dict[str, None] = {}
    for place in _bundles(context) or (None,):
        try:
            manifest = Bundle.open(default_bundle() if place is None else place).manifest
        except (BertportError, OSError):  # a shell that completes is no place for a message
            continue
        offered |= dict.fromkeys(name for name in manifest.variants if name.startswith(incomplete))
    return [name for name in offered if shlex.quote(name) == name]  # a shell takes what is offered as it is


def _bundles(context: click.Context) -> Sequence[str | None]:
    """Return the directories of the bundles that a line names, None for the embedded one; none where it names none."""
    import click

    if context.params.get("path"):
        return [context.params["path"]]
    argument = next((each for each in context.command.params if isinstance(each, click.Argument)), None)
    if argument is None or argument.name not in BUNDLES:
        return ()
    # Of a line that is not complete, click leaves arguments beside the options aside.
    return [_directory(part) for part in (context.args if argument.nargs < 0 else context.args[:1])]


def _directory(part: str) -> str | None:
    """Return the directory of a bundle as commands take it; `bertport serve` takes NAME=DIR@DIGEST."""
    place = part.partition(f"@{ALGORITHM}")[0]
    name, _, behind = place.partition("=")
    if behind and name[:1] not in {"", ".", "/"} and not os.path.lexists(place):
        place = behind
    return None if not place or (place == EMBEDDED and not os.path.lexists(place)) else place
