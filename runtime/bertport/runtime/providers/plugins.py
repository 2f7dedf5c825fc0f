"""Execution providers that are libraries of other packages: probed, registered with ONNX Runtime, and their devices.

A library runs code as soon as it is loaded, and one that is broken ends the process. So it is registered in a process
of its own first, and here only when that went well.
"""

from __future__ import annotations

import ctypes
import glob
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertport.runtime.errors import PathError, ProviderError, UsageError
from bertport.runtime.excerpts import excerpt, one_line
from bertport.runtime.installation import pip
from bertport.runtime.providers import cpu, native
from bertport.runtime.providers.table import AUTO, PROVIDERS, Plugin, Provider, candidates, onnxruntime, unknown_row

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import IO

__all__ = ["devices", "listed", "obstacle", "of_library", "probe", "rows"]

LIMIT = 60.0
"""Seconds that a library may take to be registered in a process of its own; OpenVINO's takes a quarter of one."""
MOST_SAID = 300
"""Characters of a library's own words that an error repeats."""
CAPABILITIES = "OPTIMIZATION_CAPABILITIES"
"""Key of a device's metadata: what it computes in, in words of OpenVINO's."""
PROBE = """
import ctypes, json, os, sys
told = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what the library prints is no part of the answer
path, beside, sys.path[:] = json.loads(sys.argv[1])
import onnxruntime
for needed in beside:
    try:
        ctypes.CDLL(needed)
    except OSError:
        pass  # the library itself then says what it lacks
answer = {}
try:
    onnxruntime.register_execution_provider_library("bertport", path)
    listed = [device for device in onnxruntime.get_ep_devices() if device.ep_metadata.get("library_path") == path]
    answer["devices"] = [
        {"ep": device.ep_name, "metadata": dict(device.ep_metadata), "kind": device.device.type.name}
        for device in listed
    ]
    del listed
    onnxruntime.unregister_execution_provider_library("bertport")
except Exception as error:
    answer["problem"] = str(error)
json.dump(answer, told)
told.close()
"""
"""The program that registers a library: it prints its devices, or ONNX Runtime's reason, as JSON."""

_registering = threading.Lock()


def obstacle(provider: Provider, precision: str = "fp32") -> str | None:  # noqa: PLR0911 — a sentence for each
    """Return why a plugin's row cannot be used here, and what to do; None when it may.

    The library is asked in a process of its own, once for each file, and not loaded here.

    Args:
        provider: a row with a plugin.
        precision: how products are to be computed, as manifests call it.
    """
    plugin = _plugin(provider)
    if provider.on_cpu and precision == "bf16" and not cpu.cpu().bf16:  # no package would help
        return _lacks(precision)
    path = plugin.library
    if path is None:
        return f"the package {plugin.package} is not installed: {provider.install}, or choose another provider"
    if provider.nvidia and (problem := native.driver().problem):
        return f"{problem}: check that NVIDIA's driver is installed, or choose another provider"
    for key, value in plugin.environment.items():
        if os.environ.get(key, value) != value:
            return f"{key} is {os.environ[key]} in the environment, so that fp32 would be computed otherwise: unset it"
    answer = _answer(path)
    if "problem" in answer:
        return f"{answer['problem']}: {answer.get('remedy') or _remedy(provider)}, or choose another provider"
    listed = [device["metadata"] for device in answer["devices"] if _fits(provider, device["ep"], device["metadata"])]
    if not listed:
        return (
            f"{path.name} lists no device for it here (it takes {plugin.takes}): choose --provider cpu, or another "
            "provider"
        )
    return _lacking(plugin, precision, listed[0])


def _lacking(plugin: Plugin, precision: str, metadata: Mapping[str, str]) -> str | None:
    """Return why a device does not compute in a precision; None where it does."""
    # OpenVINO's word is no more than that it can: where the CPU cannot, which was seen before, it emulates.
    word = plugin.capabilities.get(precision)
    return None if word is None or word in metadata.get(CAPABILITIES, "").split() else _lacks(precision)


def _lacks(precision: str) -> str:
    """Return that this CPU does not multiply in a precision, and what to do."""
    return f"{cpu.cpu().model} does not multiply in {precision}: choose a variant in fp32, or another provider"


