"""A provider that was asked for is the one that runs, or an error says why not."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import struct
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from bertport.runtime import load, loading, session
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.select import choices
from bertport.runtime.errors import ProviderError, UnknownNameError, UsageError
from bertport.runtime.installation import install_command
from bertport.runtime.providers import checks, cpu, native
from bertport.runtime.providers.assignment import settled_options
from bertport.runtime.providers.checks import check_active, left_over, obstacle
from bertport.runtime.providers.options import TRUTH_IN_WORDS, checked, parse, settle
from bertport.runtime.providers.table import PROVIDERS, candidates, unknown_row
from bertport.runtime.session import open_graph

CPU, CUDA, TENSORRT = (PROVIDERS[name] for name in ("cpu", "cuda", "tensorrt"))


def test_auto_tries_what_is_built_in_and_ends_with_the_cpu():
    assert candidates("auto")[-1] is CPU
    assert candidates("cpu") == (CPU,)


def test_a_silent_fall_back_is_refused(tiny_bundle):
    """ONNX Runtime's CPU wheel, asked for CUDA, warns and runs on the CPU: the finished session gives it away."""
    path = Bundle.open(tiny_bundle).file("onnx/model.onnx")
    assert obstacle(CUDA) is not None or native.driver().devices
    provider = dataclasses.replace(CUDA, library=None)  # so that it is not refused before
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(ProviderError, match=r"'cuda' does not start here: in use are only CPUExecutionProvider"),
    ):
        open_graph(path, provider)


def test_auto_goes_on_to_what_works(tiny_bundle, monkeypatch):
    monkeypatch.setattr(loading, "candidates", lambda _: (CUDA, CPU))
    monkeypatch.setattr(session, "obstacle", lambda provider, _: "it is a test" if provider is CUDA else None)
    assert load(tiny_bundle).describe()["provider"] == "cpu"


def test_computing_left_to_others_is_told_and_shapes_are_not():
    assert left_over(CUDA, {CUDA.ort: {"MatMul": 9}, CPU.ort: {"Shape": 2, "Gather": 3, "Concat": 1}}) is None
    assert left_over(CUDA, {}) is None  # nothing is known
    assert left_over(CPU, {CPU.ort: {"MatMul": 2}}) is None
    said = left_over(CUDA, {CUDA.ort: {"Add": 1}, CPU.ort: {"MatMul": 2, "LayerNormalization": 1, "Shape": 4}})
    assert said.startswith("provider 'cuda' left computing to the CPU (1 LayerNormalization, 2 MatMul): choose")
    # CUDA takes what TensorRT leaves, such as TopK, but not its work.
    assert left_over(TENSORRT, {TENSORRT.ort: {"MatMul": 9}, CUDA.ort: {"TopK": 1}, CPU.ort: {"Shape": 1}}) is None
    said = left_over(TENSORRT, {CUDA.ort: {"MatMul": 9}, CPU.ort: {"Softmax": 1}})
    assert "left computing to cuda (9 MatMul) and the CPU (1 Softmax)" in said
    with pytest.raises(ProviderError, match="'tensorrt' does not start here: in use are only CUDAExecutionProvider"):
        check_active(TENSORRT, [CUDA.ort, CPU.ort])


def test_libraries_are_named_that_a_library_needs_and_those_that_are_missing(tmp_path):
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux has ELF files")
    library = next(Path(onnxruntime.__file__).parent.glob("capi/onnxruntime_pybind11_state*.so"))
    names = native.needed(library)
    assert any(name.startswith("libc.so") for name in names)
    assert native.missing(library) == ()
    # The same file, linked to a library that is nowhere: its name is a string of the file.
    content = library.read_bytes()
    lost = next(name for name in names if name.startswith("libpthread"))
    broken = tmp_path / "broken.so"
    broken.write_bytes(content.replace(lost.encode() + b"\0", lost.replace("libpth", "lixpth").encode() + b"\0"))
    assert native.missing(broken) == (lost.replace("libpth", "lixpth"),)
    (tmp_path / lost.replace("libpth", "lixpth")).write_bytes(b"")  # beside it, where its own path leads
    assert native.missing(broken) == ()
    (tmp_path / "text").write_text("no library" * 10)
    assert native.needed(tmp_path / "text") == ()
    # One program header, of a dynamic section whose table of strings is in no segment.
    start = native.ELF_64_LITTLE + struct.pack("<26xQ14xHH6x", 64, 56, 1)
    section = struct.pack("<IIQQQQQQ", native.DYNAMIC, 0, 120, 0, 0, 32, 0, 0)
    (tmp_path / "symbols").write_bytes(start + section + struct.pack("<qQqQ", native.STRING_TABLE, 4096, 0, 0))
    assert native.needed(tmp_path / "symbols") == ()


