"""The tiny bundle's tokenizer as JSON."""

from __future__ import annotations

import json

import pytest

from bertport.runtime.text.tokenizer import TOKENIZER


@pytest.fixture(scope="session")
def description(tiny_bundle):
    """The content of the tiny tokenizer; not to be changed."""
    return json.loads((tiny_bundle / TOKENIZER).read_text(encoding="utf-8"))
