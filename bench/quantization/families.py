"""Measure INT8 against fp32 for encoders of several families in one interleaved run; write docs/research/families.md.

    python -m bench.quantization.families [--family NAME ...] [--sizes tiny] [--check]

Each is a checkpoint of seeded random weights in the sizes that its family has by default, with the default model's
tokenizer. It is exported and quantized to int8-dynamic as by default, but on a few texts and without a budget, which
random weights would not hold. Needs bertport[export,cpu,quantize] and an idle machine. With `--sizes tiny`, which tries
this program, or without one of the families that the page has by default, nothing is written. With `--check`, nothing
is measured, and the exit code is 1 where the page is not what the data say.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT, check_section, provenance, read_data, write_section
from bench.performance.models import few_texts
from bench.random_weights import save_seeded
from bertport.measure.budget import NO_BUDGET, Budget
from bertport.measure.quality.heads import HIDDEN
from bertport.measure.speed.timing import interleave, speedup, summarize
from bertport.measure.speed.workload import Shape, WorkerSpec
from bertport.quantize.job import Options
from bertport.quantize.quantizer import quantize
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = ROOT / "docs" / "research" / "families.md"
DATA = ROOT / "docs" / "data" / "quantization-families.json"
REFERENCE = "bert"
"""The family whose speed-up the others are held to."""
ALLOWED = 0.9
"""The share of its speed-up that each of the others must reach."""
CLASSES = {
    "bert": "BertForPreTraining",
    "roberta": "RobertaForMaskedLM",
    "distilbert": "DistilBertForMaskedLM",
    "electra": "ElectraForMaskedLM",
    "mpnet": "MPNetForMaskedLM",
    "albert": "AlbertForPreTraining",
    "modernbert": "ModernBertForMaskedLM",
}
"""transformers' class of each family that can be measured."""
MEASURED = ("bert", "roberta", "distilbert")
"""The families that are measured where none is named."""
SIZES: dict[str, dict[str, Any]] = {
    "roberta": {"max_position_embeddings": 514, "type_vocab_size": 1},
    "mpnet": {"max_position_embeddings": 514},
    "albert": {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
}
"""Sizes of a base model where transformers' defaults are those of another."""
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
"""Sizes for trying this program; those of a DistilBERT have names of their own, which its config translates."""
SHAPES = ((1, 16), (1, 128), (8, 128))
"""Rows and tokens that are timed."""
ROUNDS, RUNS = 10, 4
CALIBRATION = 10
"""Paragraphs of the calibration sample: random weights have nothing to gain from more."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the models, measure them, and write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--family", action="append", choices=CLASSES, help="a family; may be repeated")
    parser.add_argument("--sizes", choices=("base", "tiny"), default="base", help="tiny tries this program")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    if options.check:
        check_section(PAGE, section(read_data(DATA, "bench.quantization.families")), "bench.quantization.families")
        return
    families = list(dict.fromkeys([REFERENCE, *(options.family or MEASURED)]))
    with tempfile.TemporaryDirectory() as place:
        made = {name: make(name, Path(place) / name, tiny=options.sizes == "tiny") for name in families}
        models = measure(made)
    for name, model in models.items():
        print(line(name, model))
    if options.sizes == "base" and models.keys() >= set(MEASURED):  # else the page would lose a family
        data = {
            **provenance(),
            "allowed": ALLOWED,
            "models": models,
        }
        DATA.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        write_section(PAGE, section(data))
    behind = [name for name, model in models.items() if min(model["of_reference"].values()) < ALLOWED]
    if options.sizes == "base" and behind:
        sys.exit(f"INT8 gains less than {ALLOWED:.0%} of what it gains for {REFERENCE}: {', '.join(behind)}")


def make(family: str, place: Path, *, tiny: bool) -> Path:
    """Make a family's bundle with random weights, fp32 and int8-dynamic; return its directory."""
    import transformers

    from bertport.export import export

    checkpoint, bundle = place / "checkpoint", place / "bundle"
    tokenizer = json.loads((default_bundle() / "tokenizer.json").read_text(encoding="utf-8"))
    ids = {entry["content"]: entry["id"] for entry in tokenizer["added_tokens"]}
    roles = {"pad": "[PAD]", "bos": "[CLS]", "cls": "[CLS]", "eos": "[SEP]", "sep": "[SEP]"}
    sizes = SIZES.get(family, {}) | (TINY if tiny else {}) | {f"{role}_token_id": ids[at] for role, at in roles.items()}
    config = transformers.CONFIG_MAPPING[family](**sizes)
    save_seeded(getattr(transformers, CLASSES[family])(config), checkpoint)
    export(checkpoint, bundle)
    shutil.rmtree(checkpoint)
    few = place / "calibration.txt"
    few.write_text(few_texts(CALIBRATION), encoding="utf-8")
    asked = Options(budget=Budget.parse(NO_BUDGET), calibration=few, positions=500, pairs=50, force=True)
    quantize(bundle, ["int8-dynamic"], options=asked)
    print(f"{family}: exported and quantized", file=sys.stderr, flush=True)
    return bundle


def measure(made: dict[str, Path]) -> dict[str, Any]:
    """Time fp32 and int8-dynamic of every family, all taking turns; return the figures of each."""
    bundles = {name: Bundle.open(path) for name, path in made.items()}
    vocabulary = min(bundle.manifest.architecture.vocab_size for bundle in bundles.values())
    workloads = {f"{rows}x{length}": Shape(rows=rows, length=length, vocabulary=vocabulary) for rows, length in SHAPES}
    specs = [
        WorkerSpec(name=f"{name} {variant}", bundle=str(path), variant=variant, bare=True, provider="cpu")
        for name, path in made.items()
        for variant in ("fp32", "int8-dynamic")
    ]
    runs = {(run.subject, run.workload): run for run in interleave(specs, workloads, rounds=ROUNDS, runs=RUNS)}
    models: dict[str, Any] = {}
    for name, bundle in bundles.items():
        speeds = {}
        for shape in workloads:
            before, after = runs[f"{name} fp32", shape], runs[f"{name} int8-dynamic", shape]
            ratio = speedup(before, after)
            speeds[shape] = {
                "reference_ms": summarize(before).median.value * 1e3,
                "ms": summarize(after).median.value * 1e3,
                "speedup": ratio.value,
                "low": ratio.low,
                "high": ratio.high,
            }
        fidelity = bundle.manifest.variants["int8-dynamic"].fidelity or {}
        models[name] = {
            "parameters": bundle.manifest.architecture.parameters,
            "size_of_reference": fidelity["size"]["of_reference"],
            "accuracy": fidelity["accuracy"],
            "speed": speeds,
        }
    for model in models.values():
        model["of_reference"] = {
            shape: speed["speedup"] / models[REFERENCE]["speed"][shape]["speedup"]
            for shape, speed in model["speed"].items()
        }
    return models


def section(data: dict[str, Any]) -> str:
    """Return the table."""
    shapes = [f"{rows}x{length}" for rows, length in SHAPES]
    headings = [f"{shape}: {figure}" for shape in shapes for figure in ("fp32, ms", "INT8, ms", "faster", "of BERT's")]
    lines = [
        f"| family | parameters | {' | '.join(headings)} | size | hidden states, cosine |",
        f"|---|---:|{'---:|' * (len(headings) + 2)}",
    ]
    for name, model in data["models"].items():
        figures = []
        for shape in shapes:
            speed = model["speed"][shape]
            ratio = f"{speed['speedup']:.2f}x ({speed['low']:.2f}-{speed['high']:.2f})"
            figures += [
                f"{speed['reference_ms']:.1f}",
                f"{speed['ms']:.1f}",
                ratio,
                f"{model['of_reference'][shape]:.0%}",
            ]
        cosine = model["accuracy"][HIDDEN]["cosine"]["value"]
        lines.append(
            f"| {name} | {model['parameters'] / 1e6:.0f} M | {' | '.join(figures)} "
            f"| {model['size_of_reference']:.0%} | {cosine:.5f} |"
        )
    machine = data["machine"]
    described = (
        f"Machine: {machine['cpu']}, {machine['instruction_set']}, {machine['physical_cores']} cores; "
        f"{data['date'][:10]}, commit {data['commit'][:7]}."
    )
    return "\n".join([*lines, "", described, ""])


def line(name: str, model: dict[str, Any]) -> str:
    """Return a model's figures in a line."""
    ratios = ", ".join(
        f"{speed['speedup']:.2f}x at {shape} ({model['of_reference'][shape]:.0%} of {REFERENCE}'s)"
        for shape, speed in model["speed"].items()
    )
    cosine = model["accuracy"][HIDDEN]["cosine"]["value"]
    return f"{name} ({model['parameters'] / 1e6:.0f} M): {ratios}; hidden-state cosine {cosine:.5f}"


if __name__ == "__main__":
    main()
