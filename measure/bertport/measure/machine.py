"""The machine that figures are measured on: its description, its matmul peak, and the lock that measuring takes."""

from __future__ import annotations

import os
import platform
import tempfile
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bertport.runtime.errors import PathError
from bertport.runtime.matmul import fastest_gflops, matmul_model
from bertport.runtime.providers.cpu import cpu, usable_cores
from bertport.runtime.providers.table import PROVIDERS
from bertport.runtime.session import open_session, session_options
from bertport.runtime.threads import intra_op_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "MACHINE_LOCK",
    "Machine",
    "awaited",
    "describe_machine",
    "installed_versions",
    "machine_lock",
    "matmul_gflops",
    "matmul_peak",
    "open_lock",
]

MACHINE_LOCK = Path(tempfile.gettempdir()) / "bertport-machine.lock"
"""Held exclusively while time is measured; long work in the background, such as training, holds it shared step by step,
and so pauses meanwhile (`models/pretraining/machine.py`)."""
INT8_FLAGS = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimddp", "i8mm", "bf16"),
)
"""CPU flags that decide how fast a variant is; all of `cpu.BF16` are among them, which tell a class of CPUs."""
PLUGINS = tuple(row.plugin.package for row in PROVIDERS.values() if row.plugin)
PACKAGES = ("bertport", "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", *PLUGINS, "numpy", "tokenizers")

_within = threading.RLock()
_depth = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where figures were measured."""

    cpu: str
    """Name of the CPU model."""
    instruction_set: str
    """The best row of `bertport.runtime.providers.cpu.INSTRUCTION_SETS`."""
    flags: tuple[str, ...]
    """Those of `INT8_FLAGS` that the CPU has."""
    physical_cores: int
    """Cores of the machine, hyper-threads not counted."""
    usable_cores: float
    """That this process may use, by affinity and container quota."""
    memory_bytes: int | None
    """Main memory; None where the operating system does not say."""
    system: str
    """Operating system and architecture."""
    versions: dict[str, str]
    """Versions of Python and the packages that compute."""
    busy: float | None
    """Processes that ran or waited to run over the last minute, when this was described: above the work of the
    measurement itself, other programs disturbed it. None where the operating system does not say."""
    matmul_gflops: float | None
    """Measured peak of fp32 matrix products; None when it was not measured."""


def describe_machine(*, matmul_gflops: float | None = None) -> Machine:
    """Describe this machine; pass what `matmul_peak` measured."""
    processor = cpu()
    return Machine(
        cpu=processor.model,
        instruction_set=processor.instruction_set,
        flags=tuple(flag for flag in INT8_FLAGS if flag in processor.flags),
        physical_cores=processor.physical_cores,
        usable_cores=usable_cores(),
        memory_bytes=_memory(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        versions={"python": platform.python_version(), **installed_versions(PACKAGES)},
        busy=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        matmul_gflops=matmul_gflops,
    )


def installed_versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of those distributions that are installed, by name."""
    versions = {}
    for name in distributions:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@contextmanager
def machine_lock(waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the machine's lock exclusively while the block measures time; a crash releases it.

    A block inside another, in the same thread, is free. Where the operating system has no `flock` (Windows), nothing
    is locked.

    Args:
        waiting: Called once when another process holds the lock, before waiting for it.
    """
    global _depth  # noqa: PLW0603 — a second descriptor of this process would wait for the first one for ever
    try:
        import fcntl
    except ImportError:
        yield
        return
    with _within:
        if _depth:
            yield
            return
        descriptor = open_lock(MACHINE_LOCK)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting:
                    waiting()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            _depth = 1
            yield
        finally:
            _depth = 0
            os.close(descriptor)


def open_lock(path: Path) -> int:
    """Return a descriptor of a lock's file, which is made where there is none; another user's will do.

    Readable is enough to lock it, so that several users can share it.

    Raises:
        PathError: when another user has made it so that nobody else can read it.
    """
    try:
        with suppress(FileNotFoundError):
            # Not with O_CREAT: Linux then refuses a file of another user in /tmp (`fs.protected_regular`).
            return os.open(path, os.O_RDONLY)
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
        with suppress(PermissionError):  # made by another user meanwhile, whose file it is
            os.fchmod(descriptor, 0o644)  # whatever the umask
    except OSError as error:
        raise PathError(
            f"cannot open the lock of measurements {path} ({error.strerror or error}): remove that file, or "
            "make it readable"
        ) from error
    return descriptor


def awaited() -> str:
    """Return what is waited for where another process holds the machine's lock, as a stage of a command says it."""
    holder = _holder()
    who = f"process {holder}" if holder else "a process"
    return f"waiting for {who}, which measures or trains on this machine ({MACHINE_LOCK})"


def _holder() -> int | None:
    """Return the process that holds the machine's lock; None where the system does not say."""
    try:
        status = MACHINE_LOCK.stat()
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    found: dict[str, int] = {}
    for line in lines:
        match line.split():  # one that waits has an arrow behind its number
            case [_, "FLOCK", _, _, process, place, *_] if place.rpartition(":")[2] == str(status.st_ino):
                found.setdefault(place.rpartition(":")[0], int(process))
    if device not in found and len(found) == 1:  # overlays and btrfs say another device of a file than of its lock
        [device] = found
    return found.get(device) or None


def matmul_peak(*, threads: int | None = None, size: int = 1024, seconds: float = 1.0) -> float:
    """Measure the machine's fp32 matmul peak in GFLOP/s, with ONNX Runtime's own kernel: what a variant could reach.

    Args:
        threads: Threads within the operator; None for one per physical core that this process may use.
        size: Rows and columns of the square matrices.
        seconds: How long to try for a faster run; the fastest counts.
    """
    return matmul_gflops(size, size, size, threads=threads, seconds=seconds)


def matmul_gflops(rows: int, inner: int, columns: int, *, threads: int | None = None, seconds: float = 1.0) -> float:
    """Measure the GFLOP/s of one fp32 product `[rows, inner] @ [inner, columns]`, the right one a constant.

    Args:
        rows: Rows of the left matrix.
        inner: Its columns.
        columns: Columns of the right matrix.
        threads: Threads within the operator; None for one per physical core that this process may use.
        seconds: How long to try for a faster run; the fastest counts.
    """
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal(shape, dtype=np.float32) for shape in ((rows, inner), (inner, columns)))
    session = open_session(matmul_model(right), session_options(threads=intra_op_threads(threads), config={}))
    with machine_lock():
        return fastest_gflops(lambda: session.run(None, {"a": left}), left, right, seconds=seconds)


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
