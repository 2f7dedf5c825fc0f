"""Reference that the graphs of every recipe are compared with."""

from __future__ import annotations

import pytest

from tests.quantize.conftest import session


@pytest.fixture(scope="session")
def reference(tiny):
    """A session on the tiny bundle's fp32 graph."""
    return session(tiny.file(tiny.manifest.variants["fp32"].file))
