"""An arm64 system below out/bench/arm64: Debian's packages and Python's wheels for it, and the emulator, unpacked."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench.checkout import ROOT
from bench.pythons import TESTING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["environment", "guest", "prepare", "program"]

PLACE = ROOT / "out" / "bench" / "arm64"
"""Directory of what these programs download and unpack."""
RELEASE = "trixie"
"""Debian's release: the emulator of the one before it, 7.2, crashes."""
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
PYTHON = "3.13"
"""The release's own Python."""
WHEELS = ("numpy", "tokenizers", "click")
"""Packages that the runtime needs beside ONNX Runtime, which is taken in the version that is installed here."""
GLIBC = ("2_17", "2_27", "2_28", "2_34")
"""Platforms of wheels that go with the release's glibc, 2.41."""


def prepare() -> None:
    """Download what is missing, checked by Debian's signatures and by pip, and unpack it."""
    from importlib.metadata import version

    if not shutil.which("apt-get") or not Path(KEYS).is_file():
        sys.exit(f"the arm64 system is Debian's, which takes apt-get and {KEYS}: run this on Debian")
    for name in ("arm64", "amd64"):
        _apt(name, "update", "--quiet")
    archives = PLACE / "apt-arm64" / "cache" / "archives"
    install = ("install", "--yes", "--no-install-recommends", "--download-only")
    _apt("arm64", *install, "python3", "libstdc++6")
    emulator = PLACE / "apt-amd64" / "emulator"
    emulator.mkdir(exist_ok=True)
    _apt("amd64", "download", "qemu-user", folder=emulator)
    _unpack(sorted(archives.glob("*.deb")), PLACE / "root")
    _unpack(sorted(emulator.glob("*.deb")), PLACE / "emulator")
    for name in ("bin", "sbin", "lib"):  # a package of the release makes these links when it is configured
        link = PLACE / "root" / name
        if not link.exists():
            link.symlink_to(f"usr/{name}")
    shutil.rmtree(PLACE / "wheels", ignore_errors=True)
    asked = ["--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp"]
    asked += [f"--abi={abi}" for abi in (f"cp{PYTHON.replace('.', '')}", "abi3", "none")]
    asked += [f"--platform=manylinux_{number}_aarch64" for number in GLIBC] + ["--platform=manylinux2014_aarch64"]
    names = [f"onnxruntime=={version('onnxruntime')}", *WHEELS]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", f"--dest={PLACE / 'wheels'}"]
    subprocess.run([*pip, *asked, "--no-deps", *names], check=True)  # the runtime needs none of what these ask for
    subprocess.run([*pip, *asked, *TESTING], check=True)
    shutil.rmtree(PLACE / "packages", ignore_errors=True)
    for wheel in sorted((PLACE / "wheels").glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(PLACE / "packages")


def guest(cpu: str, arguments: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return the command that runs the arm64 Python with some arguments on a CPU of the emulator's.

    Raises:
        SystemExit: with a sentence, where nothing was prepared.
    """
    emulator = PLACE / "emulator" / "usr" / "bin" / "qemu-aarch64"
    if not emulator.is_file() or not (PLACE / "packages").is_dir():
        sys.exit(f"there is no arm64 system in {PLACE.relative_to(ROOT)}: run python -m bench.arm64 prepare")
    root = PLACE / "root"
    python = root / "usr" / "bin" / f"python{PYTHON}"
    return [str(emulator), "-L", str(root), "-cpu", cpu, str(python), *(os.fspath(argument) for argument in arguments)]


def program(cpu: str, place: Path) -> Path:
    """Write a program of this machine's that runs the arm64 Python on a CPU, for who starts a Python by its path.

    Without it a process of the arm64 Python cannot start another one: the kernel knows no program for arm64.
    """
    path = place / "python-arm64"
    path.write_text(f'#!/bin/sh\nexec {shlex.join(guest(cpu, []))} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return path


def environment() -> dict[str, str]:
    """Return the variables under which the arm64 Python finds its packages and this checkout's runtime."""
    return {
        "HOME": str(PLACE),
        "LANG": "C.UTF-8",
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": os.pathsep.join(map(str, (PLACE / "packages", ROOT / "runtime"))),
        "PYTHONDONTWRITEBYTECODE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        # Threads of an emulated CPU only wait for each other.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _apt(architecture: str, *arguments: str, folder: Path | None = None) -> None:
    """Run apt-get for an architecture with directories of its own: this machine's packages are not touched."""
    place = PLACE / f"apt-{architecture}"
    for name in ("lists/partial", "cache/archives/partial", "etc/preferences.d", "etc/trusted.gpg.d"):
        (place / name).mkdir(parents=True, exist_ok=True)
    (place / "status").touch()
    source = f"deb [signed-by={KEYS}] http://deb.debian.org/debian {RELEASE} main\n"
    (place / "etc" / "sources.list").write_text(source, encoding="ascii")
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",
        "Dir::State": place,
        "Dir::State::status": place / "status",
        "Dir::Cache": place / "cache",
        "Dir::Etc": place / "etc",
        "Dir::Etc::sourceparts": "/nonexistent",
    }
    given = [option for key, value in settings.items() for option in ("-o", f"{key}={value}")]
    subprocess.run(["apt-get", *given, *arguments], check=True, cwd=folder)  # noqa: S607 — Debian's own


def _unpack(packages: Sequence[Path], place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for package in packages:
        subprocess.run(["dpkg-deb", "-x", str(package), str(place)], check=True)  # noqa: S607 — Debian's own
