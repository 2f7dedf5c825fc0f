"""Size of the smallest installation, its start on a quarter of a core, and the memory that it needs.

    python -m bench.small_device [--rounds 5] [--check]

The checkout's wheel is built and installed twice below out/bench/small-device: with the four packages that an answer
needs, and with all that pip adds. From the first, processes answer from the default model's int8-dynamic, as fast as
they can and under a quota of a quarter of one core (a control group, which takes root), with low memory and without, in
turns, while the machine's lock is held; then in groups with less and less memory, until one is killed, each time with
none of its files in memory beforehand, as after a device's start. Writes docs/data/small-device.json and the section of
docs/how-to/small-device.md; it fetches packages, and takes minutes on an idle machine. With `--check`, nothing is
measured, and the exit code is 1 where the page is not what the data say.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT, check_section, environment, number, provenance, read_data, write_section
from bench.small_device.groups import memory_bound, quota
from bench.small_device.page import section
from bertport.measure.machine import awaited, machine_lock
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.packing import pack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PAGE = ROOT / "docs" / "how-to" / "small-device.md"
DATA = ROOT / "docs" / "data" / "small-device.json"
PLACE = ROOT / "out" / "bench" / "small-device"
NEEDED = ("numpy", "onnxruntime", "tokenizers", "click")
"""Packages that an answer needs beside bertport."""
TEXT = "Paris is the [MASK] of France."
SHARE = 0.25
"""Of one core."""
BOUNDS = range(120 << 20, 56 << 20, -(8 << 20))
"""Bytes of memory that are tried, as long as all processes answer within them."""
BOUNDED = 3
"""Processes for each of them."""
FEW_TEXTS = 20
"""Answers that these give after the first: with too little memory, each reads its pages anew."""
PATIENCE = 40
"""Seconds in which they answer; one that reads its pages for ever does not."""
APART = frozenset({"site-packages", "test"})
"""Folders of the standard library of which nothing is read."""
TEXTS = 200
"""Answers whose time is taken once the first is there."""
ANSWER = """
import json, pathlib, sys, time
from bertport.runtime import load
low, text, count = sys.argv[1] == "low", sys.argv[2], int(sys.argv[3])
model = load(variant="int8-dynamic", low_memory=low, threads=1, provider="cpu")
[best] = model.fill_mask(text, top_k=1)
lines = pathlib.Path("/proc/self/status").read_text().splitlines()
held = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
print(best["token_str"], flush=True)
began = time.process_time()
for number in range(count):
    model.fill_mask(f"{text} {number}")
