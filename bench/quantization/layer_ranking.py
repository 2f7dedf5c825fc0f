"""Repeatability of a table of layers: each alone in 8 bits, or each alone left out of a graph in 8 bits.

    python -m bench.quantization.layer_ranking [--bundle DIR] [--isa avx2] [--positions 400]

The search for layers in higher precision (`bertport.quantize.search.sensitivity`) trusts such a table. Both ways are
measured on the two halves of the calibration text: the rank correlation of the halves, and what the layers add up to
as a share of what all of them cost together. Prints the table and writes docs/data/layer-ranking.json. Nothing is
timed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.checkout import ROOT, provenance
from bertport.quantize.graph.rewrite import linears
from bertport.quantize.isa import resolve_isa
from bertport.quantize.job import Options, prepare, read_source
from bertport.quantize.recipes.table import recipe_named
from bertport.quantize.search.sensitivity import kl_increase
from bertport.quantize.texts import read_evaluation
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle

CALIBRATION = ROOT / "data" / "calibration.txt"
DATA = ROOT / "docs" / "data" / "layer-ranking.json"
PAIRS = 60


def rank_correlation(one: list[float], other: list[float]) -> float:
    """Return Spearman's coefficient; equal values do not occur."""
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def measure(directory: Path, isa: str, positions: int) -> dict[str, Any]:
    """Measure both tables on both halves."""
    bundle, recipe = Bundle.open(directory), recipe_named("int8-dynamic")
    options = Options(isa=isa)
    evaluator = prepare(bundle, options)
    source = read_source([recipe], bundle, resolve_isa(isa), options)
    names = [layer.name for layer in linears(recipe.graph(source))]
    paragraphs = CALIBRATION.read_text(encoding="utf-8").splitlines(keepends=True)
    middle = len(paragraphs) // 2
    halves = []
    with tempfile.TemporaryDirectory() as place:
        for number, part in enumerate((paragraphs[:middle], paragraphs[middle:])):
            path = Path(place) / f"{number}.txt"
            path.write_text("".join(part), encoding="utf-8")
            halves.append(read_evaluation(bundle, path, sample="calibration", positions=positions, pairs=PAIRS))
    increases: dict[str, Any] = {"alone": [], "left out": [], "together": []}
    for number, half in enumerate(halves):

        def kl(higher: frozenset[str], half: Any = half) -> float:  # noqa: ANN401 — an Evaluation
            graph = evaluator.make(recipe, dataclasses.replace(source, high_precision_layers=higher))
            return kl_increase(evaluator.accuracy(recipe, graph, half))

        everything = frozenset(names)
        most, least = kl(frozenset()), kl(everything)
        alone, left_out = [], []
        for done, name in enumerate(names, 1):
            alone.append(kl(everything - {name}) - least)
            left_out.append(most - kl(frozenset({name})))
            sys.stderr.write(f"\rhalf {number + 1} of 2, layer {done} of {len(names)}")
        increases["alone"].append(alone)
        increases["left out"].append(left_out)
        increases["together"].append(most - least)
    sys.stderr.write("\n")
    return {"layers": names, "texts": [half.to_json() for half in halves], **increases}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--isa", default="avx2")
    parser.add_argument("--positions", type=int, default=400, help="masked positions of each half")
    arguments = parser.parse_args()
    result = measure(arguments.bundle, arguments.isa, arguments.positions)
    for way in ("alone", "left out"):
        result[f"{way}, rank correlation"] = rank_correlation(*result[way])
        result[f"{way}, sum over together"] = sum(map(sum, result[way])) / sum(result["together"])
        print(
            f"{way}: ranks of the halves agree to {result[f'{way}, rank correlation']:.2f}; "
            f"the layers add up to {result[f'{way}, sum over together']:.2f} of what all cost together"
        )
    result |= {"isa": arguments.isa, **provenance()}
    DATA.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
