"""The package for JavaScript, built once from the checkout's sources with the packages of its lock file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import npm

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def package() -> Path:
    """The directory of the built package."""
    return npm.built()
