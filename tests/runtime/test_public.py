"""The interface is `load`, `pipeline` and what they return, and importing it loads nothing heavy."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import bertport.runtime


def test_the_interface_is_load_and_pipeline():
    public = ["Model", "Pipeline", "load", "pipeline"]
    assert sorted(bertport.runtime.__all__) == public
    assert sorted(name for name in dir(bertport.runtime) if not name.startswith("_")) == public
    assert bertport.runtime.load is importlib.import_module("bertport.runtime.loading").load
    module = importlib.import_module("bertport.runtime.pipelines.pipeline")
    assert (bertport.runtime.pipeline, bertport.runtime.Pipeline) == (module.pipeline, module.Pipeline)
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        bertport.runtime.laod  # noqa: B018 — the attribute access is the test


def test_answering_loads_no_framework(tiny_bundle):
    program = (
        "import sys\n"
        "from bertport.runtime import load, pipeline\n"
        f"print(len(pipeline('fill-mask', load({str(tiny_bundle)!r}))('a [MASK]')))\n"
        "print('loaded:', *sorted({'torch', 'transformers', 'optimum', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["5", "loaded:"]


def test_importing_it_loads_no_numpy():
    program = (
        "import sys, bertport.runtime\n"
        "print('loaded:', *sorted({'numpy', 'tokenizers', 'onnxruntime', 'bertport.runtime.model'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["loaded:"]


def test_help_loads_no_numpy_either():
    program = (
        "import sys\nfrom bertport.runtime.cli import main\n"
        "for name in ('fill-mask', 'classify', 'predict'):\n"
        "  try: main([name, '--help'])\n"
        "  except SystemExit: pass\n"
        "print('loaded:', *sorted({'numpy', 'tokenizers', 'onnxruntime', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded:"
