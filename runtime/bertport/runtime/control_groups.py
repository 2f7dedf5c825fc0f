"""Limits of the control groups of a process, by which containers and systemd bound what it may use."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

__all__ = ["GROUPS", "ROOT", "limit_files"]

GROUPS = Path("/proc/self/cgroup")
"""The control groups of this process."""
ROOT = Path("/sys/fs/cgroup")
"""Where control groups are mounted."""


def limit_files(controller: str, second: str, first: str, *, groups: Path = GROUPS, root: Path = ROOT) -> list[Path]:
    """Return the files that may hold a limit, of both versions of control groups, of which the least limit holds.

    They are of every group above the process's own, too. Inside a container the path in `groups` may be the host's, of
    which only the root is mounted.

    Args:
        controller: what is limited, such as `memory`.
        second: name of the file in version 2.
        first: name of the file in version 1.
        groups: the control groups of the process.
        root: where control groups are mounted.
    """
    places = {root / second, root / controller / first}
    with suppress(OSError, ValueError):
        for line in groups.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                tops, name = (root, root / "unified"), second
            elif controller in controllers.split(","):
                tops, name = (root / controller, root / controllers), first
            else:
                continue
            inner = Path(path.lstrip("/"))
            if ".." not in inner.parts:
                places.update(top / directory / name for top in tops for directory in (inner, *inner.parents))
    return sorted(places)
