"""Diagnosis for `bertport doctor`: what is installed, which providers work, why others do not, and how fast it is."""

from __future__ import annotations

import platform
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertport.runtime.errors import BertportError, PathError, ProviderError
from bertport.runtime.excerpts import excerpt, one_line
from bertport.runtime.installation import pip
from bertport.runtime.matmul import fastest_gflops, matmul_model
from bertport.runtime.memory import usable_memory
from bertport.runtime.providers import native, plugins, telemetry
from bertport.runtime.providers.checks import obstacle
from bertport.runtime.providers.cpu import cpu, usable_cores
from bertport.runtime.providers.table import PROVIDERS, candidates, onnxruntime, wheel
from bertport.runtime.session import open_graph

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bertport.runtime.providers.table import Provider

__all__ = ["Finding", "examine", "providers"]

WHEELS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
"""Wheels that install the module `onnxruntime`: with two of them recorded, the files of one are gone (ort#26996)."""
PACKAGES = ("bertport", "numpy", "tokenizers")
SIZE = 1024
"""Rows and columns of the matrices whose product is timed."""
TEXT = "The old man opened the door and looked out into the {} street, where the rain was still falling."
"""A text of some 23 tokens in an English vocabulary, with a place for the model's mask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Whether a provider works here."""

    name: str
    """Short name."""
    works: bool
    """Whether a session ran on it."""
    reason: str | None
    """Reason why it does not work, and what to do; None when it works."""


def examine(bundle: str | None = None, *, seconds: float = 1.0) -> dict[str, Any]:
    """Examine this installation and machine.

    Args:
        bundle: whose health and speed are examined; None for the embedded default.
        seconds: how long the speed check takes.

    Returns:
        JSON values. `ok` is whether texts can be answered here: ONNX Runtime runs on the CPU, and the bundle is whole.
    """
    report: dict[str, Any] = {"machine": _machine(), "onnxruntime": _onnxruntime()}
    said, why = telemetry.state()
    report["telemetry"] = {"state": said, **({"reason": why} if why else {})}
    working = report["onnxruntime"]["problem"] is None
    findings = providers() if working else []
    report["providers"] = {
        finding.name: {"works": finding.works, **({"reason": finding.reason} if finding.reason else {})}
        for finding in findings
    }
    report["plugins"] = {
        name: _plugin(provider, working=working) for name, provider in PROVIDERS.items() if provider.plugin is not None
    }
    driver = native.driver()
    report["nvidia"] = {
        "driver": driver.problem or f"runs CUDA up to {driver.cuda}",
        "devices": [f"{device.name} (compute capability {device.capability})" for device in driver.devices],
        "libraries": native.library_versions(),
        "built_for_cuda": _built_for(),
    }
    report["bundle"], report["speed"] = _bundle(bundle, seconds) if working else ({"problem": "not examined"}, None)
    on_cpu = any(finding.name == "cpu" and finding.works for finding in findings)
    report["ok"] = working and on_cpu and report["bundle"].get("problem") is None
    return report


def providers() -> list[Finding]:
    """Try every provider of the table with a small matrix product, strictly: what ran elsewhere does not count."""
    return [_try(provider) for provider in PROVIDERS.values()]


def _try(provider: Provider) -> Finding:
    try:
        candidates(provider.name)
        reason = obstacle(provider)
        if reason is None:
            _product(provider, 64, 0.0)
    except ProviderError as error:
        reason = error.message
    except BertportError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 — ONNX Runtime's errors share no base but Exception
        reason = f"provider {provider.name!r} starts and fails to compute ({_told(error)}): choose another provider"
    return Finding(name=provider.name, works=reason is None, reason=reason)


def _told(error: Exception) -> str:
    """Return what ONNX Runtime says, in one line of bounded length."""
    return excerpt(one_line(error), 300)


def _plugin(provider: Provider, *, working: bool) -> dict[str, Any]:
    """Return a plugin's package, its version and devices; of one that is not installed, what it would bring.

    Its library is registered in a process of its own: none that is broken ends this one.
    """
    plugin = provider.plugin
    if plugin is None:
        raise AssertionError(provider.name)
    here: dict[str, Any] = {
        "package": plugin.package,
        "version": _version(plugin.package),
        "takes": plugin.takes,
    }
    if plugin.library is None:
        brings = plugin.brings()
        return {**here, "devices": [], "brings": brings, **({"install": provider.install} if brings else {})}
    return {**here, "devices": list(plugins.listed(provider)) if working else []}


