"""Files of a bundle, opened so that nothing else is read in their place: no FIFO, device, directory or endless file."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

from bertport.runtime.errors import BundleError

__all__ = ["hashed", "inside", "open_regular", "read_bounded", "way"]

BLOCK = 2**20
"""Bytes hashed at once: hashing lets other threads run, and begins anew for each block."""
FLAGS = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"))
"""Opening a FIFO without a writer must not block; the other flags are those of Python's own `open`."""
MOST_LINKS = 64
"""Links on the way to a file that are followed; Linux follows 40, Windows 63."""
KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: Path) -> BinaryIO:
    """Return a regular file, open for reading, unbuffered.

    Raises:
        BundleError: when it is anything else.
        OSError: when it cannot be opened.
    """
    _refuse_irregular(path, path.stat())  # merely opening a device can have an effect (/dev/watchdog)
    file = open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | FLAGS))  # noqa: SIM115 — the caller's; Path.open takes no opener
    try:
        _refuse_irregular(path, os.fstat(file.fileno()))  # it may have been replaced since
    except BaseException:
        file.close()
        raise
    return file


def _refuse_irregular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "a special file")
        raise BundleError(f"{path} is {kind} and should be a regular file: copy the bundle again, or export again")


def read_bounded(file: BinaryIO, most: int) -> bytes:
    """Return an unbuffered file's content, or its first `most` bytes and one more where it has more."""
    parts: list[bytes] = []
    left = most + 1
    while left and (part := file.read(min(left, 64 * BLOCK))):  # a read may give less, and never takes memory for more
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def hashed(file: BinaryIO, most: int) -> tuple[int, str]:
    """Return the number of bytes and the SHA-256 of an unbuffered file, read no further than a byte beyond `most`."""
    digest, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(min(BLOCK, most + 1)))
    while size <= most and (count := file.readinto(buffer[: most + 1 - size])):  # type: ignore[attr-defined]  # unbuffered: io.RawIOBase
        digest.update(buffer[:count])
        size += count
    return size, digest.hexdigest()


def inside(path: Path, directory: Path) -> bool:
    """Return whether a path, its links followed, is that of something in a bundle's directory: see `way`."""
    return way(path, directory) is not None


def way(path: Path, directory: Path) -> tuple[Path, ...] | None:
    """Return what is passed on the way from a bundle's directory to a path in it, links followed one by one.

    A link may lead to another place in the bundle, and nowhere outside on the way there: what lies outside is led
    elsewhere, and back, by others. A bundle in the cache of huggingface_hub consists of links:
    `models--ORG--NAME/snapshots/REVISION/FILE` leads to `models--ORG--NAME/blobs/HASH`. Files there are the bundle's as
    well, those of other repositories are not.

    Returns:
        Directories and links in the bundle, its own directory among them, and the file; None where the way leaves it.
    """
    root = Path(os.path.realpath(directory))
    given = Path.cwd() / directory  # links in it are those that the user goes by
    blobs = _blobs(root)
    at, left, passed, links = root, [*reversed(path.relative_to(directory).parts)], [root], 0
    while left:
        part = left.pop()
        at = at.parent if part == ".." else at / part
        own = at.is_relative_to(root)
        blob = at.parent == blobs and not left
        if not (own or blob or at == blobs or root.is_relative_to(at)):
            return None
        if own or blob:
            passed.append(at)
        target = _target(at)
        if target is None:
            continue
        links += 1
        if not own:
            return None
        if links > MOST_LINKS:
            return tuple(passed)  # no system follows as many, and opening it says so
        at, parts = _led(at, target, root, given)
        left += reversed(parts)
    return tuple(passed) if at.is_relative_to(root) or at.parent == blobs else None


def _blobs(root: Path) -> Path | None:
    """Return the blobs of the Hub's repository that a directory is a snapshot of, or is in one."""
    for revision in (root, *root.parents):
        snapshots = revision.parent
        if snapshots.name == "snapshots" and snapshots.parent.name.startswith("models--"):
            return snapshots.parent / "blobs"
    return None


def _target(path: Path) -> Path | None:
    """Return where a link leads; None for what is no link, or is not there."""
    try:
        return Path(os.readlink(path).removeprefix("\\\\?\\"))  # noqa: PTH115 — of a junction as well; Windows' prefix
    except OSError:
        return None


def _led(link: Path, target: Path, root: Path, given: Path) -> tuple[Path, tuple[str, ...]]:
    """Return where to go on from a link, and the parts of the path from there."""
    for base in (root, given):
        if target.is_relative_to(base):
            return root, target.relative_to(base).parts
    if target.is_absolute():
        return Path(target.anchor), target.parts[1:]
    return link.parent, target.parts
