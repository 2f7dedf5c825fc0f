"""Adding files to a bundle: everything is made in a temporary sibling, and the manifest is written last."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bertport.runtime.bundle import Bundle, file_sha256, no_room, write_manifest
from bertport.runtime.manifest import FileEntry, Manifest, Variant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["add_files", "add_variant", "free_name", "replace_figures", "workspace"]

ADVICE = "work on a copy of the bundle that you may change"
"""What to do where a bundle cannot be written for another reason than a full disk."""


@contextmanager
def workspace(bundle: Bundle) -> Iterator[Path]:
    """Give an empty directory beside the bundle, on the same file system, that is removed when the block ends.

    Raises:
        PathError: when it cannot be made or filled: no room, or no permission.
    """
    try:
        directory = Path(
            tempfile.mkdtemp(prefix=f".{bundle.path.name}.", suffix=".tmp", dir=bundle.path.resolve().parent)
        )
    except OSError as error:
        raise no_room(error, bundle.path, otherwise=ADVICE) from error
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def add_variant(
    bundle: Bundle, name: str, variant: Variant, files: Mapping[str, Path], *, default: str | None = None
) -> Bundle:
    """Move files into a bundle and commit them by its manifest.

    A file that replaces a listed one gets a name of its own, so that an interruption at any point leaves the old
    manifest with the old files, or the new one with the new.

    Args:
        bundle: The bundle.
        name: Of the variant, which may be there already.
        variant: Its entry.
        files: Where each file is now, by the path it is to have inside the bundle.
        default: The variant to make the default; None to leave it.

    Returns:
        The bundle as it is now.

    Raises:
        PathError: when there is no room; the bundle is as it was.
    """
    placed: list[Path] = []
    entries: dict[str, FileEntry] = {}
    names = {path: free_name(path, bundle.manifest) for path in files}
    try:
        for path, source in files.items():
            entries[names[path]] = FileEntry(size=source.stat().st_size, sha256=file_sha256(source))
            target = bundle.path / names[path]
            target.parent.mkdir(parents=True, exist_ok=True)
            placed.append(target)
            source.replace(target)
        variant = dataclasses.replace(variant, file=names.get(variant.file, variant.file))
        manifest = _with(bundle.manifest, name, variant, entries, superseded=set(files) | _own(bundle.manifest, name))
        manifest = dataclasses.replace(manifest, default_variant=default or manifest.default_variant)
        write_manifest(bundle.path, manifest)
    except BaseException as error:
        for target in placed:
            with suppress(OSError):
                target.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise no_room(error, bundle.path, otherwise=ADVICE) from error
        raise
    for superseded in set(bundle.manifest.files) - set(manifest.files):
        with suppress(OSError):  # not listed any more: it only takes up room
            (bundle.path / superseded).unlink(missing_ok=True)
    return Bundle.open(bundle.path)


def replace_figures(bundle: Bundle, name: str, variant: Variant, *, default: str) -> Bundle:
    """Commit new figures of a variant whose files stay as they are."""
    manifest = dataclasses.replace(
        bundle.manifest, variants=bundle.manifest.variants | {name: variant}, default_variant=default
    )
    write_manifest(bundle.path, manifest)
    return Bundle.open(bundle.path)


def add_files(bundle: Bundle, write: Callable[[Path], Mapping[str, Path]]) -> Bundle:
    """Add files that belong to no variant's graph; `write` makes them in a directory it is given.

    Raises:
        PathError: when the bundle cannot be written; it is as it was.
    """
    with workspace(bundle) as directory:
        made = write(directory)
        entries = {path: FileEntry(size=file.stat().st_size, sha256=file_sha256(file)) for path, file in made.items()}
        try:
            for path, file in made.items():
                target = bundle.path / path
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)
        except OSError as error:
            raise no_room(error, bundle.path, otherwise=ADVICE) from error
        files = dict(sorted((bundle.manifest.files | entries).items()))
        write_manifest(bundle.path, dataclasses.replace(bundle.manifest, files=files))
    return Bundle.open(bundle.path)


def _own(manifest: Manifest, name: str) -> set[str]:
    """Name the files that only the variant of this name uses."""
    if name not in manifest.variants:
        return set()
    others = {
        path for other, each in manifest.variants.items() if other != name for path in (each.file, *each.external_data)
    }
    tables = {path for path in manifest.files if path.startswith(f"quantization/{name}.")}
    return {manifest.variants[name].file, *manifest.variants[name].external_data, *tables} - others


def _with(
    manifest: Manifest, name: str, variant: Variant, entries: Mapping[str, FileEntry], *, superseded: set[str]
) -> Manifest:
    stems = {_stem(path) for path in superseded}
    kept = {path: entry for path, entry in manifest.files.items() if _stem(path) not in stems or path in entries}
    return dataclasses.replace(
        manifest, variants=manifest.variants | {name: variant}, files=dict(sorted((kept | dict(entries)).items()))
    )


def free_name(path: str, manifest: Manifest) -> str:
    """Give the path itself, or where a listed file has it, one with a number."""
    pure, number, name = PurePosixPath(path), 1, path
    while name in manifest.files:
        number += 1
        name = str(pure.with_name(f"{pure.stem}-{number}{pure.suffix}"))
    return name


def _stem(path: str) -> str:
    """Give a path without the number of `free_name`."""
    pure = PurePosixPath(path)
    stem, dash, number = pure.stem.rpartition("-")
    return str(pure.with_name(f"{stem}{pure.suffix}")) if dash and number.isdigit() else path
