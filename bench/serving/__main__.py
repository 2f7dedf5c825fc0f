"""Serving measured: throughput against offline, CPU a request, overload, the end under load, a soak, and a peer.

    python -m bench.serving --bundle default --bundle base --check    [--rounds 5] [--seconds 12] [--soak-seconds 300]

`default` and `base` are the models of bench.performance, made once and kept in out/bench; NAME=DIR is any other bundle.
The load comes from a second process on the same machine, while the machine's lock is held. Writes
docs/data/serving.json, docs/images/serving-memory.svg, and the section of docs/research/serving.md between its marks.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT, provenance, read_data, write_section
from bench.serving.report import BASE, check, plot_memory, section
from bench.serving.server import CLIENTS, PYTHON, Process, load, make_bodies, said, serve, under_load
from bertport.measure.machine import machine_lock
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT = "default"
"""The bundle of the embedded model, by its name on the command line."""
OVERLOAD = 5
PEER_ROUNDS = 3
"""At most: its bar is a factor of four, which no noise reaches."""
DATA, PAGE = "data/serving.json", "research/serving.md"
"""The figures and the page, in the directory of the report."""

OFFLINE = """
import json, sys, time
from bertport.runtime import load
texts = [json.loads(line)["inputs"] for line in open(sys.argv[3], encoding="utf-8")]
model = load(sys.argv[1], variant=sys.argv[2], streams=int(sys.argv[5]) or None)
list(model.predict("fill-mask", texts[:64]))
end, done = time.perf_counter() + float(sys.argv[4]), 0
began, cpu = time.perf_counter(), time.process_time()
while time.perf_counter() < end:
    done += len(list(model.predict("fill-mask", texts)))
seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
print(json.dumps({"texts_per_s": done / seconds, "cpu_ms_per_text": 1e3 * cpu / done}))
"""


def throughput(bundle: Path, variant: str, bodies: Path, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Measure offline and serving in turns, with streams and without; in one order and the next time in the other."""
    results = []
    for number in range(rounds):
        _say(f"{bundle} {variant}, round {number + 1} of {rounds}")
        result: dict[str, Any] = {"exit_codes": []}
        for kind in ("offline", "serving", "offline_one_stream", "serving_one_stream")[:: 1 if number % 2 == 0 else -1]:
            one = kind.endswith("one_stream")
            if kind.startswith("offline"):
                command = [PYTHON, "-c", OFFLINE, str(bundle), variant, str(bodies), str(seconds), str(int(one))]
                result[kind] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            else:
                server = serve(bundle, variant, *(["--streams", "1"] if one else []))
                result[kind] = under_load(server, bodies, seconds, "--clients", CLIENTS)
                result["exit_codes"].append(server.stop())
        results.append(result)
    return results


def overload(bundle: Path, variant: str, bodies: Path, rate: float, seconds: float) -> dict[str, Any]:
    """Ask for five times what it can do, and then see whether it is as fast as before."""
    _say("overload")
    server = serve(bundle, variant)
    before = under_load(server, bodies, seconds, "--clients", CLIENTS)
    seen = said(load(server.port, bodies, seconds, "--rate", OVERLOAD * rate))
    after = under_load(server, bodies, seconds, "--clients", CLIENTS)
    server.stop()
    accepted = seen["seconds"].get("200", [])
    return {
        "rate": OVERLOAD * rate,
        "outcomes": seen["outcomes"],
        "slowest_accepted_s": max(accepted, default=0),
        "refusal_p50_ms": 1e3 * median(seen["seconds"].get("429", [0])),
        "before_requests_per_s": before["requests_per_s"],
        "after_requests_per_s": after["requests_per_s"],
    }


def ended(bundle: Path, variant: str, bodies: Path, seconds: float) -> dict[str, Any]:
    """Send SIGTERM in the middle of a load."""
    _say("SIGTERM")
    server = serve(bundle, variant)
    clients = load(server.port, bodies, seconds, "--clients", CLIENTS)
    time.sleep(seconds / 2)
    code = server.stop()
    return {"exit_code": code, "outcomes": said(clients)["outcomes"]}


