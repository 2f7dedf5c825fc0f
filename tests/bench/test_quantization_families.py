"""What the page says of INT8 for other families follows from the data, and they gain what BERT does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.quantization import families
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


def test_the_page_loses_no_family_where_others_are_measured(tmp_path, monkeypatch, capsys):
    data, page = tmp_path / "data.json", tmp_path / "page.md"
    monkeypatch.setattr(families, "DATA", data)
    monkeypatch.setattr(families, "PAGE", page)
    monkeypatch.setattr(families, "make", lambda _, place, *, tiny: (place, tiny))
    monkeypatch.setattr(families, "measure", lambda made: dict.fromkeys(made, MODELS["bert"]))
    families.main(["--family", "mpnet"])
    assert "mpnet (" in capsys.readouterr().out
    assert not data.exists()
    assert not page.exists()
    families.main([])
    assert json.loads(data.read_text(encoding="utf-8"))["models"].keys() == set(MEASURED)
    assert page.exists()
