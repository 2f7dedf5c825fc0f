"""Nodes of Ray on this machine, each a process of its own, and what is asked of them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bench.batch.cluster import QUIET, nodes
from bertport.runtime.bundle.default import default_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[str]:
    """Return the address of two nodes of one CPU each, beside a head that has none."""
    with nodes(1, 1) as cluster:
        yield cluster.address


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The embedded bundle: no test here needs PyTorch."""
    return default_bundle()


def command(*arguments: object) -> list[str]:
    """Return the command line of `bertport batch`."""
    program = "from bertport.batch.cli import batch; import sys; from bertport.runtime.cli import app, main; "
    program += "app.add_command(batch); main(['batch', *sys.argv[1:]])"  # as an installation registers it
    return [sys.executable, "-c", program, *map(str, arguments)]


def asked(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `bertport batch` in a process of its own."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, timeout=240, env={**os.environ, **QUIET}
    )
