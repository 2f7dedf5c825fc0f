"""The table of execution providers, and what is known of them before a session is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bertport.runtime.batching import MAX_WINDOW
from bertport.runtime.errors import MissingDependencyError, ProviderError, UnknownNameError
from bertport.runtime.excerpts import one_line
from bertport.runtime.installation import install_command, pip
from bertport.runtime.providers import hardware, telemetry
from bertport.runtime.providers import options as provider_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

__all__ = ["AUTO", "PROVIDERS", "Plugin", "Provider", "candidates", "onnxruntime", "row_of", "unknown_row", "wheel"]

AUTO = "auto"
"""The best provider that really works here."""

CPU_OVERHEAD = 16
"""Tokens that take as long as a run of none: between 6 (BERT-base in 8 bits with AVX2) and 28 (the default model in
fp32) where it was measured (`bench/performance/profiling.py`). The choice is flat: for any of these, 16 costs less than
2% more than the right number on 40 sentences, and less on more of them."""
GPU_OVERHEAD = 1024
"""The same for a GPU, by reckoning and never measured: the launches of a BERT-base run take about a millisecond, in
which such a device computes one to two thousand tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A library beside ONNX Runtime that holds an execution provider, and is registered with it."""

    package: str
    """Distribution that brings it."""
    module: str
    """Directory that the distribution installs; it is looked into and never imported, because that runs its code."""
    file: str
    """Name of the library there, without `lib` and the ending."""
    devices: Mapping[str, str] = field(default_factory=dict)
    """Metadata of the devices that the row is for, by ONNX Runtime's keys; empty where all are."""
    takes: str
    """Hardware that it runs on, for the error where it lists no device."""
    brings: Callable[[], str | None] = lambda: None
    """Returns what it would do on this machine, asked without it; None where it has nothing to run on."""
    capabilities: Mapping[str, str] = field(default_factory=dict)
    """Words in the metadata of a device that computes in a precision, by precision."""
    threads: Mapping[str, str] = field(default_factory=dict)
    """Provider options that set its threads, with `%d` for their number; empty where it takes none of the CPU."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that the library reads, set before it is registered."""
    path: Path | None = None
    """The library itself, where it was named; None for that of the package."""

    @property
    def library(self) -> Path | None:
        """The library's path; None where the package is not installed."""
        from importlib.util import find_spec  # not above: these two take a command's help milliseconds to start

        from bertport.runtime.providers import native

        if self.path is not None:
            return self.path
        try:
            spec = find_spec(self.module)
        except (ImportError, ValueError):  # a remnant of an installation
            spec = None
        places = spec.submodule_search_locations if spec is not None else None
        paths = [Path(place) / native.file_name(self.file) for place in places or ()]
        return next((path for path in paths if path.is_file()), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One row: an execution provider."""

    name: str
    """Name for users."""
    ort: str
    """Name in ONNX Runtime."""
    extra: str
    """The extra of bertport that brings it."""
    packages: tuple[str, ...] = ()
    """Packages that it needs beside the extra."""
    auto: bool
    """Whether `auto` tries it, in the order of the table."""
    recipes: tuple[str, ...] = ()
    """Prefixes of the recipes of the variants that it takes where no variant is named, best first.
    Empty for the bundle's default first."""
    batch_tokens: int
    """Most tokens in a batch, padding included."""
    batch_rows: int = MAX_WINDOW
    """Most inputs in a batch."""
    overhead_tokens: int
    """Fixed cost of a run, in tokens: as much padding is accepted to save a run."""
    on_cpu: bool = False
    """Whether it computes on the CPU, whose instruction set then decides what is right and fast."""
    splits_cores: bool = False
    """Whether several batches can run at once, which share the cores."""
    overlap: bool = False
    """Whether the next inputs are tokenized while the graph runs: only where it leaves the CPU idle."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Provider options given to ONNX Runtime, unless the user gives others."""
    computes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Provider options that make it compute in a precision, by precision, as manifests name it; no user may change
    them, and a precision that needs none is left out."""
    allowed: frozenset[str] | None = frozenset()
    """Names of the options that a user may give; None where they are not known."""
    library: str | None = None
    """ONNX Runtime's library that holds it, without `lib` and the ending; None where it is built in."""
    plugin: Plugin | None = None
    """The library of another package that holds it; None where it comes with ONNX Runtime."""
    nvidia: bool = False
    """Whether it needs an NVIDIA GPU, and libraries that come as Python packages which ONNX Runtime is to look into."""
    device: str | None = None
    """Device to which inputs and outputs are bound, by ONNX Runtime's name; None where arrays are passed without
    binding."""
    beside: tuple[str, ...] = ()
    """Short names of the providers that take what it leaves, before the CPU; they may compute no more than the CPU."""
    operator_domains: frozenset[str] = frozenset({"ai.onnx"})
    """Domains of the operators that it knows."""
    dtypes: frozenset[str]
    """Element types that it stores and computes in, but for those that serve shapes."""
    precisions: frozenset[str]
    """Precisions of matrix products, as manifests name them, that it computes correctly and without loss of speed."""
    shapes_cost: bool = False
    """Whether it prepares for shapes: what it is opened for is then made from the bundle's length buckets."""
    least_positions: int = 0
    """Fewest positions to decode: 1 where an empty tensor is not taken."""

    @property
    def install(self) -> str:
        """The command line that installs what it needs here."""
        return install_command(self.extra, *self.packages)


FLOATING = frozenset({"float32", "float16"})
INTEGER = frozenset({"int8", "uint8"})
NVIDIA_RTX = "NVIDIA GPUs of compute capability 8.6, 8.9, 12.0 and newer"
CONTRIBUTED = frozenset({"ai.onnx", "com.microsoft"})
"""The standard operators, and those of ONNX Runtime's own."""

PROVIDERS: dict[str, Provider] = {
    provider.name: provider
    for provider in (
        # An engine takes minutes to build: only on request.
        Provider(
            name="tensorrt",
            ort="TensorrtExecutionProvider",
            extra="gpu",
            packages=("tensorrt-cu13",),
            auto=False,
            # 8 bits cost accuracy, so that they are taken before fp32 only: a bundle that has them was given them for
            # this. To have them before fp16, name the variant.
            recipes=("fp16", "int8-static", "fp32"),
            batch_tokens=16384,
            batch_rows=256,  # the profile's corner is memory: all rows at full length
            overhead_tokens=GPU_OVERHEAD,
            overlap=True,
            options={
                "trt_engine_cache_enable": "1",
                "trt_timing_cache_enable": "1",
                # LayerNormalization's sums of squares leave float16's range on outlier channels.
                "trt_layer_norm_fp32_fallback": "1",
                # TopK must have a constant K there; it takes microseconds on CUDA.
                "trt_op_types_to_exclude": "TopK,NonMaxSuppression,NonZero,RoiAlign",
            },
            computes={
                "fp32": {"trt_fp16_enable": "0", "trt_bf16_enable": "0", "trt_int8_enable": "0"},
                "fp16": {"trt_fp16_enable": "1"},
                "int8-static-symmetric": {"trt_int8_enable": "1", "trt_fp16_enable": "1"},
            },
            allowed=provider_options.TENSORRT,
            library="onnxruntime_providers_tensorrt",
            nvidia=True,
            device="cuda",
            beside=("cuda",),
            dtypes=FLOATING | INTEGER,
            precisions=frozenset({"fp32", "fp16", "int8-static-symmetric"}),
            shapes_cost=True,
            least_positions=1,
        ),
        Provider(
            name="cuda",
            ort="CUDAExecutionProvider",
            extra="gpu",
            auto=True,
            recipes=("fp16", "fp32"),  # it has no 8-bit products: QDQ graphs run in floating point, with more nodes
            batch_tokens=16384,
            overhead_tokens=GPU_OVERHEAD,
            overlap=True,
            options={
                # Batches of many shapes: growing by powers of two would hold up to twice what is needed.
                "arena_extend_strategy": "kSameAsRequested",
                # A batch of `batch_tokens` of BERT-large needs less than half of it in fp32 (1.3 GB of weights).
                "gpu_mem_limit": str(4 << 30),
                # TF32 rounds the factors to 10 bits: fp32 is to mean fp32, and fp16 is there for speed.
                "use_tf32": "0",
            },
            computes={"fp32": {"use_tf32": "0"}},
            allowed=provider_options.CUDA,
            library="onnxruntime_providers_cuda",
            nvidia=True,
            device="cuda",
            operator_domains=CONTRIBUTED,
            dtypes=FLOATING | INTEGER,
            precisions=frozenset({"fp32", "fp16", "int8-static-symmetric"}),
        ),
        # Each of the plugins is chosen by name, or by what was measured.
        Provider(
            name="openvino",
            ort="OpenVINOExecutionProvider",
            extra="openvino",
            auto=False,
            on_cpu=True,
            recipes=("bf16", "int8-static", "fp32"),
            batch_tokens=1024,
            overhead_tokens=CPU_OVERHEAD,
            computes={
                # Without it, it computes in bf16 on a CPU that has it, and says nothing.
                "fp32": {"load_config": '{"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}'},
                "int8-static": {"load_config": '{"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}'},
                "bf16": {"load_config": '{"CPU": {"INFERENCE_PRECISION_HINT": "bf16"}}'},
            },
            allowed=provider_options.OPENVINO,
            plugin=Plugin(
                package="onnxruntime-ep-openvino",
                module="onnxruntime_ep_openvino",
                file="onnxruntime_providers_openvino_plugin",
                devices={"ov_device": "CPU"},
                takes="Intel's CPUs",
                brings=hardware.intel_cpu,
                capabilities={"bf16": "BF16"},
                threads={"load_config": '{"CPU": {"INFERENCE_NUM_THREADS": %d}}'},
            ),
            operator_domains=CONTRIBUTED,
            dtypes=FLOATING | INTEGER,
            # Static scales keep as near to fp32 as on the CPU's provider (300 texts, two models). Symmetric
            # ones do not say which CPU they are made for, and overflow on some.
            precisions=frozenset({"fp32", "bf16", "int8-static"}),
        ),
        Provider(
            name="tensorrt-rtx",
            ort="NvTensorRTRTXExecutionProvider",
            extra="tensorrt-rtx",
            auto=False,
            recipes=("fp16", "int8-static", "fp32"),  # as `tensorrt`
            batch_tokens=16384,
            overhead_tokens=GPU_OVERHEAD,
            overlap=True,
            allowed=provider_options.TENSORRT_RTX,
            nvidia=True,
            plugin=Plugin(
                package="onnxruntime-ep-nv-tensorrt-rtx-cu13",
                module="onnxruntime_ep_nv_tensorrt_rtx",
                file="onnxruntime_providers_nv_tensorrt_rtx",
                takes=NVIDIA_RTX,
                brings=hardware.rtx_gpu,
                # It has no option for TF32, which TensorRT takes for products of fp32 by itself.
                environment={"NVIDIA_TF32_OVERRIDE": "0"},
            ),
            # As the graph is written: TensorRT for RTX knows no other types than those of its tensors.
            dtypes=FLOATING | INTEGER,
            precisions=frozenset({"fp32", "fp16", "int8-static-symmetric"}),
            least_positions=1,
        ),
        Provider(
            name="webgpu",
            ort="WebGpuExecutionProvider",
            extra="webgpu",
            auto=False,
            recipes=("fp32",),
            batch_tokens=16384,
            overhead_tokens=GPU_OVERHEAD,
            overlap=True,
            allowed=provider_options.WEBGPU,
            plugin=Plugin(
                package="onnxruntime-ep-webgpu",
                module="onnxruntime_ep_webgpu",
                file="onnxruntime_providers_webgpu",
                takes="GPUs with Vulkan, Metal or Direct3D 12",
                brings=hardware.any_gpu,
            ),
            # Of ONNX Runtime's own operators it knows some, and MultiHeadAttention not with a mask of the padding.
            dtypes=FLOATING,
            precisions=frozenset({"fp32"}),
            least_positions=1,
        ),
        Provider(
            name="cpu",
            ort="CPUExecutionProvider",
            extra="cpu",
            auto=True,
            on_cpu=True,
            batch_tokens=1024,
            overhead_tokens=CPU_OVERHEAD,
            splits_cores=True,
            operator_domains=CONTRIBUTED,
            dtypes=FLOATING | INTEGER,
            # Products of symmetric int8 become unsigned there, and overflow on AVX2; fp16 is computed in fp32, slowly.
            precisions=frozenset({"fp32", "int8-dynamic", "int8-static", "int8-weight-only", "int4-weight-only"}),
        ),
    )
}


def row_of(provider: str | Provider) -> Provider:
    """Return the row of a name in the table; a row is returned as it is."""
    return PROVIDERS[provider] if isinstance(provider, str) else provider


def unknown_row(ort: str, library: Path, *, on_cpu: bool) -> Provider:
    """Return the row of a provider in a library that the user names, of which no more is known.

    Args:
        ort: what ONNX Runtime calls it.
        library: that holds it.
        on_cpu: whether it runs on the CPU.
    """
    return Provider(
        name=ort,
        ort=ort,
        extra="cpu",
        auto=False,
        on_cpu=on_cpu,
        batch_tokens=1024 if on_cpu else 16384,
        overhead_tokens=CPU_OVERHEAD if on_cpu else GPU_OVERHEAD,
        overlap=not on_cpu,
        allowed=None,
        plugin=Plugin(package=library.name, module="", file="", takes="devices of its own", path=library),
        dtypes=FLOATING,
        precisions=frozenset({"fp32"}),
        least_positions=1,
    )


def onnxruntime() -> ModuleType:
    """Return ONNX Runtime, imported with its telemetry off: the one place that imports it.

    Whatever imports a part of it, or a package that does, calls this before.

    Raises:
        MissingDependencyError: when it is not installed.
        ProviderError: when it cannot be imported, or only a remnant of it is there.
    """
    try:
        import onnxruntime
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime":
            raise MissingDependencyError("running a model", "onnxruntime", "cpu") from error
        # A library that it is linked to is missing or too old, or another package is.
        raise ProviderError(
            f"onnxruntime is installed and cannot be imported ({one_line(error)}): install what that "
            f"names, or {pip()} install --force-reinstall onnxruntime"
        ) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        # Uninstalling one of its wheels beside another leaves a directory without a module (ort#26996).
        raise ProviderError(f"onnxruntime is installed in part: {pip()} install --force-reinstall onnxruntime")
    module: ModuleType = onnxruntime
    telemetry.silence(module)
    return module


def wheel() -> str:
    """Return the wheel that ONNX Runtime came in, with its version, for example `onnxruntime-gpu 1.31.1`.

    The distributions' records do not tell: two wheels may be recorded, of which the later one's files are there.
    """
    ort = onnxruntime()
    return f"{getattr(ort, 'package_name', '') or 'onnxruntime'} {ort.__version__}"


def candidates(name: str) -> tuple[Provider, ...]:
    """Return the providers to try for a name, best first; `auto` is every row that may and is built in here.

    Raises:
        UnknownNameError: for a name that no row has.
        ProviderError: when neither this build of ONNX Runtime nor an installed plugin holds the provider.
    """
    if name != AUTO and name not in PROVIDERS:
        raise UnknownNameError("provider", name, (AUTO, *PROVIDERS))
    built_in = set(onnxruntime().get_available_providers())
    if name == AUTO:
        return tuple(provider for provider in PROVIDERS.values() if provider.auto and provider.ort in built_in)
    provider = PROVIDERS[name]
    if provider.plugin is not None:
        if provider.plugin.library is not None:
            return (provider,)
        reason = f"the package {provider.plugin.package} is not installed: {provider.install}"
    elif provider.ort in built_in:
        return (provider,)
    else:
        package = wheel().partition(" ")[0]
        reason = f"{wheel()} is built without it; {pip()} uninstall {package}, then {provider.install}"
    here = [row.name for row in PROVIDERS.values() if (row.plugin.library if row.plugin else row.ort in built_in)]
    raise ProviderError(
        f"provider {name!r} is not available here (available: {', '.join(here)}): {reason}, or choose another"
    )
