"""`bertport inspect`, `bertport verify`, `bertport golden`, `bertport pack` and `bertport upgrade`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from bertport.runtime.commands import completion
from bertport.runtime.commands.options import LIBRARY, Once, as_json, digest
from bertport.runtime.commands.output import report, show, show_json
from bertport.runtime.commands.render import printable
from bertport.runtime.errors import UsageError, ValidationError
from bertport.runtime.providers.table import AUTO, PROVIDERS

if TYPE_CHECKING:
    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.golden import GoldenReport

__all__ = ["golden", "inspect", "pack", "upgrade", "verify"]

bundle_argument = click.argument("path", metavar="[BUNDLE]", required=False, shell_complete=completion.directories)


@click.command(name="inspect")
@bundle_argument
@as_json
def inspect(*, path: str | None, as_json: bool) -> None:
    """Show what the manifest of a bundle says.

    Without BUNDLE, the embedded default. No other file is read. Variants that were measured on another kind of CPU are
    named, in JSON as `measured_elsewhere`. Those that were measured on this kind are named in the order in which `auto`
    takes them, in JSON as `measured_here`.
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
@click.option(
    "--golden", is_flag=True, help="Run every variant on the bundle's golden vectors, and compare ids and outputs."
)
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="NAME",
    help="With --golden, run only this variant; may be repeated.",
    shell_complete=completion.variants,
)
@click.option(
    "--provider",
    cls=Once,
    metavar="NAME",
    help=f"With --golden, where variants run: {', '.join(PROVIDERS)}, or {AUTO}, the default.",
    shell_complete=completion.providers,
)
@click.option("--provider-library", metavar="PATH", help=f"With --golden: {LIBRARY[0].lower()}{LIBRARY[1:]}")
@as_json
def verify(  # noqa: PLR0913 — the command's options
    *,
    path: str | None,
    digest: str | None,
    golden: bool,
    variants: tuple[str, ...],
    provider: str | None,
    provider_library: str | None,
    as_json: bool,
) -> None:
    """Check every file of a bundle, and print the digest that stands for all of them.

    Each file is compared with its size and hash in the manifest, and each graph with the files that it may open;
    without BUNDLE, those of the embedded default. With --golden, the tokenizer and the graphs are run as well.
    """
    from bertport.runtime.bundle.default import default_bundle
    from bertport.runtime.bundle.directory import Bundle

    if (variants or provider or provider_library) and not golden:
        raise UsageError(
            "--variant, --provider and --provider-library apply only with --golden: add --golden, or leave them out"
        )
    bundle = Bundle.open(default_bundle() if path is None else path, digest=digest)
    unlisted = bundle.verify()
    for name in unlisted:
        report(f"bertport: warning: {name} is not part of the bundle")
    proof = None
    if golden:
        from bertport.runtime.golden import verify_golden

        proof = verify_golden(
            bundle.path,
            variants=variants,
            provider=provider or AUTO,
            provider_library=provider_library,
            digest=bundle.digest,
        )
    if as_json:
        show_json(_verified(bundle, unlisted) | ({"golden": dataclasses.asdict(proof)} if proof else {}), indent=2)
    else:
        files = bundle.manifest.files
        size = sum(entry.size for entry in files.values())
        show(f"{bundle.path}: {len(files)} files, {size:,} bytes, all as they were exported\n{bundle.digest}")
        if proof:
            show(_proof(proof))
    if proof and proof.failures:
        for sentence in proof.failures:
            report(f"bertport: error: {sentence}")
        raise click.exceptions.Exit(ValidationError.exit_code)


def _proof(report: GoldenReport) -> str:
    """Return what was compared with golden vectors, a line for each variant."""
    lines = [f"golden vectors: ids of {report.texts} texts"]
    for variant in report.variants:
        if variant.not_run:
            lines.append(f"  {variant.name}: not run: {variant.not_run}")
            continue
        if not variant.outputs:
            lines.append(f"  {variant.name} on {variant.provider}: nothing could be compared")
            continue
        outputs = (f"{name} {to.largest_difference:.1g} of {to.tolerance:g}" for name, to in variant.outputs.items())
        lines.append(f"  {variant.name} on {variant.provider}: largest differences {', '.join(outputs)}")
    return "\n".join(map(printable, lines))


