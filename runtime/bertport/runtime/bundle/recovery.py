"""Recovery: the next writer restores or removes what killed processes left of their work on a bundle."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bertport.runtime.bundle.checks import refuse_outside
from bertport.runtime.bundle.directory import MANIFEST, Bundle
from bertport.runtime.bundle.files import hashed, inside, open_regular, read_bounded
from bertport.runtime.bundle.locks import Lock, claim, exclusive, try_lock
from bertport.runtime.bundle.siblings import NEW, OLD, is_set_aside, lock_file, new_workspace, workspaces
from bertport.runtime.errors import BertportError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bertport.runtime.bundle.manifest import FileEntry

__all__ = [
    "FOLDERS",
    "NAMES",
    "UNFINISHED",
    "Working",
    "read_names",
    "remove_unlisted",
    "start",
    "write_placing",
    "writing",
]

OWNER = "owner"
"""The file in a workspace that its process has locked for as long as it lives."""
NAMES = "names.json"
"""The file in a workspace with the names in the bundle that it will use."""
PLACING = "placing.json"
"""The file in a workspace that lists what is being moved into the bundle, and what is removed from it then."""
UNFINISHED = {name: f".{name}.bertport.tmp" for name in (MANIFEST, "README.md")}
"""Names of files that are written beside those that they replace, under the bundle's lock."""
FOLDERS = ("onnx", "quantization")
"""Folders of a bundle that files are added to."""
ROOT_FILES = re.compile(r"golden(-\d+)?\.json")
"""Names of files that are added to a bundle outside its folders."""
LARGEST_NOTE = 1 << 20
"""Bytes of a file in a workspace that is read."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Working:
    """A directory beside a bundle that is this process's, to build in or to remove."""

    path: Path
    """The directory."""
    lock: Lock
    """Lock of its owner."""

    def remove(self) -> None:
        """Remove it: what says whose it is last, so that the rest is found if this is cut short."""
        with suppress(OSError):
            _empty(self.path)
        self.lock.release()
        with suppress(OSError):
            self.path.rmdir()


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Hold a bundle's lock for a change, once what dead processes have left is out of the way.

    Args:
        target: The bundle's real path; it need not be there.

    Raises:
        PathError: when another process has the lock and keeps it.
        OSError: when the lock cannot be made.
    """
    dead: list[Working] = []
    try:
        with exclusive(lock_file(target), str(target)):
            dead = _recover(target)
            yield
    finally:
        for workspace in dead:  # without the bundle's lock: it may be much
            workspace.remove()


def start(target: Path) -> Working:
    """Return a new workspace for a bundle; call it in `writing`, or another process may take it for a dead one's.

    Raises:
        OSError: when it cannot be made.
    """
    path = new_workspace(target)
    lock = None
    try:
        lock = try_lock(path / OWNER)
        (path / NEW).mkdir()
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    if lock is None:
        raise OSError(f"{path / OWNER} was locked by another process")
    return Working(path, lock)


def write_placing(workspace: Path, entries: Mapping[str, FileEntry]) -> None:
    """Note which files are moved into the bundle next, so that those that it does not list in the end are known."""
    value = {name: {"size": entry.size, "sha256": entry.sha256} for name, entry in entries.items()}
    (workspace / PLACING).write_text(json.dumps(value), encoding="utf-8")


def read_names(workspace: Path) -> list[str]:
    """Return the names in the bundle that a workspace's process will use."""
    value = _note(workspace / NAMES)
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def remove_unlisted(target: Path, workspace: Path) -> list[str]:
    """Remove files that a commit moved into a bundle whose manifest does not list them; return their names.

    Only those that are what was noted, by size and hash: the same name may be another's by now.
    """
    removed = []
    value = _note(workspace / PLACING)
    placing = (
        {name: entry for name, entry in value.items() if _is_placed(target, name)} if isinstance(value, dict) else {}
    )
    if not placing:
        return []
    try:
        listed = Bundle.open(target).manifest.files
    except (OSError, BertportError):  # a bundle that nothing is known of
        return []
    kept = {_identity(target / name) for name in listed}
    for name in set(placing) - set(listed):
        path = target / name
        with suppress(OSError, BertportError, TypeError, KeyError):
            if _identity(path) in kept:  # a listed file by another name: by way of a link, or in other letters
                continue
            size, sha256 = placing[name]["size"], placing[name]["sha256"]
            with open_regular(path) as file:
                same = os.fstat(file.fileno()).st_size == size and hashed(file, size) == (size, sha256)
            if same:
                path.unlink()
                removed.append(name)
    for folder in {folder for name in placing for folder in Path(name).parents if folder != Path()}:
        with suppress(OSError):  # made for them, if it is empty now
            (target / folder).rmdir()
    return sorted(removed)


