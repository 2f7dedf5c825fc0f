"""`bertport inspect`, `bertport verify` and `bertport upgrade`."""

from __future__ import annotations

import click

from bertport.runtime.commands.options import as_json, digest
from bertport.runtime.commands.output import report, show, show_json

__all__ = ["inspect", "upgrade", "verify"]

bundle_argument = click.argument("path", metavar="[BUNDLE]", required=False)


@click.command(name="inspect")
@bundle_argument
@as_json
def inspect(*, path: str | None, as_json: bool) -> None:
    """Show what a bundle says of itself.

    Without BUNDLE, the embedded default. No file but the manifest is read. Variants whose figures are those of another
    kind of CPU are named; --json adds them as `measured_elsewhere`. Those that were measured on this kind are named in
    the order in which `auto` takes them, as `measured_here` in JSON.
    """
    from bertport.runtime.bundle.default import default_bundle
    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.bundle.measured_elsewhere import notes
    from bertport.runtime.bundle.select import fastest_here
    from bertport.runtime.commands import render

    bundle = Bundle.open(default_bundle() if path is None else path)
    told, fastest = notes(bundle), fastest_here(bundle.manifest)
    if as_json:
        stored = {"format_version": bundle.format_version, "digest": bundle.digest}
        stored |= {"measured_elsewhere": told} if told else {}
        here = [{"variant": row.variant, "provider": row.provider, "speedup": row.ratio} for row in fastest]
        show_json(bundle.manifest.to_json() | stored | ({"measured_here": here} if here else {}), indent=2)
    else:
        show(
            "\n".join(
                [
                    render.manifest(bundle),
                    *render.notes(told),
                    *render.measured(fastest, bundle.manifest.default_variant),
                ]
            )
        )


@click.command(name="verify")
@bundle_argument
@digest
@as_json
def verify(*, path: str | None, digest: str | None, as_json: bool) -> None:
    """Check every file of a bundle, and print the digest that stands for all of them.

    Each file is compared with its size and hash in the manifest, and each graph with the files that it may open;
    without BUNDLE, those of the embedded default.
    """
    from bertport.runtime.bundle.default import default_bundle
    from bertport.runtime.bundle.directory import Bundle

    bundle = Bundle.open(default_bundle() if path is None else path, digest=digest)
    unlisted = bundle.verify()
    files = bundle.manifest.files
    size = sum(entry.size for entry in files.values())
    for name in unlisted:
        report(f"bertport: warning: {name} is not part of the bundle")
    if as_json:
        summary = {
            "bundle": str(bundle.path),
            "digest": bundle.digest,
            "format_version": bundle.format_version,
            "files": len(files),
            "bytes": size,
            "unlisted": list(unlisted),
        }
        show_json(summary, indent=2)
    else:
        show(f"{bundle.path}: {len(files)} files, {size:,} bytes, all as they were exported\n{bundle.digest}")


@click.command(name="upgrade")
@click.argument("path", metavar="BUNDLE")
@as_json
def upgrade(*, path: str, as_json: bool) -> None:
    """Rewrite a bundle's manifest in the newest format.

    Every file is checked before, and none but the manifest is written. Bundles of older formats are read as they are:
    what they gain is a digest, which guards the manifest itself.
    """
    from bertport.runtime.bundle import changes

    before, after = changes.upgrade(path)
    if as_json:
        summary = {"bundle": str(after.path), "from": before.format_version, "to": after.format_version}
        show_json(summary | {"digest": after.digest}, indent=2)
    elif before.format_version == after.format_version:
        show(f"{after.path}: already of format {after.format_version}\n{after.digest}")
    else:
        show(f"{after.path}: from format {before.format_version} to {after.format_version}\n{after.digest}")
