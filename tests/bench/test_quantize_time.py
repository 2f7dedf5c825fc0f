"""What the page on quantization says of time follows from the data that the program wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "docs" / "data" / "quantize-time.json"


@pytest.mark.skipif(not DATA.exists(), reason="bench/quantize_time.py was not run yet")
def test_the_page_is_what_the_data_say_and_a_bert_base_is_within_its_bar():
    command = [sys.executable, "bench/quantize_time.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    data = json.loads(DATA.read_text(encoding="utf-8"))
    assert len(data["commit"]) == 40
    assert data["models"]["BERT-base"]["seconds"] <= data["bar_seconds"]