@contextmanager
def _written(graph: bytes) -> Iterator[Path]:
    """Write a graph into the folder for temporary files, for as long as it is opened.

    Raises:
        PathError: where nothing can be written there.
    """
    with ExitStack() as stack:
        try:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bertport-doctor-"))) / "product.onnx"
            path.write_bytes(graph)
        except OSError as error:
            raise PathError(
                f"nothing can be written in the folder for temporary files ({error.strerror or error}): make room "
                "there, or name another one by TMPDIR"
            ) from error
        yield path


def _product(provider: Provider, size: int, seconds: float) -> float:
    """Multiply two matrices on a provider; give the fastest of the runs, in GFLOP/s."""
    import numpy as np

    right = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    with _written(matmul_model(right)) as path:
        engine = {"trt_engine_cache_enable": "0", "trt_timing_cache_enable": "0"} if provider.shapes_cost else {}
        graph = open_graph(path, provider, options=engine)
    feeds: Any = {"a": right}
    return fastest_gflops(lambda: graph.run(feeds, ["y"]), right, right, seconds=seconds)


def _machine() -> dict[str, Any]:
    processor = cpu()
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "cpu": processor.model,
        "instruction_set": processor.instruction_set,
        "physical_cores": processor.physical_cores,
        "usable_cores": usable_cores(),
        "memory_bytes": usable_memory(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _onnxruntime() -> dict[str, Any]:
    recorded = {name: version for name in WHEELS if (version := _version(name))}
    try:
        ort = onnxruntime()
    except BertportError as error:
        return {"wheel": None, "recorded": recorded, "problem": error.message}
    # One in another directory of packages is hidden by this one, and nothing of it is gone.
    place = Path(str(ort.__file__)).resolve().parents[1]
    here = [name for name in recorded if _place(name) in {None, place}]
    problem = None
    if len(here) > 1:
        problem = (
            f"{len(here)} wheels of ONNX Runtime are installed over each other ({', '.join(here)}): "
            f"{pip()} uninstall {' '.join(here)}, then install one"
        )
    return {
        "wheel": wheel(),
        "recorded": recorded,
        "build": ort.get_build_info() if hasattr(ort, "get_build_info") else None,
        "lists": list(ort.get_available_providers()),
        "problem": problem,
    }


def _built_for() -> str | None:
    try:
        onnxruntime()
        from onnxruntime.capi.build_and_package_info import cuda_version
    except (ImportError, BertportError):
        return None
    return str(cuda_version) or None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except (metadata.PackageNotFoundError, KeyError):  # the second is a remnant's
        return None


def _place(package: str) -> Path | None:
    """Return the directory of packages that a package is recorded in; None where it cannot be told."""
    try:
        return Path(str(metadata.distribution(package).locate_file(""))).resolve()
    except metadata.PackageNotFoundError:
        return None


def _bundle(path: str | None, seconds: float) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Verify every file of a bundle, then load it and ask it for a while."""
    from bertport.runtime.bundle.default import default_bundle
    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.bundle.measured_elsewhere import notes
    from bertport.runtime.loading import load
    from bertport.runtime.tasks.table import TASKS

    try:
        opened = Bundle.open(default_bundle() if path is None else path)
        opened.verify()
        model = load(opened.path)
        gflops = _product(PROVIDERS["cpu"], SIZE, seconds / 3)
    except BertportError as error:
        return {"problem": error.message}, None
    said = model.describe()
    health = {
        "path": said["bundle"],
        "name": said["name"],
        "variants": list(opened.manifest.variants),
        "variant": said["variant"],
        "provider": said["provider"],
        "nodes": said["nodes"],
        "measured_elsewhere": notes(opened),
        "problem": None,
    }
    task = said["tasks"][0]
    text = TEXT.format(model.mask_token or "dark")
    asked = (text, text) if TASKS[task].pairs else text
    try:
        [*_] = model.predict(task, [asked])  # the first answer is slower
    except Exception as error:  # noqa: BLE001 — as in `_try`
        where = f"variant {said['variant']!r} on {said['provider']} loads"
        return health | {"problem": f"{where} and gives no answer ({_told(error)}): choose another provider"}, None
    took: list[float] = []
    end = time.perf_counter() + seconds * 2 / 3
    while time.perf_counter() < end or not took:
        began = time.perf_counter()
        [*_] = model.predict(task, [asked])
        took.append(time.perf_counter() - began)
    took.sort()
    return health, {
        "task": task,
        "texts_per_second": len(took) / sum(took),
        "median_ms": 1e3 * took[len(took) // 2],
        "matmul_gflops": gflops,
    }
