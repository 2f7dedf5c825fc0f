"""Native libraries as the dynamic linker sees them: what a file needs, what is missing, and which versions are here.

ONNX Runtime lists a provider whose libraries do not load and says why only in its log. Asking the linker first gives
the reason, by the name of the library, before a session has tried and fallen back.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Device", "Driver", "driver", "file_name", "library_versions", "loads", "missing", "needed"]

ELF_64_LITTLE = b"\x7fELF\x02\x01"
LOAD, DYNAMIC = 1, 2
"""Kinds of program header."""
NEEDED, STRING_TABLE = 1, 5
"""Tags of the dynamic section."""


def file_name(stem: str) -> str:
    """Return the file name of a shared library on this system."""
    begin, end = {"win32": ("", ".dll"), "darwin": ("lib", ".dylib")}.get(sys.platform, ("lib", ".so"))
    return f"{begin}{stem}{end}"


def needed(path: Path) -> tuple[str, ...]:
    """Name the libraries that a shared library is linked to; empty for a file that is not 64-bit ELF (so not on Linux).

    Written out because the standard library has nothing for it, and `ldd` may not be installed.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:6] != ELF_64_LITTLE:
            return ()
        (begin,) = struct.unpack_from("<Q", data, 32)
        size, count = struct.unpack_from("<HH", data, 54)
        headers = [struct.unpack_from("<IIQQQQQQ", data, begin + index * size) for index in range(count)]
        segments = [(header[3], header[2], header[5]) for header in headers if header[0] == LOAD]
        entries = [
            struct.unpack_from("<qQ", data, header[2] + at)
            for header in headers
            if header[0] == DYNAMIC
            for at in range(0, header[5], 16)
        ]
        tables = [value for tag, value in entries if tag == STRING_TABLE]
        if not tables:
            return ()
        # The table is given by its address in memory: find the segment that holds it to know its place in the file.
        places = [at + tables[0] - address for address, at, length in segments if 0 <= tables[0] - address < length]
        if not places:  # a file of debugging symbols has the segments of its library without what is in them
            return ()
        table = places[0]
        starts = [table + value for tag, value in entries if tag == NEEDED]
        return tuple(data[start : data.find(b"\0", start)].decode() for start in starts)


def loads(library: str) -> str | None:
    """Load a library for the rest of the process; None when it worked, else the linker's reason."""
    try:
        ctypes.CDLL(library, mode=getattr(ctypes, "RTLD_GLOBAL", 0))
    except OSError as error:
        return str(error)
    return None


def missing(path: Path) -> tuple[str, ...]:
    """Return the libraries that a shared library needs and that are neither beside it nor load from elsewhere."""
    return tuple(name for name in needed(path) if not path.with_name(name).exists() and loads(name) is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One NVIDIA GPU."""

    name: str
    """Name of the device, for people."""
    capability: str
    """Compute capability, for example `9.0`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """NVIDIA driver, found without any CUDA package."""

    problem: str | None
    """Reason why no GPU can be used; None when one can."""
    cuda: str | None = None
    """The newest CUDA that the driver runs, for example `13.0`."""
    devices: tuple[Device, ...] = ()
    """The GPUs, in CUDA's order."""


_ERRORS = {
    34: "the driver is a stub for building, not for running",
    35: "the driver is older than the CUDA that asks",
    100: "no CUDA device was found",
    101: "the CUDA device is not valid",
    803: "the driver's library and its kernel module are of different versions",
    804: "the driver does not support this device in compatibility mode",
    999: "unknown error (often a kernel module that is not loaded)",
}
"""The results of cuInit that users meet, from CUDA's documentation of CUresult."""


def driver() -> Driver:
    """Return the NVIDIA driver's version and devices."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        cuda = ctypes.CDLL(name)
    except OSError:
        return Driver(problem=f"no NVIDIA driver ({name} is not installed)")
    number = ctypes.c_int()
    version = None
    if cuda.cuDriverGetVersion(ctypes.byref(number)) == 0 and number.value:
        version = f"{number.value // 1000}.{number.value % 1000 // 10}"
    code = cuda.cuInit(0)
    if code:
        reason = _ERRORS.get(code, f"CUDA error {code}")
        return Driver(problem=f"the NVIDIA driver does not start ({reason})", cuda=version)
    cuda.cuDeviceGetCount(ctypes.byref(number))
    devices = tuple(_device(cuda, index) for index in range(number.value))
    return Driver(problem=None if devices else "no CUDA device was found", cuda=version, devices=devices)


def _device(cuda: ctypes.CDLL, index: int) -> Device:
    name, part = ctypes.create_string_buffer(256), ctypes.c_int()
    parts = []
    cuda.cuDeviceGetName(name, len(name), index)
    for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
        cuda.cuDeviceGetAttribute(ctypes.byref(part), attribute, index)
        parts.append(str(part.value))
    return Device(name=name.value.decode(errors="replace"), capability=".".join(parts))


def library_versions() -> dict[str, str]:
    """Return the versions of CUDA's runtime, cuDNN and TensorRT that load here, by asking each library."""
    versions: dict[str, str] = {}
    with suppress(OSError, AttributeError):
        number = ctypes.c_int()
        if _first("libcudart.so.13", "libcudart.so.12").cudaRuntimeGetVersion(ctypes.byref(number)) == 0:
            versions["cuda runtime"] = f"{number.value // 1000}.{number.value % 1000 // 10}"
    with suppress(OSError, AttributeError):
        cudnn = _first("libcudnn.so.9").cudnnGetVersion
        cudnn.restype = ctypes.c_size_t
        value = cudnn()
        versions["cudnn"] = f"{value // 10000}.{value // 100 % 100}.{value % 100}"
    with suppress(OSError, AttributeError):
        value = _first("libnvinfer.so.11", "libnvinfer.so.10").getInferLibVersion()
        versions["tensorrt"] = f"{value // 10000}.{value // 100 % 100}.{value % 100}"
    return versions


def _first(*names: str) -> ctypes.CDLL:
    for name in names:
        with suppress(OSError):
            return ctypes.CDLL(name)
    raise OSError(names[-1])