print(json.dumps({
    "peak_bytes": held["VmHWM"], "own_bytes": held["RssAnon"], "answers_cpu_seconds": time.process_time() - began,
}))
"""


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=number, default=5, help="processes of each kind")
    parser.add_argument("--check", action="store_true", help="compare the page with the data, and nothing else")
    options = parser.parse_args(arguments)
    if options.check:
        check_section(PAGE, section(read_data(DATA, "bench.small_device")), "bench.small_device")
        return
    data = {**provenance(), **installations(), "bundles": bundles(), "answers": TEXTS, "few_answers": FEW_TEXTS}
    data |= {"runs": runs(options.rounds), "bounds": bounds()}
    DATA.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    write_section(PAGE, section(data))


def installations() -> dict[str, Any]:
    """Install the wheel twice, and return the version and bytes of each package."""
    shutil.rmtree(PLACE, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(PLACE / "wheel"), str(ROOT)], check=True)
    [wheel] = (PLACE / "wheel").glob("*.whl")
    install = [*pip, "install", "--no-compile", "--target"]
    versions = [f"{name}=={metadata.version(name)}" for name in NEEDED]
    subprocess.run([*install, str(PLACE / "small"), "--no-deps", str(wheel), *versions], check=True)
    subprocess.run([*install, str(PLACE / "whole"), f"bertport[cpu] @ {wheel.as_uri()}", *versions], check=True)
    return {"wheel_bytes": wheel.stat().st_size, **{name: packages(PLACE / name) for name in ("small", "whole")}}


def packages(place: Path) -> dict[str, dict[str, Any]]:
    """Return by name the version and the bytes of each package in a directory."""
    found = {}
    for package in metadata.distributions(path=[str(place)]):
        files = [Path(str(package.locate_file(file))) for file in package.files or ()]
        size = sum(file.stat().st_size for file in files if file.is_file())
        found[package.metadata["Name"]] = {"version": package.version, "bytes": size}
    return dict(sorted(found.items()))


def bundles() -> dict[str, int]:
    """Return the bytes of the default bundle, and of what is packed of it with one variant."""
    packed = PLACE / "packed"
    pack(default_bundle(), packed, variants=["int8-dynamic"])
    places = {"default": default_bundle(), "int8-dynamic": packed}
    return {
        name: sum(file.stat().st_size for file in each.rglob("*") if file.is_file()) for name, each in places.items()
    }


def runs(rounds: int) -> list[dict[str, Any]]:
    """Start processes in turns: with low memory and without, with the quota and without."""
    found = []
    with machine_lock(lambda: print(awaited(), file=sys.stderr, flush=True)):
        for _, low, limited in itertools.product(range(rounds), (False, True), (False, True)):
            with quota(SHARE) if limited else contextlib.nullcontext() as group:
                run = answered(low=low, group=group, count=0 if limited else TEXTS)
            if not run:
                sys.exit("a process that was to answer ended without: see what it printed above")
            found.append({"low_memory": low, "limited": limited, **run})
    return found


def bounds() -> list[dict[str, Any]]:
    """Start processes with less and less memory until one ends without its answers; return those of each bound."""
    found = []
    with machine_lock(lambda: print(awaited(), file=sys.stderr, flush=True)):
        for low in (False, True):
            for bound in BOUNDS:
                made: list[dict[str, Any]] = []
                while len(made) < BOUNDED and (run := bounded(bound, low=low)):
                    made.append(run)
                found.append({"low_memory": low, "bytes": bound, "runs": made, "of": BOUNDED})
                if len(made) < BOUNDED and bound == BOUNDS[0]:
                    sys.exit(f"{bound >> 20} MiB were too little for a process that was to answer: see above")
                if len(made) < BOUNDED:
                    break
    return found


def bounded(bound: int, *, low: bool) -> dict[str, Any] | None:
    """Return what `answered` does of a process that may hold so many bytes, none of its files in memory beforehand."""
    library = own_library()
    for place in (PLACE, Path(sysconfig.get_paths()["stdlib"])):
        forget(place)
    with memory_bound(bound) as group:
        return answered(low=low, group=group, count=FEW_TEXTS, further=library)


def own_library() -> dict[str, str]:
    """Return variables by which a process maps a copy of the interpreter's library.

    The one that this process maps stays in memory, and the kernel charges a page to whoever read it first.
    """
    found = Path(sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("INSTSONAME") or "")
    if not found.is_file() or found.suffix == ".a":
        return {}
    copy = PLACE / "interpreter" / found.name
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(found, copy)
    return {"LD_PRELOAD": str(copy)}


def forget(place: Path) -> None:
    """Have the kernel drop from memory the pages of the files below a directory, as far as nobody maps them."""
    for folder, folders, files in os.walk(place):
        folders[:] = sorted(set(folders) - APART)
        for file in (Path(folder, name) for name in files):
            if not file.is_symlink():
                with file.open("rb") as opened:
                    os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def answered(
    *, low: bool, group: Path | None, count: int, further: Mapping[str, str] | None = None
) -> dict[str, Any] | None:
    """Return how long a process takes from its start to its first answer, and what it measures of itself after it.

    Args:
        low: whether it is asked for low memory.
        group: the control group that it runs in; None for this one's.
        count: texts that it answers after the first.
        further: more variables of its environment.

    Returns:
        None where it ended without these answers.
    """
    command = [sys.executable, "-c", ANSWER, "low" if low else "usual", TEXT, str(count)]
    if further:  # by a program that is in the group already, as this one's shell would read the library outside
        command = ["env", *(f"{name}={value}" for name, value in further.items()), *command]
    if group:
        command = ["sh", "-c", f'echo $$ > "{group}/cgroup.procs" && exec "$@"', "sh", *command]
    clean = environment() | {
        "PYTHONPATH": str(PLACE / "small"),
        "ORT_DISABLE_TELEMETRY": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    began = time.perf_counter()
    with (
        subprocess.Popen(command, env=clean, cwd=PLACE, stdout=subprocess.PIPE, text=True) as process,
        ended_after(PATIENCE, process) if further is not None else contextlib.nullcontext(),
    ):
        assert process.stdout  # noqa: S101 — a pipe was asked for
        first = process.stdout.readline().strip()
        seconds = time.perf_counter() - began
        cpu = _cpu_seconds(process.pid)
        rest = process.stdout.read()
    if process.returncode or not first:
        return None
    return {"first": first, "seconds": seconds, "cpu_seconds": cpu, **json.loads(rest)}


@contextlib.contextmanager
def ended_after(seconds: float, process: subprocess.Popen[str]) -> Iterator[None]:
    """End a process that is still there after some seconds."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _cpu_seconds(process: int) -> float:
    """Return the time that a process has computed, as the kernel counts it: to a hundredth of a second."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
