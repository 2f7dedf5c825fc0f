"""Exclusive locks between processes and threads, which end with the process that holds them.

`flock` on POSIX and byte locks on Windows. Where neither is there, or the file system has none, a link that names its
process takes their place: that of a process that is gone is broken, and one that cannot be judged is left to people.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertport.runtime.bundle.files import open_regular, read_bounded
from bertport.runtime.errors import BundleError, PathError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Lock", "claim", "exclusive", "try_lock"]

PATIENCE = 60.0
"""Seconds to wait for a lock that is held for milliseconds: its holder was stopped, or the disk does not answer."""
HELD = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK, errno.EBADF})
"""Errors of a lock that another process holds, or whose state is unknown (NFS, of a file that may only be read)."""
UNWRITTEN = 10.0
"""Seconds after which a file that should name its process, and is empty, is one whose process died at once."""
LONGEST_SIGNATURE = 1000
"""Bytes of a file that names a process."""
NUMBER = re.compile("[0-9]{1,18}")
"""Number of a process."""
FLAGS = sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"))
"""Flags to open the file that is locked: no link is followed, which would lock, or make, another's file."""
_TOKEN = os.urandom(8).hex()
"""Token that distinguishes this process from an earlier one of the same number, as the first ones of a container's runs
are."""


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that is held."""

    path: Path
    """The file that is locked, or that names this process."""
    descriptor: int | None
    """Descriptor of the locked file; None where the lock is the existence of the file."""

    def release(self, *, remove: bool = True) -> None:
        """Release it, and remove its file."""
        if self.descriptor is None:
            with suppress(OSError, UnicodeDecodeError, BundleError):
                if _read(self.path) == _signature():
                    self.path.unlink()
            return
        # Before the lock is given back: afterwards the file may be another's. Who waits for it sees that it is gone.
        if remove and os.name == "posix":
            with suppress(OSError):
                self.path.unlink()
        os.close(self.descriptor)
        if remove and os.name != "posix":  # Windows removes no open file, and so none that another has locked
            with suppress(OSError):
                self.path.unlink()


@contextmanager
def exclusive(path: Path, subject: str, patience: float = PATIENCE) -> Iterator[None]:
    """Hold a lock for a block, after waiting for others to give it back.

    Args:
        path: The lock's file; it is made, and removed in the end.
        subject: What is locked, for the error.
        patience: Seconds to wait.

    Raises:
        PathError: when another holds it all the time.
        OSError: when the file cannot be made.
    """
    end, pause = time.monotonic() + patience, 0.001
    while (lock := try_lock(path)) is None:
        if time.monotonic() > end:
            raise PathError(
                f"cannot write {subject}: another process has held its lock {path} for {patience:.0f} s; wait for it "
                "to end, or stop it; nothing was changed"
            )
        time.sleep(pause)
        pause = min(0.05, pause * 2)
    try:
        yield
    finally:
        lock.release()


def try_lock(path: Path, *, create: bool = True) -> Lock | None:
    """Return a lock that was free and is now held; None where another process holds it.

    Args:
        path: The lock's file.
        create: Whether to make it where it is not there.

    Raises:
        OSError: when the file cannot be made or opened.
    """
    if not _has_system_locks():
        return _by_name(path)
    descriptor = _open(path, create=create)
    try:
        locked = _lock(descriptor)
        if locked and _is_at(descriptor, path):
            kept, descriptor = descriptor, -1
            return Lock(path, kept)
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    if locked is None:  # the file system has no locks, so that there is none on this file
        if create:
            with suppress(OSError):
                path.unlink()
        return _by_name(path)
    return None


def claim(path: Path) -> Lock | None:
    """Return a lock taken over from a process that is gone; None where it lives, or where that cannot be known.

    Raises:
        OSError: when the file cannot be opened.
    """
    named = _named(path)
    if os.path.lexists(named):  # made by a process that had no other locks, whatever this one has
        _break_if_dead(named)
        return None if os.path.lexists(named) else _by_name(path)
    return try_lock(path, create=False) if _has_system_locks() else None


def _open(path: Path, *, create: bool) -> int:
    try:
        return os.open(path, os.O_RDWR | (os.O_CREAT if create else 0) | FLAGS, 0o666)
    except PermissionError:
        # The lock of another user's dead process: on a local file system it can be locked all the same.
        with suppress(OSError):
            return os.open(path, os.O_RDONLY | FLAGS)
        raise


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether an open file still has its name: its last holder may have removed it before we had the lock."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _has_system_locks() -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: F401 — only looked for
        else:
            import fcntl  # noqa: F401 — as above
    except ImportError:
        return False
    return True


def _lock(descriptor: int) -> bool | None:
    """Lock an open file: whether it is ours now; None where its file system has no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in HELD else None
    return True


def _named(path: Path) -> Path:
    return path.with_name(f"{path.name}.pid")


def _by_name(path: Path) -> Lock | None:
    """Return a lock made as Emacs makes them: a dangling link that names this process, or a file where links are none.

    A link is there with what it says in one step; a file is empty for a moment, or for long if its process dies then.
    """
    path = _named(path)
    try:
        try:
            path.symlink_to(_signature())
        except FileExistsError:
            raise
        except (OSError, NotImplementedError):
            with path.open("x", encoding="utf-8") as file:
                file.write(_signature())
    except FileExistsError:
        _break_if_dead(path)
        return None
    return Lock(path, None)


def _signature() -> str:
    return f"{os.getpid()} {_TOKEN} {platform.node()}"


def _read(path: Path) -> str:
    """Return which process a link or a file names."""
    if path.is_symlink():
        return str(path.readlink())
    with open_regular(path) as file:
        return read_bounded(file, LONGEST_SIGNATURE).decode()


def _break_if_dead(path: Path) -> None:
    """Remove the file of a process that is gone."""
    with suppress(OSError, UnicodeDecodeError, BundleError):
        text = _read(path)
        if not (_is_dead(text) if text else time.time() - path.stat().st_mtime > UNWRITTEN):
            return
        # Of several that find it, one can rename it; what was not the file that was read goes back.
        aside = path.with_name(f"{path.name}.{os.getpid()}")
        path.rename(aside)
        if _read(aside) == text or os.path.lexists(path):
            aside.unlink()
        else:
            aside.rename(path)


def _is_dead(text: str) -> bool:
    """Return whether the process of a signature is gone for certain: of this machine, and no process has its number."""
    number, token, host = (*text.strip().split(" ", 2), "", "", "")[:3]
    if os.name != "posix" or host != platform.node() or not NUMBER.fullmatch(number):
        return False
    if int(number) == os.getpid():
        return token != _TOKEN
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
