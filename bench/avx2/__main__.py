"""Run a command as on a CPU without AVX-512, VNNI and AMX: at the full speed of this one, with its AVX2 code.

    python -m bench.avx2 [--package onnxruntime] COMMAND [ARGUMENT ...]

    python -m bench.avx2 python -m bench.performance --quick --output out/avx2

Libraries ask the CPU what it can do with the instruction CPUID, which a program cannot intercept on every machine.
So the libraries of ONNX Runtime and PyTorch are copied to out/without-avx512, with each CPUID (0F A2) replaced by
UD2 (0F 0B), which has the same length and raises SIGILL; a handler (without_avx512.c) answers in CPUID's place with
the hidden features taken away. What then runs are the kernels that a machine of AVX2 alone would run. What is not
hidden is the machine itself: its clock, caches and the width of its units are those of the CPU that it has.

Needs a C compiler and binutils (objdump). The copies are made once for each version of the libraries (minutes for
PyTorch's); other files are hard links.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import struct
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from bench.checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PLACE = ROOT / "out" / "without-avx512"
PACKAGES = ("onnxruntime", "torch")
CPUID, UD2 = b"\x0f\xa2", b"\x0f\x0b"
HIDDEN = ("avx512", "avx_vnni", "avx10", "avx_ifma", "avx_ne_convert", "amx")
"""Beginnings of the flags of /proc/cpuinfo that are not shown."""
NUMPY_HIDDEN = ("AVX512", "X86_V4")


def cpuids(library: Path) -> list[int]:
    """Virtual addresses of a library's CPUID instructions."""
    command = ["objdump", "--disassemble", "--no-show-raw-insn", str(library)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        lines = running.stdout or ()
        addresses = [int(line.partition(":")[0], 16) for line in lines if line.rstrip().endswith("\tcpuid")]
    if running.returncode:
        sys.exit(f"objdump could not read {library}")
    return addresses


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Address, offset in the file and length of what a 64-bit ELF file loads."""
    (table,) = struct.unpack_from("<Q", data, 0x20)
    size, count = struct.unpack_from("<HH", data, 0x36)
    for start in range(table, table + size * count, size):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, start)
        if kind == 1:  # PT_LOAD
            yield address, offset, length


def patched(library: Path) -> bytes | None:
    """Replace each CPUID of a library by UD2; None when it has none."""
    data = library.read_bytes()
    if data[:5] != b"\x7fELF\x02" or CPUID not in data:
        return None
    addresses = cpuids(library)
    changed = bytearray(data)
    loaded = list(segments(data))
    for address in addresses:
        (at,) = (address - begin + offset for begin, offset, length in loaded if 0 <= address - begin < length)
        if changed[at : at + 2] != CPUID:
            sys.exit(f"{library}: no CPUID at {address:#x}; its layout is not understood")
        changed[at : at + 2] = UD2
    return bytes(changed) if addresses else None


def prepare(package: str) -> Path:
    """Copy a package with patched libraries, unless that was done; returns what is to stand on the import path."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"{package} is not a package here")
    source = Path(spec.submodule_search_locations[0]).resolve()
    target = PLACE / f"{package}-{metadata.version(package)}"
    if target.exists():
        return target
    print(f"preparing {package} {metadata.version(package)} without AVX-512", file=sys.stderr)
    unfinished = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(source, unfinished / package, copy_function=_link)
    for library in (path for path in source.rglob("*.so*") if path.is_file()):
        changed = patched(library)
        if changed is not None:
            copy = unfinished / package / library.relative_to(source)
            copy.unlink()  # It may be a link: the original must not be written to.
            copy.write_bytes(changed)
    unfinished.rename(target)
    return target


def _link(source: str, target: str) -> None:
    """Share a file's bytes where both places are on one file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def cpuinfo(text: str) -> str:
    """Linux's /proc/cpuinfo without the hidden flags; the name of the CPU says so in the figures."""
    lines = (" ".join(word for word in line.split(" ") if not word.startswith(HIDDEN)) for line in text.split("\n"))
    return "\n".join(f"{line}, AVX-512 hidden" if line.startswith("model name") else line for line in lines)


def environment(packages: Sequence[str]) -> dict[str, str]:
    """Variables under which a command, and what it starts, sees no AVX-512."""
    PLACE.mkdir(parents=True, exist_ok=True)
    handler, shown = PLACE / "handler.so", PLACE / "cpuinfo"
    source = Path(__file__).with_name("without_avx512.c")
    compiler = shutil.which("cc")
    if compiler is None or shutil.which("objdump") is None:
        sys.exit("hiding AVX-512 needs a C compiler and objdump: apt-get install gcc binutils libc6-dev")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", handler, source, "-ldl"], check=True)
    shown.write_text(cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8")), encoding="utf-8")
    sites = [prepare(package) for package in packages]
    features = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    return {
        **os.environ,
        "LD_PRELOAD": str(handler),
        "WITHOUT_AVX512_CPUINFO": str(shown),
        "PYTHONPATH": os.pathsep.join([*map(str, sites), *filter(None, [os.environ.get("PYTHONPATH")])]),
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
