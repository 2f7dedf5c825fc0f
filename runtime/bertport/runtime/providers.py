"""The table of execution providers, and the checks that one which was asked for is the one that runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bertport.runtime.errors import MissingDependencyError, ProviderError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

__all__ = ["AUTO", "PROVIDERS", "Provider", "candidates", "check_placement", "onnxruntime"]

AUTO = "auto"
"""The best provider that really works here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One row: an execution provider."""

    name: str
    """What users call it."""
    ort: str
    """What ONNX Runtime calls it."""
    install: str
    """What to install where it is missing."""
    auto: bool
    """Whether `auto` tries it, in the order of the table."""
    batch_tokens: int
    """Most tokens in a batch."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Provider options given to ONNX Runtime."""
    preload: bool = False
    """Whether its libraries come as Python packages that ONNX Runtime has to be told to look into."""


PROVIDERS: dict[str, Provider] = {
    row.name: row
    for row in (
        # An engine takes minutes to build: only on request.
        Provider(
            name="tensorrt",
            ort="TensorrtExecutionProvider",
            install="pip install 'bertport[gpu]' and TensorRT's libraries",
            auto=False,
            batch_tokens=16384,
            preload=True,
        ),
        Provider(
            name="cuda",
            ort="CUDAExecutionProvider",
            install="pip install 'bertport[gpu]'",
            auto=True,
            batch_tokens=16384,
            preload=True,
        ),
        # Not faster than ONNX Runtime's own CPU provider where it was measured: only on request.
        Provider(
            name="openvino",
            ort="OpenVINOExecutionProvider",
            install="pip install onnxruntime-openvino in an environment of its own",
            auto=False,
            batch_tokens=1024,
        ),
        Provider(
            name="cpu",
            ort="CPUExecutionProvider",
            install="pip install 'bertport[cpu]'",
            auto=True,
            batch_tokens=1024,
        ),
    )
}

COMPUTE = frozenset(
    {
        *("MatMul", "Gemm", "Einsum", "FusedMatMul", "FusedGemm", "TransposeMatMul"),
        *("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm", "MatMulNBits"),
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
        *("Attention", "QAttention", "MultiHeadAttention", "Softmax", "BiasSoftmax"),
        *("LayerNormalization", "SkipLayerNormalization", "EmbedLayerNormalization", "ReduceMean"),
        *("Erf", "Gelu", "FastGelu", "BiasGelu", "Tanh"),
    }
)
"""Operators that do a model's work. Others, such as Shape, Gather and Concat of shapes, ONNX Runtime itself places on
the CPU because they are cheaper there (ort#16016, #17930): they say nothing of a fall-back."""


def onnxruntime() -> ModuleType:
    """Import ONNX Runtime.

    Raises:
        MissingDependencyError: when it is not installed, or only a remnant of it is.
    """
    try:
        import onnxruntime
    except ImportError as error:
        what, package, extra = "running a model", "onnxruntime", "cpu"
        raise MissingDependencyError(what, package, extra) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        # Uninstalling one of its wheels beside another leaves a directory without a module (ort#26996).
        message = "onnxruntime is installed in part: pip install --force-reinstall onnxruntime"
        raise ProviderError(message)
    module: ModuleType = onnxruntime
    return module


def candidates(name: str) -> tuple[Provider, ...]:
    """Give the providers to try for a name, best first; `auto` is every row that may and is built in here.

    Raises:
        UnknownNameError: for a name that no row has.
        ProviderError: when this build of ONNX Runtime does not hold the provider.
    """
    if name != AUTO and name not in PROVIDERS:
        kind = "provider"
        raise UnknownNameError(kind, name, (AUTO, *PROVIDERS))
    built_in = set(onnxruntime().get_available_providers())
    available = [row for row in PROVIDERS.values() if row.ort in built_in]
    if name == AUTO:
        return tuple(row for row in available if row.auto)
    row = PROVIDERS[name]
    if row not in available:
        names = ", ".join(each.name for each in available)
        message = f"provider {name!r} is not available here (available: {names}): {row.install}, or choose another"
        raise ProviderError(message)
    return (row,)


def check_placement(provider: Provider, active: list[str], placement: Mapping[str, Mapping[str, int]]) -> None:
    """Refuse a session that does not run where it was asked to.

    ONNX Runtime lists a provider whose libraries do not load, and then runs everything on the CPU with no more than a
    line in its log; so what counts is what the finished session says.

    Args:
        provider: what was asked for.
        active: the providers of the session, ONNX Runtime's names.
        placement: nodes per operator, by provider; empty where ONNX Runtime is too old to tell (before 1.24).

    Raises:
        ProviderError: when the provider is not in use, or computing was left to the CPU.
    """
    cpu = PROVIDERS["cpu"].ort
    if provider.ort not in active:
        message = (
            f"provider {provider.name!r} did not start (in use: {', '.join(active)}); ONNX Runtime's message above "
            f"says why: {provider.install}, or choose --provider cpu"
        )
        raise ProviderError(message)
    if provider.ort == cpu or not placement:
        return
    left = {op: count for op, count in placement.get(cpu, {}).items() if op in COMPUTE}
    if left:
        nodes = ", ".join(f"{count} {op}" for op, count in sorted(left.items()))
        message = (
            f"provider {provider.name!r} left computing to the CPU ({nodes}): "
            "choose a variant that is made for it, or --provider cpu"
        )
        raise ProviderError(message)
