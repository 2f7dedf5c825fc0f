"""The report as JSON values: all that the pages show, so that they can be written again without measuring."""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertport.compare import speed
from bertport.compare.report import findings
from bertport.compare.report.recommend import recommend, verdicts
from bertport.compare.workloads import flops
from bertport.measure.budget import format_budget
from bertport.measure.machine import describe_machine
from bertport.measure.quality.bias import SHIPPED
from bertport.measure.quality.results import finite
from bertport.measure.speed.baselines import padded_tokens
from bertport.measure.statistics import Settings, paired_difference, ratio, share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertport.compare.entries import Contender, Entrant
    from bertport.compare.runner import Comparison
    from bertport.measure.speed.timing import Run
    from bertport.measure.statistics import Estimate

__all__ = ["SCHEMA", "SCHEMA_FILE", "SCHEMA_VERSION", "assemble", "conclude"]

SCHEMA = "bertport-comparison"
SCHEMA_VERSION = 1
"""Raised when a field changes its meaning or goes; new fields leave it."""
SCHEMA_FILE = Path(__file__).parent / "resources" / "comparison.schema.json"
"""JSON Schema of the document."""
CHANCE = 0.9
"""Share of ln(vocabulary) from which -log p of the original token says no more than chance does: a uniform guess has
exactly ln(vocabulary), a trained model a third of it or less."""


def assemble(comparison: Comparison) -> dict[str, Any]:
    """Draw the document from what has been measured, finished or not."""
    options = comparison.options
    settings = Settings(seed=options.seed)
    machine = comparison.steps.get("peak") or dataclasses.asdict(describe_machine())
    bundles = [_bundle(comparison, each) for each in comparison.entrants]
    rows = [_row(comparison, each, settings, machine["matmul_gflops"]) for each in comparison.contenders]
    budget = comparison.bounds
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "complete": not comparison.interrupted,
        "seconds": round(comparison.seconds, 1),
        "steps_resumed": comparison.journal.resumed,
        "command": options.command,
        "machine": machine,
        "packages": _packages(options.baselines),
        "settings": {
            **dataclasses.asdict(comparison.effort),
            "threads": options.threads,
            "seed": options.seed,
            "resamples": settings.resamples,
            "confidence": settings.confidence,
            "budget": budget,
            "budget_in_words": format_budget(budget),
        },
        "text": {
            "name": comparison.text_name,
            "sha256": comparison.text_sha256,
            "texts": len(comparison.texts),
            "shipped": options.text is None,
            "inputs": comparison.inputs.describe(),
        },
        "bundles": bundles,
        "rows": rows,
        "bias_probe": {**comparison.probe.to_json(), "shipped": options.templates is None, "file": SHIPPED.name},
    }
    document["not_measured"] = findings.not_measured(document, comparison.left_out)
    return conclude(finite(document))  # type: ignore[arg-type]  # a dictionary stays one


