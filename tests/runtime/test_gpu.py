"""CUDA and TensorRT on a real GPU: `pytest -m gpu`, or bench.gpu. Never run so far (docs/research/gpu.md)."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bertport.runtime import load
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.providers import native
from bertport.runtime.providers.checks import left_over, obstacle
from bertport.runtime.providers.table import PROVIDERS

KIT = "BERTPORT_GPU_BUNDLE"
"""Set by bench.gpu, on a machine that is there for these tests: without a GPU they fail, and are not left out."""

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not native.driver().devices and KIT not in os.environ, reason=f"needs a GPU: {native.driver().problem}"
    ),
]

TEXTS = ["Paris is the [MASK] of France.", "[MASK] and [MASK]", "He poured her a cup of [MASK]."] * 40
ATOL = {"fp32": 1e-3, "fp16": 2e-2}
"""On probabilities and on hidden states of order 1: float16 has 11 bits, and errors of some layers add up."""


@pytest.fixture(scope="module")
def bundle():
    """The default bundle with the variants for a GPU, as bench.gpu prepares it."""
    return Path(os.environ.get(KIT, default_bundle()))


@pytest.fixture(scope="module", params=["cuda", "tensorrt"])
def provider(request):
    if obstacle(PROVIDERS[request.param]):
        pytest.skip(f"{request.param}: {obstacle(PROVIDERS[request.param])}")
    return request.param


def variants(bundle):
    return [name for name in ("fp32", "fp16") if name in Bundle.open(bundle).manifest.variants]


def test_answers_are_those_of_the_cpu_and_everything_runs_on_the_gpu(bundle, provider, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    reference = load(bundle, variant="fp32", provider="cpu")
    for variant in variants(bundle):
        model = load(bundle, variant=variant, provider=provider)
        assert model.describe()["provider"] == provider
        assert left_over(PROVIDERS[provider], model.graph.placement) is None
        for ours, theirs in zip(
            model.predict("fill-mask", TEXTS, top_k=3), reference.predict("fill-mask", TEXTS, top_k=3), strict=True
        ):
            scores = {answer["token"]: answer["score"] for answer in np.ravel(ours)}
            for answer in np.ravel(theirs)[:1]:
                assert scores[answer["token"]] == pytest.approx(answer["score"], abs=ATOL[variant])
        pair = ("He went to the store.", "He bought milk.")
        assert model.next_sentence(*pair)["probabilities"] == pytest.approx(
            reference.next_sentence(*pair)["probabilities"], abs=ATOL[variant]
        )
        np.testing.assert_allclose(model.features("some text"), reference.features("some text"), atol=5 * ATOL[variant])


def test_cuda_takes_fp16_by_itself(bundle):
    wanted = "fp16" if "fp16" in variants(bundle) else "fp32"
    assert load(bundle, provider="cuda").variant == wanted
    assert load(bundle).describe()["provider"] == "cuda"  # auto


def test_targets_and_several_threads(bundle, provider):
    model = load(bundle, provider=provider)
    alone = model.fill_mask(TEXTS[0], targets=["capital", "king"])
    assert {answer["token_str"] for answer in alone} == {"capital", "king"}
    wanted = [str([answer["token"] for answer in np.ravel(answers)]) for answers in model.predict("fill-mask", TEXTS)]
    with ThreadPoolExecutor(4) as pool:
        for answered in pool.map(lambda _: list(model.predict("fill-mask", TEXTS)), range(8)):
            assert [str([answer["token"] for answer in np.ravel(answers)]) for answers in answered] == wanted


def test_an_engine_is_built_once(bundle, tmp_path, monkeypatch, caplog):
    if obstacle(PROVIDERS["tensorrt"]):
        pytest.skip("no TensorRT")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    began = time.monotonic()
    load(bundle, variant="fp32", provider="tensorrt")
    cold = time.monotonic() - began
    assert any("building a TensorRT engine" in record.getMessage() for record in caplog.records)
    engines = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.engine")}
    assert engines
    caplog.clear()
    began = time.monotonic()
    model = load(bundle, variant="fp32", provider="tensorrt")
    assert time.monotonic() - began < cold / 2
    list(model.predict("features", ["a", "b " * 300, *["c d e"] * 600]))  # no shape makes it build again
    assert not caplog.records
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.engine")} == engines


def test_a_memory_limit_is_kept(bundle):
    """A limit below what the weights take is none: ONNX Runtime's arena keeps them beside what it limits."""
    # In fp32 the weights take 46 MB, and one product of this batch 98 MB: in fp16 all of it might fit.
    model = load(bundle, variant="fp32", provider="cuda", provider_options={"gpu_mem_limit": 128 << 20})
    list(model.predict("features", ["a"]))
    with pytest.raises(MemoryError, match="ONNX Runtime does not get the memory for a batch"):
        list(model.predict("features", ["a " * 500] * 32))