def _note(path: Path) -> object:
    """Return what a workspace's file says as JSON; None where it is none of ours, whatever it is."""
    try:
        with open_regular(path) as file:
            content = read_bounded(file, LARGEST_NOTE)
        return None if len(content) > LARGEST_NOTE else json.loads(content)
    except (OSError, ValueError, RecursionError, BertportError):
        return None


def _is_placed(target: Path, name: str) -> bool:
    """Return whether a writer can have put a file of this name into a bundle: a note proves nothing."""
    try:
        refuse_outside(name)
        folder, *rest = PurePosixPath(name).parts
        placed = folder in FOLDERS if rest else ROOT_FILES.fullmatch(name) is not None
        return placed and inside(target / name, target)
    except (OSError, ValueError, BertportError):
        return False


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from others, whatever it is called; None where there is none."""
    try:
        status = path.lstat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _empty(path: Path) -> None:
    """Remove what is in a workspace but what says whose it is, by way of no link that takes its place meanwhile."""
    if not (shutil.rmtree.avoids_symlink_attacks and hasattr(os, "O_NOFOLLOW")):
        for entry in list(os.scandir(path)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif not entry.name.startswith(OWNER):
                Path(entry.path).unlink(missing_ok=True)
        return
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for entry in list(os.scandir(directory)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.name, ignore_errors=True, dir_fd=directory)
            elif not entry.name.startswith(OWNER):
                with suppress(FileNotFoundError):
                    os.unlink(entry.name, dir_fd=directory)
    finally:
        os.close(directory)


def _recover(target: Path) -> list[Working]:
    """Restore a bundle that was set aside and whose writer died; return the workspaces that are left to remove."""
    dead = []
    for path in workspaces(target):
        lock = _claim(path)
        if lock is None:
            continue
        try:
            _bring_back(path, target)
        except OSError:  # then it holds the only copy
            lock.release(remove=False)
            raise
        names = remove_unlisted(target, path)
        what = "".join(f", {name}" for name in names)
        _LOG.warning("removed what a stopped process had left of its work on %s: %s%s", target, path, what)
        dead.append(Working(path, lock))
    for name in UNFINISHED.values():
        with suppress(OSError):
            (target / name).unlink()
            _LOG.warning("removed what a stopped process had left of its work on %s: %s", target, name)
    return dead


def _claim(path: Path) -> Lock | None:
    """Return a workspace taken over from a process that is gone; None where it lives, or where it is not ours."""
    # Not Path.exists, which raises where the directory is another user's.
    if not any(os.path.lexists(path / name) for name in (OWNER, f"{OWNER}.pid")):
        with suppress(OSError):  # what makes one dies before it says whose it is, or when all else is removed: empty
            path.rmdir()
        return None
    try:
        return claim(path / OWNER)
    except OSError:
        return None


def _bring_back(workspace: Path, target: Path) -> None:
    """Put a bundle that was set aside back in its place, which no new one has taken."""
    if is_set_aside(workspace) and not os.path.lexists(target):
        (workspace / OLD).rename(target)
        _LOG.warning("restored %s, which a stopped process had moved away", target)
