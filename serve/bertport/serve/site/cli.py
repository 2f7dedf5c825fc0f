"""`bertport site`: the command."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bertport.runtime.commands import completion
from bertport.runtime.commands.options import as_json, digest
from bertport.runtime.commands.output import report, show, show_json
from bertport.runtime.errors import UsageError

if TYPE_CHECKING:
    from bertport.serve.site.web_runtime import WebRuntime

__all__ = ["site"]


@click.command(name="site")
@click.argument("path", metavar="[BUNDLE]", required=False, shell_complete=completion.directories)
@click.option(
    "--output", required=True, metavar="DIR", help="Directory of the site.", shell_complete=completion.directories
)
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="NAME",
    help="A variant to offer; may be repeated, and the first is loaded when the page opens.  [default: int8-dynamic "
    "where its weights are right on every CPU, or else portable]",
    shell_complete=completion.variants,
)
@click.option(
    "--runtime",
    metavar="DIR",
    help="The unpacked npm package onnxruntime-web, or its dist.  [default: the release that was tried, fetched once]",
)
@click.option("--title", metavar="TEXT", help="Heading of the page.  [default: the bundle's name]")
@click.option("--yes", is_flag=True, help="Fetch onnxruntime-web without asking.")
@click.option("--overwrite", is_flag=True, help="Replace a site at DIR.")
@digest
@as_json
def site(  # noqa: PLR0913 — the command's options
    *,
    path: str | None,
    output: str,
    variants: tuple[str, ...],
    runtime: str | None,
    title: str | None,
    yes: bool,
    overwrite: bool,
    digest: str | None,
    as_json: bool,
) -> None:
    """Write a static page that answers from a bundle in the visitor's browser.

    Any file server can serve the page: the model runs in the browser, by onnxruntime-web, and no text leaves it. DIR
    holds the page, the variants with their tokenizer, and onnxruntime-web, whose files come from --runtime, or from the
    npm registry: once, after asking, compared with a hash. Without BUNDLE, the embedded default.
    """
    from bertport.runtime.bundle.default import default_bundle
    from bertport.runtime.bundle.directory import Bundle
    from bertport.serve.site import writer

    bundle = Bundle.open(default_bundle() if path is None else path, digest=digest)
    names = writer.chosen(bundle.manifest, variants)
    writer.refuse_output(bundle.path, Path(output), overwrite=overwrite)  # before anything is fetched
    heading = writer.heading(bundle.manifest.name, title)
    web = _runtime(runtime, gpu=writer.needs_gpu(bundle.manifest, names), yes=yes)
    listing = writer.write_site(
        bundle.path, Path(output), names, web, title=heading, overwrite=overwrite, digest=bundle.digest
    )
    size = sum(entry["size"] for entry in listing["files"].values())
    for name, reason in writer.left_to_python(bundle).items():
        report(f"bertport: warning: the page leaves out {name}, {reason}: ask it in Python, or by bertport serve")
    if as_json:
        kept = ("digest", "version", "runtime", "tasks")
        show_json(
            {"site": output, "variants": names, "bytes": size} | {name: listing[name] for name in kept},
            indent=2,
        )
    else:
        show(
            f"{output}: {', '.join(names)} on onnxruntime-web {web.version}, {len(listing['files'])} files, {size:,} "
            f"bytes\n{listing['digest']}\ntry it: python -m http.server --directory {shlex.quote(output)}"
        )


def _runtime(directory: str | None, *, gpu: bool, yes: bool) -> WebRuntime:
    """Return the files of onnxruntime-web, fetched where they have to be.

    Raises:
        UsageError: when they have to be fetched, and nobody can be asked or the answer is no.
    """
    from bertport.runtime.commands.progress import Progress
    from bertport.serve.site import web_runtime

    names = web_runtime.names(gpu=gpu)
    if directory is not None:
        return web_runtime.from_directory(Path(directory), names)
    package = web_runtime.PINNED
    tarball = web_runtime.cached()
    if tarball is None:
        wanted = f"onnxruntime-web {package.version} ({package.size / 1e6:.0f} MB) from {package.address}"
        if not (yes or _agreed(f"Fetch {wanted}?")):
            raise UsageError(f"the site needs {wanted}: pass --yes to fetch it, or its unpacked dist by --runtime")
        with Progress(sys.stderr, erase=True) as progress:
            tarball = web_runtime.download(
                progress=lambda done: progress.show(f"onnxruntime-web: {done / 1e6:.0f} of {package.size / 1e6:.0f} MB")
            )
    return web_runtime.from_package(tarball, names)


def _agreed(question: str) -> bool:
    """Return whether the user says yes; where nobody can be asked, no. Ctrl-C ends the command, as anywhere else."""
    try:
        return click.confirm(question, err=True)
    except click.Abort as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise
        return False
