"""Putting a directory in the place of another, and making sure that both are on the disk before the old one goes."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

from bertport.runtime.bundle.siblings import OLD

__all__ = ["exchange", "replace_directory", "sync_directory", "sync_file", "sync_tree"]

UNSUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM})
"""Error numbers for a call that an old kernel, a file system, or a container's system call filter does not support."""
AT_FDCWD = -100
RENAME_EXCHANGE = 2


def replace_directory(new: Path, target: Path, workspace: Path) -> None:
    """Rename a directory to another's name, which goes to the workspace; both are complete at every moment.

    In one step where the system exchanges names, else in two: a process that dies between them leaves the old one in
    the workspace, from where `recovery.recover` brings it back.
    """
    if not target.exists():
        new.rename(target)
    elif not exchange(new, target):
        old = workspace / OLD
        try:
            target.rename(old)
            new.rename(target)
        except BaseException:  # Ctrl-C too, which may also come when the second is done
            if old.exists() and not target.exists():
                old.rename(target)
            raise
    sync_directory(target.parent)
    sync_directory(workspace)


def exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step, with Linux's `renameat2`; return False where that cannot be had.

    Raises:
        OSError: when it can be had, and failed.
    """
    if sys.platform != "linux":
        return False
    try:
        import ctypes

        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (ImportError, OSError, AttributeError):  # a Python without it, or an old C library
        return False
    rename.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    if rename(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(first), None, str(second))


def sync_tree(directory: Path) -> None:
    """Flush everything below a directory to the disk, so that no crash of the machine leaves half of it."""
    for place, _, files in os.walk(directory):
        for name in files:
            sync_file(Path(place) / name)
        sync_directory(Path(place))


def sync_file(path: Path) -> None:
    """Flush a file's bytes to the disk."""
    # Windows flushes only what may be written; a read-only file, as of another tool, is then left to the system.
    mode = os.O_RDWR if os.name == "nt" else os.O_RDONLY
    try:
        descriptor = os.open(path, mode)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Flush a directory's names to the disk, where the system can do that: Windows opens no directory."""
    if os.name != "nt":
        with suppress(PermissionError):
            sync_file(path)