def conclude(document: dict[str, Any], budget: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Draw what a document concludes from its figures; for one that was read, what would be concluded today.

    Args:
        document: Of `assemble`, or a report.
        budget: Bounds to judge by; None for those of the document.
    """
    if budget is not None:
        settings = {**document["settings"], "budget": dict(budget), "budget_in_words": format_budget(budget)}
        document = {**document, "settings": settings}
    return {
        **document,
        "findings": findings.findings(document),
        "verdicts": verdicts(document),
        "recommendations": recommend(document),
    }


def _bundle(comparison: Comparison, entrant: Entrant) -> dict[str, Any]:
    manifest = entrant.bundle.manifest
    reference = comparison.reference_of(entrant)
    samples = comparison.samples[entrant.label].first
    weights, why = "trained", ""
    if comparison.options.random_weights:
        weights, why = "random", "--random-weights was given"
    elif reference:
        found = comparison.steps.get(f"quality/{reference.name}", {}).get("fidelity") or {}
        nll, chance = (found.get("mlm") or {}).get("nll_reference"), math.log(manifest.architecture.vocab_size)
        if nll and nll["low"] is not None and nll["low"] >= CHANCE * chance:
            weights = "no better than chance"
            why = (
                f"-log p of the original token is {nll['value']:.2f} nats, and a uniform guess among "
                f"{manifest.architecture.vocab_size:,} entries has {chance:.2f}"
            )
    return {
        "label": entrant.label,
        "name": manifest.name,
        "architecture": dataclasses.asdict(manifest.architecture),
        "heads": list(manifest.heads),
        "max_length": manifest.max_length,
        "languages": list(manifest.languages),
        "licence": manifest.licence,
        "default_variant": manifest.default_variant,
        "source_sha256": dict(manifest.source.weights_sha256),
        "reference": reference.name if reference else None,
        "weights": weights,
        "weights_reason": why,
        "samples": {
            "masked_positions": sum(len(each.positions) for each in samples),
            "masked_texts": sum(each.next_sentence is None for each in samples),
            "pairs": sum(each.next_sentence is not None for each in samples),
        },
        "sensitivity": _sensitivity(entrant),
    }


def _sensitivity(entrant: Entrant) -> dict[str, Any]:
    """Read the tables of layers that quantization left in the bundle, by variant."""
    found = {}
    for name in entrant.bundle.manifest.files:
        path = Path(name)
        if path.parent == Path("quantization") and path.suffix == ".json":
            found[path.stem] = json.loads(entrant.bundle.read(name))
    return found


def _row(comparison: Comparison, contender: Contender, settings: Settings, peak: float | None) -> dict[str, Any]:
    name, steps = contender.name, comparison.steps
    [entrant] = [each for each in comparison.entrants if each.label == contender.bundle]
    entry = entrant.bundle.manifest.variants.get(contender.variant or "")
    reference = comparison.reference_of(entrant)
    measured = _speed(comparison, contender, entrant, settings, peak)
    quality = steps.get(f"quality/{name}") or {}
    return {
        "name": name,
        "bundle": contender.bundle,
        "kind": contender.kind,
        "variant": contender.variant,
        "provider": contender.provider,
        "recipe": contender.recipe,
        "instruction_set": entry.requires.isa if entry else None,
        "reference": bool(reference and reference.name == name),
        "default": bool(entry and contender.variant == entrant.bundle.manifest.default_variant),
        "size_bytes": contender.size_bytes,
        "failed": comparison.failed.get(name),
        "recorded": comparison.recorded_of(contender),
        "looks": quality.get("looks", 1) if quality else None,
        "quality": quality.get("fidelity"),
        "per_text": quality.get("per_text"),
        "bias": _bias(comparison, contender, reference, settings),
        "same_answers": _same_answers(comparison, contender, reference, settings),
        **measured,
    }


def _speed(
    comparison: Comparison, contender: Contender, entrant: Entrant, settings: Settings, peak: float | None
) -> dict[str, Any]:
    name, inputs, shape = contender.name, comparison.inputs, entrant.bundle.manifest.architecture
    reference = comparison.reference_of(entrant)
    found: dict[str, Any] = {"start": None, "single_stream": None, "offline": None, "server": [], "shapes": {}}
    ratios: dict[str, Any] = {}
    peak = peak if contender.provider == "cpu" else None

    def against(workload: str, runs: Mapping[str, Run]) -> None:
        if reference and reference.name != name and reference.name in runs:
            ratios[workload] = speed.ratio(runs[reference.name], runs[name], settings)

    work = sum(flops(shape, 1, length) for length in inputs.lengths)
    if name in (runs := comparison.runs("cold start")):
        found["start"] = speed.start(runs[name], settings)
    if name in (runs := comparison.runs("SingleStream")):
        found["single_stream"] = speed.latency(runs[name], settings)
        found["single_stream"]["peak_bytes"] = runs[name].peak_bytes
        against("SingleStream", runs)
    if name in (runs := comparison.runs("Offline")):
        times = speed.latency(runs[name], settings)
        real = sum(inputs.lengths)
        found["offline"] = {
            **times,
            "texts_per_second": speed.inverse(times["median"], len(inputs.texts)),
            "tokens_per_second": speed.inverse(times["median"], real),
            "real_tokens": real,
            "padded_tokens": padded_tokens(inputs.lengths) if contender.kind != "variant" else real,
            "share_of_peak": work / times["median"]["value"] / 1e9 / peak if peak else None,
            "peak_bytes": runs[name].peak_bytes,
        }
        against("Offline", runs)
    for each in comparison.effort.server_shares:
        step = comparison.steps.get(f"time/Server {each:g}") or {}
        if name in (runs := comparison.runs(f"Server {each:g}")):
            alone = found["single_stream"]["mean"] if found["single_stream"] else 0.0
            found["server"].append(
                {
                    "share": each,
                    "requests_per_second": step["rate"],
                    "reference": step["reference"],
                    "overloaded": step["rate"] * alone >= 1,
                    **speed.latency(runs[name], settings),
                }
            )
    for workload, batch in comparison.shapes.items():
        if name in (runs := comparison.runs(workload)):
            times = speed.latency(runs[name], settings)
            work = flops(shape, batch.rows, batch.length, batch.masked)
            found["shapes"][workload] = {
                **times,
                "rows": batch.rows,
                "length": batch.length,
                "tokens_per_second": speed.inverse(times["median"], batch.rows * batch.length),
                "gflop": work / 1e9,
                "share_of_peak": work / times["median"]["value"] / 1e9 / peak if peak else None,
            }
            against(workload, runs)
    return {"speed": found, "times_faster": ratios}


def _bias(
    comparison: Comparison, contender: Contender, reference: Contender | None, settings: Settings
) -> dict[str, Any] | None:
    pairs = (comparison.steps.get(f"bias/{contender.name}") or {}).get("pairs")
    if not pairs:
        return None
    distances = _by_template(pairs)
    found: dict[str, Any] = {
        "distance": dataclasses.asdict(_clustered(distances, settings)),
        "card": pairs[0],
        "pairs": [[each["a"], each["b"], each["distance"]] for each in pairs],
        "change": None,
    }
    before = (comparison.steps.get(f"bias/{reference.name}") or {}).get("pairs") if reference else None
    if before and reference and reference.name != contender.name:
        old = _by_template(before)
        found["change"] = dataclasses.asdict(
            paired_difference(
                [sum(each) for each in distances],
                [sum(each) for each in old],
                [len(each) for each in distances],
                settings,
            )
        )
    return found


def _by_template(pairs: list[dict[str, Any]]) -> list[list[float]]:
    numbers = sorted({each["template"] for each in pairs})
    return [[each["distance"] for each in pairs if each["template"] == number] for number in numbers]


def _clustered(groups: list[list[float]], settings: Settings) -> Estimate:
    return ratio([sum(each) for each in groups], [len(each) for each in groups], settings)


def _same_answers(
    comparison: Comparison, contender: Contender, reference: Contender | None, settings: Settings
) -> dict[str, Any] | None:
    tokens = (comparison.steps.get("answers") or {}).get("tokens", {})
    if reference is None or contender.name not in tokens or reference.name not in tokens:
        return None
    same = [one == other for one, other in zip(tokens[contender.name], tokens[reference.name], strict=True)]
    return dataclasses.asdict(share(same, [1] * len(same), settings))


def _packages(baselines: tuple[str, ...]) -> dict[str, str]:
    from importlib import metadata

    names = {"transformers": ("torch", "transformers"), "optimum": ("torch", "transformers", "optimum", "optimum-onnx")}
    found = {}
    for name in dict.fromkeys(each for baseline in baselines for each in names[baseline]):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
