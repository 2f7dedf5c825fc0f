"""Control groups, version 1 or 2, in which a process has a share of a core or a bound on memory; making one takes root.

A process joins a group by writing 0 to its `cgroup.procs`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["memory_bound", "quota"]

GROUPS = Path("/sys/fs/cgroup")
PERIOD = 100_000
"""Microseconds in which a share of a core may be used, as is usual."""


def quota(share: float) -> contextlib.AbstractContextManager[Path]:
    """Return a control group that may use a share of one core.

    Raises:
        SystemExit: with a sentence, where that is not allowed; on entering.
    """
    microseconds = int(share * PERIOD)
    return _group(
        "cpu",
        {"cpu.cfs_period_us": str(PERIOD), "cpu.cfs_quota_us": str(microseconds)},
        {"cpu.max": f"{microseconds} {PERIOD}"},
        "a share of a core",
    )


def memory_bound(size: int) -> contextlib.AbstractContextManager[Path]:
    """Return a control group that may hold so many bytes, pages of files included, none of them swapped out.

    Raises:
        SystemExit: with a sentence, where that is not allowed; on entering.
    """
    return _group(
        "memory",
        {"memory.limit_in_bytes": str(size), "memory.swappiness": "0"},
        {"memory.max": str(size), "memory.swap.max": "0"},
        "a bound on memory",
    )


@contextlib.contextmanager
def _group(controller: str, first: Mapping[str, str], second: Mapping[str, str], what: str) -> Iterator[Path]:
    """Make a control group with the settings of the version that is here, and remove it in the end."""
    old = GROUPS / controller
    group = (old if old.is_dir() else GROUPS) / f"bertport-{os.getpid()}"
    try:
        group.mkdir()
        for file, text in (first if old.is_dir() else second).items():
            (group / file).write_text(text, encoding="ascii")
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        sys.exit(f"{what} takes a control group, which cannot be made ({error}): run this as root")
    try:
        yield group
    finally:
        group.rmdir()
