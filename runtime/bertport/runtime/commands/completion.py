"""Shell completion for options and arguments whose values are known: directories and names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bertport.runtime.errors import BertportError
from bertport.runtime.providers.table import AUTO, PROVIDERS

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

__all__ = ["directories", "providers", "tasks", "variants"]


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
    """Return the variants that begin so, of the bundle that the line names before; no Hub is asked."""
    from bertport.runtime.bundle.default import default_bundle
    from bertport.runtime.bundle.directory import Bundle

    # Of a line that is not complete, click leaves arguments beside the options aside.
    named = context.params.get("path") or next((part for part in context.args if Path(part).is_dir()), None)
    try:
        bundle = Bundle.open(named or default_bundle())
    except BertportError:  # a shell that completes is no place for a message
        return []
    return [name for name in bundle.manifest.variants if name.startswith(incomplete)]
