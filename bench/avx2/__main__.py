"""Run a command as on a CPU without AVX-512, VNNI and AMX: at the full speed of this one, with its AVX2 code.

    python -m bench.avx2 [--package onnxruntime] COMMAND [ARGUMENT ...]

    python -m bench.avx2 python -m bench.performance --quick --output out/avx2

ONNX Runtime and PyTorch ask a handler in place of the CPU (bench/cpuid), which takes the hidden features away. What
then runs are the kernels that a machine of AVX2 alone would run. What is not hidden is the machine itself: its clock,
caches and the width of its units are those of the CPU that it has.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from bench.cpuid.patching import PLACE, handled

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGES = ("onnxruntime", "torch")
HIDDEN = ("avx512", "avx_vnni", "avx10", "avx_ifma", "avx_ne_convert", "amx")
"""Beginnings of the flags of /proc/cpuinfo that are not shown."""
NUMPY_HIDDEN = ("AVX512", "X86_V4")


def cpuinfo(text: str) -> str:
    """Return Linux's /proc/cpuinfo without the hidden flags; the name of the CPU says so in the figures."""
    lines = (" ".join(word for word in line.split(" ") if not word.startswith(HIDDEN)) for line in text.split("\n"))
    return "\n".join(f"{line}, AVX-512 hidden" if line.startswith("model name") else line for line in lines)


def environment(packages: Sequence[str]) -> dict[str, str]:
    """Return the variables under which a command, and what it starts, sees no AVX-512."""
    variables = handled(packages)
    shown = PLACE / "cpuinfo"
    shown.write_text(cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8")), encoding="utf-8")
    features = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    return {
        **os.environ,
        **variables,
        "WITHOUT_AVX512_CPUINFO": str(shown),
        # NumPy is not patched: its own switches leave its dispatcher and OpenBLAS at AVX2.
        "NPY_DISABLE_CPU_FEATURES": " ".join(name for name in features if name.startswith(NUMPY_HIDDEN)),
        "OPENBLAS_CORETYPE": "Haswell",
    }


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--package", "packages", multiple=True, type=click.Choice(PACKAGES), help="Instead of all there are.")
@click.argument("command", nargs=-1, required=True)
def main(packages: tuple[str, ...], command: tuple[str, ...]) -> None:
    """Run COMMAND as on a CPU without AVX-512."""
    if "avx2" not in Path("/proc/cpuinfo").read_text(encoding="utf-8").split():
        sys.exit("this CPU has no AVX2, so there is nothing to show")
    chosen = packages or [package for package in PACKAGES if importlib.util.find_spec(package)]
    os.execvpe(command[0], command, environment(chosen))  # noqa: S606 — the user's own command is what this is for


if __name__ == "__main__":
    main()
