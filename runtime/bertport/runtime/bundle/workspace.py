"""Workspace beside a bundle: files are made in it before a change to the bundle is committed."""

from __future__ import annotations

import json
from bisect import bisect_left
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.files import inside
from bertport.runtime.bundle.recovery import FOLDERS, NAMES, Working, read_names, start, writing
from bertport.runtime.bundle.siblings import NEW, real, workspaces
from bertport.runtime.bundle.writer import no_room
from bertport.runtime.errors import NO_ROOM, BertportError, BundleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bertport.runtime.bundle.manifest import Manifest

__all__ = ["Workspace", "explained", "refuse_leaving"]

ADVICE = "work on a copy of the bundle that you may change"
"""Advice where a bundle cannot be written for another reason than a full disk."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """A directory beside a bundle in which a change to it is prepared."""

    bundle: Bundle
    """The bundle as it was when the work began."""
    working: Working
    """The directory, and whose it is."""

    @classmethod
    @contextmanager
    def beside(cls, bundle: Bundle) -> Iterator[Workspace]:
        """Return a workspace on the bundle's file system, which is removed when the block ends.

        Raises:
            PathError: when it cannot be made, or there is no room for what it is to hold.
        """
        with explained(bundle.path), writing(real(bundle.path)):
            refuse_leaving(bundle.path)
            working = start(real(bundle.path))
        try:
            yield cls(bundle, working)
        except OSError as error:
            if error.errno in NO_ROOM and not isinstance(error, BertportError):
                raise no_room(error, bundle.path, otherwise=ADVICE) from error
            raise
        finally:
            working.remove()

    @property
    def directory(self) -> Path:
        """Directory to put files in."""
        return self.working.path / NEW

    def reserve(self, path: str) -> str:
        """Return a name in the bundle that nothing has, and that no other process takes from now on.

        It is the path itself or one with a number. Names that begin with it are reserved too: `NAME_data` is the file
        of a graph's weights, which the graph names, so that it cannot be given another name when it is committed.

        Raises:
            PathError: when the bundle cannot be written.
        """
        with explained(self.bundle.path), writing(real(self.bundle.path)):
            name = self._free(path, Bundle.open(self.bundle.path).manifest)
            names = [*read_names(self.working.path), name]
            (self.working.path / NAMES).write_text(json.dumps(names), encoding="utf-8")
        return name

    def names(self, paths: Iterable[str], manifest: Manifest) -> dict[str, str]:
        """Choose names in the bundle for paths, those that are reserved as they are; call it under the lock."""
        reserved = read_names(self.working.path)
        return {
            path: path if any(path.startswith(prefix) for prefix in reserved) else self._free(path, manifest)
            for path in paths
        }

    def _free(self, path: str, manifest: Manifest) -> str:
        target = real(self.bundle.path)
        folder = PurePosixPath(path).parent
        taken = {*manifest.files, *(name for workspace in workspaces(target) for name in read_names(workspace))}
        with suppress(OSError):  # an unlisted file has its name too
            taken.update(str(folder / entry.name) for entry in (target / folder).iterdir())
        pure, number, name = PurePosixPath(path), 1, path
        names = sorted(taken)
        while (at := bisect_left(names, name)) < len(names) and names[at].startswith(name):
            number += 1
            name = str(pure.with_name(f"{pure.stem}-{number}{pure.suffix}"))
        return name


def refuse_leaving(path: Path, folders: Iterable[str] = FOLDERS) -> None:
    """Refuse to put files into folders that a link leads out of the bundle.

    Raises:
        BundleError: for such a folder.
    """
    for folder in folders:
        if not inside(path / folder, path):
            raise BundleError(
                f"{path / folder} is a link that leaves the bundle, and nothing is written through it: work on a copy "
                "without links"
            )


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise a PathError with advice in place of an OSError."""
    try:
        yield
    except OSError as error:
        if isinstance(error, BertportError):
            raise
        raise no_room(error, path, otherwise=ADVICE) from error
