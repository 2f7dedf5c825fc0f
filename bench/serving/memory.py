"""A soak in a memory control group: whether a server under `--memory` stays where it is, for an hour.

    python -m bench.serving.memory [--bundle DIR] [--variant NAME] [--memory 512M] [--group 512M] [--seconds 3600]

Needs root, or a control group that may have children. The server alone is in the group, whose pages of the model's
files count too, but can be dropped. The clients are those of bench.serving.soak, honest and hostile. Writes
docs/data/serving-memory.json, and fails where memory crept, an answer was wrong, an error was logged or the server was
ended.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT, provenance
from bench.serving.server import PYTHON, TIMEOUT, Process, make_bodies, said
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.memory import parse_memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DATA = ROOT / "docs" / "data" / "serving-memory.json"
GROUPS = Path("/sys/fs/cgroup")
CREEP = 0.05
"""Largest growth of the median from the second quarter to the last, as a share: the first is for what is taken once."""
EVERY = 10
"""Seconds between the samples that are written; each second is watched."""
MIB = 2**20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A memory control group, of either version."""

    place: Path
    """Its directory."""
    usage: str
    """The file that says what is in use."""
    peak: str
    """The file that says what was in use at most."""

    def read(self, name: str) -> int | None:
        """Return a number that a file of it holds; None where there is no such file."""
        with suppress(OSError, ValueError):
            return int((self.place / name).read_text(encoding="ascii"))
        return None

    @property
    def killed(self) -> int:
        """Return how often the kernel ended a process of it for want of memory."""
        for name in ("memory.events", "memory.oom_control"):
            with suppress(OSError):
                lines = (self.place / name).read_text(encoding="ascii").splitlines()
                return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
        return 0


@contextmanager
def group_of(limit: int) -> Iterator[Group]:
    """Make a control group with a limit, without swap, and remove it afterwards; ends the program where it may not."""
    one = (GROUPS / "memory" / "memory.limit_in_bytes").exists()
    place = GROUPS / ("memory" if one else "") / f"bertport-soak-{os.getpid()}"
    try:
        if not one:
            (GROUPS / "cgroup.subtree_control").write_text("+memory", encoding="ascii")
        place.mkdir()
    except OSError as error:
        sys.exit(f"no control group can be made at {place} ({error.strerror}): run this as root, outside a container")
    try:
        (place / ("memory.limit_in_bytes" if one else "memory.max")).write_text(str(limit), encoding="ascii")
        for name, value in (("memory.memsw.limit_in_bytes", limit), ("memory.swap.max", 0)):
            if (place / name).exists():
                with suppress(OSError):  # swap may not be accounted
                    (place / name).write_text(str(value), encoding="ascii")
        names = ("memory.usage_in_bytes", "memory.max_usage_in_bytes") if one else ("memory.current", "memory.peak")
        yield Group(place=place, usage=names[0], peak=names[1])
    finally:
        for _ in range(50):
            try:
                place.rmdir()
                break
            except OSError:  # the last process is still leaving
                time.sleep(0.1)


def verdicts(result: dict[str, Any]) -> list[str]:
    """Return what is wrong, each in one sentence."""
    wrong = []
    if result["last_quarter"] > (1 + CREEP) * result["second_quarter"]:
        wrong.append("memory crept: the last quarter's median is more than 5% above the second's")
    if result["peak"] > result["memory"]:
        wrong.append(f"the server held {result['peak'] / MIB:.0f} MiB, more than --memory says")
    if result["oom_kills"]:
        wrong.append("the kernel ended the server for want of memory")
    if result["wrong"]:
        wrong.append(f"{len(result['wrong'])} honest requests were answered neither 200 nor 429: {result['wrong'][:3]}")
    if result["errors_logged"]:
        wrong.append(f"{len(result['errors_logged'])} errors were logged: {result['errors_logged'][:3]}")
    if result["exit_code"]:
        wrong.append(f"the server exited with {result['exit_code']}")
    return wrong


def soak(  # noqa: PLR0913 — what is soaked, within what, how long
    bundle: Path, variant: str, *, memory: str, limit: int, seconds: float, clients: int
) -> dict[str, Any]:
    """Run the server in the group with the clients at it, and watch."""
    with tempfile.TemporaryDirectory() as scratch, group_of(limit) as group:
        bodies = make_bodies(Path(scratch) / "bodies.jsonl", Bundle.open(bundle))
        options = ["--variant", variant, "--memory", memory, "--port", "0", "--request-timeout", TIMEOUT]
        enter = f'echo $$ > "{group.place}/cgroup.procs" && exec "$@"'
        program = [str(part) for part in (PYTHON, "-m", "bertport.runtime", "serve", bundle, *options)]
        server = Process(["sh", "-c", enter, "sh", *program, "--no-access-log"]).serves()
        command: Sequence[object]
        command = (PYTHON, "-m", "bench.serving.soak", "--port", server.port, "--bodies", bodies)
        command = (*command, "--seconds", seconds, "--clients", clients)
        load = subprocess.Popen([str(part) for part in command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        samples: list[tuple[float, int, int]] = []
        began = time.monotonic()
        peak = 0
        while load.poll() is None and server.process.poll() is None:
            samples.append((round(time.monotonic() - began, 1), server.resident, group.read(group.usage) or 0))
            peak = server.peak or peak
            time.sleep(1)
        killed, most = group.killed, group.read(group.peak)
        failed = group.read("memory.failcnt")
        ended = server.process.poll()
        if ended is None:
            seen, code = said(load), server.stop()
        else:
            load.terminate()
            seen, code = {"tried": {}, "wrong": ["the server ended"]}, ended
    end = samples[-1][0]
    return {
        **seen,
        "memory": parse_memory(memory),
        "group": limit,
        "seconds": end,
        "peak": peak,
        "group_peak": most,
        "group_limit_reached": failed,
        "oom_kills": killed,
        "second_quarter": median(held for at, held, _ in samples if end / 4 <= at < end / 2),
        "last_quarter": median(held for at, held, _ in samples if at >= 3 * end / 4),
        "exit_code": code,
        "errors_logged": [line.strip()[:500] for line in server.log if '"level":"error"' in line],
        "samples": samples[::EVERY],
    }


def main() -> None:
    """Soak, write, and fail where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="the embedded default when not given")
    parser.add_argument("--variant", default="int8-dynamic")
    parser.add_argument("--memory", default="512M", help="what the server is told")
    parser.add_argument("--group", default="512M", help="the control group's limit")
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--output", type=Path, default=DATA)
    given = parser.parse_args()
    bundle = (given.bundle or default_bundle()).resolve()
    limit = parse_memory(given.group)
    seconds, clients = given.seconds, given.clients
    result = soak(bundle, given.variant, memory=given.memory, limit=limit, seconds=seconds, clients=clients)
    wrong = verdicts(result)
    result = {
        **provenance(),
        "variant": given.variant,
        "clients": given.clients,
        "failed": wrong,
        **result,
    }
    given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(
        f"{result['seconds']:.0f} s: second quarter {result['second_quarter'] / MIB:.1f} MiB, last quarter "
        f"{result['last_quarter'] / MIB:.1f} MiB, peak {result['peak'] / MIB:.1f} MiB, "
        f"the group's {(result['group_peak'] or 0) / MIB:.1f} MiB; {sum(result['tried'].values())} clients"
    )
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