def devices(provider: Provider, precision: str = "fp32") -> list[Any]:
    """Return the `OrtEpDevice`s that a plugin's row is for, its library registered in this process: once, for good.

    Args:
        provider: a row with a plugin.
        precision: how products are to be computed, as manifests call it.

    Raises:
        ProviderError: when the library does not register, or has no such device here.
    """
    plugin = _plugin(provider)
    path = plugin.library
    reason = obstacle(provider, precision)
    if path is None or reason is not None:
        raise ProviderError(f"provider {provider.name!r} does not start here: {reason}")
    ort = onnxruntime()
    with _registering:
        if not any(device.ep_metadata.get("library_path") == str(path) for device in ort.get_ep_devices()):
            os.environ.update(plugin.environment)
            for needed in _beside(path):
                with suppress(OSError):
                    ctypes.CDLL(str(needed))
            # Not a name that ends in `.virtual`: OpenVINO then lists devices that are not there.
            ort.register_execution_provider_library(f"bertport:{path}", str(path))
        listed = ort.get_ep_devices()
    return [
        device
        for device in listed
        if device.ep_metadata.get("library_path") == str(path) and _fits(provider, device.ep_name, device.ep_metadata)
    ]


def listed(provider: Provider) -> tuple[dict[str, Any], ...]:
    """Return the devices that a plugin lists, whether the row is for them or not; none where it does not register.

    Returns:
        Of each `ep`, `kind` and `metadata`, as ONNX Runtime calls them.
    """
    path = _plugin(provider).library
    return tuple(_answer(path).get("devices", ())) if path is not None else ()


def of_library(path: str | os.PathLike[str], name: str) -> Provider:
    """Return the row of a provider in a library that the user names.

    A provider that the table knows has its row, with this library in place of its package's. Of any other no more is
    known than that it has the standard operators and computes fp32, which is checked when a session is opened.

    Args:
        path: of the library.
        name: a row of the table whose provider it holds, ONNX Runtime's name of a provider, or `auto` for the only one
            that it lists devices of.

    Raises:
        PathError: when there is no such file.
        UsageError: for what is no path, a provider that comes with ONNX Runtime, or when the library holds several.
        ProviderError: when the library does not register, or does not hold the provider.
    """
    library = _absolute(path)
    if name in PROVIDERS and PROVIDERS[name].plugin is None:
        raise UsageError(
            f"provider {name!r} comes with ONNX Runtime, not in a library of its own: leave out provider_library, or "
            f"choose the provider that {library.name} holds"
        )
    if not library.is_file():
        raise PathError(f"there is no library of a provider at {path}: give the path of a shared library")
    answer = _answer(library)
    if "problem" in answer:
        raise ProviderError(f"{answer['problem']}: choose another library or provider")
    rows = {row.ort: row for row in PROVIDERS.values() if row.plugin is not None}
    kinds: dict[str, str] = {}
    for device in answer["devices"]:
        kinds.setdefault(device["ep"], device["kind"])  # the first is the one that runs
    if name in PROVIDERS:  # that it may hold and list no device of here has a sentence of its own
        held = [PROVIDERS[name].ort] if PROVIDERS[name].ort in kinds or not kinds else []
    elif name == AUTO:
        held = [ep for ep in kinds if ep in rows] or list(kinds)
    else:
        held = [ep for ep in kinds if ep == name]
    if len(held) > 1:
        raise UsageError(f"{library.name} holds {', '.join(held)}: name one of them as the provider")
    if not held:
        listed = f"it lists {', '.join(kinds)}" if kinds else "it lists no device here"
        asked = "no provider" if name == AUTO else f"no provider {name!r}"
        raise ProviderError(
            f"{library.name} has {asked} for this machine ({listed}): choose another library or provider"
        )
    [ep] = held
    if ep in rows:
        return replace(rows[ep], plugin=replace(_plugin(rows[ep]), path=library))
    return unknown_row(ep, library, on_cpu=kinds[ep] == "CPU")


def rows(name: str, library: str | os.PathLike[str] | None) -> tuple[Provider, ...]:
    """Return the providers to try for a name, best first, as `candidates` does; of a library, the one that it holds.

    Args:
        name: a row of the table or `auto`; with a library, also ONNX Runtime's name.
        library: path of a plugin that the user names; None for what is installed.

    Raises:
        BertportError: what `candidates` and `of_library` raise.
    """
    return candidates(name) if library is None else (of_library(library, name),)


