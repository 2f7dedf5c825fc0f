"""What the page says of INT8 for other families follows from the data, and they gain what BERT does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.quantization.families import ALLOWED, MEASURED

ROOT = Path(__file__).resolve().parents[2]
MODELS = json.loads((ROOT / "docs" / "data" / "quantization-families.json").read_text(encoding="utf-8"))["models"]


def test_the_page_is_what_the_data_say():
    command = [sys.executable, "-m", "bench.quantization.families", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert set(MEASURED) <= MODELS.keys()


@pytest.mark.parametrize("family", MEASURED)
def test_a_family_gains_what_bert_does(family):
    ratios = {
        shape: speed["speedup"] / MODELS["bert"]["speed"][shape]["speedup"]
        for shape, speed in MODELS[family]["speed"].items()
    }
    assert min(ratios.values()) >= ALLOWED
