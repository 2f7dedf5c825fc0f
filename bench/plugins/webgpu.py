"""WebGPU's plugin on a GPU that is computed by the CPU (SwiftShader's Vulkan), compared with the CPU provider.

Two things stand in the way on a machine without a GPU. ONNX Runtime looks for GPUs in /sys/class/drm, so that the
program runs in a mount namespace of its own, where a folder of memory with one card lies over /sys/class. And Vulkan's
loader and SwiftShader are needed: those of the system, or Debian's, unpacked into a folder of this program.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.plugins.bundles import PLACE
from bertport.measure.text import sample_path
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import BertportError
from bertport.runtime.heads import POSITIONS
from bertport.runtime.loading import load
from bertport.runtime.providers.table import PROVIDERS, onnxruntime
from bertport.runtime.session import FATAL_ONLY, open_graph, open_session, session_options
from bertport.runtime.text.tokenizer import Tokens

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["BOUND", "compared", "distance", "in_namespace", "judged", "versions"]

PLUGIN = "onnxruntime-ep-webgpu==0.4.0"
BOUND = 1e-4
"""Largest difference from the CPU in any output of fp32."""
BATCHES = ((8, 12), (16, 8), (2, 40), (1, 5))
"""Texts of each batch, and about how many tokens a text has: some dozens of texts, most of them padded."""
CARD = """
mount -t tmpfs none /sys/class && mkdir -p /sys/class/drm/card0/device && cd /sys/class/drm/card0/device &&
echo 0x8086 > vendor && echo 0x0001 > device && echo 0x030000 > class && cd "$OLDPWD" && exec "$@"
"""
"""Script of a shell in the namespace: one card, of a vendor that the plugin takes, and then the command."""
ICDS = (
    Path("/usr/lib/chromium/vk_swiftshader_icd.json"),
    Path("/opt/google/chrome/vk_swiftshader_icd.json"),
    PLACE / "swiftshader/usr/lib/chromium/vk_swiftshader_icd.json",
)
"""Places of SwiftShader's manifest for the Vulkan loader, the first choice first."""


def in_namespace(arguments: Sequence[str]) -> int:
    """Run this program again where there is a card; return its exit code.

    Raises:
        SystemExit: where it cannot be set up, with the reason.
    """
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    try:
        tried = subprocess.run(
            [*namespace, "sh", "-c", CARD, "sh", "true"], check=False, capture_output=True, text=True
        )
    except FileNotFoundError:
        sys.exit("WebGPU without a GPU needs Linux's unshare (util-linux), which is not installed")
    if tried.returncode:
        sys.exit(f"WebGPU without a GPU needs a mount namespace, for which root is needed: {tried.stderr.strip()}")
    packages = PLACE / "webgpu"
    if not packages.is_dir():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages), PLUGIN]
        subprocess.run(install, check=True)
    icd = _swiftshader()
    environment = {
        **os.environ,
        "VK_ICD_FILENAMES": str(icd),
        "LD_LIBRARY_PATH": f"{_loader(icd)}:{os.environ.get('LD_LIBRARY_PATH', '')}",
        "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{packages}",
    }
    command = [*namespace, "sh", "-c", CARD, "sh", sys.executable, "-m", "bench.plugins", *arguments, "--inside"]
    return subprocess.run(command, check=False, env=environment).returncode


def _swiftshader() -> Path:
    """Return the file that tells Vulkan's loader of SwiftShader; Debian's package is unpacked where there is none."""
    for path in ICDS:
        if path.is_file():
            return path
    _unpack("chromium-common")
    return ICDS[-1]


def _loader(icd: Path) -> Path:
    """Return a folder that holds Vulkan's loader and nothing else of use to a linker."""
    folder = PLACE / "vulkan"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "libvulkan.so.1"
    if link.exists():
        return folder
    try:
        ctypes.CDLL("libvulkan.so.1")
    except OSError:
        beside = icd.with_name("libvulkan.so.1")  # Chromium brings its own
        if not beside.is_file():
            _unpack("libvulkan1")
            beside = next((PLACE / "swiftshader/usr/lib").rglob("libvulkan.so.1"))
        link.unlink(missing_ok=True)
        link.symlink_to(beside)
    return folder


def _unpack(package: str) -> None:
    """Unpack a package of Debian into a folder of this program: nothing is installed."""
    place = PLACE / "swiftshader"
    place.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run([_tool("apt-get"), "download", package], cwd=place, check=True, stdout=subprocess.DEVNULL)
        [archive] = place.glob(f"{package}_*.deb")
        subprocess.run([_tool("dpkg-deb"), "-x", archive.name, "."], cwd=place, check=True)
    except (OSError, ValueError, subprocess.CalledProcessError):
        sys.exit(f"Vulkan in software needs Debian's package {package}, which cannot be had here: install Chromium")


def _tool(name: str) -> str:
    """Return the path of a program.

    Raises:
        FileNotFoundError: where it is not installed.
    """
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(name)
    return path


