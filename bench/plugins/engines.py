"""Engines of TensorRT for RTX, built ahead of time: no GPU and no driver is needed, and the operators are checked.

What runs is NVIDIA's builder, from the same release that the plugin holds. The plugin itself builds for another machine
only in a process that Windows keeps from the driver; on Linux it asks the driver for devices first.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from bench.plugins.bundles import PLACE
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.heads import POSITIONS
from bertport.runtime.providers.table import PROVIDERS
from bertport.runtime.providers.tensorrt_engines import profile

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

__all__ = ["RECIPES", "TARGETS", "VERSION", "engines_of", "tensorrt_rtx"]

VERSION = "1.7.1.116"
"""Of TensorRT for RTX: the plugin's 0.5.0 holds 1.7.1."""
TARGETS = ("SM86", "SM89", "SM120")
"""The compute capabilities that the plugin takes, as TensorRT calls them: GeForce RTX 30, 40 and 50."""
RECIPES = ("fp16", "int8-static")
"""The variants that are made for it, beside fp32."""
ROUTINE = "has Int64 binding"
"""A warning of each input."""


def tensorrt_rtx() -> ModuleType:
    """Return NVIDIA's Python package, installed once in a folder of its own.

    Raises:
        SystemExit: where it cannot be installed, with what to do.
    """
    place = PLACE / "tensorrt-rtx"
    if not (place / "tensorrt_rtx").is_dir():
        wanted = f"tensorrt-rtx-cu13=={VERSION}"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(place), wanted]
        if subprocess.run(command, check=False).returncode:
            sys.exit(f"{wanted} cannot be installed here, which needs an index that has it, and Linux or Windows")
    sys.path.append(str(place))
    # Read by the library when it builds: fp32 is then computed in fp32, as the runtime has it.
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    return importlib.import_module("tensorrt_rtx")


def engines_of(path: Path, trt: ModuleType) -> dict[str, dict[str, Any]]:
    """Build an engine of every variant of a bundle for every target.

    Returns:
        By variant `bytes` and `seconds` by target, `layers` and `said`, or `refused` with the parser's words.
    """
    bundle = Bundle.open(path)
    results = {}
    for name, variant in bundle.manifest.variants.items():
        inputs = frozenset(bundle.manifest.inputs) | ({POSITIONS} if variant.kind == "serving" else set())
        row = PROVIDERS["tensorrt"]
        shapes = profile(
            inputs, max_length=bundle.manifest.max_length, batch_tokens=row.batch_tokens, batch_rows=row.batch_rows
        )
        results[name] = _built(trt, bundle.file(variant.file), shapes)
    return results


def _built(trt: ModuleType, path: Path, shapes: dict[str, str]) -> dict[str, Any]:
    """Parse a graph and build it for every target."""
    said: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]  # the module is imported when it is installed
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401 — TensorRT's own
            if severity <= trt.Logger.WARNING and ROUTINE not in message:
                said.append(message)

    log = Log()
    result: dict[str, Any] = {"bytes": {}, "seconds": {}}
    for target in TARGETS:
        builder = trt.Builder(log)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log)
        if not parser.parse_from_file(str(path)):
            return {"refused": parser.get_error(0).desc()}
        settings = builder.create_builder_config()
        settings.num_compute_capabilities = 1
        settings.set_compute_capability(getattr(trt.ComputeCapability, target), 0)
        settings.add_optimization_profile(_profile(builder, network, shapes))
        began = time.perf_counter()
        engine = builder.build_serialized_network(network, settings)
        if engine is None:
            return {"refused": said[-1] if said else "no engine, and no reason"}
        result["bytes"][target] = engine.nbytes
        result["seconds"][target] = round(time.perf_counter() - began, 2)
        result["layers"] = network.num_layers
    return result | {"said": list(dict.fromkeys(said))}


def _profile(builder: Any, network: Any, shapes: dict[str, str]) -> Any:  # noqa: ANN401 — TensorRT is not typed
    """Return the shapes that an engine is built for: those of ONNX Runtime's options for TensorRT."""
    made = builder.create_optimization_profile()
    known = [
        {
            name: tuple(int(size) for size in sizes.split("x"))
            for name, _, sizes in (entry.partition(":") for entry in shapes[f"trt_profile_{which}_shapes"].split(","))
        }
        for which in ("min", "opt", "max")
    ]
    for index in range(network.num_inputs):
        name = network.get_input(index).name
        made.set_shape(name, *(sizes[name] for sizes in known))
    return made
