"""Stamps of files: they show whether a file changed between hashing and being opened by its path."""

from __future__ import annotations

import stat
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from bertport.runtime.bundle.files import way
from bertport.runtime.errors import BundleError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = ["CheckedGraph", "MovedError", "Stamp", "stamps_of"]

TICK = 20_000_000
"""Nanoseconds. A file system stamps a change with the kernel's clock, which moves every 1 to 10 ms: two changes within
one of its steps have the same time."""
STEP, LOOKS = 0.005, 400
"""Seconds between two looks at a file that was changed just now, and how many before it is given up."""


class Stamp(NamedTuple):
    """Stamp: tells a file from another, and from itself after a change.

    The time of change is the system's: a program that writes a file can set back its time of modification only.
    Hashing the file a second time would say less: a replacement that is gone by then does not show in it.
    """

    mode: int
    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Return the stamp in what the system says of a file."""
        return cls(status.st_mode, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class MovedError(BundleError):
    """A directory that changed while a bundle was opened: the files in it are the same now, and may not have been."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedGraph:
    """A variant's graph whose files were hashed, and what tells whether they are still the same.

    ONNX Runtime opens files by their paths, so that it cannot be given the very files that were hashed. A file that is
    replaced, moved away and back, or written to in between has another inode or time of change afterwards, and so has a
    directory or link on the way that is moved: they are looked at before hashing and after opening. That takes
    microseconds, where handing ONNX Runtime the hashed bytes would copy every weight.

    What cannot be seen is a change by a program that sets the system's clock; a directory or link above the bundle that
    is moved away and back; and what a program writes through a shared mapping of a file (mmap) to a page that it has
    written to before and the system has not yet stored: the time of change moves only with the first such write.
    """

    path: Path
    """The graph's path."""
    external_data: frozenset[str]
    """Paths of the files that hold its weights, from its directory."""
    stamps: Mapping[Path, Stamp]
    """Stamps of its files, and of the directories and links that lead to them, as they were before hashing."""

    def check(self) -> None:
        """Check that nothing has changed.

        Raises:
            BundleError: for the first file or link that has; a MovedError for a directory, where no file has. A writer
                that adds a file to the bundle changes one, too: loading anew will do.
        """
        for path, stamp in sorted(self.stamps.items(), key=lambda item: stat.S_ISDIR(item[1].mode)):
            try:
                same = Stamp.of(path.lstat()) == stamp
            except OSError:
                same = False
            if not same:
                kind = MovedError if stat.S_ISDIR(stamp.mode) else BundleError
                raise kind(f"{path} was changed while {self.path} was opened: load the bundle again")

    @contextmanager
    def opening(self) -> Iterator[Path]:
        """Return the path to open, and see when the block ends that what was opened is what was hashed.

        Raises:
            BundleError: when a file was changed in between; then in place of an error that opening it gave.
        """
        try:
            yield self.path
        except Exception as error:
            try:
                self.check()
            except BundleError as changed:
                raise changed from error
            raise
        self.check()


def stamps_of(root: Path, names: Iterable[str]) -> dict[Path, Stamp]:
    """Return the stamps of files, and of every directory and link that leads to them from a bundle's own on.

    Not of the Hub's directory of blobs: it changes with each file of another revision that is fetched.
    """
    stamps: dict[Path, Stamp] = {}
    passed = [place for name in names for place in way(root / name, root) or ()]  # one that leaves is refused elsewhere
    for path in dict.fromkeys((root, *passed)):
        with suppress(OSError):  # what is missing is told when it is opened
            stamps[path] = _settled_stamp(path)
    return stamps


def _settled_stamp(path: Path) -> Stamp:
    """Return a stamp that any later change alters, waiting some milliseconds where the last one was just now."""
    for _ in range(LOOKS):
        status = path.lstat()
        if _settled(status):
            return Stamp.of(status)
        time.sleep(STEP)
    raise BundleError(f"{path} is being written to: load the bundle again when that is done")


def _settled(status: os.stat_result) -> bool:
    """Return whether a file was last changed so long ago that the next change is sure to have another time."""
    return not 0 <= time.time_ns() - status.st_ctime_ns < TICK
