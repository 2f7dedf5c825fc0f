"""The static variants of the default model: what each remedy gains, and the one that holds the default budget.

    python -m bench.quantization.static --text rest.jsonl [--positions 10000] [--isa avx2] [--work DIR]
    python -m bench.avx2 python -m bench.quantization.static --text rest.jsonl

Quantizes copies of the default bundle to int8-static-cpu within the default budget (`held`); and without a budget, to
that and to int8-static, with rotation and channels kept in float (`recipe`), with one of the two, and with neither. All
are judged on the same held-out text (`models/excerpts.py --rest` writes it). Those of int8-static-cpu are timed beside
fp32 and the bundle's int8-dynamic, all taking turns. Writes docs/data/quantization-static.json, or
quantization-static-avx2.json on a CPU with AVX2 alone; the weights stay in `--work`, and `--only held` makes that one
anew and times them all again. Where no combination of layers holds the budget within `--time-limit`, the file says how
near the nearest came. Needs an idle machine, and half an hour with 10,000 positions.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT, provenance
from bertport.measure.budget import NO_BUDGET, Budget
from bertport.measure.speed.timing import interleave, speedup, summarize
from bertport.measure.speed.workload import Shape, WorkerSpec
from bertport.quantize.calibration.ranges import DEFAULT, Calibration
from bertport.quantize.deadline import parse_duration
from bertport.quantize.job import Options, Refused
from bertport.quantize.quantizer import quantize
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import MANIFEST, Bundle
from bertport.runtime.errors import ValidationError
from bertport.runtime.providers.cpu import cpu

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertport.quantize.job import Outcome

DATA = ROOT / "docs" / "data"
WORK = ROOT / "out" / "bench" / "static"
RECIPE, DYNAMIC, SYMMETRIC = "int8-static-cpu", "int8-dynamic", "int8-static"
WAYS = {
    "plain": Calibration(keep_in_float=False, rotate=False),
    "unrotated": Calibration(rotate=False),
    "unkept": Calibration(keep_in_float=False),
    "recipe": DEFAULT,
}
"""Settings of the variants without a budget, by name: neither remedy, one of the two, and both."""
SHAPES = ((1, 16), (1, 128), (8, 128))
"""Rows and tokens that are timed."""
ROUNDS, RUNS = 12, 4


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the variants, time them, and write what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="the embedded default when not given")
    parser.add_argument("--text", type=Path, help="held-out text; the sample that ships when not given")
    parser.add_argument("--positions", type=int, default=10_000, help="masked positions, about [%(default)s]")
    parser.add_argument("--pairs", type=int, default=2000, help="sentence pairs, at most [%(default)s]")
    parser.add_argument("--isa", default="auto", help="as bertport quantize has it [%(default)s]")
    parser.add_argument("--only", action="append", metavar="NAME", help="variants to make; others stay as they are")
    parser.add_argument("--time-limit", type=parse_duration, help="of the search, such as 20m")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each when timing [%(default)s]")
    parser.add_argument("--work", type=Path, default=WORK, help="where the bundles are made [out/bench/static]")
    parser.add_argument("--output", type=Path, help="write the figures there in place of docs/data")
    given = parser.parse_args(arguments)
    asked = {"isa": given.isa, "text": given.text, "positions": given.positions, "pairs": given.pairs, "force": True}
    file = given.output or _file()
    ways = {name: Options(**asked, budget=Budget.parse(NO_BUDGET), calibrating=how) for name, how in WAYS.items()}
    timed = {**ways, "held": Options(**asked, time_limit=given.time_limit)}
    wanted = {name: (RECIPE, options) for name, options in timed.items()}
    wanted |= {f"{SYMMETRIC} {name}": (SYMMETRIC, options) for name, options in ways.items()}
    data = provenance()
    if unknown := set(given.only or ()) - wanted.keys():
        parser.error(f"the table has no variant {', '.join(sorted(unknown))}: --only takes {', '.join(wanted)}")
    if given.only and not file.is_file():
        parser.error(f"--only keeps the figures of other variants, and {file} is not there: run it without --only")
    variants = _measured_before(file) if given.only else {}
    kept = {name: variants[name] for name in timed if name in variants and name not in given.only}
    if gone := [name for name, record in kept.items() if not _there(given.work / name, record)]:
        parser.error(f"{given.work} no longer has {', '.join(gone)}, to be timed again: run it without --only")
    for name in given.only or wanted:
        recipe, options = wanted[name]
        variants[name] = made(given.bundle, given.work / name, options, recipe) | {"commit": data["commit"]}
    here = {name: variants[name] for name in timed}
    data |= {"variants": variants, "times": times(given.bundle, given.work, here, given.rounds)}
    file.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    print(f"{file} written", file=sys.stderr)


def _measured_before(file: Path) -> dict[str, dict[str, Any]]:
    """Return the variants that a file has, each with the commit that it was measured at."""
    data = json.loads(file.read_text(encoding="utf-8"))
    return {name: {"commit": data["commit"], **record} for name, record in data["variants"].items()}


def _there(place: Path, record: dict[str, Any]) -> bool:
    """Return whether a variant that was measured before, unless it was refused, can be timed again."""
    return "refused" in record or (place / MANIFEST).is_file()


def _file() -> Path:
    """Return the file of this machine's class of CPU."""
    ending = "-avx2" if cpu().instruction_set == "avx2" else ""
    return DATA / f"quantization-static{ending}.json"


