"""ONNX Runtime is told that Intel made the CPU, and nothing else of it changes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bertport.runtime.providers.cpu import cpu
from bertport.runtime.providers.table import onnxruntime

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import json
from bertport.runtime.providers.cpu import cpu
from bertport.runtime.providers.table import onnxruntime
[device] = onnxruntime().get_ep_devices()
print(json.dumps([device.device.vendor_id, cpu().model, cpu().instruction_set]))
"""
INTEL = 0x8086


@pytest.mark.slow  # reading ONNX Runtime's library takes objdump 20 seconds
@pytest.mark.skipif(not hasattr(onnxruntime(), "get_ep_devices"), reason="this ONNX Runtime names no devices")
def test_the_vendor_is_intel_and_the_cpu_the_same():
    if sys.platform != "linux" or not (shutil.which("cc") and shutil.which("objdump")):
        pytest.skip("answering in the CPU's place needs Linux, a C compiler and objdump")
    command = [sys.executable, "-m", "bench.intel", sys.executable, "-c", RUN]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    assert json.loads(done.stdout) == [INTEL, cpu().model, cpu().instruction_set]
