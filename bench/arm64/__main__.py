"""Whether arm64 answers as it must: golden vectors on emulated CPUs of several kinds.

    python -m bench.arm64 prepare     # downloads Debian's arm64 Python, its wheels and the emulator: 150 MB
    python -m bench.arm64 run         # each variant of each bundle on each CPU: docs/data/runtimes-arm64.json
    python -m bench.arm64 tests       # the runtime's tests on each CPU: docs/data/arm64-tests.json
    python -m bench.arm64 page        # writes the figures into docs/research/arm64.md; --check compares

The CPUs differ in what ONNX Runtime chooses its INT8 kernels by: products of 8 bits (dot product), of matrices of 8
bits (i8mm), and vectors of any length (SVE). No speed is measured: an emulator's says nothing. `prepare` needs Debian's
apt-get, and changes nothing outside out/bench/arm64. `run` takes an hour or more, and goes on where it was
stopped: remove the data file to start again. With --cpu and --bundle, which may be repeated, it does a part. `tests`
runs those that `python -m bench.pythons` runs under other interpreters.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.arm64.page import INFINITE, section
from bench.arm64.root import environment, guest, prepare, program
from bench.checkout import ROOT, check_section, provenance, read_data, write_section
from bench.plugins.bundles import bundles
from bench.pythons import TESTS, build_wheel, copy_tests, tests, tiny_bundle
from bertport.runtime.bundle.directory import Bundle

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

PROGRAM = "bench.arm64 run"
DATA = ROOT / "docs" / "data" / "runtimes-arm64.json"
TESTS_PROGRAM = "bench.arm64 tests"
TESTS_DATA = ROOT / "docs" / "data" / "arm64-tests.json"
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
    parser.add_argument("what", choices=("prepare", "run", "tests", "page"))
    parser.add_argument("--cpu", action="append", choices=CPUS, help="one of the CPUs; may be repeated")
    parser.add_argument("--bundle", action="append", help="one of the bundles; may be repeated")
    parser.add_argument("--variant", action="append", help="of those that a bundle has; may be repeated")
    parser.add_argument("--check", action="store_true", help="fail where the page is not what the data say")
    options = parser.parse_args(arguments)
    if options.what == "prepare":
        prepare()
    elif options.what == "run":
        run(options.cpu or CPUS, options.bundle, options.variant)
    elif options.what == "tests":
        run_tests(options.cpu or CPUS)
    else:
        text = section(read_data(DATA, PROGRAM), read_data(TESTS_DATA, TESTS_PROGRAM))
        if options.check:
            check_section(PAGE, text, "bench.arm64 page")
        else:
            write_section(PAGE, text)


def run(cpus: Collection[str], only: Collection[str] | None, variants: Collection[str] | None) -> None:
    """Check each variant of each bundle on each CPU, but for those that the data file has."""
    data: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {"rows": []}
    data = {**provenance(), "guests": {}, **{key: data[key] for key in ("guests", "rows") if key in data}}
    wrong = 0
    for cpu in cpus:
        for title, path in bundles(RECIPES, only).items():
            bundle = Bundle.open(path)
            # Rows of what had that title before would be counted with its own.
            data["rows"] = [row for row in data["rows"] if row["bundle"] != title or row["digest"] == bundle.digest]
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
            DATA.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if wrong:
        sys.exit(f"{wrong} outputs differ from the golden values by more than their tolerance: see {DATA}")


def run_tests(cpus: Collection[str]) -> None:
    """Run the runtime's tests on each CPU, and write how many passed, and what a failure said."""
    data: dict[str, Any] = json.loads(TESTS_DATA.read_text(encoding="utf-8")) if TESTS_DATA.exists() else {}
    ran: dict[str, Any] = data.get("tests", {})
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        copy_tests(place / "checkout")
        shutil.unpack_archive(build_wheel(place), place / "installed", "zip")
        bundle = tiny_bundle(place)
        for cpu in cpus:
            told = provenance()
            ran[cpu] = {"commit": told["commit"], "date": told["date"], **tested(cpu, place, bundle)}
            TESTS_DATA.write_text(json.dumps({**told, "tests": ran}, indent=1) + "\n", encoding="utf-8")
            print(cpu, ran[cpu], flush=True)
    if any(row["failures"] for row in ran.values()):
        sys.exit(f"tests failed on an emulated CPU: see {TESTS_DATA}")


def tested(cpu: str, place: Path, bundle: Path) -> dict[str, Any]:
    """Return how many of a copy's tests ended in which way on a CPU, and each failure by its test."""
    python, started = program(cpu, place), place / "started"
    started.mkdir()
    # Every process of the arm64 Python, those that tests start among them, takes this for its own program.
    (started / "sitecustomize.py").write_text(f"import sys\nsys.executable = {str(python)!r}\n", encoding="utf-8")
    told = environment()
    told["PYTHONPATH"] = os.pathsep.join(map(str, (started, place / "installed", told["PYTHONPATH"])))
    told |= {"BERTPORT_TINY_BUNDLE": str(bundle), "TMPDIR": str(started)}
    counts: Counter[str] = Counter()
    failures: list[str] = []
    for name in TESTS:  # a process each: one that the emulator does not survive is the end of its own file alone
        done = subprocess.run(
            [python, "-m", *tests(place / "checkout", [name]), "-v", "-rfE", "-o", f"timeout={LIMIT}"],
            env=told, cwd="/", capture_output=True, text=True, check=False,
        )  # fmt: skip
        passed, failed = outcome(done.stdout)
        counts += passed
        failures += failed
        if done.returncode not in (0, 1):
            failures.append(f"{name} ended with {done.returncode}: {(done.stdout.splitlines() or ['no word'])[-1]}")
    shutil.rmtree(started)
    return {"counts": dict(counts), "failures": failures}


def outcome(said: str) -> tuple[Counter[str], list[str]]:
    """Return the counts of pytest's last line, and its summary's line of each failure."""
    lines = said.splitlines() or [""]
    found = re.findall(r"(\d+) (passed|failed|skipped|error)s?\b", lines[-1])
    counts = Counter({name: int(number) for number, name in found})
    return counts, [line for line in lines if line.startswith(("FAILED ", "ERROR "))]


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
        far = math.inf if difference is None else difference
        result = "equal" if far <= EQUAL else "within" if far <= tolerance else "differs"
        said = next((text for text in sorted(failures) if f": {output} " in text), None)
        failures -= {said}
        measured = {"head": heads.get(output), "output": output, "difference": difference, "tolerance": tolerance}
        word = {"word": INFINITE} if difference is None else {}
        yield {**same, **measured, **word, "result": result, "said": said}
    for text in sorted(failures):
        yield {**same, **nothing, "result": "differs", "said": text}
    if "refused" in told:
        yield {**same, **nothing, "result": "refused", "said": told["refused"]}


if __name__ == "__main__":
    main()
