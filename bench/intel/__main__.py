"""Run a command as on a CPU that Intel made: OpenVINO's plugin for ONNX Runtime offers a CPU on no other.

    python -m bench.intel COMMAND [ARGUMENT ...]

    python -m bench.intel bertport doctor

ONNX Runtime alone asks a handler in place of the CPU (bench/cpuid), which names Intel as its vendor and changes nothing
else; OpenVINO itself sees the CPU as it is, and runs on it. On a CPU of Intel's the command runs as it would without.
So what a plugin answers can be tested on any x86-64 machine. It is no way to deploy it: who has a CPU of another vendor
uses the provider `cpu`.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from bench.cpuid.patching import handled

__all__ = ["environment", "is_intel"]


def is_intel() -> bool:
    """Return whether Intel made this CPU."""
    return "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8")


def environment() -> dict[str, str]:
    """Return the variables under which a command, and what it starts, is told that Intel made the CPU."""
    return dict(os.environ) if is_intel() else {**os.environ, **handled(["onnxruntime"]), "INTEL_VENDOR": "1"}


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True)
def main(command: tuple[str, ...]) -> None:
    """Run COMMAND as on a CPU that Intel made."""
    os.execvpe(command[0], command, environment())  # noqa: S606 — the user's own command is what this is for


if __name__ == "__main__":
    main()
