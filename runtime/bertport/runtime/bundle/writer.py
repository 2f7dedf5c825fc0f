"""Writing bundles: a new one in a workspace that takes the target's place, and the manifest, which commits a change."""

from __future__ import annotations

import errno
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bertport.runtime.bundle.directory import MANIFEST, UNHASHED, file_sha256
from bertport.runtime.bundle.exchange import replace_directory, sync_directory, sync_file, sync_tree
from bertport.runtime.bundle.manifest import FileEntry
from bertport.runtime.bundle.recovery import UNFINISHED, start, writing
from bertport.runtime.bundle.siblings import NEW, home, real
from bertport.runtime.errors import PathError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from bertport.runtime.bundle.manifest import Manifest
    from bertport.runtime.bundle.recovery import Working

__all__ = [
    "BUNDLE",
    "Kind",
    "describe_files",
    "new_bundle",
    "new_directory",
    "no_room",
    "refuse_existing",
    "refuse_replacing",
    "replace_file",
    "workspace",
    "write_manifest",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Kind of a directory, and the files that identify one: only a directory of the same kind may be replaced."""

    name: str
    """Name in messages, with its article."""
    marks: tuple[str, ...]
    """Files that each of them has."""


BUNDLE = Kind(name="a bundle", marks=(MANIFEST,))


def describe_files(directory: Path) -> dict[str, FileEntry]:
    """Return size and hash of every file below a directory but manifest.json and README.md, by relative path."""
    paths = sorted(below for below in directory.rglob("*") if below.is_file())
    names = {path.relative_to(directory).as_posix(): path for path in paths}
    return {
        name: FileEntry(size=path.stat().st_size, sha256=file_sha256(path))
        for name, path in names.items()
        if name not in UNHASHED
    }


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Commit a change to a bundle: `manifest.json` is written beside the old one and renamed into place.

    A bundle that others may write is changed with `changes.change_manifest`, under its lock.

    Raises:
        PathError: when it cannot be written; the old one is there.
    """
    try:
        replace_file(directory, MANIFEST, manifest.to_bytes())
    except OSError as error:
        raise no_room(error, directory) from error


def replace_file(directory: Path, name: str, content: bytes) -> None:
    """Replace manifest.json or README.md, by a file that is on the disk before it takes the name.

    Raises:
        OSError: when it cannot be written; the old one is there.
    """
    unfinished = directory / UNFINISHED[name]
    try:
        unfinished.unlink(missing_ok=True)
        with unfinished.open("xb") as file:  # through no link, and into no file of others
            file.write(content)
        sync_file(unfinished)
        unfinished.replace(directory / name)
    except OSError:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    sync_directory(directory)


def new_bundle(target: Path, *, overwrite: bool) -> AbstractContextManager[Path]:
    """Return an empty directory beside `target` for a bundle, as `new_directory` does."""
    return new_directory(target, overwrite=overwrite, kind=BUNDLE)


@contextmanager
def new_directory(target: Path, *, overwrite: bool, kind: Kind) -> Iterator[Path]:
    """Return an empty directory beside `target` to fill, which takes the target's place when the block ends.

    An existing target is there until the new one is, in one step where the system exchanges names. When the block
    raises, the directory is removed and the target is as it was.

    Raises:
        PathError: when the target exists and `overwrite` is false, or cannot be written.
    """
    with _working(target, overwrite=overwrite, kind=kind) as working:
        (working.path / NEW).chmod(0o755)  # it is meant to be read
        yield working.path / NEW
        sync_tree(working.path / NEW)
        with writing(real(target)):
            refuse_existing(target, overwrite=overwrite, kind=kind)  # another may have been as fast
            replace_directory(working.path / NEW, real(target), working.path)


@contextmanager
def workspace(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Return an empty directory beside `target` for what is needed on the way to it, removed when the block ends.

    Where this process is killed, the next writer of the target removes it.

    Raises:
        PathError: when the target exists and `overwrite` is false, or nothing can be written beside it.
    """
    with _working(target, overwrite=overwrite, kind=BUNDLE) as working:
        yield working.path / NEW


@contextmanager
def _working(target: Path, *, overwrite: bool, kind: Kind) -> Iterator[Working]:
    """Return a workspace of a target, its parents made where they are missing; all is removed when the block ends."""
    refuse_existing(target, overwrite=overwrite, kind=kind)
    place = real(target)
    made = [parent for parent in place.parents if not parent.exists()]
    try:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with writing(place):
                refuse_existing(target, overwrite=overwrite, kind=kind)  # it may have been brought back
                working = start(place)
        except OSError as error:
            raise _explained(error, target) from error
        try:
            yield working
        except OSError as error:
            raise _explained(error, target) from error
        finally:
            working.remove()
    finally:
        for parent in made:  # innermost first; with the bundle in them they are not empty, and stay
            with suppress(OSError):
                parent.rmdir()


def refuse_existing(target: Path, *, overwrite: bool, kind: Kind = BUNDLE) -> None:
    """Raise PathError where `target` exists and may not be replaced; only one of its kind or an empty directory may."""
    try:
        if not (target.exists() or target.is_symlink()):
            return
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise no_room(error, target) from error
    if not target.is_dir() or target.is_symlink():
        raise PathError(f"{target} exists and is not a directory: choose another output")
    if any(target.iterdir()):
        if not all((target / mark).exists() for mark in kind.marks):
            raise PathError(
                f"{target} exists and is not {kind.name}, so it will not be replaced: choose another output"
            )
        if not overwrite:
            raise PathError(f"{target} exists: pass --overwrite to replace it, or choose another output")
    place = real(target)
    if place == home(place) or place == place.parent:
        raise PathError(
            f"{target} is where a file system is mounted, which cannot be replaced: choose a directory below it"
        )
    if place in (here := real(Path()), *here.parents):
        raise PathError(
            f"{target} is or holds the current directory, so replacing it would remove that: "
            "run the command from elsewhere, or choose a directory below it"
        )


def refuse_replacing(target: Path, *sources: Path) -> None:
    """Raise PathError where an output holds what it is made from: replacing the one would remove the other."""
    for source in sources:
        if real(source).is_relative_to(real(target)):
            raise PathError(
                f"{target} holds {source}, which is read, and replacing it would remove that: choose another output"
            )


def no_room(error: OSError, target: Path, *, otherwise: str = "choose another output") -> PathError:
    """Return the error of a failure to write, with advice: `otherwise` where the disk is not full."""
    advice = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else otherwise
    return PathError(f"cannot write {target} ({error.strerror or error}): {advice}; nothing was changed")


def _explained(error: OSError, target: Path) -> PathError:
    return error if isinstance(error, PathError) else no_room(error, target)
