"""Writing bundles: new ones in a temporary sibling that is renamed, changes by a manifest that is written last."""

from __future__ import annotations

import dataclasses
import errno
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bertport.runtime.bundle import MANIFEST, UNHASHED, Bundle, file_sha256
from bertport.runtime.errors import PathError
from bertport.runtime.manifest import FileEntry, Manifest, Variant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = [
    "add_files",
    "add_variant",
    "describe_files",
    "free_name",
    "new_bundle",
    "no_room",
    "refuse_existing",
    "replace_figures",
    "workspace",
    "write_manifest",
]

ADVICE = "work on a copy of the bundle that you may change"
"""What to do where a bundle cannot be written for another reason than a full disk."""


def describe_files(directory: Path) -> dict[str, FileEntry]:
    """Measure and hash every file below a directory but manifest.json and README.md, by relative path."""
    paths = sorted(each for each in directory.rglob("*") if each.is_file())
    names = {path.relative_to(directory).as_posix(): path for path in paths}
    return {
        name: FileEntry(size=path.stat().st_size, sha256=file_sha256(path))
        for name, path in names.items()
        if name not in UNHASHED
    }


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `manifest.json` beside the old one and rename it into place: the commit of any change to a bundle."""
    content = manifest.to_bytes()
    unfinished = directory / f".{MANIFEST}.tmp"
    try:
        unfinished.write_bytes(content)
        unfinished.replace(directory / MANIFEST)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise no_room(error, directory) from error


@contextmanager
def new_bundle(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give an empty temporary sibling of `target` to fill, and rename it to `target` when the block ends.

    An existing target is moved aside, the new one in, and the old one removed, so that an interruption leaves
    one complete copy. When the block raises, the sibling is removed and the target is as it was.

    Raises:
        PathError: when the target exists and `overwrite` is false, or cannot be written.
    """
    refuse_existing(target, overwrite=overwrite)
    made = [each for each in target.parents if not each.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        building.chmod(0o755)  # mkdtemp makes it private; a bundle is meant to be read
    except OSError as error:
        raise no_room(error, target) from error
    try:
        yield building
        _replace_directory(building, target)
    except OSError as error:
        if isinstance(error, PathError):
            raise
        raise no_room(error, target) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
        for each in made:  # innermost first; with the bundle in them they are not empty, and stay
            with suppress(OSError):
                each.rmdir()


def refuse_existing(target: Path, *, overwrite: bool) -> None:
    """Raise PathError where `target` exists and may not be replaced; only a bundle or an empty directory may."""
    if not (target.exists() or target.is_symlink()):
        return
    if not target.is_dir() or target.is_symlink():
        message = f"{target} exists and is not a directory: choose another output"
        raise PathError(message)
    if any(target.iterdir()):
        if not (target / MANIFEST).exists():
            message = f"{target} exists and is not a bundle, so it will not be replaced: choose another output"
            raise PathError(message)
        if not overwrite:
            message = f"{target} exists: pass --overwrite to replace it, or choose another output"
            raise PathError(message)


def no_room(error: OSError, target: Path, *, otherwise: str = "choose another output") -> PathError:
    """Turn a failure to write into a sentence that says what to do; `otherwise` where the disk is not full."""
    advice = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else otherwise
    return PathError(f"cannot write {target} ({error.strerror or error}): {advice}; nothing was changed")


def _replace_directory(new: Path, target: Path) -> None:
    if not target.exists():
        new.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    old = aside / target.name
    target.rename(old)
    try:
        new.rename(target)
    except OSError:
        old.rename(target)
        aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)


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
