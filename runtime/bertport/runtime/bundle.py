"""Reading and checking bundle directories: the only module that reads `manifest.json`; `writer` writes it."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bertport.runtime.errors import BundleError, PathError
from bertport.runtime.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["MANIFEST", "UNHASHED", "Bundle", "file_sha256"]

MANIFEST = "manifest.json"
LARGEST_MANIFEST = 16 << 20
"""Bytes: a thousand variants with their figures take three million."""
UNHASHED = frozenset({MANIFEST, "README.md"})
"""Files that may be edited without breaking the bundle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle directory and what its manifest says."""

    path: Path
    """The directory."""
    manifest: Manifest
    """Its contract."""
    digest: str
    """`sha256:` and 64 digits that stand for all of it: of its manifest, which lists the hashes of the other files."""
    format_version: int
    """The format that its manifest is stored in."""

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
        content = _manifest_content(directory)
        try:
            stored = read_manifest(content)
        except BundleError as error:  # it knows the content and not the place
            message = f"{directory}: {error}"
            raise BundleError(message) from error
        return cls(path=directory, manifest=stored.manifest, digest=stored.digest, format_version=stored.format_version)

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


def _manifest_content(directory: Path) -> bytes:
    """Read manifest.json: a regular file of bounded size, whatever else stands in its place.

    Raises:
        BundleError: when it is missing, something else than a file, too large, or cannot be read.
    """
    path = directory / MANIFEST
    try:
        # A FIFO would wait for a writer, and what it waits for is not read.
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                message = f"{path} is not a regular file: copy the bundle whole, or export again"
                raise BundleError(message)
            with os.fdopen(number, "rb", closefd=False) as file:
                content = file.read(LARGEST_MANIFEST + 1)
        finally:
            os.close(number)
    except FileNotFoundError:
        message = f"{directory} is not a bundle: it has no {MANIFEST}; make one with bertport export {directory} OUT"
        raise BundleError(message) from None
    except OSError as error:
        message = f"{path} cannot be read ({error.strerror or error}): copy the bundle whole, or export again"
        raise BundleError(message) from error
    if len(content) > LARGEST_MANIFEST:
        message = f"{path} has more than {LARGEST_MANIFEST:,} bytes, which no bundle's has: export again"
        raise BundleError(message)
    return content


def file_sha256(path: Path) -> str:
    """Give the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
