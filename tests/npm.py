"""Packages from the npm registry, for tests that run Node.js; without Node.js and npm these are skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.node import packages

if TYPE_CHECKING:
    from pathlib import Path


def installed(package: str, name: str) -> Path:
    """Return the directory, `.tools/NAME`, of a package at the version asked for; no script of a package runs."""
    _needed()
    return packages.installed(package, name)


def built() -> Path:
    """Return the directory of the built package of `js/`."""
    _needed()
    return packages.built()


def _needed() -> None:
    if reason := packages.missing():
        pytest.skip(reason)
