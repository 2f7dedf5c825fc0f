"""Reading and checking bundle directories: the only module that reads `manifest.json`; `writer` writes it."""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bertport.runtime.bundle.cards import CARD
from bertport.runtime.bundle.digest import normalized
from bertport.runtime.bundle.external_data import HostileError, spans
from bertport.runtime.bundle.files import hashed, inside, open_regular, read_bounded
from bertport.runtime.bundle.reading import read_manifest
from bertport.runtime.bundle.siblings import comes_back, set_aside
from bertport.runtime.bundle.stamps import CheckedGraph, stamps_of
from bertport.runtime.errors import BertportError, BundleError, PathError, UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.onnx_wire import MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from bertport.runtime.bundle.external_data import Span
    from bertport.runtime.bundle.manifest import Manifest

__all__ = ["MANIFEST", "UNHASHED", "Bundle", "expected_digest", "file_sha256", "manifest_content"]

MANIFEST = "manifest.json"
LARGEST_MANIFEST = 16 << 20
"""Bytes: a thousand variants with their figures take three million."""
UNHASHED = frozenset({MANIFEST, CARD})
"""Files that may be edited without breaking the bundle."""
LARGEST_TEXT = 2**28
"""Bytes of a file that is read as a whole; the largest tokenizers have 40 million."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle directory and what its manifest says."""

    path: Path
    """The directory."""
    manifest: Manifest
    """The bundle's contract."""
    digest: str
    """`sha256:` and 64 digits that stand for all of it: of its manifest, which lists the hashes of the other files."""
    format_version: int
    """The format that its manifest is stored in."""
    pinned: bool = False
    """Whether its digest was expected, and not only read."""

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, digest: str | None = None) -> Bundle:
        """Return a bundle of which the manifest alone is read.

        Args:
            path: the bundle's directory.
            digest: the digest that the bundle must have, with or without `sha256:`; None for any.

        Raises:
            UsageError: for a digest that is none.
            PathError: when there is no such directory.
            BundleError: when it is not a bundle, one that this version cannot read, or one of another digest.
        """
        expected = None if digest is None else expected_digest(digest)
        directory = Path(path)
        if directory.is_file():
            raise PathError(f"{directory} is a file: give the bundle's directory, the one that holds {MANIFEST}")
        if not directory.is_dir() and not comes_back(directory):
            raise _missing(directory)
        content = manifest_content(directory)
        try:
            stored = read_manifest(content)
        except BundleError as error:  # it knows the content and not the place
            raise BundleError(f"{directory}: {error}") from error
        if expected not in {None, stored.digest}:
            raise BundleError(
                f"{directory} has the digest {stored.digest}, and {expected} was asked for: it is another bundle, or "
                "was changed; get the right bundle, or ask for this digest"
            )
        return cls(
            path=directory,
            manifest=stored.manifest,
            digest=stored.digest,
            format_version=stored.format_version,
            pinned=expected is not None,
        )

    def file(self, name: str) -> Path:
        """Return the path of a listed file.

        Raises:
            BundleError: when the manifest does not list it, or a link leads it out of the bundle.
        """
        if name not in self.manifest.files:
            raise BundleError(f"the bundle at {self.path} lists no file {name!r}: export again")
        path = self.path / name
        try:
            within = inside(path, self.path)
        except ValueError as error:  # UnicodeEncodeError is one
            raise BundleError(
                f"manifest.json names the file {name!a}, which is not a valid file name here: export again"
            ) from error
        if not within:
            raise BundleError(f"{path} is a link that leaves the bundle: do not use a bundle from this source")
        return path

    def read(self, name: str) -> bytes:
        """Return the content of a listed file, read once: what is hashed is what the caller gets.

        Raises:
            BundleError: when it is missing, changed, outside the bundle or no regular file.
        """
        path, entry = self.file(name), self.manifest.files[name]
        if entry.size > LARGEST_TEXT:
            raise BundleError(f"{path} has {entry.size:,} bytes, and {LARGEST_TEXT:,} at most are read: export again")
        with self._opened(name) as file:
            self._sized(name, file)
            content = read_bounded(file, entry.size)
        self._compare(name, len(content), hashlib.sha256(content).hexdigest())
        return content

    def check(self, names: Iterable[str]) -> None:
        """Compare listed files with their sizes and hashes.

        Raises:
            BundleError: for the first file that is missing, changed, outside the bundle or no regular file.
        """
        for name in names:
            with self._opened(name) as file:
                self._hash(name, file)

    def check_variant(self, name: str) -> CheckedGraph:
        """Check what opening a variant's graph reads: its files, and that the graph opens no others.

        Returns:
            The graph, to be opened within `opening`.

        Raises:
            BundleError: for the first file that is missing, changed, outside the bundle or no regular file, and for a
                graph that takes weights from anywhere but the variant's listed files.
        """
        variant = self.manifest.variants[name]
        names = dict.fromkeys((variant.file, *variant.external_data))
        stamps, locations = stamps_of(self.path, names), frozenset[str]()
        for path in names:
            with self._opened(path) as file:
                self._hash(path, file)
                if path == variant.file:
                    locations = self._check_graph(name, file)
        checked = CheckedGraph(path=self.path / variant.file, external_data=locations, stamps=stamps)
        checked.check()  # what was hashed is what was there before, and not a byte was written meanwhile
        return checked

    @contextmanager
    def opening(self, name: str) -> Iterator[Path]:
        """Check a variant's files, give its graph's path to open, and see then that what was opened was checked.

        Raises:
            BundleError: as `check_variant` and `CheckedGraph.opening` raise it.
        """
        with self.check_variant(name).opening() as path:
            yield path

    @contextmanager
    def _opened(self, name: str) -> Iterator[BinaryIO]:
        try:
            with open_regular(self.file(name)) as file:
                yield file
        except BertportError:
            raise
        except OSError as error:
            raise BundleError(
                f"the bundle at {self.path} lacks {name} ({error.strerror}): copy it whole, or export again"
            ) from error

    def _hash(self, name: str, file: BinaryIO) -> None:
        self._sized(name, file)
        self._compare(name, *hashed(file, self.manifest.files[name].size))

    def _sized(self, name: str, file: BinaryIO) -> None:
        """Refuse a file of another size before a byte of it is read."""
        size = os.fstat(file.fileno()).st_size
        if size != self.manifest.files[name].size:
            self._compare(name, size, "")

    def _compare(self, name: str, size: int, sha256: str) -> None:
        entry = self.manifest.files[name]
        if size != entry.size or sha256 != entry.sha256:
            actual = f"{size:,} bytes, expected {entry.size:,}" if size != entry.size else "its SHA-256 differs"
            raise BundleError(
                f"{self.path / name} is not the file that was exported ({actual}): copy the bundle again, "
                "or export again"
            )

    def _check_graph(self, name: str, file: BinaryIO) -> frozenset[str]:
        """Check that a graph, whose file is as exported, takes weights from the variant's listed files only.

        And that it knows as many positions as inputs may have tokens, where it has a table of them.

        Returns:
            Their paths from the graph's directory, as the graph names them.
        """
        variant = self.manifest.variants[name]
        path, locations, positions = self.path / variant.file, set(), dict[str, int]()
        try:
            for span in spans(file, self.manifest.files[variant.file].size, positions):
                self._check_span(name, span)
                locations.add(span.location)
        except MalformedError as error:
            raise BundleError(f"{path} is not an ONNX graph ({error}): export again") from error
        except HostileError as error:
            raise BundleError(f"{path} {error}: do not use a bundle from this source") from error
        most = min(positions.values(), default=self.manifest.max_length)
        if most < self.manifest.max_length:
            raise BundleError(
                f"{path} knows {most:,} positions, and manifest.json states inputs of up to "
                f"{self.manifest.max_length:,} tokens: the bundle is damaged; export again"
            )
        return frozenset(locations)

    def _check_span(self, name: str, span: Span) -> None:
        variant, files = self.manifest.variants[name], self.manifest.files
        place = str(PurePosixPath(variant.file).parent / span.location)
        if place not in variant.external_data or place not in files:
            raise HostileError(
                f"keeps the tensor {span.tensor[:100]!a} in {place!a}, which manifest.json does not list as external "
                f"data of the variant {name!a}"
            )
        if span.offset + span.length > files[place].size:
            raise HostileError(
                f"takes bytes {span.offset:,} to {span.offset + span.length:,} of {place!a}, which has "
                f"{files[place].size:,}"
            )

    def is_replaced(self) -> bool:
        """Return whether a writer has put another manifest in the place of this one, whose files may be gone."""
        with suppress(PathError, BundleError):
            return Bundle.open(self.path).digest != self.digest
        return False

    def verify(self) -> tuple[str, ...]:
        """Check every listed file, and what every graph opens.

        Returns:
            The files in the directory that the manifest does not list, which do no harm.

        Raises:
            BundleError: for the first file that is missing, changed, outside the bundle or no regular file, and for a
                graph that takes weights from elsewhere.
        """
        self.check(self.manifest.files)
        for name, variant in self.manifest.variants.items():
            with self._opened(variant.file) as file:
                self._check_graph(name, file)
        return self.unlisted()

    def unlisted(self) -> tuple[str, ...]:
        """Return the files in the directory that the manifest does not list, which do no harm."""
        present = {path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if not path.is_dir()}
        return tuple(sorted(present - set(self.manifest.files) - UNHASHED))


