"""What training biases and LayerNorm against fp32 gives a static variant: `bertport quantize --distill`.

    python -m bench.quantization.distillation [--bundle DIR] [--name NAME] [--recipe int8-static-cpu] [--isa avx2]
        [--text rest.jsonl] [--positions 1500] [--calibration FILE] [--data dev.jsonl.xz] [--steps 40 ...]

Makes the variant of a bundle, the embedded default where none is named, with and without, for each number of steps, all
of one calibration; measures each on held-out text, and on labelled data where there are some. Trained vectors are
measured also where the test on held-out text would not keep them. Writes the figures under the name into
docs/data/quantization-distillation.json, beside those of other names. Takes a minute of one core for 30 steps of the
default model, and what `bertport quantize` takes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT, provenance
from bertport.measure.budget import NO_BUDGET, Budget
from bertport.measure.labelled.options import DataChoice
from bertport.quantize.deadline import Deadline
from bertport.quantize.distillation.distiller import distill
from bertport.quantize.isa import resolve_isa
from bertport.quantize.job import Options, start_job
from bertport.quantize.recipes.table import RECIPES
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertport.quantize.job import Job
    from bertport.quantize.recipes.source import GraphSource
    from bertport.quantize.recipes.table import Recipe

DATA = ROOT / "docs" / "data" / "quantization-distillation.json"


def main(arguments: Sequence[str] | None = None) -> None:
    """Make and measure the variants, and write what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="the embedded default when not given")
    parser.add_argument("--name", default="default", help="what the figures are called [%(default)s]")
    parser.add_argument("--recipe", default="int8-static-cpu", help="a recipe that calibrates [%(default)s]")
    parser.add_argument("--isa", default="auto", help="as bertport quantize has it [%(default)s]")
    parser.add_argument("--text", type=Path, help="held-out text; the sample that ships when not given")
    parser.add_argument("--positions", type=int, default=1500, help="masked positions, about [%(default)s]")
    parser.add_argument("--pairs", type=int, default=200, help="sentence pairs, at most [%(default)s]")
    parser.add_argument("--calibration", type=Path, help="text to calibrate and train on; the sample that ships")
    parser.add_argument("--data", type=Path, help="labelled data to measure on as well")
    parser.add_argument("--steps", type=int, action="append", help="training steps; may be repeated [40]")
    parser.add_argument("--output", type=Path, default=DATA, help="[docs/data/quantization-distillation.json]")
    given = parser.parse_args(arguments)
    options = Options(
        isa=given.isa,
        budget=Budget.parse(NO_BUDGET),
        text=given.text,
        positions=given.positions,
        pairs=given.pairs,
        calibration=given.calibration,
        labelled=_data(given.data) if given.data else None,
        distill=max(given.steps or [40]),
        progress=_progress,
    )
    recipe = RECIPES[given.recipe]
    isa = resolve_isa(given.isa)
    job = start_job([recipe], Bundle.open(given.bundle), options, isa=isa, deadline=Deadline())
    figures = variants(job, recipe, given.steps or [40])
    known = json.loads(given.output.read_text(encoding="utf-8")) if given.output.exists() else {}
    known[given.name] = provenance() | {"recipe": recipe.name, "isa": isa.name if isa else None, "variants": figures}
    given.output.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    print(f"{given.output} written", file=sys.stderr)


def _data(path: Path) -> DataChoice:
    """Return the choice of labelled data whose columns have their usual names."""
    return DataChoice(data=str(path), task=None, columns={}, label_map={}, positive=None)


def variants(job: Job, recipe: Recipe, steps: Sequence[int]) -> dict[str, Any]:
    """Return what is measured of the variant as it is, and after each number of training steps."""
    source = job.calibrator.apply(job.source, recipe) if job.calibrator else job.source
    figures = {"plain": _measured(job, recipe, source)}
    for count in steps:
        began = time.process_time()
        trained = distill(job.evaluator, recipe, source, steps=count)
        record = trained.record | {"cpu_seconds": round(time.process_time() - began, 1)}
        print(json.dumps(record["distances"]), file=sys.stderr, flush=True)
        figures[f"{count} steps"] = {"distillation": record, **_measured(job, recipe, trained.source)}
    return figures


def _measured(job: Job, recipe: Recipe, source: GraphSource) -> dict[str, Any]:
    """Return the accuracy of a graph on held-out text and on labelled data."""
    graph = job.evaluator.make(recipe, source)
    accuracy = job.evaluator.accuracy(recipe, graph, job.evaluator.evaluation)
    labelled = job.evaluator.on_labelled(recipe, graph)
    return {"text": job.evaluator.evaluation.to_json(), "accuracy": accuracy.to_json()} | (
        {"labelled": labelled.to_json()} if labelled else {}
    )


def _progress(stage: str, done: int, count: int) -> None:
    """Print a stage when it begins, and each tenth of it."""
    if not count or done % max(1, count // 10) == 0:
        print(stage, done, count, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
