"""Packing: a bundle of some variants alone, for a place where every megabyte counts.

Nothing is imported here beyond the package itself: the wheel's build packs the embedded bundle by it.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from bertport.runtime.bundle.cards import CARD, card_of
from bertport.runtime.bundle.changes import files_of
from bertport.runtime.bundle.directory import Bundle, file_sha256
from bertport.runtime.bundle.files import open_regular
from bertport.runtime.bundle.golden import FILE, listing, read_golden
from bertport.runtime.bundle.manifest import FileEntry
from bertport.runtime.bundle.siblings import real
from bertport.runtime.bundle.writer import new_bundle, refuse_replacing, write_manifest
from bertport.runtime.errors import PathError, UnknownNameError

if TYPE_CHECKING:
    import os
    from collections.abc import Collection

    from bertport.runtime.bundle.golden import Golden
    from bertport.runtime.bundle.manifest import Manifest

__all__ = ["copy_file", "fill", "names_to_pack", "pack", "part"]


def pack(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    variants: Collection[str] = (),
    *,
    overwrite: bool = False,
    digest: str | None = None,
) -> Bundle:
    """Write a bundle that holds some variants of another, with its tokenizer, golden vectors and card.

    Args:
        path: the bundle's directory.
        output: directory of the new bundle; it appears when everything in it was checked, and not before.
        variants: those to keep; the bundle's default when there are none. Where its default is not among them, the
            first takes that place.
        overwrite: whether a bundle at `output` may be replaced.
        digest: the digest that the bundle must have; None for any.

    Returns:
        The new bundle.

    Raises:
        PathError: when there is no such bundle, or the output exists, is inside the bundle, holds it, or cannot be
            written.
        UnknownNameError: for an unknown variant.
        BundleError: when a file is missing or changed, or a graph takes weights from elsewhere.
    """
    source, target = Bundle.open(path, digest=digest), Path(output)
    names = names_to_pack(source, target, variants)
    golden = read_golden(source)
    with new_bundle(target, overwrite=overwrite) as building:
        fill(building, source, part(source.manifest, names), golden.of(names) if golden else None)
    return Bundle.open(target)


def fill(
    building: Path, source: Bundle, manifest: Manifest, golden: Golden | None, *, written: Collection[str] = ()
) -> None:
    """Write all that a manifest lists into a directory, golden vectors, card and manifest too, and check it.

    Args:
        building: the directory.
        source: the bundle that files are copied from.
        manifest: what the directory is to hold, golden vectors apart.
        golden: the golden vectors; None for none.
        written: files that are there already.

    Raises:
        BundleError: when a file is missing or changed, or a graph takes weights from elsewhere.
    """
    for name in manifest.files:
        if name not in written:
            source.check([name])
            copy_file(source.file(name), building / name)
    if golden:
        file = building / FILE
        file.write_bytes(golden.to_bytes())
        manifest = listing(manifest, FILE, FileEntry(size=file.stat().st_size, sha256=file_sha256(file)))
    if (card := card_of(source.path)) and card.is_file():
        copy_file(card, building / CARD)
    write_manifest(building, manifest)
    Bundle.open(building).verify()


def names_to_pack(source: Bundle, target: Path, variants: Collection[str]) -> dict[str, None]:
    """Return the names of the variants to keep, in order, and see that the target is a place for them.

    Raises:
        PathError, UnknownNameError: as `pack` raises them.
    """
    names = dict.fromkeys(variants) or {source.manifest.default_variant: None}
    for name in names:
        if name not in source.manifest.variants:
            raise UnknownNameError("variant", name, source.manifest.variants)
    if real(target).is_relative_to(real(source.path)):
        raise PathError(f"{target} is inside the bundle that is packed: choose a place outside of {source.path}")
    refuse_replacing(target, source.path)
    return names


def part(manifest: Manifest, names: Collection[str]) -> Manifest:
    """Return what a manifest says of some variants, their files and those beside the graphs; golden vectors apart."""
    variants = {name: variant for name, variant in manifest.variants.items() if name in names}
    needed = {path for name in variants for path in files_of(manifest, name)}
    beside = {path for path in manifest.files if "/" not in path}
    for name in manifest.variants:
        beside -= files_of(manifest, name)
    beside -= {manifest.golden_vectors.file} if manifest.golden_vectors else set()
    default = manifest.default_variant
    return dataclasses.replace(
        manifest,
        variants=variants,
        default_variant=default if default in variants else next(iter(names)),
        files={path: entry for path, entry in manifest.files.items() if path in needed | beside},
        golden_vectors=None,
    )


def copy_file(source: Path, target: Path) -> None:
    """Copy a regular file to a place where nothing is, and make the folders above it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_regular(source) as file, target.open("xb") as copy:
        shutil.copyfileobj(file, copy)