def _verified(bundle: Bundle, unlisted: tuple[str, ...]) -> dict[str, object]:
    return {
        "bundle": str(bundle.path),
        "digest": bundle.digest,
        "format_version": bundle.format_version,
        "files": len(bundle.manifest.files),
        "bytes": sum(entry.size for entry in bundle.manifest.files.values()),
        "unlisted": list(unlisted),
    }


@click.command(name="golden")
@click.argument("path", metavar="BUNDLE", shell_complete=completion.directories)
@click.option("--overwrite", is_flag=True, help="Replace golden vectors that are there.")
@as_json
def golden(*, path: str, overwrite: bool, as_json: bool) -> None:
    """Add golden vectors to a bundle, for the variants that have none.

    They are texts with their ids, and inputs with the outputs that each graph gives here. They check any runtime, as
    `bertport verify --golden` does. `bertport export` and `bertport quantize` make them by themselves.
    """
    from bertport.runtime.golden_making import write_golden

    bundle, left_out = write_golden(path, overwrite=overwrite)
    vectors = bundle.manifest.golden_vectors
    for name, reason in left_out.items():
        report(f"bertport: warning: golden vectors of variant {name!r} were not made: {reason}")
    if as_json:
        summary = {"bundle": str(bundle.path), "digest": bundle.digest, "file": vectors.file if vectors else None}
        show_json(summary | {"left_out": left_out}, indent=2)
    elif vectors:
        size = bundle.manifest.files[vectors.file].size
        show(f"{bundle.path}: {vectors.file} has {size:,} bytes\n{bundle.digest}")


@click.command(name="pack")
@click.argument("path", metavar="BUNDLE", shell_complete=completion.directories)
@click.argument("output", metavar="OUT", shell_complete=completion.directories)
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="NAME",
    help="A variant to keep; may be repeated.  [default: the bundle's default]",
    shell_complete=completion.variants,
)
@click.option(
    "--portable",
    is_flag=True,
    help="For other programs: every position decoded, the weights in the same file, named as transformers.js does.",
)
@click.option("--overwrite", is_flag=True, help="Replace a bundle at OUT.")
@digest
@as_json
def pack(  # noqa: PLR0913 — the command's options
    *,
    path: str,
    output: str,
    variants: tuple[str, ...],
    portable: bool,
    overwrite: bool,
    digest: str | None,
    as_json: bool,
) -> None:
    """Write a bundle with only some variants, for a small device or image.

    It has their graphs, the tokenizer, the manifest, the model card and golden vectors, and reads like any bundle.
    Every file is checked before OUT appears.
    """
    from bertport.runtime.bundle import packing

    if portable:
        from bertport.runtime.portable import pack_portable

        bundle = pack_portable(path, output, variants, overwrite=overwrite, digest=digest)
    else:
        bundle = packing.pack(path, output, variants, overwrite=overwrite, digest=digest)
    kept = list(bundle.manifest.variants)
    if as_json:
        show_json(
            _verified(bundle, ()) | {"variants": kept, "default_variant": bundle.manifest.default_variant}, indent=2
        )
    else:
        size = sum(entry.size for entry in bundle.manifest.files.values())
        show(f"{bundle.path}: {', '.join(kept)} in {len(bundle.manifest.files)} files, {size:,} bytes\n{bundle.digest}")


@click.command(name="upgrade")
@click.argument("path", metavar="BUNDLE", shell_complete=completion.directories)
@as_json
def upgrade(*, path: str, as_json: bool) -> None:
    """Rewrite a bundle's manifest in the newest format.

    Every file is checked first, and only the manifest is written. Bundles of older formats are read as they are; an
    upgrade adds a digest, which guards the manifest itself.
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