def _absolute(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a library that the user names.

    Raises:
        UsageError: for what is no path.
    """
    if not (isinstance(path, str | os.PathLike) and isinstance(os.fspath(path), str)):
        raise UsageError(f"the library of a provider is named by its path, not {excerpt(path)}: give a text or a Path")
    return Path(path).absolute()


def _plugin(provider: Provider) -> Plugin:
    if provider.plugin is None:
        raise AssertionError(provider.name)
    return provider.plugin


def _fits(provider: Provider, name: str, metadata: Mapping[str, str]) -> bool:
    """Return whether a device is one that a row is for."""
    wanted = _plugin(provider).devices
    return name == provider.ort and all(metadata.get(key) == value for key, value in wanted.items())


def _remedy(provider: Provider) -> str:
    """Return what to do about a library that does not register."""
    plugin = _plugin(provider)
    if plugin.path is not None:
        return "give another library"
    again = f"{pip()} install --force-reinstall {plugin.package}"
    return f"check that NVIDIA's driver is installed, or {again}" if provider.nvidia else again


def _answer(path: Path) -> dict[str, Any]:
    """Return what a process of its own says of a library, from memory where neither of the two changed."""
    try:
        stat = path.stat()
    except OSError as error:
        return {"problem": f"{path} cannot be read ({error.strerror})"}
    try:
        return probe(path, stat.st_size, stat.st_mtime_ns, onnxruntime().__version__)
    except OSError as error:  # which is not remembered: there may be room the next time
        return {
            "problem": f"{path.name} cannot be tried in a process of its own ({error.strerror or error})",
            "remedy": "see that there is room for a process, and in the folder for temporary files, which TMPDIR names",
        }


@cache
def probe(path: Path, size: int, changed: int, version: str) -> dict[str, Any]:  # noqa: ARG001 — they tell files apart
    """Register a library in a process of its own.

    Args:
        path: of the library.
        size: of the file, in bytes; with the next two, what the answer is remembered by.
        changed: time of the file's last change, in nanoseconds.
        version: of ONNX Runtime.

    Returns:
        `devices`, each with `ep`, `metadata` and `kind` as ONNX Runtime calls them (`kind` is CPU, GPU or NPU), or
        `problem`: a part of a sentence.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        places = [place for place in sys.path if isinstance(place, str)]  # Python passes over what is no text
        asked = json.dumps([str(path), [str(needed) for needed in _beside(path)], places])
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-c", PROBE, asked],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                timeout=LIMIT,
            )
        except subprocess.TimeoutExpired:
            return {"problem": f"{path.name} did not register with ONNX Runtime within {LIMIT:g} s"}
        answer = _read(out)
        last = _read(errors).splitlines()[-1:]
    said = f" ({_said(last[0])})" if last else ""
    if done.returncode < 0:
        return {"problem": f"{path.name} ends the process that registers it by {_signal(done.returncode)}{said}"}
    if done.returncode or not answer:
        return {"problem": f"{path.name} ends the process that registers it with exit code {done.returncode}{said}"}
    try:
        told: dict[str, Any] = json.loads(answer)
    except ValueError:  # it wrote to files that are not its own
        return {"problem": f"{path.name} writes into the answer of the process that registers it{said}"}
    if "problem" in told:
        return {"problem": f"{path.name} does not register with ONNX Runtime {version} ({_said(told['problem'])})"}
    return told


def _beside(path: Path) -> list[Path]:
    """Return the files in a library's folder that it is linked to, under names that may go on after its own for them.

    NVIDIA's package has `libcudart.so.13.4.36` where `libcudart.so.13` is needed, and makes links when it is imported.
    The linker takes what is loaded already, by the name in the file.
    """
    try:
        names = native.needed(path)
    except (OSError, ValueError, struct.error):  # it is no library, which registering it says
        return []
    files = [[path.with_name(name), *sorted(path.parent.glob(f"{glob.escape(name)}.*"))] for name in names]
    return [file for candidates in files for file in candidates if file.is_file()]


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _signal(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _said(text: str) -> str:
    """Return what a library says, as a part of a sentence; it may say anything, and as much as it likes."""
    line = one_line(text)
    return line if len(line) <= MOST_SAID else f"{line[: MOST_SAID - 3]}..."
