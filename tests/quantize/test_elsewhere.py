"""A variant that was measured on another instruction set says so when it is loaded: once, on standard error."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from bertport.runtime.machine import cpu

TWICE = """
import sys
from bertport.runtime import load
for _ in range(2):
    load(sys.argv[1], variant="int8-dynamic", provider="cpu")
print("loaded")
"""


@pytest.mark.parametrize("measured", ["another", None])
def test_it_says_so_once(quantized, tmp_path, measured):
    path = shutil.copytree(quantized[0].path, tmp_path / "bundle")
    if measured:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        manifest["variants"]["int8-dynamic"]["fidelity"]["machine"]["instruction_set"] = measured
        (path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", TWICE, str(path)], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "loaded\n"
    if measured:
        sentence = f"variant 'int8-dynamic' was measured on another and this machine has {cpu().instruction_set}"
        assert answer.stderr.count(sentence) == 1
        assert f"bertport quantize --remeasure {path}" in answer.stderr
    else:
        assert not answer.stderr