def soaked(bundle: Path, variant: str, bodies: Path, seconds: float) -> dict[str, Any]:
    """Watch the server's memory while honest and hostile clients are at it."""
    _say(f"soak of {seconds:g} s")
    server = serve(bundle, variant)
    command = [PYTHON, "-m", "bench.serving.soak", "--port", server.port, "--bodies", bodies, "--seconds", seconds]
    clients = subprocess.Popen([str(part) for part in command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    memory = []
    began = time.monotonic()
    while clients.poll() is None:
        memory.append((round(time.monotonic() - began, 1), server.resident))
        time.sleep(max(0.1, min(1.0, seconds / 100)))
    seen = said(clients)
    code = server.stop()
    errors = [line for line in server.log if '"level":"error"' in line]
    return {**seen, "memory": memory, "exit_code": code, "errors_logged": len(errors)}


def peers(  # noqa: PLR0913, PLR0917 — what is measured, on what, how long
    bundle: Path, variant: str, bodies: Path, rounds: int, seconds: float, scratch: Path
) -> list[dict[str, Any]]:
    """Measure ours against transformers' pipeline behind the same framework, in turns."""
    from bertport.export import restore

    checkpoint = restore(bundle, scratch / "checkpoint")
    results = []
    for number in range(rounds):
        _say(f"peer, round {number + 1} of {rounds}")
        result = {}
        for kind in ("ours", "pipeline")[:: 1 if number % 2 == 0 else -1]:
            if kind == "ours":
                server = serve(bundle, variant)
            else:
                server = Process([PYTHON, "-m", "bench.serving.peer", "fill-mask", checkpoint]).prints_its_port()
            result[kind] = under_load(server, bodies, seconds, "--clients", CLIENTS)
            server.stop(signal.SIGTERM if kind == "ours" else signal.SIGKILL)
        results.append(result)
    return results


def measure(bundles: Mapping[str, Path], arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Measure every bundle's default variant; overload, end, soak and peer on the first bundle."""
    result: dict[str, Any] = {
        **provenance(),
        "clients": CLIENTS,
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "throughput": {},
    }
    rounds, seconds = arguments.rounds, arguments.seconds
    for name, path in bundles.items():
        variant = arguments.variant or default_variant(path)
        bodies = make_bodies(scratch / f"{len(result['throughput'])}.jsonl", Bundle.open(path))
        measured = throughput(path, variant, bodies, rounds, seconds)
        result["throughput"][name] = {"variant": variant, "rounds": measured}
    name, path = next(iter(bundles.items()))
    variant, bodies = result["throughput"][name]["variant"], scratch / "0.jsonl"
    rate = median(turn["serving"]["requests_per_s"] for turn in result["throughput"][name]["rounds"])
    result["overload"] = overload(path, variant, bodies, rate, seconds)
    result["end"] = ended(path, variant, bodies, min(6, seconds))
    if arguments.peer:
        result["peer"] = peers(path, variant, bodies, min(rounds, PEER_ROUNDS), seconds, scratch)
    result["soak"] = soaked(path, variant, bodies, arguments.soak_seconds)
    return result


def made(name: str) -> Path:
    """Return a model of bench.performance by its name."""
    from bench.performance.models import prepare
    from bertport.runtime.providers.cpu import cpu

    return prepare(name, instruction_set=cpu().instruction_set).bundle


def default_variant(path: Path) -> str:
    """Return the variant that `load` takes here."""
    program = "import sys; from bertport.runtime import load; print(load(sys.argv[1]).variant)"
    done = subprocess.run([PYTHON, "-c", program, str(path)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} serving: {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Measure, write, and with --check fail where a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    whole = f"--bundle {DEFAULT} --bundle {BASE}"
    parser.add_argument(
        "--bundle", action="append", default=[], metavar="NAME[=DIR]", help=f"of the page: {whole}  [the embedded]"
    )
    parser.add_argument("--variant", help="of every bundle; what load() takes when not given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--soak-seconds", type=float, default=300)
    parser.add_argument("--no-peer", dest="peer", action="store_false", help="leave transformers out")
    parser.add_argument("--quick", action="store_true", help="one short round of all: to see that it works")
    parser.add_argument("--output", type=Path, help="where the report is written: docs, or out/bench/quick")
    parser.add_argument("--check", action="store_true", help="fail where a target is missed")
    parser.add_argument("--page", action="store_true", help="write the section from the figures, measure nothing")
    arguments = parser.parse_args()
    if arguments.page:
        write_section(ROOT / "docs" / PAGE, section(read_data(ROOT / "docs" / DATA, "bench.serving")))
        return
    pairs = [argument.partition("=") for argument in arguments.bundle]
    part = not arguments.peer or arguments.variant or {name for name, *_ in pairs} != {DEFAULT, BASE}
    if part and not (arguments.output or arguments.quick):
        parser.error(f"this measures a part, and the page has a peer and {whole}: add --output DIRECTORY")
    if arguments.quick:
        arguments.rounds, arguments.seconds, arguments.soak_seconds = 1, 2, 5
    bundles = {name: Path(path).resolve() if path else made(name) for name, _, path in pairs}
    bundles = bundles or {"default": default_bundle()}
    # A quick run measures nothing, so nothing has to pause for it.
    with tempfile.TemporaryDirectory() as scratch, nullcontext() if arguments.quick else machine_lock():
        result = measure(bundles, arguments, Path(scratch))
    output = arguments.output or ROOT / ("out/bench/quick" if arguments.quick else "docs")
    for folder in ("data", "images", "research"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    plot_memory(result["soak"]["memory"], output / "images" / "serving-memory.svg")
    (output / DATA).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    write_section(output / PAGE, section(result))
    print(section(result))
    if arguments.check:
        check(result)


if __name__ == "__main__":
    main()
