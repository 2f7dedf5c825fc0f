"""What the page on quantization says of time follows from the data that the program wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "docs" / "data" / "quantize-time.json"


def test_the_page_is_what_the_data_say():
    command = [sys.executable, "-m", "bench.quantization.duration", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(DATA.read_text(encoding="utf-8"))["commit"]) == 40


def test_a_bert_base_is_within_its_bar():
    data = json.loads(DATA.read_text(encoding="utf-8"))
    assert data["models"]["BERT-base"]["seconds"] <= data["bar_seconds"]
