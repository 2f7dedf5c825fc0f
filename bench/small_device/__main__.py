"""Size of the smallest installation, and its start on a quarter of a core; writes docs/how-to/small-device.md.

    python -m bench.small_device [--rounds 5] [--check]

The checkout's wheel is built and installed twice below out/bench/small-device: with the four packages that an answer
needs, and with all that pip adds. From the first, processes answer from the default model's int8-dynamic, as fast as
they can and under a quota of a quarter of one core (a control group of the `cpu` controller, version 1 or 2, which
takes root), with low memory and without, in turns, while the machine's lock is held. Writes
docs/data/small-device.json too; it fetches packages, and takes minutes on an idle machine. With `--check`, nothing is
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
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT, check_section, environment, number, provenance, read_data, write_section
from bench.small_device.page import section
from bertport.measure.machine import awaited, machine_lock
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.packing import pack

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = ROOT / "docs" / "how-to" / "small-device.md"
DATA = ROOT / "docs" / "data" / "small-device.json"
PLACE = ROOT / "out" / "bench" / "small-device"
NEEDED = ("numpy", "onnxruntime", "tokenizers", "click")
"""Packages that an answer needs beside bertport."""
TEXT = "Paris is the [MASK] of France."
GROUPS = Path("/sys/fs/cgroup")
PERIOD = 100_000
"""Microseconds in which a share of a core may be used, as is usual."""
SHARE = 0.25
"""Of one core."""
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
    data = {**provenance(), **installations(), "bundles": bundles(), "answers": TEXTS, "runs": runs(options.rounds)}
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
            with quota() if limited else contextlib.nullcontext() as group:
                found.append({"low_memory": low, "limited": limited, **answered(low=low, group=group)})
    return found


def answered(*, low: bool, group: Path | None) -> dict[str, Any]:
    """Return how long a process takes from its start to its first answer, and what it measures of itself after it.

    Args:
        low: whether it is asked for low memory.
        group: the control group that it runs in; None for this one's.
    """
    count = 0 if group else TEXTS
    command = [sys.executable, "-c", ANSWER, "low" if low else "usual", TEXT, str(count)]
    if group:
        command = ["sh", "-c", f'echo $$ > "{group}/cgroup.procs" && exec "$@"', "sh", *command]
    clean = environment() | {
        "PYTHONPATH": str(PLACE / "small"),
        "ORT_DISABLE_TELEMETRY": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    began = time.perf_counter()
    with subprocess.Popen(command, env=clean, cwd=PLACE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout  # noqa: S101 — a pipe was asked for
        first = process.stdout.readline().strip()
        seconds = time.perf_counter() - began
        cpu = _cpu_seconds(process.pid)
        rest = process.stdout.read()
    if process.returncode or not first:
        sys.exit(f"a process that was to answer ended with {process.returncode}: see what it printed above")
    return {"first": first, "seconds": seconds, "cpu_seconds": cpu, **json.loads(rest)}


def _cpu_seconds(process: int) -> float:
    """Return the time that a process has computed, as the kernel counts it: to a hundredth of a second."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def quota() -> Iterator[Path]:
    """Make a control group that may use a share of one core.

    Raises:
        SystemExit: with a sentence, where that is not allowed.
    """
    first = GROUPS / "cpu" if (GROUPS / "cpu").is_dir() else GROUPS
    group = first / f"bertport-{os.getpid()}"
    microseconds = int(SHARE * PERIOD)
    try:
        group.mkdir()
        if first == GROUPS:
            (group / "cpu.max").write_text(f"{microseconds} {PERIOD}", encoding="ascii")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD), encoding="ascii")
            (group / "cpu.cfs_quota_us").write_text(str(microseconds), encoding="ascii")
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        sys.exit(f"a quarter of a core takes a control group, which cannot be made ({error}): run this as root")
    try:
        yield group
    finally:
        group.rmdir()


if __name__ == "__main__":
    main()