def made(bundle: Path, place: Path, options: Options, recipe: str = RECIPE) -> dict[str, Any]:
    """Make a variant in a copy of a bundle; return what its manifest says, or what was measured of a refused one."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(bundle, place)
    told: list[Outcome | Refused] = []
    options = _telling(options, told)
    try:
        quantize(place, [recipe], options=options)
    except ValidationError as error:
        print(error, file=sys.stderr)
        return {"refused": str(error), **(told[-1].measured.to_json() if told else {})}
    return Bundle.open(place).manifest.variants[recipe].fidelity or {}


def _telling(options: Options, told: list[Outcome | Refused]) -> Options:
    """Return options that begin now, with which each variant is kept in a list, and the steps are printed."""
    stages: list[str] = []

    def progress(stage: str, done: int, count: int) -> None:  # noqa: ARG001 — the signature of progress
        if stages[-1:] != [stage]:
            stages.append(stage)
            print(stage, file=sys.stderr, flush=True)

    return dataclasses.replace(options, told=told.append, progress=progress, started=time.monotonic())


def times(bundle: Path, work: Path, variants: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Time fp32, int8-dynamic and the variants that there are, all taking turns; return the figures of each shape."""
    specs = [_spec("fp32", bundle, "fp32"), _spec(DYNAMIC, bundle, DYNAMIC)]
    specs += [_spec(name, work / name, RECIPE) for name, record in variants.items() if "refused" not in record]
    specs = [spec for spec in specs if spec.variant in Bundle.open(Path(spec.bundle or "")).manifest.variants]
    vocabulary = Bundle.open(bundle).manifest.architecture.vocab_size
    workloads = {f"{rows}x{length}": Shape(rows=rows, length=length, vocabulary=vocabulary) for rows, length in SHAPES}
    runs = {(run.subject, run.workload): run for run in interleave(specs, workloads, rounds=rounds, runs=RUNS)}
    figures: dict[str, Any] = {}
    for shape in workloads:
        figures[shape] = {}
        for spec in specs:
            run = runs[spec.name, shape]
            figure: dict[str, Any] = {"ms": summarize(run).median.value * 1e3}
            for reference in ("fp32", "plain"):
                if (reference, shape) in runs and spec.name != reference:
                    ratio = speedup(runs[reference, shape], run)
                    figure[f"over {reference}"] = {"value": ratio.value, "low": ratio.low, "high": ratio.high}
            figures[shape][spec.name] = figure
    return figures


def _spec(name: str, bundle: Path, variant: str) -> WorkerSpec:
    return WorkerSpec(name=name, bundle=str(bundle), variant=variant, bare=True, provider="cpu")


if __name__ == "__main__":
    main()
