"""The checks that a provider which was asked for is the one that runs: before a session, and on the finished one."""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertport.runtime.errors import ProviderError
from bertport.runtime.installation import install_command
from bertport.runtime.providers import native, plugins
from bertport.runtime.providers.table import PROVIDERS, onnxruntime, wheel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertport.runtime.providers.table import Provider

__all__ = ["COMPUTE", "check_active", "left_over", "obstacle", "placement_of", "refusal"]

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

TENSORRT = (
    "install tensorrt-cu13 of the major version that the library's name ends in and add its folder tensorrt_libs to "
    "LD_LIBRARY_PATH"
)
"""Advice on TensorRT's libraries: no linker looks into the folder that the package makes."""
ADVICE = (
    ("libnvinfer", TENSORRT),
    ("libnvonnxparser", TENSORRT),
)
"""Advice on missing libraries that no extra brings, by the prefix of the library's name; the first match counts."""
CUDA = "libcu"
"""Prefix of the names of the libraries that the extra `gpu` brings."""


def obstacle(provider: Provider, precision: str = "fp32") -> str | None:
    """Return why a provider that is installed cannot start here, and what to install; None when it may.

    The linker and the driver are asked. Opening a session instead would run everything on the CPU, with no more than a
    line in ONNX Runtime's log.

    Args:
        provider: a row of the table.
        precision: how products are to be computed, as manifests call it.
    """
    if provider.plugin is not None:
        return plugins.obstacle(provider, precision)
    if provider.library is None:
        return None
    ort = onnxruntime()
    if provider.nvidia and hasattr(ort, "preload_dlls"):
        with redirect_stdout(StringIO()):  # it prints what it does not find where answers belong
            ort.preload_dlls()
    reasons, advice = [], []
    gone = _missing(provider)
    if gone and provider.nvidia and hasattr(ort, "preload_dlls"):
        with redirect_stdout(StringIO()):
            for folder in _libraries_elsewhere():
                ort.preload_dlls(directory=str(folder))
        gone = _missing(provider)
    # The driver has its own reason below, which says more than that its library is missing.
    gone = tuple(name for name in gone if not (provider.nvidia and name.startswith("libcuda.so")))
    if gone:
        reasons.append(f"{wheel()} needs {', '.join(gone)}, which {'is' if len(gone) == 1 else 'are'} not found")
        advice += [_advice(name, provider) for name in gone]
    driver = native.driver() if provider.nvidia else None
    if driver is not None and driver.problem:
        reasons.append(driver.problem)
        if not driver.devices and "no CUDA device" not in driver.problem:
            advice.append("install the NVIDIA driver")
    if not reasons:
        return None
    otherwise = "or choose another provider" if advice else "choose another provider"
    return f"{' and '.join(reasons)}: {', '.join([*dict.fromkeys(advice), otherwise])}"


def _libraries_elsewhere() -> list[Path]:
    """Return the folders of NVIDIA's libraries in all directories of packages; ONNX Runtime looks beside itself alone.

    pip leaves them elsewhere where an environment lies above one that has them (`venv --system-site-packages` above
    PyTorch's), and where ONNX Runtime was installed into a directory of its own (`--target`).
    """
    from importlib.util import find_spec  # not above: as in `Plugin.library`

    spec = find_spec("nvidia")  # a namespace: each directory of packages may hold a part of it
    places = spec.submodule_search_locations if spec is not None else None
    return [folder for place in places or () for folder in sorted(Path(place).glob("*/lib"))]


def _advice(library: str, provider: Provider) -> str:
    """Return what to do for a library that is not found."""
    for start, said in ADVICE:
        if library.startswith(start):
            return said
    return install_command("gpu") if library.startswith(CUDA) else provider.install


def _missing(provider: Provider) -> tuple[str, ...]:
    """Name what keeps a provider's library from loading; the library itself where the linker does not say."""
    path = Path(str(onnxruntime().__file__)).parent / "capi" / native.file_name(str(provider.library))
    if not path.exists():  # built in, or a layout of the future: the finished session will tell
        return ()
    shared = path.with_name(native.file_name("onnxruntime_providers_shared"))
    if shared.exists():
        native.loads(str(shared))  # the others take their entry points from it
    # Not loaded itself: ONNX Runtime does that, and what it is linked to is all that can be missing.
    gone = native.missing(path)
    if not gone and not native.needed(path) and native.loads(str(path)) is not None:
        return (path.name,)
    return gone


def refusal(provider: Provider, reason: str) -> ProviderError:
    """Return the error of a provider that does not start."""
    return ProviderError(f"provider {provider.name!r} does not start here: {reason}")


def check_active(provider: Provider, active: Sequence[str]) -> None:
    """Refuse a finished session that does not use the provider it was opened for.

    Raises:
        ProviderError: with what is in use instead.
    """
    if provider.ort not in active:
        raise refusal(
            provider,
            (
                f"in use are only {', '.join(active)}; ONNX Runtime's message above says why: "
                f"{provider.install}, or choose --provider cpu"
            ),
        )


def left_over(provider: Provider, placement: Mapping[str, Mapping[str, int]]) -> str | None:
    """Return what a session computes on other providers than the one asked for, as a sentence; None for nothing.

    Args:
        provider: what was asked for.
        placement: nodes per operator, by ONNX Runtime's provider names; empty where it cannot be told.
    """
    others = [PROVIDERS[name].ort for name in (*provider.beside, "cpu") if PROVIDERS[name] is not provider]
    parts = []
    for name in others:
        left = {op: count for op, count in placement.get(name, {}).items() if op in COMPUTE}
        if left:
            nodes = ", ".join(f"{count} {op}" for op, count in sorted(left.items()))
            short = next(provider.name for provider in PROVIDERS.values() if provider.ort == name)
            parts.append(f"{'the CPU' if short == 'cpu' else short} ({nodes})")
    if not parts or provider.ort == PROVIDERS["cpu"].ort:
        return None
    return (
        f"provider {provider.name!r} left computing to {' and '.join(parts)}: "
        "choose a variant that is made for it, or --provider cpu"
    )


def placement_of(session: Any) -> dict[str, dict[str, int]]:  # noqa: ANN401 — ONNX Runtime is not typed
    """Return where a session runs its nodes: nodes per operator, by provider."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name].update(node.op_type for node in part.get_nodes())
    return {name: dict(counter) for name, counter in counts.items()}
