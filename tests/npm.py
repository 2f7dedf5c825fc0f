"""Packages from the npm registry, for tests that run Node.js; without Node.js and npm these are skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from bench.checkout import ROOT
from bench.node import packages

if TYPE_CHECKING:
    from pathlib import Path


def installed(package: str, name: str) -> Path:
    """Return the directory, `.tools/NAME`, of a package at the version asked for; no script of a package runs."""
    with _alone():
        return packages.installed(package, name)


def built() -> Path:
    """Return the directory of the built package of `js/`."""
    with _alone():
        return packages.built()


def _alone() -> FileLock:
    """Return a lock that one worker of the tests holds at a time; skips the test where nothing can be installed."""
    if reason := packages.missing():
        pytest.skip(reason)
    (ROOT / ".tools").mkdir(exist_ok=True)
    return FileLock(ROOT / ".tools" / "npm.lock")
