"""A release's runtime and embedded bundle, out of the repository's history, to take turns with the checkout's own."""

from __future__ import annotations

import subprocess
import tarfile
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bench.checkout import ROOT
from bench.history.entries import SOURCES

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["RELEASES", "MissingReleaseError", "Release", "last_release", "unpacked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One row: a release that others are compared with."""

    version: str
    """Its version."""
    commit: str
    """Its commit."""

    @property
    def name(self) -> str:
        """Name of the release on a page."""
        return f"release {self.version}"


RELEASES = (Release(version="0.1.0", commit="e2c24169eaf38bb5f56c8eb4cb09fb7bbf87fa78"),)
"""Releases, the last one at the end: one row a release, added when it is made."""


class MissingReleaseError(RuntimeError):
    """The repository does not hold the release's commit, such as a clone without history."""


def last_release() -> Release:
    """Return the release that the checkout is compared with."""
    return RELEASES[-1]


@contextmanager
def unpacked(release: Release) -> Iterator[Path]:
    """Extract a release's runtime and embedded bundle into a directory, for as long as the context lasts.

    Raises:
        MissingReleaseError: when this repository does not hold it.
    """
    git = ["git", "archive", "--format=tar", release.commit, *SOURCES]
    done = subprocess.run(git, cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise MissingReleaseError(
            f"{release.name} (commit {release.commit}) is not in this repository: fetch its history, "
            "such as by git fetch --unshallow"
        )
    with TemporaryDirectory(prefix="bertport-release-") as name:
        with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
            archive.extractall(name, filter="data")
        yield Path(name)