@pytest.mark.skipif(bool(native.driver().devices), reason="this machine has an NVIDIA GPU")
@pytest.mark.parametrize(
    ("gone", "problem", "said"),
    [
        ((), "no CUDA device was found", r"^no CUDA device was found: choose another provider$"),
        (
            ("libcublasLt.so.13", "libcublas.so.13", "libcuda.so.1"),
            "no NVIDIA driver (libcuda.so.1 is not installed)",
            (
                r"needs libcublasLt.so.13, libcublas.so.13, which are not found and no NVIDIA driver .*: "
                rf"{re.escape(install_command('gpu'))}.*driver"
            ),
        ),
        (
            ("libnvinfer.so.10",),
            None,
            r"libnvinfer.so.10, which is not found: install tensorrt-cu13 of .* tensorrt_libs to LD_LIBRARY_PATH, or",
        ),
        (
            ("libcudart.so.13",),
            None,
            rf"libcudart.so.13, which is not found: {re.escape(install_command('gpu'))}, or choose another provider$",
        ),
        (
            ("libcudnn.so.9",),
            None,
            rf"needs libcudnn.so.9, which is not found: {re.escape(install_command('gpu'))}, or",
        ),
    ],
)
def test_the_reason_is_named_with_what_to_install(monkeypatch, gone, problem, said):
    monkeypatch.setattr(checks, "_missing", lambda _: gone)
    monkeypatch.setattr(native, "driver", lambda: native.Driver(problem=problem))
    assert re.search(said, obstacle(TENSORRT))


def test_nothing_keeps_what_is_complete(monkeypatch):
    monkeypatch.setattr(checks, "_missing", lambda _: ())
    device = native.Device(name="a GPU", capability="9.0")
    monkeypatch.setattr(native, "driver", lambda: native.Driver(problem=None, devices=(device,)))
    assert obstacle(CUDA) is None
    assert obstacle(CPU) is None


def test_cuda_s_libraries_are_found_in_another_directory_of_packages(monkeypatch, tmp_path):
    """An environment above one with PyTorch: pip leaves them there, and ONNX Runtime looks beside itself alone."""
    folder = tmp_path / "nvidia" / "cu13" / "lib"
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    asked = []
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda directory=None: asked.append(directory))
    monkeypatch.setattr(checks, "_missing", lambda _: () if str(folder) in asked else ("libcublas.so.13",))
    device = native.Device(name="a GPU", capability="9.0")
    monkeypatch.setattr(native, "driver", lambda: native.Driver(problem=None, devices=(device,)))
    assert obstacle(CUDA) is None
    assert asked[0] is None  # beside itself first


def test_fall_back_is_a_warning_with_the_reason_when_it_is_allowed(tiny_bundle):
    with pytest.warns(UserWarning, match=r"'cuda' is not available here .* running variant 'fp32' on the CPU instead"):
        model = load(tiny_bundle, provider="cuda", allow_fallback=True)
    said = model.describe()
    assert said["provider"] == "cpu"
    assert said["fallback"].startswith("provider 'cuda' is not available here")
    assert len(model.fill_mask("a [MASK]")) == 5
    with pytest.raises(UnknownNameError, match="unknown provider 'coda'"):
        load(tiny_bundle, provider="coda", allow_fallback=True)


