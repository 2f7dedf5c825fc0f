"""Measure what an export costs beside optimum-cli's, and write the table in docs/research/export.md.

    python -m bench.export_cost [--rounds N] [--optimum PYTHON] [--check]

A BERT-base of random weights is exported in turn by bertport and by Optimum's `main_export`, without its validation
and with it, each in a fresh process, `N` times, while the machine's lock is held. Optimum's exporter needs
transformers 4.57, hence an interpreter of its own: that of `python3 dev.py optimum` when `--optimum` is not given. Of
bertport the whole is timed, with its stages; the validation is a line of its own. Peak memory is the largest resident
set that the kernel saw of the process: of bertport before the validation, after each stage, and as a whole. With
`--check`, nothing is measured, and the exit code is 1 where the page is not what the data say.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.checkout import ROOT, check_section, provenance, read_data, write_section
from bench.random_weights import save_bert_base
from bertport.measure.machine import awaited, machine_lock

PAGE = ROOT / "docs" / "research" / "export.md"
DATA = ROOT / "docs" / "data" / "export-cost.json"
OPTIMUM = ROOT / ".venv-optimum" / "bin" / "python"
CHECKS = ("comparing the tokenizer", "comparing with PyTorch")
"""Stages of an export that compare, and make nothing."""
OURS = """
import json, re, sys, time
from pathlib import Path
began = time.perf_counter()
def resident(key):
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
from bertport.export import export
stages, memory, making = {}, {}, None
def listen(event):
    global making
    if event.kind == "begin" and event.text == "comparing with PyTorch":
        making = resident("VmHWM")
    if event.kind == "end":
        stages[event.text] = event.seconds
        memory[event.text] = [resident("VmRSS"), resident("VmHWM")]
export(sys.argv[1], sys.argv[2], progress=listen)
seconds = time.perf_counter() - began
print(json.dumps({"seconds": seconds, "stages": stages, "memory": memory, "making_peak_bytes": making}))
"""
THEIRS = """
import json, sys, time
began = time.perf_counter()
from optimum.exporters.onnx import main_export
main_export(sys.argv[1], sys.argv[2], task="fill-mask", do_validation=VALIDATION)
print(json.dumps({"seconds": time.perf_counter() - began, "stages": {}}))
"""
EXPORTERS = {
    "bertport": OURS,
    "Optimum without its validation": THEIRS.replace("VALIDATION", "False"),
    "Optimum with its validation": THEIRS.replace("VALIDATION", "True"),
}
"""The programs that take turns, by the name in the table."""
MIB = 2**20


def run(python: Path, program: str, checkpoint: Path, out: Path) -> dict[str, Any]:
    """Run an exporter in a fresh process; return its seconds, those of its stages, and its peak memory in bytes."""
    shutil.rmtree(out, ignore_errors=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    if program is not OURS:
        environment.pop("PYTHONPATH", None)
    command = [str(python), "-W", "ignore", "-c", program, str(checkpoint), str(out)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    printed = child.stdout.read() if child.stdout else ""
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    timed: dict[str, Any] = json.loads(printed.splitlines()[-1])
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return timed | {"peak_bytes": usage.ru_maxrss * 1024, "written_bytes": size}


def in_turns(checkpoint: Path, optimum: Path, out: Path, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Run the exporters in turn, and return the runs of each by its name."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in EXPORTERS}
    with machine_lock(lambda: print(awaited(), file=sys.stderr, flush=True)):
        for _ in range(rounds):
            for name, program in EXPORTERS.items():
                python = Path(sys.executable) if program is OURS else optimum
                runs[name].append(run(python, program, checkpoint, out))
                seconds, peak = runs[name][-1]["seconds"], runs[name][-1]["peak_bytes"] / MIB
                print(f"{name}: {seconds:.1f} s, {peak:.0f} MiB", flush=True)
    return runs


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians of an exporter's runs: seconds as a whole, of the checks and without them, and peak memory."""
    checks = [sum(run["stages"].get(stage, 0.0) for stage in CHECKS) for run in runs]
    making = [run["seconds"] - check for run, check in zip(runs, checks, strict=True)]
    return {
        "making": statistics.median(making),
        "checks": statistics.median(checks),
        "making_peak": statistics.median(run.get("making_peak_bytes", run["peak_bytes"]) for run in runs),
        "peak": statistics.median(run["peak_bytes"] for run in runs),
        "written": runs[0]["written_bytes"],
        "range": [min(making), max(making)],
    }


