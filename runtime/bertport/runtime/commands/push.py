"""`bertport push`."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

import click

from bertport.runtime.commands import completion
from bertport.runtime.commands.options import TOKEN_HELP, as_json, digest
from bertport.runtime.commands.output import report, show, show_json
from bertport.runtime.commands.progress import Progress

if TYPE_CHECKING:
    from bertport.runtime.bundle.push import Pushed

__all__ = ["push"]

MOST_NAMED = 10
"""Files that stay here and are named: a working copy of git has thousands."""


@click.command(name="push")
@click.argument("path", metavar="BUNDLE", shell_complete=completion.directories)
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--revision", metavar="NAME", help="Branch of the repository, created if missing.  [default: main]")
@click.option("--private", is_flag=True, help="Create the repository as a private one, if it is missing.")
@click.option("--token", metavar="TOKEN", help=TOKEN_HELP)
@click.option("--message", metavar="TEXT", help="Message of the commit.  [default: the bundle's name and digest]")
@click.option(
    "--overwrite",
    is_flag=True,
    help="Push into a repository that holds files but no bundle, or a card that was edited there.",
)
@digest
@as_json
def push(  # noqa: PLR0913 — one parameter per option
    *,
    path: str,
    repository: str,
    revision: str | None,
    private: bool,
    token: str | None,
    message: str | None,
    overwrite: bool,
    digest: str | None,
    as_json: bool,
) -> None:
    """Push BUNDLE to a repository of the Hugging Face Hub, OWNER/NAME, from which `-m OWNER/NAME` loads it.

    Every file is checked first. One commit holds what the manifest lists, the manifest, and the card with its metadata
    and the bundle's digest; what the Hub has already is not sent again, and files that the manifest does not list stay
    here. Needs the extra hub.
    """
    from bertport.runtime.bundle import push as pushing
    from bertport.runtime.bundle.directory import Bundle

    unlisted = Bundle.open(path).unlisted()
    for name in unlisted[:MOST_NAMED]:
        report(f"bertport: warning: {name} is not part of the bundle, and stays here")
    if rest := unlisted[MOST_NAMED:]:
        report(f"bertport: warning: {len(rest):,} more files are not part of the bundle, and stay here")
    with Progress(sys.stderr) as progress, pushing.bars(shown=progress.live):
        pushed = pushing.push(
            path,
            repository,
            revision=revision,
            private=private,
            token=token,
            message=message,
            overwrite=overwrite,
            digest=digest,
            progress=progress.stage,
        )
    if as_json:
        show_json(dataclasses.asdict(pushed), indent=2)
    else:
        show(_text(pushed))


def _text(pushed: Pushed) -> str:
    """Return where the bundle is now, and what was done for it."""
    done = f"{len(pushed.sent)} of {pushed.files} files sent, {pushed.sent_bytes:,} bytes"
    done += f", {len(pushed.removed)} removed" if pushed.removed else ""
    same = not (pushed.sent or pushed.removed)
    return (
        f"{pushed.url}: {'all of it was there' if same else done}\n"
        f"commit {pushed.commit} of {pushed.revision}\n{pushed.digest}"
    )