def test_fall_back_takes_a_variant_that_is_for_the_cpu(edited):
    def change(manifest):
        fp32 = manifest["variants"]["fp32"]
        manifest["variants"]["fp16"] = fp32 | {"requires": fp32["requires"] | {"precision": "fp16"}}

    with pytest.warns(UserWarning, match="running variant 'fp32' on the CPU instead"):
        assert load(edited(change), provider="cuda", variant="fp16", allow_fallback=True).variant == "fp32"
    with pytest.raises(UnknownNameError, match="unknown variant 'fp61'"):
        load(edited(change), provider="cuda", variant="fp61", allow_fallback=True)


def test_computing_left_over_is_a_warning_when_fall_back_is_allowed(tiny_bundle, monkeypatch):
    """Shapes count as computing here: the CPU has no part that it could leave to others."""
    monkeypatch.setattr(session, "left_over", lambda *_: "provider 'cpu' left computing to the CPU (1 Shape)")
    with pytest.raises(ProviderError, match="left computing"):
        load(tiny_bundle, provider="cpu")
    with pytest.warns(UserWarning, match="left computing"):
        assert load(tiny_bundle, provider="cpu", allow_fallback=True).fallback is None


def test_options_are_those_of_the_provider_and_become_text():
    given = {"gpu_mem_limit": 1024, "use_tf32": True, "arena_extend_strategy": "kNextPowerOfTwo"}
    wanted = {"gpu_mem_limit": "1024", "use_tf32": "1", "arena_extend_strategy": "kNextPowerOfTwo"}
    assert checked("cuda", given, CUDA.allowed) == wanted
    with pytest.raises(
        UnknownNameError, match=r"unknown option of the provider 'cuda' 'gpu_memory' \(available: arena"
    ):
        checked("cuda", {"gpu_memory": 1}, CUDA.allowed)
    for name, row in PROVIDERS.items():  # what sets threads is said where nothing else is to be set
        said = "threads are set by threads=" if name == "cpu" else "see https://"
        with pytest.raises(UnknownNameError, match=f"unknown option of the provider '{name}' 'no_such' .*: {said}"):
            checked(name, {"no_such": 1}, row.allowed)
    with pytest.raises(UsageError, match="is text, a number, True or False, not"):
        checked("cuda", {"gpu_mem_limit": None}, CUDA.allowed)
    assert set(itertools.chain(*(provider.options for provider in PROVIDERS.values()))) <= set(
        itertools.chain(*(provider.allowed for provider in PROVIDERS.values()))
    )