def versions() -> dict[str, str]:
    """Return what computes, by name."""
    icd = json.loads(Path(os.environ["VK_ICD_FILENAMES"]).read_text(encoding="utf-8"))
    return {
        "onnxruntime": onnxruntime().__version__,
        "onnxruntime-ep-webgpu": metadata.version("onnxruntime-ep-webgpu"),
        "Vulkan": f"SwiftShader ({Path(icd['ICD']['library_path']).name}{_package()})",
    }


def _package() -> str:
    """Return the package and version that SwiftShader came in, where the system knows it."""
    asked = ["dpkg-query", "--show", "--showformat", ", ${Package} ${Version}", "chromium-common"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def compared(path: Path) -> dict[str, dict[str, Any]]:
    """Compare every variant of a bundle on WebGPU with the CPU.

    Returns:
        By variant, `differences`: the largest of each output over all batches, None where it is infinite, for which
        JSON has no word; `nodes`: how many WebGPU and the CPU took; or `refused`: what bertport says, and `words`: what
        ONNX Runtime says to the graph all the same.
    """
    bundle = Bundle.open(path)
    results: dict[str, dict[str, Any]] = {}
    for name in bundle.manifest.variants:
        try:
            load(path, variant=name, provider="webgpu")
        except BertportError as error:
            results[name] = {"refused": error.message, "words": _words(bundle, name)}
        else:
            results[name] = _differences(bundle, name)
    return results


def _differences(bundle: Bundle, name: str) -> dict[str, Any]:
    """Return the largest difference of each output, and where the nodes ran."""
    variant = bundle.manifest.variants[name]
    graphs = [open_graph(bundle.file(variant.file), PROVIDERS[provider]) for provider in ("cpu", "webgpu")]
    outputs = list(variant.outputs)
    worst = dict.fromkeys(outputs, 0.0)
    for feeds in batches():
        expected, got = (graph.run(feeds, outputs) for graph in graphs)
        for output in outputs:
            worst[output] = max(worst[output], distance(got[output], expected[output]))
    nodes = {ort: sum(counts.values()) for ort, counts in graphs[1].placement.items()}
    told = {output: far if math.isfinite(far) else None for output, far in worst.items()}
    return {"differences": told, "nodes": nodes}


def judged(bundles: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str | None:
    """Return what is wrong with the results of all bundles, by variant, as a sentence; None where nothing is."""
    differences = [
        difference
        for variants in bundles.values()
        for result in variants.values()
        for difference in result.get("differences", {}).values()
    ]
    if not differences:
        return (
            "every variant of every bundle was refused, so nothing was compared with the CPU: see what was said above"
        )
    worst = max(math.inf if difference is None else difference for difference in differences)
    return None if worst <= BOUND else f"an output differs from the CPU's by {worst:g}, more than {BOUND:g}"


def distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the largest difference of two arrays; infinite for a value that is not finite: `max` passes over NaN."""
    far = float(np.abs(one - other).max())
    return far if math.isfinite(far) else math.inf


def _words(bundle: Bundle, name: str) -> str:
    """Return what ONNX Runtime says where a graph that bertport refuses is opened and run; empty where it runs."""
    variant = bundle.manifest.variants[name]
    options = session_options(log_level=FATAL_ONLY)
    options.add_provider_for_devices(_devices(), {})
    try:
        session = open_session(bundle.file(variant.file), options, providers=None)
        given = {argument.name for argument in session.get_inputs()}
        feeds = next(iter(batches()))
        session.run(None, {key: value for key, value in feeds.items() if key in given})
    except Exception as error:  # noqa: BLE001 — ONNX Runtime's errors share no other base
        return str(error)
    return ""


def _devices() -> list[Any]:
    """Return WebGPU's device; the library was registered when the row was first used."""
    from bertport.runtime.providers import plugins

    return list(plugins.devices(PROVIDERS["webgpu"])[:1])


def batches() -> Sequence[Mapping[str, NDArray[np.int64]]]:
    """Return inputs made of the sample that ships, padded; every tenth token is a position to decode."""
    tokens = Tokens.read(Bundle.open(default_bundle()))
    words = sample_path("evaluation").read_text(encoding="utf-8").split()
    made = []
    for count, length in BATCHES:
        texts = [" ".join(words[number * 97 :][: max(1, length - number)]) for number in range(count)]
        rows = [encoded.ids for encoded in tokens.encode(texts)]  # type: ignore[union-attr]  # none is too long
        width = max(len(row) for row in rows)
        ids = np.zeros((count, width), dtype=np.int64)
        mask = np.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)], mask[number, : len(row)] = row, 1
        made.append(
            {
                "input_ids": ids,
                "attention_mask": mask,
                "token_type_ids": np.zeros_like(ids),
                POSITIONS: np.arange(0, ids.size, 10),
            }
        )
    return made
