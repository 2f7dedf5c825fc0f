"""The options that each execution provider takes, and the check of those that a user gives.

An option that ONNX Runtime does not know is, by provider and version, an error, a warning or nothing; here it is
always an error, before any session is opened. Options whose value is a pointer into the process (a compute stream, an
allocator, a graph in memory) are left out: from text they could only crash it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bertport.runtime.errors import UnknownNameError, UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.key_values import key_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = [
    "CUDA",
    "OPENVINO",
    "SOURCES",
    "TENSORRT",
    "TENSORRT_RTX",
    "TRUTH_IN_WORDS",
    "WEBGPU",
    "checked",
    "merged",
    "parse",
    "settle",
]

SOURCES = {
    "cuda": "https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html",
    "tensorrt": "https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html",
    "openvino": "https://docs.openvino.ai/2025/openvino-workflow/running-inference/inference-devices-and-modes/cpu-device.html",
    "tensorrt-rtx": "https://nvidia.github.io/TensorRT-RTX-EP-ABI/_generated/provider-options.html",
    "webgpu": "https://onnxruntime.ai/docs/execution-providers/WebGPU-ExecutionProvider.html",
}
"""Documentation of each provider's options. The names are those that the provider's library holds (onnxruntime-gpu
1.31.1), which tests/runtime/test_wheels.py looks up in the wheels."""

CUDA = frozenset(
    """
    device_id gpu_mem_limit arena_extend_strategy do_copy_in_default_stream use_tf32 use_ep_level_unified_stream
    enable_cuda_graph enable_skip_layer_norm_strict_mode prefer_nhwc sdpa_kernel fuse_conv_bias tunable_op_enable
    tunable_op_tuning_enable tunable_op_max_tuning_duration_ms cudnn_conv_algo_search cudnn_conv_use_max_workspace
    cudnn_conv1d_pad_to_nc1d
    """.split()  # noqa: SIM905 — names read better so
)
"""Options of CUDA that a user may give."""

TENSORRT = frozenset(
    """
    device_id trt_auxiliary_streams trt_bf16_enable trt_build_heuristics_enable trt_builder_optimization_level
    trt_context_memory_sharing_enable trt_cuda_graph_enable trt_detailed_build_log trt_dla_core trt_dla_enable
    trt_dump_ep_context_model trt_dump_subgraphs trt_engine_cache_enable trt_engine_cache_path trt_engine_cache_prefix
    trt_engine_decryption_enable trt_engine_decryption_lib_path trt_engine_hw_compatible trt_ep_context_embed_mode
    trt_ep_context_file_path trt_extra_plugin_lib_paths trt_force_sequential_engine_build trt_force_timing_cache
    trt_fp16_enable trt_int8_calibration_table_name trt_int8_enable trt_int8_use_native_calibration_table
    trt_layer_norm_fp32_fallback trt_max_partition_iterations trt_max_workspace_size trt_min_subgraph_size
    trt_onnx_model_folder_path trt_op_types_to_exclude trt_preview_features trt_profile_max_shapes
    trt_profile_min_shapes trt_profile_opt_shapes trt_sparsity_enable trt_tactic_sources trt_timing_cache_enable
    trt_timing_cache_path trt_weight_stripped_engine_enable
    """.split()  # noqa: SIM905 — names read better so
)
"""Options of TensorRT that a user may give."""
TRUTH_IN_WORDS = frozenset(
    """
    trt_bf16_enable trt_build_heuristics_enable trt_context_memory_sharing_enable trt_cuda_graph_enable
    trt_detailed_build_log trt_dla_enable trt_dump_ep_context_model trt_dump_subgraphs trt_engine_cache_enable
    trt_engine_decryption_enable trt_engine_hw_compatible trt_force_sequential_engine_build trt_force_timing_cache
    trt_fp16_enable trt_int8_enable trt_int8_use_native_calibration_table trt_layer_norm_fp32_fallback
    trt_sparsity_enable trt_timing_cache_enable trt_weight_stripped_engine_enable
    """.split()  # noqa: SIM905 — names read better so
)
"""Those whose truth values ONNX Runtime's Python takes as `True` and `False` alone: with 1 or 0 no session is opened.
For other providers it takes 1 and 0."""

OPENVINO = frozenset({"load_config"})
"""Options of OpenVINO's plugin that a user may give. Most others it knows by name and leaves alone, with no more than a
line in ONNX Runtime's log: what they were for is stated in `load_config`, by device and OpenVINO's own names. And
`reshape_input` fixes shapes, which vary from batch to batch here."""
IGNORED = {
    "precision": "OpenVINO's plugin ignores that option; the variant sets the precision, fp32 or bf16",
    "num_of_threads": "OpenVINO's plugin ignores that option; threads are set by threads= (--threads)",
}
"""Advice on options of the OpenVINO provider that its plugin ignores, by option."""
JSON = frozenset({"load_config"})
"""Options whose value is a JSON object, which is merged with that of the row."""
TRUTH = {"true": "1", "false": "0"}
"""Values that ONNX Runtime and its documentation also write in words, by the word."""
MOST_LEVELS = 8
"""Objects within each other in such a value, at most; OpenVINO's plugin takes fewer."""

