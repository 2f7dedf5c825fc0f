"""onnxruntime-web: the files that a site needs, from a directory or from the pinned package of the npm registry."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import tarfile
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bertport.runtime.bundle.writer import no_room
from bertport.runtime.errors import PathError, ProviderError
from bertport.runtime.user_caches import user_caches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["PINNED", "Package", "WebRuntime", "cached", "download", "from_directory", "from_package", "names"]

CPU_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
GPU_FILES = ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm")
LOWEST = (1, 24, 3)
"""As in js/package.json."""
BANNER = re.compile(rb"ONNX Runtime Web v(\d+)\.(\d+)\.(\d+)")
LARGEST = 2**28
"""Bytes of one of its files, at most: the largest has 28 million."""
CHUNK = 2**16
"""Bytes that are read from the registry at once."""
SECONDS = 60
"""Timeout of the connection to the registry, in seconds without a byte."""
ADVICE = "set XDG_CACHE_HOME to a folder that can be written, or give the unpacked package to --runtime"
"""Advice where the package cannot be kept for another reason than a full disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A release of onnxruntime-web in the npm registry."""

    version: str
    """Its version."""
    address: str
    """URL of its tarball."""
    size: int
    """Bytes of the tarball."""
    sha512: str
    """SHA-512 of the tarball in base64, as the registry states it (`dist.integrity`)."""


PINNED = Package(
    version="1.30.0",
    address="https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-1.30.0.tgz",
    size=33_106_585,
    sha512="q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
)
"""The release that sites were tried with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRuntime:
    """Files of onnxruntime-web."""

    version: str
    """Its version."""
    files: dict[str, bytes]
    """Content by name."""


def names(*, gpu: bool) -> tuple[str, ...]:
    """Return the files that a site needs; `gpu` adds those of WebGPU."""
    return CPU_FILES + (GPU_FILES if gpu else ())


def from_directory(directory: Path, wanted: Iterable[str]) -> WebRuntime:
    """Return files of an unpacked package: of `dist`, or of the package's own directory.

    Raises:
        PathError: when there is no such directory, or a file is missing in it or cannot be read.
        ProviderError: for a release that is too old, or what is no onnxruntime-web.
    """
    if not directory.is_dir():
        raise PathError(f"--runtime {directory} is not a directory: give that of an unpacked onnxruntime-web, its dist")
    place = directory / "dist" if (directory / "dist").is_dir() else directory
    files = {}
    for name in wanted:
        try:
            size = (place / name).stat().st_size
            files[name] = (place / name).read_bytes() if size <= LARGEST else b""
        except OSError as error:
            raise PathError(
                f"{place} has no {name} that can be read ({error.strerror}): give the dist of onnxruntime-web "
                f"{PINNED.version}, or leave --runtime out to have it fetched"
            ) from error
    return _checked(files, str(place))


def from_package(tarball: Path, wanted: Iterable[str]) -> WebRuntime:
    """Return files of the tarball of the pinned release, whose hash was checked.

    Raises:
        ProviderError: when it lacks one of them.
    """
    files = {}
    with tarfile.open(tarball) as archive:
        for name in wanted:
            try:
                member = archive.extractfile(f"package/dist/{name}")
            except KeyError:
                member = None
            if member is None:
                raise ProviderError(f"{tarball} has no dist/{name}: give --runtime a directory that has it")
            files[name] = member.read(LARGEST)
    return _checked(files, str(tarball))


def _checked(files: dict[str, bytes], where: str) -> WebRuntime:
    found = BANNER.search(files[CPU_FILES[0]][:1000])
    if not found:
        raise ProviderError(f"{where} has a {CPU_FILES[0]} that is not onnxruntime-web's: give its dist to --runtime")
    version = ".".join(part.decode() for part in found.groups())
    if tuple(int(part) for part in found.groups()) < LOWEST:
        lowest = ".".join(map(str, LOWEST))
        raise ProviderError(
            f"{where} has onnxruntime-web {version}, and {lowest} is the oldest that is taken: get a newer one"
        )
    for name, content in files.items():
        if name.endswith(".wasm") and not content.startswith(b"\0asm"):
            raise ProviderError(f"{where} has a {name} that is not WebAssembly: get the package again")
    return WebRuntime(version=version, files=files)


def cached(package: Package = PINNED) -> Path | None:
    """Return the tarball in the user's cache; None where there is none, or one with another hash."""
    path = _place(package)
    return path if path.is_file() and _sha512(path) == package.sha512 else None


def download(package: Package = PINNED, progress: Callable[[int], None] = lambda _: None) -> Path:
    """Return the tarball, fetched from the registry, compared with its hash and put into the user's cache.

    Args:
        package: the release.
        progress: is told how many bytes have arrived.

    Raises:
        ProviderError: when it cannot be fetched, or is another than it should be.
        PathError: when it cannot be written.
    """
    path = _place(package)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    except OSError as error:
        raise no_room(error, path, otherwise=ADVICE) from error
    unfinished = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            done = 0
            for chunk in _fetched(package):
                file.write(chunk)
                done += len(chunk)
                progress(done)
        unfinished.replace(path)
    except OSError as error:
        raise no_room(error, path, otherwise=ADVICE) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return path


def _fetched(package: Package) -> Iterator[bytes]:
    """Yield what the registry gives, in chunks: no more than one of them beyond what the package has.

    Raises:
        ProviderError: when it gives nothing, breaks off, or gave something else in the end.
    """
    import http.client
    import urllib.request

    digest = hashlib.sha512()
    try:
        with urllib.request.urlopen(package.address, timeout=SECONDS) as answer:  # noqa: S310 — pinned, https
            done = 0
            while done <= package.size and (chunk := answer.read(CHUNK)):
                yield chunk
                digest.update(chunk)
                done += len(chunk)
    except (OSError, http.client.HTTPException) as error:
        raise ProviderError(
            f"onnxruntime-web cannot be fetched from {package.address} ({error}): fetch it elsewhere, and give "
            "its unpacked dist to --runtime"
        ) from error
    if base64.b64encode(digest.digest()).decode() != package.sha512:
        raise ProviderError(
            f"what came from {package.address} is not onnxruntime-web {package.version} (its SHA-512 is another): "
            "try again, or fetch it elsewhere and give its unpacked dist to --runtime"
        )


def _place(package: Package) -> Path:
    """Return where the tarball is kept.

    Raises:
        PathError: for a user without a home directory, as in some containers, where no other place is given.
    """
    return user_caches("onnxruntime-web", ADVICE) / f"onnxruntime-web-{package.version}.tgz"


def _sha512(path: Path) -> str:
    with path.open("rb") as file:
        return base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