def test_a_precision_is_written_out_over_the_row_and_below_nobody():
    hint = {"load_config": '{"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}'}
    threads = {"load_config": '{"CPU": {"INFERENCE_NUM_THREADS": 2}}'}
    asked = {"load_config": '{"CPU": {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}}'}
    settled = settle("openvino", "fp32", row=threads, given=asked, computes=hint)
    assert json.loads(settled["load_config"]) == {
        "CPU": {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    }
    assert settle("openvino", "fp32", row={}, given={"load_config": hint["load_config"].upper()}, computes=hint)
    other = {"load_config": '{"CPU": {"INFERENCE_PRECISION_HINT": "bf16"}}'}
    said = r"load_config.CPU.INFERENCE_PRECISION_HINT=bf16 keeps 'openvino' from computing in fp32, which"
    with pytest.raises(UsageError, match=said):
        settle("openvino", "fp32", row={}, given=other, computes=hint)
    with pytest.raises(UsageError, match=r"use_tf32=1 keeps 'cuda' from computing in fp32"):
        settle("cuda", "fp32", row=CUDA.options, given={"use_tf32": "1"}, computes=CUDA.computes["fp32"])
    assert settle("cuda", "fp16", row={}, given={"use_tf32": "1"}, computes={}) == {"use_tf32": "1"}
    for precision, said in (("fp32", "False"), ("fp16", "True")):  # as ONNX Runtime's documentation writes them
        given = {"trt_fp16_enable": said}
        assert settle("tensorrt", precision, row={}, given=given, computes=TENSORRT.computes[precision])
    with pytest.raises(UsageError, match=r"trt_fp16_enable=true keeps 'tensorrt' from computing in fp32"):
        settle("tensorrt", "fp32", row={}, given={"trt_fp16_enable": "true"}, computes=TENSORRT.computes["fp32"])


def test_tensorrt_is_told_of_truth_in_words():
    """ONNX Runtime's Python refuses 1 and 0 for it, and takes them for the others."""
    given = {"trt_cuda_graph_enable": True, "trt_dla_core": 1, "trt_sparsity_enable": "0", "trt_dla_enable": "false"}
    settled = settled_options(TENSORRT, precision="fp16", given=given)
    assert settled == {
        "trt_engine_cache_enable": "True",
        "trt_timing_cache_enable": "True",
        "trt_layer_norm_fp32_fallback": "True",
        "trt_fp16_enable": "True",
        "trt_cuda_graph_enable": "True",
        "trt_op_types_to_exclude": TENSORRT.options["trt_op_types_to_exclude"],
        "trt_dla_core": "1",
        "trt_sparsity_enable": "False",
        "trt_dla_enable": "false",
    }
    assert settled_options(CUDA, given={"enable_cuda_graph": True})["enable_cuda_graph"] == "1"
    assert TENSORRT.allowed >= TRUTH_IN_WORDS


@pytest.mark.parametrize(
    "text", ["", "f32", "[1]", '{"CPU": ', '{"CPU": 1}', "[" * 100_000, '{"CPU":' * 9 + "{}" + "}" * 9]
)
def test_an_option_in_json_is_an_object_of_objects(text):
    with pytest.raises(UsageError, match="the provider option 'load_config' is a JSON object of objects, one for each"):
        checked("openvino", {"load_config": text}, PROVIDERS["openvino"].allowed)


def test_every_row_computes_in_what_it_says_by_options_that_it_has():
    for provider in PROVIDERS.values():
        assert provider.computes.keys() <= provider.precisions
        for options in provider.computes.values():
            assert options.keys() <= provider.allowed


@pytest.mark.parametrize(
    ("provider", "options", "error", "said"),
    [
        ("cpu", {"use_arena": "1"}, UnknownNameError, r"option of the provider 'cpu' 'use_arena' \(available: none\)"),
        ("cuda", {"user_compute_stream": "1"}, UnknownNameError, "'user_compute_stream'"),  # a pointer
        ("auto", {"device_id": "0"}, UsageError, "provider options need one provider, not 'auto': name"),
    ],
)
def test_options_that_cannot_be_are_refused_even_where_fall_back_is_allowed(
    tiny_bundle, provider, options, error, said
):
    with pytest.raises(error, match=said):
        load(tiny_bundle, provider=provider, provider_options=options, allow_fallback=True)


def test_options_are_read_from_the_command_line():
    assert parse(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}
    with pytest.raises(UsageError, match="written KEY=VALUE, not 'a'"):
        parse(["a"])
    with pytest.raises(UsageError, match=r"'a' is given twice \('1' and '2'\)"):
        parse(["a=1", "a=2"])


def test_outputs_bound_to_a_device_are_those_of_a_plain_run(tiny_bundle):
    """Bound to the CPU, which is a device like others to ONNX Runtime."""
    bundle = Bundle.open(tiny_bundle)
    opened = open_graph(bundle.file(bundle.manifest.variants["fp32"].file), CPU)
    ids = np.arange(10, dtype=np.int64).reshape(2, 5)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    names = ["last_hidden_state", "logits", "seq_relationship_logits"]
    for positions in ([1, 7], []):
        feeds["masked_positions"] = np.array(positions, dtype=np.int64)
        plain = opened.run(feeds, names)
        bound = opened._bound({name: feeds[name] for name in opened.inputs}, names, "cpu")
        for name, value in zip(names, bound, strict=True):
            np.testing.assert_array_equal(value, plain[name])


PRECISIONS = {
    "int8": ("int8-dynamic", "int8-dynamic"),
    "int8-static": ("int8-static", "int8-static-symmetric"),
    "fp16": ("fp16", "fp16"),
    "fused": ("fp16", "fp16"),
    "int8-static-cpu": ("int8-static-cpu", "int8-static"),
    "bf16": ("bf16", "bf16"),
}
"""Recipe and precision of the variants below; the others are fp32."""


def variants_of(edited, *names):
    """The manifest of the tiny bundle with variants of the given names; the first is the default."""

    def change(manifest):
        portable, serving = manifest["variants"]["portable"], manifest["variants"]["fp32"]
        manifest["variants"] = {}
        for name in names:
            recipe, precision = PRECISIONS.get(name, ("fp32", "fp32"))
            requires = serving["requires"] | {"precision": precision}
            if name in {"int8", "fused"}:
                requires["operator_domains"] = requires["operator_domains"] | {"com.microsoft": 1}
            manifest["variants"][name] = (portable if name == "portable" else serving) | {
                "recipe": recipe,
                "requires": requires,
            }
        manifest["default_variant"] = names[0]

    return Bundle.open(edited(change)).manifest


def test_the_variant_suits_the_provider(edited):
    manifest = variants_of(edited, "int8", "fp32", "portable", "fp16")
    assert choices(manifest, None, "cpu", (CPU,)) == [("int8", CPU)]
    assert choices(manifest, None, "auto", (CUDA, CPU)) == [("fp16", CUDA), ("int8", CPU)]
    assert choices(manifest, "int8", "auto", (CUDA, CPU)) == [("int8", CPU)]
    assert choices(manifest, "portable", "auto", (CUDA, CPU)) == [("portable", CUDA), ("portable", CPU)]


def test_a_recipe_that_the_provider_names_goes_before_the_default(edited):
    manifest = variants_of(edited, "fp32", "fp16")
    assert choices(manifest, None, "cuda", (CUDA,)) == [("fp16", CUDA)]
    assert choices(manifest, None, "tensorrt", (TENSORRT,)) == [("fp16", TENSORRT)]
    assert choices(manifest, None, "cpu", (CPU,)) == [("fp32", CPU)]


@pytest.mark.parametrize(
    ("provider", "left_out", "chosen"),
    [
        ("cuda", (), "fp16"),
        ("cuda", ("fp16",), "fp32"),
        ("tensorrt", (), "fp16"),
        ("tensorrt", ("fp16",), "int8-static"),
        ("tensorrt", ("fp16", "int8-static"), "fp32"),
        ("cpu", (), "int8"),
    ],
)
def test_each_provider_names_the_recipes_that_it_prefers(edited, provider, left_out, chosen):
    """Whatever the order of the variants: 8 bits before 16 before 32."""
    made = ("int8", "int8-static", "fp16", "fp32")
    manifest = variants_of(edited, *(name for name in made if name not in left_out))
    candidate = PROVIDERS[provider]
    assert choices(manifest, None, provider, (candidate,)) == [(chosen, candidate)]


@pytest.mark.parametrize(
    ("flags", "left_out", "chosen"),
    [
        ({"avx512_bf16"}, (), "bf16"),
        ({"amx_bf16"}, (), "bf16"),
        (set(), (), "int8-static-cpu"),
        ({"avx512_bf16"}, ("bf16",), "int8-static-cpu"),
        (set(), ("int8-static-cpu",), "fp32"),
    ],
)
def test_openvino_takes_what_the_cpu_multiplies(edited, monkeypatch, flags, left_out, chosen):
    flags = cpu.INSTRUCTION_SETS["avx512_vnni"].needs | flags
    monkeypatch.setattr(cpu, "cpu", lambda: cpu.Cpu(model="", flags=flags, physical_cores=2))
    made = ("int8", "fp32", "int8-static", "int8-static-cpu", "bf16", "fp16")
    manifest = variants_of(edited, *(name for name in made if name not in left_out))
    row = PROVIDERS["openvino"]
    assert choices(manifest, None, "openvino", (row,)) == [(chosen, row)]
    unknown = unknown_row("MyExecutionProvider", Path("libmy.so"), on_cpu=True)
    assert choices(manifest, None, unknown.name, (unknown,)) == [("fp32", unknown)]


def test_a_variant_made_for_another_provider_is_refused_with_one_that_suits(edited):
    manifest = variants_of(edited, "int8", "portable", "fp16")
    with pytest.raises(ProviderError, match=r"'int8' is made for cpu, not for cuda: .*\(here: portable, fp16\)"):
        choices(manifest, "int8", "cuda", (CUDA,))
    with pytest.raises(ProviderError, match="'fp16' is made for tensorrt, cuda, tensorrt-rtx, not for cpu"):
        choices(manifest, "fp16", "auto", (CPU,))
    with pytest.raises(ProviderError, match=r"no variant for tensorrt \(made for: cpu\)"):
        choices(variants_of(edited, "int8"), None, "tensorrt", (TENSORRT,))


def test_tensorrt_refuses_fused_operators(edited):
    manifest = variants_of(edited, "fused", "fp32")
    assert choices(manifest, None, "tensorrt", (TENSORRT,)) == [("fp32", TENSORRT)]
    said = r"'fused' has operators that tensorrt does not know \(of com.microsoft\): choose variant 'fp32'"
    with pytest.raises(ProviderError, match=said):
        choices(manifest, "fused", "tensorrt", (TENSORRT,))


def test_a_bundle_without_fp32_says_why_nothing_of_it_runs_here(edited, monkeypatch):
    """One that was packed without it, for CPUs of another kind or for another provider."""

    def change(manifest):
        fp32 = manifest["variants"]["fp32"]
        requires = fp32["requires"] | {"precision": "int8-dynamic", "isa": "avx512_vnni"}
        manifest["variants"] = {"int8": fp32 | {"requires": requires}}
        manifest["default_variant"] = "int8"

    flags = cpu.INSTRUCTION_SETS["avx2"].needs
    monkeypatch.setattr(cpu, "cpu", lambda: cpu.Cpu(model="a test's CPU", flags=flags, physical_cores=2))
    manifest, advice = Bundle.open(edited(change)).manifest, ": take the bundle that it was packed from, or export the"
    said = rf"has no variant for this CPU \(avx2, without bf16\), as int8 is made for avx512_vnni{advice}"
    with pytest.raises(ProviderError, match=said):
        choices(manifest, None, "auto", (CPU,))
    with pytest.raises(ProviderError, match=rf"'int8' is made for avx512_vnni; .* would be wrong{advice}"):
        choices(manifest, "int8", "auto", (CPU,))
    webgpu = PROVIDERS["webgpu"]
    said = r"'int8' has operators that webgpu does not know \(of com.microsoft\): choose another provider$"
    with pytest.raises(ProviderError, match=said):
        choices(variants_of(edited, "int8"), "int8", "webgpu", (webgpu,))


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
        fp32 = manifest["variants"]["fp32"]
        requires = fp32["requires"] | {"precision": "int8-dynamic", "isa": made_for}
        manifest["variants"]["int8"] = fp32 | {"requires": requires}
        manifest["default_variant"] = "int8"

    flags = cpu.INSTRUCTION_SETS[here].needs if here != "generic" else frozenset()
    monkeypatch.setattr(cpu, "cpu", lambda: cpu.Cpu(model="", flags=flags, physical_cores=2))
    manifest = Bundle.open(edited(change)).manifest
    assert choices(manifest, None, "cpu", (CPU,)) == [(chosen, CPU)]
    openvino = PROVIDERS["openvino"]
    requires = {"precision": "int8-static", "isa": made_for}
    static = Bundle.open(edited(lambda told: told["variants"]["fp32"]["requires"].update(requires))).manifest
    if chosen == "int8":
        assert choices(manifest, "int8", "cpu", (CPU,)) == [("int8", CPU)]
        assert choices(static, "fp32", "openvino", (openvino,)) == [("fp32", openvino)]
    else:
        with pytest.raises(ProviderError, match=rf"is made for {made_for}; on this CPU \({here}\) .* variant 'fp32'"):
            choices(manifest, "int8", "cpu", (CPU,))
        with pytest.raises(ProviderError, match=rf"is made for {made_for}; on this CPU \({here}\) "):
            choices(static, "fp32", "openvino", (openvino,))
