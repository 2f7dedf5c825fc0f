"""Siblings of a bundle: the lock and the workspaces that writers keep beside it while they work.

Every name says that it is ours (`.NAME.bertport…`), so that hidden files of others are never taken for it.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
import time
from pathlib import Path

__all__ = [
    "NEW",
    "OLD",
    "comes_back",
    "home",
    "is_set_aside",
    "lock_file",
    "new_workspace",
    "real",
    "set_aside",
    "workspaces",
]

LONGEST = 100
"""Bytes of a bundle's name that are repeated in others: a file system may bound names to 143, most do to 255."""
NEW = "new"
"""Name, in a workspace, of the directory that is being written."""
OLD = "old"
"""Name, in a workspace, of the directory that was replaced, until it is removed."""


def real(target: Path) -> Path:
    """Return the absolute path of a bundle, links followed: one bundle has one lock, however it is named."""
    return Path(os.path.realpath(target))


def home(target: Path) -> Path:
    """Return the directory beside whose files a bundle can be renamed.

    It is the parent; where the bundle is a mount of its own, as in a container, the bundle itself.
    """
    try:
        mounted = target.stat().st_dev != target.parent.stat().st_dev
    except OSError:
        mounted = False
    return target if mounted else target.parent


def lock_file(target: Path) -> Path:
    """Return the path of a bundle's lock."""
    return home(target) / f"{_prefix(target)}.lock"


def new_workspace(target: Path) -> Path:
    """Return a new empty directory to build in, readable for its owner alone."""
    return Path(tempfile.mkdtemp(prefix=f"{_prefix(target)}-", suffix=".tmp", dir=home(target)))


def workspaces(target: Path) -> list[Path]:
    """Return the directories that writers of a bundle build in, or have left.

    A name proves nothing: it may have come with an archive, or be another user's in a shared directory. What is no
    directory of this user's own, links among it, is left alone.
    """
    made = re.compile(re.escape(f"{_prefix(target)}-") + r"[a-z0-9_]{8}\.tmp", re.DOTALL)
    try:
        return sorted(path for path in home(target).iterdir() if made.fullmatch(path.name) and _own(path))
    except OSError:
        return []


def set_aside(target: Path) -> Path | None:
    """Return where a bundle is that left its place for a new one that has not come; None where none did."""
    try:
        target = real(target)
    except (OSError, ValueError):  # a name that none can have
        return None
    for workspace in workspaces(target):
        if is_set_aside(workspace):
            return workspace / OLD
    return None


def is_set_aside(workspace: Path) -> bool:
    """Return whether a workspace holds a bundle that left its place for a new one which has not come."""
    return _own(workspace / OLD) and _own(workspace / NEW)


def comes_back(target: Path, seconds: float = 1.0) -> bool:
    """Return whether a bundle that left its place for a new one is there again within a moment, or the new one."""
    end = time.monotonic() + seconds
    while set_aside(target) and not target.is_dir() and time.monotonic() < end:
        time.sleep(0.01)
    return target.is_dir()


def _own(path: Path) -> bool:
    """Return whether a path is a directory, and no link to one, that belongs to this user."""
    try:
        status = path.lstat()
    except (OSError, ValueError):
        return False
    return stat.S_ISDIR(status.st_mode) and (not hasattr(os, "getuid") or status.st_uid == os.getuid())


def _prefix(target: Path) -> str:
    name = target.name
    if len(os.fsencode(name)) > LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return f".{name}.bertport"
