"""Libraries that ask a handler, in place of the CPU, what it can do and who made it.

A program cannot intercept the instruction CPUID on every machine. So libraries are copied to out/cpuid, with each CPUID
(0F A2) replaced by UD2 (0F 0B), which has the same length and raises SIGILL; a handler (answers.c) answers in CPUID's
place. Needs a C compiler and binutils (objdump). The copies are made once for each version of a library (minutes for
PyTorch's); files without the instruction are hard links.
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

from bench.checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["PLACE", "handled", "prepare"]

PLACE = ROOT / "out" / "cpuid"
"""Directory of the copies and the handler."""
CPUID, UD2 = b"\x0f\xa2", b"\x0f\x0b"


def handled(packages: Sequence[str]) -> dict[str, str]:
    """Return variables under which a command, and what it starts, imports patched packages and asks the handler.

    Args:
        packages: names of the packages, which must be installed here.
    """
    PLACE.mkdir(parents=True, exist_ok=True)
    compiler = shutil.which("cc")
    if compiler is None or shutil.which("objdump") is None:
        sys.exit("answering in the CPU's place needs a C compiler and objdump: apt-get install gcc binutils libc6-dev")
    handler = PLACE / "handler.so"
    unfinished = PLACE / f"handler-{os.getpid()}.so"
    source = Path(__file__).with_name("answers.c")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", unfinished, source, "-ldl"], check=True)
    unfinished.rename(handler)  # another command may be running with it
    sites = [prepare(package) for package in packages]
    return {
        "LD_PRELOAD": str(handler),
        "PYTHONPATH": os.pathsep.join([*map(str, sites), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }


def cpuids(library: Path) -> list[int]:
    """Return the virtual addresses of a library's CPUID instructions."""
    command = ["objdump", "--disassemble", "--no-show-raw-insn", str(library)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        lines = running.stdout or ()
        addresses = [int(line.partition(":")[0], 16) for line in lines if line.rstrip().endswith("\tcpuid")]
    if running.returncode:
        sys.exit(f"objdump could not read {library}")
    return addresses


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield address, offset in the file and length of what a 64-bit ELF file loads."""
    (table,) = struct.unpack_from("<Q", data, 0x20)
    size, count = struct.unpack_from("<HH", data, 0x36)
    for start in range(table, table + size * count, size):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, start)
        if kind == 1:  # PT_LOAD
            yield address, offset, length


def patched(library: Path) -> bytes | None:
    """Return a library with each CPUID replaced by UD2; None when it has none."""
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
    """Copy a package with patched libraries, unless that was done; return what is to stand on the import path."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"{package} is not a package here")
    source = Path(spec.submodule_search_locations[0]).resolve()
    target = PLACE / f"{package}-{metadata.version(package)}"
    if target.exists():
        return target
    print(f"copying {package} {metadata.version(package)} with CPUID replaced", file=sys.stderr)
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(source, unfinished / package, copy_function=_link)
    for library in (path for path in source.rglob("*.so*") if path.is_file()):
        changed = patched(library)
        if changed is not None:
            copy = unfinished / package / library.relative_to(source)
            copy.unlink()  # It may be a link: the original must not be written to.
            copy.write_bytes(changed)
    try:
        unfinished.rename(target)
    except OSError:  # another command was faster
        shutil.rmtree(unfinished)
    return target


def _link(source: str, target: str) -> None:
    """Share a file's bytes where both places are on one file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