TENSORRT_RTX = frozenset(
    """
    nv_max_workspace_size nv_max_shared_mem_size nv_dump_subgraphs nv_detailed_build_log nv_profile_min_shapes
    nv_profile_max_shapes nv_profile_opt_shapes enable_cuda_graph nv_multi_profile_enable
    nv_use_external_data_initializer nv_runtime_cache_path nv_weight_streaming_budget nv_op_types_to_exclude
    nv_enable_profiling nv_profiling_output_file nv_use_sync_gpu_allocator nv_persistent_context_memory
    nv_weight_stripped_engine_enable_experimental
    """.split()  # noqa: SIM905 — names read better so
)
"""Options of TensorRT for RTX's plugin that a user may give, from its own header: without `nv_target_sm`, with which
nothing can be run, and options of a run."""

WEBGPU = frozenset(
    """
    dawnBackendType defaultBufferCacheMode deviceId enableGraphCapture enableInt64 enablePIXCapture enableRobustness
    forceCpuNodeNames maxNumPendingDispatches maxStorageBufferBindingSize powerPreference preferredLayout preserveDevice
    queryResolveBufferCacheMode sessionBufferPoolGenerations storageBufferCacheMode uniformBufferCacheMode
    validationMode
    """.split()  # noqa: SIM905 — names read better so
)
"""Options of WebGPU's plugin that a user may give."""


def parse(pairs: Iterable[str]) -> dict[str, str]:
    """Return provider options as the command line gives them.

    Raises:
        UsageError: for one that is not KEY=VALUE, or a key that is given twice.
    """
    return key_values(pairs, "provider option")


def checked(name: str, given: Mapping[str, object], allowed: frozenset[str] | None) -> dict[str, str]:
    """Return options as the text that ONNX Runtime takes; True and False become 1 and 0.

    Args:
        name: of the provider, for the error.
        given: options as a caller gives them.
        allowed: the names that it takes; None where they are not known.

    Raises:
        UnknownNameError: for an option that the provider does not have.
        UsageError: for a value that is no text, number or truth value.
    """
    for key, value in given.items():
        if allowed is not None and key not in allowed:
            advice = f"see {SOURCES[name]}" if name in SOURCES else "threads are set by threads= (--threads)"
            if name == "openvino":
                advice = IGNORED.get(key, advice)
            raise UnknownNameError(f"option of the provider {name!r}", str(key), sorted(allowed), advice)
        if not isinstance(value, str | int | float):
            raise UsageError(f"the provider option {key!r} is text, a number, True or False, not {value!r}")
    options = {key: str(int(value)) if isinstance(value, bool) else str(value) for key, value in given.items()}
    for key in JSON & options.keys():
        if not _is_by_device(options[key]):
            raise UsageError(
                f"the provider option {key!r} is a JSON object of objects, one for each device, not "
                f"{excerpt(options[key], 100)}"
            )
    return options


def _is_by_device(text: str) -> bool:
    """Return whether a text is a JSON object of objects that are no deeper than OpenVINO reads them."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return False
    level = [told]
    for depth in range(MOST_LEVELS):
        level = [inner for value in level for inner in (value.values() if isinstance(value, dict) else ())]
        if depth == 0 and not (isinstance(told, dict) and all(isinstance(value, dict) for value in level)):
            return False
    return not any(isinstance(value, dict) for value in level)


def merged(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, str]:
    """Return options with others over them; JSON objects are merged key by key, however deep."""
    joined = {**first, **second}
    for key in JSON & first.keys() & second.keys():
        joined[key] = json.dumps(_over(json.loads(first[key]), json.loads(second[key])))
    return joined


def settle(
    name: str, precision: str, *, row: Mapping[str, str], given: Mapping[str, str], computes: Mapping[str, str]
) -> dict[str, str]:
    """Return the options of a session: the row's, the user's over them, and over both what the precision needs.

    Truth values are written as ONNX Runtime reads them.

    Args:
        name: of the provider, for the error.
        precision: how products are to be computed, as manifests call it.
        row: options of the provider's row.
        given: options of the user, as `checked` returned them.
        computes: options that make the provider compute so.

    Raises:
        UsageError: for an option of the user that has it compute otherwise, or that is for another device.
    """
    for key in JSON & given.keys() & computes.keys():
        here, others = json.loads(computes[key]).keys(), json.loads(given[key]).keys()
        if others - here:
            raise UsageError(
                f"the provider option {key!r} is for {excerpt(', '.join(sorted(others - here)), 60)}, and has no "
                f"effect where {name!r} computes on {', '.join(here)}: give options of the latter"
            )
    wanted, asked = dict(_leaves(computes)), dict(_leaves(given))
    for place, value in wanted.items():
        if place in asked and _plain(asked[place]) != _plain(value):
            raise UsageError(
                f"the provider option {'.'.join(place)}={asked[place]} keeps {name!r} from computing in "
                f"{precision}, which the variant needs: leave it out, or choose another variant"
            )
    settled = merged(merged(row, given), computes)
    words = {number: word.title() for word, number in TRUTH.items()}
    return {key: words.get(value, value) if key in TRUTH_IN_WORDS else value for key, value in settled.items()}


def _plain(value: object) -> str:
    """Return a value as the one way of writing it: ONNX Runtime takes `True` and `1` for the same."""
    text = str(value).lower()
    return TRUTH.get(text, text)


def _leaves(options: Mapping[str, str]) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield each option with its place: its name, and in JSON the keys that lead to it."""

    def below(place: tuple[str, ...], value: object) -> Iterator[tuple[tuple[str, ...], object]]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from below((*place, key), inner)
        else:
            yield place, value

    for key, value in options.items():
        yield from below((key,), json.loads(value) if key in JSON else value)


def _over(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON object with another over it."""
    joined = {**first, **second}
    for key in first.keys() & second.keys():
        if isinstance(first[key], dict) and isinstance(second[key], dict):
            joined[key] = _over(first[key], second[key])
    return joined
