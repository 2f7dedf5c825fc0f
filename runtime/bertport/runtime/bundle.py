"""Reading, checking and replacing bundle directories: the only module that touches `manifest.json`."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import tempfile
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bertport.runtime.errors import BundleError, PathError
from bertport.runtime.manifest import FileEntry, Manifest

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

__all__ = [
    "MANIFEST",
    "Bundle",
    "describe_files",
    "file_sha256",
    "new_bundle",
    "no_room",
    "refuse_existing",
    "write_manifest",
]

MANIFEST = "manifest.json"
UNHASHED = frozenset({MANIFEST, "README.md"})
"""Files that may be edited without breaking the bundle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle directory and what its manifest says."""

    path: Path
    """The directory."""
    manifest: Manifest
    """Its contract."""

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read a bundle's manifest; no other file is opened.

        Raises:
            PathError: when there is no such directory.
            BundleError: when it is not a bundle, or one that this version cannot read.
        """
        directory = Path(path)
        if directory.is_file():
            message = f"{directory} is a file: give the bundle's directory, the one that holds {MANIFEST}"
            raise PathError(message)
        if not directory.is_dir():
            message = f"no bundle at {directory}: no such directory; make one with bertport export SOURCE {directory}"
            raise PathError(message)
        try:
            text = (directory / MANIFEST).read_text(encoding="utf-8")
        except FileNotFoundError:
            message = (
                f"{directory} is not a bundle: it has no {MANIFEST}; make one with bertport export {directory} OUT"
            )
            raise BundleError(message) from None
        except (OSError, UnicodeDecodeError) as error:
            message = f"{directory / MANIFEST} cannot be read ({error}): export again"
            raise BundleError(message) from error
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            message = f"{directory / MANIFEST} is not JSON ({error}): the bundle is damaged; export again"
            raise BundleError(message) from error
        try:
            manifest = Manifest.from_json(value)
        except BundleError as error:  # it knows the content and not the place
            message = f"{directory}: {error}"
            raise BundleError(message) from error
        return cls(path=directory, manifest=manifest)

    def file(self, name: str) -> Path:
        """Give the path of a listed file.

        Raises:
            BundleError: when the manifest does not list it, or a link leads it out of the bundle.
        """
        if name not in self.manifest.files:
            message = f"the bundle at {self.path} lists no file {name!r}: export again"
            raise BundleError(message)
        path = self.path / name
        if not path.resolve().is_relative_to(self.path.resolve()):
            message = f"{path} is a link that leaves the bundle: do not use a bundle from this source"
            raise BundleError(message)
        return path

    def check(self, names: Iterable[str]) -> None:
        """Compare listed files with their sizes and hashes.

        Raises:
            BundleError: for the first file that is missing, changed or outside the bundle.
        """
        for name in names:
            path = self.file(name)
            entry = self.manifest.files[name]
            try:
                size = path.stat().st_size
                changed = size != entry.size or file_sha256(path) != entry.sha256
            except OSError as error:
                message = f"the bundle at {self.path} lacks {name} ({error.strerror}): copy it whole, or export again"
                raise BundleError(message) from error
            if changed:
                found = f"{size:,} bytes, expected {entry.size:,}" if size != entry.size else "its SHA-256 differs"
                message = f"{path} is not the file that was exported ({found}): copy the bundle again, or export again"
                raise BundleError(message)

    @contextmanager
    def checking(self, names: Iterable[str]) -> Iterator[None]:
        """Do what `check` does beside the block, which hashing lets run, and raise what it raises when the block ends.

        Raises:
            BundleError: for the first file that is missing, changed or outside the bundle.
        """
        found: list[Exception] = []

        def check() -> None:
            try:
                self.check(names)
            except Exception as error:  # noqa: BLE001 — raised below, in the caller's thread
                found.append(error)

        thread = threading.Thread(target=check)
        thread.start()
        try:
            yield
        finally:
            thread.join()
        if found:
            raise found[0]

    def verify(self) -> tuple[str, ...]:
        """Check every listed file.

        Returns:
            The files in the directory that the manifest does not list, which do no harm.

        Raises:
            BundleError: for the first file that is missing, changed or outside the bundle.
        """
        self.check(self.manifest.files)
        present = {each.relative_to(self.path).as_posix() for each in self.path.rglob("*") if not each.is_dir()}
        return tuple(sorted(present - set(self.manifest.files) - UNHASHED))


def file_sha256(path: Path) -> str:
    """Give the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    text = json.dumps(manifest.to_json(), indent=2, ensure_ascii=False) + "\n"
    unfinished = directory / f".{MANIFEST}.tmp"
    try:
        unfinished.write_text(text, encoding="utf-8")
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