def expected_digest(text: str) -> str:
    """Return a digest that a user gave, as manifests write it.

    Raises:
        UsageError: for what is no digest.
    """
    digest = normalized(text) if isinstance(text, str) else None
    if digest is None:
        raise UsageError(
            f"the digest {excerpt(text, 100)} is not a SHA-256: give sha256: and 64 hexadecimal digits, as bertport "
            "verify prints them"
        )
    return digest


def manifest_content(directory: Path) -> bytes:
    """Return the content of a bundle's manifest.json, which must be a regular file of bounded size.

    Raises:
        BundleError: when it is missing, something else than a file, too large, or cannot be read.
    """
    path = directory / MANIFEST
    try:
        with open_regular(path) as file:
            if not inside(path, directory):
                raise BundleError(f"{path} is a link that leaves the bundle: do not use a bundle from this source")
            content = read_bounded(file, LARGEST_MANIFEST)
    except BertportError:
        raise
    except FileNotFoundError:
        raise BundleError(
            f"{directory} is not a bundle: it has no {MANIFEST}; make one with bertport export {directory} OUT"
        ) from None
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read ({error.strerror or error}): copy the bundle whole, or export again"
        ) from error
    if len(content) > LARGEST_MANIFEST:
        raise BundleError(f"{path} has more than {LARGEST_MANIFEST:,} bytes, the most that is read: export again")
    return content


def _missing(directory: Path) -> PathError:
    if old := set_aside(directory):
        return PathError(
            f"no bundle at {directory}: a process was stopped while it replaced the bundle, which is whole in {old}: "
            "move it back, or run bertport export or quantize again, which does so"
        )
    return PathError(
        f"no bundle at {directory}: no such directory; make one with bertport export SOURCE {directory}, where SOURCE "
        "is a checkpoint's directory or its Hub id, owner/name"
    )


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
