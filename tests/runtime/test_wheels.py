"""Other wheels of ONNX Runtime, for real, each in an environment of its own that is kept in `.tools`.

`onnxruntime-gpu` installs, lists CUDA and TensorRT, and without a GPU runs everything on the CPU with a line in its
log: that is what has to be refused.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from bertport.runtime.providers import native
from bertport.runtime.providers.options import CUDA, TENSORRT, TRUTH_IN_WORDS
from bertport.runtime.providers.table import PROVIDERS
from tests.wheels import bertport, environment, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the wheels are those of Linux"),
]


@pytest.fixture(scope="module")
def gpu():
    return environment("gpu")


no_gpu = pytest.mark.skipif(bool(native.driver().devices), reason="this machine has an NVIDIA GPU")


@no_gpu
@pytest.mark.parametrize(("provider", "library"), [("cuda", "libcublasLt.so.13"), ("tensorrt", "libnvinfer.so.10")])
def test_a_gpu_that_is_not_there_is_an_error_that_names_what_is_missing(gpu, tiny_bundle, provider, library):
    listed = run(gpu, "-c", "import onnxruntime; print(*onnxruntime.get_available_providers())")
    assert "CUDAExecutionProvider" in listed.stdout  # it says that it has it
    done = bertport(gpu, "fill-mask", "a [MASK]", "-m", tiny_bundle, "--provider", provider)
    assert done.returncode == 1
    assert done.stdout == ""  # ONNX Runtime's own fall-back would print there, and answer
    assert done.stderr.startswith(f"bertport: error: provider {provider!r} does not start here: onnxruntime-gpu 1.31.1")
    assert library in done.stderr
    assert "no NVIDIA driver (libcuda.so.1 is not installed)" in done.stderr
    assert "pip install" in done.stderr
    assert done.stderr.count("\n") == 1


@no_gpu
def test_without_the_check_before_it_the_finished_session_is_refused(gpu, tiny_bundle):
    program = (
        "import dataclasses, sys\n"
        "from pathlib import Path\n"
        "from bertport.runtime.errors import ProviderError\n"
        "from bertport.runtime.session import open_graph\n"
        "from bertport.runtime.providers.table import PROVIDERS\n"
        "row = dataclasses.replace(PROVIDERS['cuda'], library=None)\n"
        "try: open_graph(Path(sys.argv[1]), row)\n"
        "except ProviderError as error: print(error)\n"
    )
    done = run(gpu, "-c", program, tiny_bundle / "onnx" / "model.onnx")
    assert done.stdout.startswith("provider 'cuda' does not start here: in use are only CPUExecutionProvider")


@no_gpu
def test_auto_is_the_cpu_and_fall_back_on_request_says_why(gpu, tiny_bundle):
    said = json.loads(bertport(gpu, "doctor", tiny_bundle, "--json").stdout)
    assert {name: provider["works"] for name, provider in said["providers"].items()} == {
        name: name == "cpu" for name in PROVIDERS
    }
    assert said["onnxruntime"]["wheel"] == "onnxruntime-gpu 1.31.1"
    assert said["nvidia"]["built_for_cuda"] == "13.0"
    assert said["bundle"]["provider"] == "cpu"
    assert "libcublasLt.so.13" in said["providers"]["cuda"]["reason"]
    done = bertport(gpu, "fill-mask", "a [MASK]", "-m", tiny_bundle, "--provider", "cuda", "--allow-fallback", "--json")
    assert done.returncode == 0
    assert len(json.loads(done.stdout)) == 5
    assert done.stderr.startswith("bertport: warning: provider 'cuda' does not start here")
    assert done.stderr.rstrip().endswith("running variant 'fp32' on the CPU instead")


def test_the_options_are_those_that_the_libraries_know(gpu):
    for library, allowed in (
        ("libonnxruntime_providers_cuda.so", CUDA),
        ("libonnxruntime_providers_tensorrt.so", TENSORRT),
    ):
        where = run(gpu, "-c", "import onnxruntime; print(onnxruntime.__file__)").stdout.strip()
        content = (Path(where).parent / "capi" / library).read_bytes()
        assert not [name for name in sorted(allowed) if name.encode() + b"\0" not in content]


def test_the_options_that_take_their_truth_in_words_are_those_that_the_binding_names(gpu):
    where = run(gpu, "-c", "import onnxruntime; print(onnxruntime.__file__)").stdout.strip()
    [binding] = (Path(where).parent / "capi").glob("onnxruntime_pybind11_state*.so")
    named = set(re.findall(rb"'(trt_\w+)' should be 'True' or 'False'", binding.read_bytes()))
    assert {name.decode() for name in named} == TRUTH_IN_WORDS
