"""What plugins would run on, seen without them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bertport.runtime.providers import cpu, hardware, native
from bertport.runtime.providers.cpu import Cpu
from bertport.runtime.providers.native import Device, Driver

XEON = Cpu(model="Xeon", flags=frozenset({"avx512_bf16"}), physical_cores=2, vendor="GenuineIntel")


@pytest.mark.parametrize(
    ("described", "brings"),
    [
        (XEON, "bf16 on Xeon"),
        (replace(XEON, flags=frozenset()), "fp32 with OpenVINO's kernels on Xeon, which has no bf16"),
        (replace(XEON, vendor="", model="Intel(R) Core(TM)"), "bf16 on Intel(R) Core(TM)"),
        (replace(XEON, vendor="AuthenticAMD", model="EPYC"), None),
    ],
)
def test_openvino_is_for_cpus_of_intel(described, brings, monkeypatch):
    monkeypatch.setattr(cpu, "cpu", lambda: described)
    assert hardware.intel_cpu() == brings


@pytest.mark.parametrize(
    ("capability", "takes"),
    [("8.0", False), ("8.6", True), ("8.9", True), ("9.0", False), ("12.0", True), ("12.1", True)],
)
def test_tensorrt_for_rtx_is_for_some_gpus(capability, takes, monkeypatch):
    driver = Driver(problem=None, cuda="13.0", devices=(Device(name="GeForce", capability=capability),))
    monkeypatch.setattr(native, "driver", lambda: driver)
    assert hardware.rtx_gpu() == ("TensorRT on GeForce" if takes else None)


def test_webgpu_is_for_any_card_that_linux_lists(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    assert hardware.any_gpu(tmp_path) is None
    for number, kind in enumerate(("0x058000", "0x030000")):
        device = tmp_path / f"card{number}" / "device"
        device.mkdir(parents=True)
        (device / "class").write_text(f"{kind}\n")
    assert hardware.any_gpu(tmp_path) is None  # one is no display controller, and the other tells no vendor
    (tmp_path / "card1" / "device" / "vendor").write_text("0x8086\n")
    assert hardware.any_gpu(tmp_path) == "WebGPU on the GPU card1 (PCI vendor 0x8086), where Vulkan is installed"
    monkeypatch.setattr("sys.platform", "win32")
    assert hardware.any_gpu(tmp_path) is None
