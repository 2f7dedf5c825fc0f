"""Whether arm64 answers as it must: golden vectors on emulated CPUs of several kinds.

    python -m bench.arm64 prepare     # downloads Debian's arm64 Python, its wheels and the emulator: 150 MB
    python -m bench.arm64 run         # each variant of each bundle on each CPU: docs/data/runtimes-arm64.json
    python -m bench.arm64 page        # writes the figures into docs/research/arm64.md; --check compares

The CPUs differ in what ONNX Runtime chooses its INT8 kernels by: products of 8 bits (dot product), of matrices of 8
bits (i8mm), and vectors of any length (SVE). No speed is measured: an emulator's says nothing. `prepare` needs Debian's
apt-get, and changes nothing outside out/bench/arm64. `run` takes an hour or more, and goes on where it was
stopped: remove the data file to start again. With --cpu and --bundle, which may be repeated, it does a part.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.arm64.page import section
from bench.arm64.root import environment, guest, prepare
from bench.checkout import ROOT, check_section, provenance, read_data, write_section
from bench.plugins.bundles import bundles
from bertport.runtime.bundle.directory import Bundle

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

PROGRAM = "bench.arm64 run"
DATA = ROOT / "docs" / "data" / "runtimes-arm64.json"
PAGE = ROOT / "docs" / "research" / "arm64.md"
CPUS = ("cortex-a72", "neoverse-n1", "max,sve=off,sme=off", "max")
"""As the emulator calls them: without any of the three, with dot product, with i8mm too, with all."""
RECIPES = ("int8-dynamic", "int8-static-cpu", "int8-static", "int8-weight-only", "int4-weight-only")
EQUAL = 1e-4
"""Difference up to which values count as equal: what float32 is allowed (docs/reference/golden.md)."""
LIMIT = 3600
"""Seconds for one variant; the slowest was seen to take minutes."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the first argument says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("prepare", "run", "page"))
    parser.add_argument("--cpu", action="append", choices=CPUS, help="one of the CPUs; may be repeated")
    parser.add_argument("--bundle", action="append", help="one of the bundles; may be repeated")
    parser.add_argument("--variant", action="append", help="of those that a bundle has; may be repeated")
    parser.add_argument("--check", action="store_true", help="fail where the page is not what the data say")
    options = parser.parse_args(arguments)
    if options.what == "prepare":
        prepare()
    elif options.what == "run":
        run(options.cpu or CPUS, options.bundle, options.variant)
    elif options.check:
        check_section(PAGE, section(read_data(DATA, PROGRAM)), "bench.arm64 page")
    else:
        write_section(PAGE, section(read_data(DATA, PROGRAM)))


def run(cpus: Collection[str], only: Collection[str] | None, variants: Collection[str] | None) -> None:
    """Check each variant of each bundle on each CPU, but for those that the data file has."""
    data: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {"rows": []}
    data = {**provenance(), "guests": {}, **{key: data[key] for key in ("guests", "rows") if key in data}}
    wrong = 0
    for cpu in cpus:
        for title, path in bundles(RECIPES, only).items():
            bundle = Bundle.open(path)
            known = {row["variant"] for row in data["rows"] if at(row) == (cpu, title, bundle.digest)}
            asked = [name for name in bundle.manifest.variants if name not in known and name in (variants or [name])]
            if not asked:
                continue
            data["guests"][cpu], told = verified(cpu, path, asked)
            for variant, found in told.items():
                rows = list(rows_of(found, data["guests"][cpu]["onnxruntime"], cpu, title, bundle, variant))
                wrong += sum(row["result"] == "differs" for row in rows)
                data["rows"] += rows
                print(cpu, title, variant, *(f"{row['output']}: {row['result']}" for row in rows), flush=True)
            DATA.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    if wrong:
        sys.exit(f"{wrong} outputs differ from the golden values by more than their tolerance: see {DATA}")


def at(row: dict[str, Any]) -> tuple[str, str, str]:
    """Return the CPU, the bundle's title and its digest that a row is of."""
    return row["cpu"], row["bundle"], row["digest"]


def verified(cpu: str, path: Path, variants: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the program inside the emulator tells of itself, and of each variant.

    Raises:
        SystemExit: with a sentence, where it does not start.
    """
    command = guest(cpu, [Path(__file__).with_name("inside.py"), path, *variants])
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=LIMIT * len(variants), check=False
    )
    last = (done.stderr.strip().splitlines() or ["no word"])[-1]
    if not done.stdout:
        sys.exit(f"the arm64 Python does not start on {cpu} ({last}): run python -m bench.arm64 prepare again")
    first, *told = map(json.loads, done.stdout.splitlines())
    ended = {"refused": f"the process ended with {done.returncode}: {last}"}
    # The one that ended the process, and not those after it, which are asked in another run.
    return first, dict(zip(variants, [*told, ended] if done.returncode else told, strict=False))


def rows_of(  # noqa: PLR0913, PLR0917 — what a row says
    told: dict[str, Any], version: str, cpu: str, title: str, bundle: Bundle, variant: str
) -> Iterator[dict[str, Any]]:
    """Return a row for each output: how far it is from the golden values, or who refused it in what words."""
    heads = {head.output: name for name, head in bundle.manifest.heads.items()}
    same = {"runtime": f"onnxruntime {version} on arm64", "cpu": cpu, "bundle": title}
    same |= {"digest": bundle.digest, "variant": variant}
    nothing = {"head": None, "output": None, "difference": None, "tolerance": None}
    failures = set(told.get("failures", ()))
    for output, found in told.get("outputs", {}).items():
        difference, tolerance = found["difference"], found["tolerance"]
        result = "equal" if difference <= EQUAL else "within" if difference <= tolerance else "differs"
        said = next((text for text in sorted(failures) if f": {output} " in text), None)
        failures -= {said}
        measured = {"head": heads.get(output), "output": output, "difference": difference, "tolerance": tolerance}
        yield {**same, **measured, "result": result, "said": said}
    for text in sorted(failures):
        yield {**same, **nothing, "result": "differs", "said": text}
    if "refused" in told:
        yield {**same, **nothing, "result": "refused", "said": told["refused"]}


if __name__ == "__main__":
    main()
