"""Reading and checking bundle directories: the only module that reads `manifest.json`; `writer` writes it."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bertport.runtime.errors import BundleError, PathError
from bertport.runtime.manifest import Manifest

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

__all__ = ["MANIFEST", "UNHASHED", "Bundle", "file_sha256"]

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
