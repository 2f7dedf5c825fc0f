"""Devices that plugins could run on, seen without them: what an installation would bring to this machine."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["any_gpu", "intel_cpu", "rtx_gpu"]

DRM = Path("/sys/class/drm")
"""Directory in which Linux lists graphics cards; ONNX Runtime looks for them there."""
DISPLAY = "0x03"
"""Prefix of the PCI class code of display controllers."""
RTX = frozenset({"8.6", "8.9"})
RTX_FROM = 12
"""The compute capabilities that TensorRT for RTX takes: these, and all of this major version and later ones."""


def intel_cpu() -> str | None:
    """Return what OpenVINO would do with this machine's CPU; None for a CPU that is not Intel's."""
    from bertport.runtime.providers.cpu import cpu

    here = cpu()
    if here.vendor != "GenuineIntel" and "Intel" not in here.model:
        return None
    return f"bf16 on {here.model}" if here.bf16 else f"fp32 with OpenVINO's kernels on {here.model}, which has no bf16"


def rtx_gpu() -> str | None:
    """Return what TensorRT for RTX would run on; None where there is no such GPU, or no driver."""
    from bertport.runtime.providers import native

    for device in native.driver().devices:
        major = device.capability.partition(".")[0]
        if device.capability in RTX or (major.isdecimal() and int(major) >= RTX_FROM):
            return f"TensorRT on {device.name}"
    return None


def any_gpu(drm: Path = DRM) -> str | None:
    """Return what WebGPU would run on; None where there is no GPU, or this operating system does not list them."""
    if not sys.platform.startswith("linux"):
        return None
    for card in sorted(drm.glob("card[0-9]*/device/class")):
        try:
            kind, vendor = (card.with_name(name).read_text(encoding="ascii").strip() for name in ("class", "vendor"))
        except (OSError, UnicodeDecodeError):
            continue
        if kind.startswith(DISPLAY):
            return f"WebGPU on the GPU {card.parents[1].name} (PCI vendor {vendor}), where Vulkan is installed"
    return None
