"""Measure how long `bertport quantize` takes, stage by stage, and write the table in docs/research/quantization.md.

    python -m bench.quantization.duration [--check]

The default model and a BERT-base of random weights, which is made here, are quantized to int8-dynamic with everything
as it is by default and no budget: no search. Needs bertport[export,cpu,quantize] and an idle machine. With `--check`,
nothing is measured, and the exit code is 1 where the page is not what the data say.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.checkout import ROOT, check_section, provenance, read_data, write_section
from bench.random_weights import save_bert_base
from bertport.measure.budget import NO_BUDGET, Budget
from bertport.quantize.job import Options
from bertport.quantize.quantizer import quantize
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle

PAGE = ROOT / "docs" / "research" / "quantization.md"
DATA = ROOT / "docs" / "data" / "quantize-time.json"
BAR = 180
"""Seconds that a BERT-base may take on two cores."""
WAITING = "waiting for the machine"
STAGES = {
    "": "reading text, opening fp32",
    "fusing the fp32 graph": "fusing the graph",
    "running the calibration text": "running the calibration text",
    "calibrating the weights": "calibrating the weights",
    "making int8-dynamic": "making the graph",
    "measuring accuracy": "measuring accuracy",
    WAITING: WAITING,
    "measuring speed": "measuring speed, writing",
}


def make_base(directory: Path) -> Path:
    """Make a BERT-base of random weights with the default model's tokenizer, and export it."""
    from bertport.export import export

    save_bert_base(directory / "checkpoint")
    export(directory / "checkpoint", directory / "base")
    return directory / "base"


def measure(bundle: Path) -> dict[str, Any]:
    """Quantize a bundle and return the seconds of each stage."""
    stages: dict[str, float] = {}
    stage, began = "", time.perf_counter()

    def progress(name: str, done: int, count: int) -> None:  # noqa: ARG001 — the signature
        nonlocal stage, began
        name = WAITING if name.startswith("waiting for") else name
        if name != stage:
            now = time.perf_counter()
            stages[stage] = stages.get(stage, 0.0) + now - began
            stage, began = name, now

    options = Options(budget=Budget.parse(NO_BUDGET), overwrite=True, force=True, progress=progress)
    [outcome] = quantize(bundle, ["int8-dynamic"], options=options)
    stages[stage] = stages.get(stage, 0.0) + time.perf_counter() - began
    quantized = Bundle.open(bundle)
    return {
        "parameters": quantized.manifest.architecture.parameters,
        "seconds": sum(stages.values()),
        "stages": stages,
        "text": outcome.measured.text,
    }


def section(data: dict[str, Any]) -> str:
    """Return the table."""
    models = data["models"]
    heading = " | ".join(f"{name} ({measured['parameters'] / 1e6:.0f} M)" for name, measured in models.items())
    lines = [f"| seconds | {heading} |", "|---|" + "---:|" * len(models)]
    if unknown := {stage for measured in models.values() for stage in measured["stages"]} - STAGES.keys():
        raise ValueError(f"the stages {sorted(unknown)} have no row: add them to STAGES")
    for stage, words in STAGES.items():
        if any(stage in measured["stages"] for measured in models.values()):
            cells = " | ".join(f"{measured['stages'].get(stage, 0.0):.1f}" for measured in models.values())
            lines.append(f"| {words} | {cells} |")
    lines.append("| **all** | " + " | ".join(f"{measured['seconds']:.0f}" for measured in models.values()) + " |")
    machine = data["machine"]
    described = f"{machine['cpu']}, {machine['instruction_set']}, {machine['physical_cores']} cores"
    lines += ["", f"Machine: {described}; {data['date'][:10]}, commit {data['commit'][:7]}.", ""]
    return "\n".join(lines)


def main() -> None:
    """Measure and write, or compare the page with the data."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        check_section(PAGE, section(read_data(DATA, "bench.quantization.duration")), "bench.quantization.duration")
        return
    models = {}
    with tempfile.TemporaryDirectory() as place:
        default = shutil.copytree(default_bundle(), Path(place) / "default")
        for name, bundle in (("the default model", default), ("BERT-base", make_base(Path(place)))):
            models[name] = measure(bundle)
            print(f"{name}: {models[name]['seconds']:.0f} s", flush=True)
    data = {
        **provenance(),
        "bar_seconds": BAR,
        "models": models,
    }
    DATA.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    write_section(PAGE, section(data))


if __name__ == "__main__":
    main()
