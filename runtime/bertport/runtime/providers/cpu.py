"""The CPU under us: its name, and the instruction set that decides which INT8 arithmetic is right and fast."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bertport.runtime.control_groups import GROUPS, ROOT, limit_files

__all__ = [
    "BF16",
    "GENERIC",
    "INSTRUCTION_SETS",
    "Cpu",
    "InstructionSet",
    "cpu",
    "parse_cpuinfo",
    "parse_sysctl",
    "usable_cores",
]

FIRST = "cpu.cfs_quota_us"
"""File of a control group of version 1 that holds its quota."""
GENERIC = "generic"
"""The name for a CPU of which nothing in the table is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionSet:
    """One row: what a CPU offers to INT8 matrix products."""

    name: str
    """Name for users and in manifests."""
    needs: frozenset[str]
    """Flags that the CPU must have, by Linux's names."""
    saturates: bool
    """Whether unsigned times signed 8-bit products are summed in 16 bits (`vpmaddubsw`), which can overflow."""


INSTRUCTION_SETS: dict[str, InstructionSet] = {
    instructions.name: instructions
    for instructions in (  # best first
        InstructionSet(name="amx", needs=frozenset({"amx_tile", "amx_int8"}), saturates=False),
        InstructionSet(
            name="avx512_vnni", needs=frozenset({"avx512f", "avx512bw", "avx512vl", "avx512_vnni"}), saturates=False
        ),
        InstructionSet(name="avx_vnni", needs=frozenset({"avx2", "avx_vnni"}), saturates=False),
        InstructionSet(name="avx512", needs=frozenset({"avx512f", "avx512bw", "avx512vl"}), saturates=True),
        InstructionSet(name="avx2", needs=frozenset({"avx2"}), saturates=True),
        InstructionSet(name="arm64", needs=frozenset({"arm64"}), saturates=False),
    )
}
"""Instruction sets by name, best first: a CPU has the first row whose flags it has."""

_MACOS_NAMES = {"avx512vnni": "avx512_vnni", "avx512bf16": "avx512_bf16", "avxvnni": "avx_vnni", "avx1.0": "avx"}
"""Flags that macOS spells otherwise than Linux."""


BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Flags that say that a CPU multiplies bf16, the last one on arm64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """CPU as the operating system describes it."""

    model: str
    """Name of the model, for people."""
    flags: frozenset[str]
    """Features by Linux's names; `arm64` for the 64-bit Arm architecture."""
    physical_cores: int
    """Cores, hyper-threads not counted, of the whole machine."""
    vendor: str = ""
    """Name that the CPU gives itself, for example `GenuineIntel`; empty where it is not told."""

    @property
    def instruction_set(self) -> str:
        """The best row of `INSTRUCTION_SETS` that the CPU has, or `generic`."""
        return next((name for name, known in INSTRUCTION_SETS.items() if known.needs <= self.flags), GENERIC)

    @property
    def bf16(self) -> bool:
        """Whether it has products of bf16; others emulate them, which is slower than fp32."""
        return not BF16.isdisjoint(self.flags)


@cache
def cpu() -> Cpu:
    """Describe this machine's CPU; `generic` where the operating system is neither Linux nor macOS."""
    architecture = platform.machine().lower()
    arm = frozenset({"arm64"} if architecture in ("arm64", "aarch64") else ())
    try:
        if platform.system() == "Darwin":
            described = parse_sysctl(
                subprocess.run(
                    ["/usr/sbin/sysctl", "-a"],
                    capture_output=True,
                    encoding="utf-8",
                    errors="replace",
                    timeout=10,
                    check=True,
                ).stdout
            )
        else:
            described = parse_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except (OSError, subprocess.SubprocessError):
        described = Cpu(model="", flags=frozenset(), physical_cores=0)
    return Cpu(
        model=described.model or platform.processor() or architecture or "unknown",
        flags=described.flags | arm,
        physical_cores=described.physical_cores or os.cpu_count() or 1,
        vendor=described.vendor,
    )


def parse_cpuinfo(text: str) -> Cpu:
    """Return the CPU in Linux's /proc/cpuinfo; what that lacks is left empty or 0."""
    blocks = [
        {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())}
        for block in text.split("\n\n")
        if block.strip()
    ]
    first = blocks[0] if blocks else {}
    cores = {(block["physical id"], block["core id"]) for block in blocks if {"physical id", "core id"} <= set(block)}
    return Cpu(
        model=first.get("model name", ""),
        flags=frozenset((first.get("flags") or first.get("Features") or "").split()),
        physical_cores=len(cores),
        vendor=first.get("vendor_id", ""),
    )


def parse_sysctl(text: str) -> Cpu:
    """Return the CPU in what macOS's `sysctl -a` prints; what that lacks is left empty or 0."""
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    words = f"{values.get('machdep.cpu.features', '')} {values.get('machdep.cpu.leaf7_features', '')}".lower().split()
    present = {
        key.removeprefix("hw.optional.") for key, value in values.items() if value == "1" and "hw.optional." in key
    }
    return Cpu(
        model=values.get("machdep.cpu.brand_string", ""),
        flags=frozenset(_MACOS_NAMES.get(word, word) for word in {*words, *present}),
        physical_cores=int(values.get("hw.physicalcpu") or 0),
        vendor=values.get("machdep.cpu.vendor", ""),
    )


def usable_cores(groups: Path = GROUPS, root: Path = ROOT) -> float:
    """Return the processors that this process may use: by affinity, and by the least quota of its control groups.

    Args:
        groups: the control groups of the process.
        root: where control groups are mounted.
    """
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    for file in limit_files("cpu", "cpu.max", FIRST, groups=groups, root=root):
        with suppress(OSError, ValueError, ZeroDivisionError):  # there is no such group here, or no limit ("max")
            stated = file.read_text(encoding="ascii").split()
            if file.name == FIRST:  # of version 1, which has the period in a file of its own
                stated.append(file.with_name("cpu.cfs_period_us").read_text(encoding="ascii"))
            quota, period = map(int, stated)
            if quota > 0:  # -1 is no limit
                cores = min(cores, quota / period)
    return cores