def section(data: dict[str, Any]) -> str:
    """Return the tables."""
    exporters = {name: summary(data["runs"][name]) for name in EXPORTERS}
    lines = [
        "| exporter | tracing and writing, s | range | validation, s | peak, MiB | with validation | written, MiB |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for name, medians in exporters.items():
        low, high = medians["range"]
        checked = f"{medians['checks']:.1f}" if medians["checks"] else "within" if "with its" in name else "none"
        making = "" if checked == "within" else f"{medians['making_peak'] / MIB:.0f}"
        highest = "" if checked == "none" else f"{medians['peak'] / MIB:.0f}"
        lines.append(
            f"| {name} | {medians['making']:.1f} | {low:.1f} to {high:.1f} | {checked} | {making} | {highest} | "
            f"{medians['written'] / MIB:.0f} |"
        )
    ours, bare, whole = exporters.values()
    compared = (
        f"Tracing and writing take {ours['making'] / bare['making']:.2f} of the time that Optimum needs without its "
        f"validation, and {ours['making_peak'] / bare['making_peak']:.2f} of its peak memory; with the validation of "
        f"each, peak memory is {ours['peak'] / whole['peak']:.2f} of Optimum's. Medians of "
        f"{len(data['runs']['bertport'])} runs each, in turn."
    )
    runs = sorted(data["runs"]["bertport"], key=lambda run: int(run["making_peak_bytes"]))
    usual = runs[len(runs) // 2]
    stages = ["| stage of bertport | s | resident after it, MiB | peak so far, MiB |", "|---|---:|---:|---:|"]
    for stage, (resident, peak) in usual["memory"].items():
        stages.append(f"| {stage} | {usual['stages'][stage]:.1f} | {resident / MIB:.0f} | {peak / MIB:.0f} |")
    machine = data["machine"]
    described = (
        f"Machine: {machine['cpu']}, {machine['instruction_set']}, {machine['physical_cores']} cores; "
        f"{data['date'][:10]}, commit {data['commit'][:7]}; {data['versions']}."
    )
    said = "The run of bertport whose peak before the validation is the median:"
    lines += ["", compared, "", said, "", *stages, "", described, ""]
    return "\n".join(lines)


def versions(python: Path) -> str:
    """Return what an interpreter has of transformers and Optimum, as words."""
    program = "import importlib.metadata as m; print(*(f'{n} {m.version(n)}' for n in ('transformers', 'optimum')))"
    return subprocess.check_output([str(python), "-c", program], text=True).strip()


def main() -> None:
    """Measure and write, or compare the page with the data."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--optimum", type=Path, default=OPTIMUM)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    if given.check:
        check_section(PAGE, section(read_data(DATA, "bench.export_cost")), "bench.export_cost")
        return
    if not given.optimum.exists():
        sys.exit(f"there is no {given.optimum}: run python3 dev.py optimum once, or name an interpreter by --optimum")
    with tempfile.TemporaryDirectory() as place:
        checkpoint = Path(place) / "checkpoint"
        save_bert_base(checkpoint)
        runs = in_turns(checkpoint, given.optimum, Path(place) / "out", given.rounds)
    data = {
        **provenance(),
        "versions": f"bertport on {versions(Path(sys.executable))}; Optimum on {versions(given.optimum)}",
        "runs": runs,
    }
    DATA.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    write_section(PAGE, section(data))


if __name__ == "__main__":
    main()
