"""A provider that was asked for is the one that runs, or an error says why not."""

from __future__ import annotations

import pytest

from bertport.runtime import loading, machine
from bertport.runtime.bundle import Bundle
from bertport.runtime.errors import ProviderError
from bertport.runtime.graph import open_graph
from bertport.runtime.providers import PROVIDERS, candidates, check_placement
from bertport.runtime.variants import choices

CPU, CUDA, TENSORRT = (PROVIDERS[name] for name in ("cpu", "cuda", "tensorrt"))


def test_auto_tries_what_is_built_in_and_ends_with_the_cpu():
    assert candidates("auto")[-1] is CPU
    assert candidates("cpu") == (CPU,)


def test_a_silent_fall_back_is_refused(tiny_bundle):
    """ONNX Runtime's CPU wheel, asked for CUDA, warns and runs on the CPU: the finished session gives it away."""
    graph = Bundle.open(tiny_bundle).file("onnx/model.onnx")
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(ProviderError, match=r"'cuda' did not start \(in use: CPUExecutionProvider\)"),
    ):
        open_graph(graph, CUDA)


def test_auto_goes_on_to_what_works(tiny_bundle, monkeypatch):
    monkeypatch.setattr(loading, "candidates", lambda _: (CUDA, CPU))
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        assert loading.load(tiny_bundle).describe()["provider"] == "cpu"


def test_computing_left_to_the_cpu_is_refused_and_shapes_are_not():
    active = [CUDA.ort, CPU.ort]
    check_placement(CUDA, active, {CUDA.ort: {"MatMul": 9}, CPU.ort: {"Shape": 2, "Gather": 3, "Concat": 1}})
    check_placement(CUDA, active, {})  # an ONNX Runtime too old to tell
    with pytest.raises(ProviderError, match=r"'cuda' left computing to the CPU \(1 LayerNormalization, 2 MatMul\)"):
        check_placement(
            CUDA, active, {CUDA.ort: {"Add": 1}, CPU.ort: {"MatMul": 2, "LayerNormalization": 1, "Shape": 4}}
        )
    with pytest.raises(ProviderError, match="'tensorrt' did not start"):
        check_placement(TENSORRT, active, {CUDA.ort: {"MatMul": 9}})
    check_placement(CPU, [CPU.ort], {CPU.ort: {"MatMul": 2}})


def variants_of(edited, **providers):
    """The manifest of the tiny bundle with variants made for the given providers; the first is the default."""

    def change(manifest):
        serving = manifest["variants"]["fp32"]
        portable = manifest["variants"]["portable"]
        manifest["variants"] = {
            name: (portable if name == "portable" else serving) | {"providers": list(names)}
            for name, names in providers.items()
        }
        manifest["default_variant"] = next(iter(providers))

    return Bundle.open(edited(change)).manifest


def test_the_variant_suits_the_provider(edited):
    manifest = variants_of(edited, int8=["cpu"], portable=["cpu", "cuda", "tensorrt"], fp16=["cuda"])
    assert choices(manifest, None, "cpu", (CPU,)) == [("int8", CPU)]
    assert choices(manifest, None, "auto", (CUDA, CPU)) == [("fp16", CUDA), ("int8", CPU)]
    assert choices(manifest, None, "tensorrt", (TENSORRT,)) == [("portable", TENSORRT)]
    assert choices(manifest, "int8", "auto", (CUDA, CPU)) == [("int8", CPU)]
    assert choices(manifest, "portable", "auto", (CUDA, CPU)) == [("portable", CUDA), ("portable", CPU)]


def test_a_variant_made_for_another_provider_is_refused_with_one_that_suits(edited):
    manifest = variants_of(edited, int8=["cpu"], portable=["cpu", "cuda"], fp16=["cuda"])
    with pytest.raises(ProviderError, match=r"'int8' is made for cpu, not for cuda: .*\(here: portable, fp16\)"):
        choices(manifest, "int8", "cuda", (CUDA,))
    with pytest.raises(ProviderError, match=r"no variant for tensorrt \(made for: cpu, cuda\)"):
        choices(manifest, None, "tensorrt", (TENSORRT,))
    with pytest.raises(ProviderError, match="'fp16' is made for cuda, not for cpu"):
        choices(manifest, "fp16", "auto", (CPU,))


@pytest.mark.parametrize(
    ("here", "made_for", "chosen"),
    [
        ("avx2", "avx2", "int8"),
        ("avx2", "avx512_vnni", "fp32"),
        ("avx512", "avx_vnni", "fp32"),
        ("avx512_vnni", "avx512_vnni", "int8"),
        ("avx512_vnni", "avx2", "int8"),
        ("arm64", "avx512_vnni", "int8"),
        ("generic", "avx512_vnni", "fp32"),
        ("avx2", "a set of the future", "fp32"),
        ("generic", None, "int8"),
    ],
)
def test_a_variant_whose_products_overflow_here_is_not_taken(edited, monkeypatch, here, made_for, chosen):
    def change(manifest):
        manifest["variants"]["int8"] = manifest["variants"]["fp32"] | {"providers": ["cpu"], "isa": made_for}
        manifest["default_variant"] = "int8"

    flags = machine.INSTRUCTION_SETS[here].needs if here != "generic" else frozenset()
    monkeypatch.setattr(machine, "cpu", lambda: machine.Cpu(model="", flags=flags, physical_cores=2))
    manifest = Bundle.open(edited(change)).manifest
    assert choices(manifest, None, "cpu", (CPU,)) == [(chosen, CPU)]
    if chosen == "int8":
        assert choices(manifest, "int8", "cpu", (CPU,)) == [("int8", CPU)]
    else:
        with pytest.raises(ProviderError, match=rf"is made for {made_for}; on this CPU \({here}\) .* variant 'fp32'"):
            choices(manifest, "int8", "cpu", (CPU,))
