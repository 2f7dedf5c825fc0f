"""`bertport inspect` and `bertport verify`."""

from __future__ import annotations

import click

from bertport.runtime.commands.options import as_json
from bertport.runtime.commands.output import report, show, show_json

__all__ = ["inspect", "verify"]

bundle_argument = click.argument("path", metavar="[BUNDLE]", required=False)


@click.command(name="inspect")
@bundle_argument
@as_json
def inspect(*, path: str | None, as_json: bool) -> None:
    """Show what a bundle says of itself.

    Without BUNDLE, the embedded default. No file but the manifest is read. Variants whose figures are those of another
    kind of CPU are named; --json adds them as `measured_elsewhere`.
    """
    from bertport.runtime import render
    from bertport.runtime.bundle import Bundle
    from bertport.runtime.elsewhere import notes
    from bertport.runtime.embedded import default_bundle

    bundle = Bundle.open(default_bundle() if path is None else path)
    told = notes(bundle)
    if as_json:
        show_json(bundle.manifest.to_json() | ({"measured_elsewhere": told} if told else {}), indent=2)
    else:
        show("\n".join([render.manifest(bundle), *render.notes(told)]))


@click.command(name="verify")
@bundle_argument
@as_json
def verify(*, path: str | None, as_json: bool) -> None:
    """Check every file of a bundle.

    Each file is compared with its size and hash in the manifest; without BUNDLE, those of the embedded default.
    """
    from bertport.runtime.bundle import Bundle
    from bertport.runtime.embedded import default_bundle

    bundle = Bundle.open(default_bundle() if path is None else path)
    unlisted = bundle.verify()
    files = bundle.manifest.files
    size = sum(each.size for each in files.values())
    for name in unlisted:
        report(f"bertport: warning: {name} is not part of the bundle")
    if as_json:
        found = {"bundle": str(bundle.path), "files": len(files), "bytes": size, "unlisted": list(unlisted)}
        show_json(found, indent=2)
    else:
        show(f"{bundle.path}: {len(files)} files, {size:,} bytes, all as they were exported")
