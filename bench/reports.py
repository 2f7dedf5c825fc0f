"""Write docs/reports: the comparison of the default model, and of a BERT-base with seeded random weights.

    python -m bench.reports [default] [base] [--effort LEVEL] [--twice] [--prepare | --again] [--output DIR]

Each bundle is copied and gets the variants for the CPU that it lacks; it is kept in out/reports until the default
bundle or the code of quantization changes. Both baselines run beside the variants, in the environment of `dev.py
optimum`, which has both. A report is kept as its JSON and a picture of its page, which anyone can render from the JSON.
`--twice` compares twice, writes whether the runs agree, and says so in the list. `--prepare` only makes the bundles.
`--again` takes new pictures of the reports that are there, without measuring. `--output` puts the reports elsewhere,
for a trial.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT, wrapped
from bench.performance.environments import optimum_python
from bench.performance.models import FEW, few_texts
from bench.pictures.smaller import make_smaller
from bertport.compare.presets import PRESETS
from bertport.measure.budget import NO_BUDGET, Budget
from bertport.quantize.calibration.ranges import Calibration
from bertport.quantize.job import Options
from bertport.quantize.quantizer import quantize
from bertport.quantize.recipes.table import RECIPES
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.writer import write_manifest

if TYPE_CHECKING:
    from collections.abc import Callable

REPORTS = ROOT / "docs" / "reports"
KEPT = ROOT / "out" / "reports"
SAME_BASE = ROOT / "out" / "bench" / "base" / "bundle"
"""The same model, where bench.performance has made it: of the same seed, size and vocabulary."""
PICTURED = ("default",)
"""The reports of whose pages docs/reports has a picture."""
SEED = 0
BASE = "bert-base-random"
AGREEMENT = "agreement.json"
HOW = (
    "What `bertport compare` measured, by {commands}. The figures of each report are kept, and for the default model a "
    "picture of the top of its page. These commands render the whole page, as HTML, Markdown and CSV, and measure "
    "nothing; they need the extra `compare`:"
)
EFFORT = "medium"
"""Effort of a report, unless another is asked for."""
INDEX = """# Reports

{how}

```sh
{render}
```

[The reference](../reference/report.md) explains each figure, [read a report](../how-to/read-a-report.md) how to
use them. `--twice` compares twice. `agreement.json` then says how many of the pairs of rows that both runs tell apart
have the same order in both, and how many speed ratios of the second run are within the first run's interval. `--again`
takes the pictures again.

| model | figures | measured on |
|---|---|---|
{rows}
{below}"""


def default(out: Path) -> None:
    """Copy the embedded default."""
    shutil.copytree(default_bundle(), out)


def bert_base(out: Path) -> None:
    """Export a BERT-base with seeded random weights and the default's vocabulary, or copy that of bench.performance."""
    if SAME_BASE.is_dir():
        shutil.copytree(SAME_BASE, out)
        write_manifest(out, replace(Bundle.open(out).manifest, name=BASE))  # it is called after a directory there
        return
    import torch
    from transformers import BertConfig, BertForPreTraining

    from bertport.export import export

    torch.manual_seed(SEED)
    checkpoint = out.with_name(BASE)
    BertForPreTraining(BertConfig()).save_pretrained(checkpoint)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(default_bundle() / name, checkpoint / name)
    export(checkpoint, out)
    shutil.rmtree(checkpoint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One row: a report."""

    make: Callable[[Path], None]
    """Makes the bundle with its fp32 variant."""
    options: tuple[str, ...] = ()
    """Options of its comparison."""
    texts: int | None = None
    """Texts of the calibration sample that quantization uses; None for all. Fitting a BERT-base to all of them takes
    many minutes, and there is nothing to gain where the weights are random."""


MODELS = {
    "default": Model(make=default),
    "base": Model(make=bert_base, options=("--random-weights",), texts=FEW),
}


def kept(name: str) -> Path:
    """Return a model's bundle with every variant for the CPU, made once for this default bundle and this code."""
    bundle, stamp = KEPT / name, KEPT / f"{name}.made-of"
    sources = [default_bundle() / "manifest.json", *sorted((ROOT / "quantize").rglob("*.py"))]
    made_of = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    if not (stamp.is_file() and stamp.read_text(encoding="ascii") == made_of):
        shutil.rmtree(bundle, ignore_errors=True)
        bundle.parent.mkdir(parents=True, exist_ok=True)
        MODELS[name].make(bundle)
        stamp.write_text(made_of, encoding="ascii")
    began = time.monotonic()
    add_variants(bundle, texts=MODELS[name].texts)  # after an interruption those that are missing
    print(f"made the variants of {name} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return bundle


def add_variants(bundle: Path, *, texts: int | None) -> None:
    """Add every variant for the CPU that the bundle lacks, whatever it costs in accuracy or speed.

    No budget, so no search; few samples, because the comparison measures accuracy at length.
    """
    have = Bundle.open(bundle).manifest.variants
    missing = [name for name, recipe in RECIPES.items() if "cpu" in recipe.providers and name not in have]
    if not missing:
        return
    told: set[str] = set()

    def tell(stage: str, _done: int, _count: int) -> None:
        if stage not in told:
            told.add(stage)
            print(f"{bundle.name}: {stage} …", file=sys.stderr, flush=True)

    options = Options(budget=Budget.parse(NO_BUDGET), force=True, positions=60, pairs=10, progress=tell)
    if texts is not None:
        few = bundle.with_name(f"{bundle.name}-calibration.txt")
        few.write_text(few_texts(texts), encoding="utf-8")
        options = replace(options, calibration=few, calibrating=Calibration(samples=texts))
    quantize(bundle, missing, options=options)


def compare(bundle: Path, output: str, *options: str) -> Path:
    """Compare in a process of its own, from the bundle's parent, so that the command in the report has no paths."""
    began = time.monotonic()
    python = optimum_python()
    if python is None:
        sys.exit("bench.reports measures Optimum beside bertport: see why `python3 dev.py optimum` has no environment")
    command = [str(Path(python).with_name("bertport")), "compare", bundle.name, "--output", output, *options]
    print(" ".join(["bertport", *command[1:]]), file=sys.stderr, flush=True)
    subprocess.run(command, cwd=bundle.parent, check=True, stdout=subprocess.DEVNULL)
    print(f"measured in {(time.monotonic() - began) / 60:.1f} min", file=sys.stderr, flush=True)
    return bundle.parent / output


def write(name: str, target: Path, *, effort: str, twice: bool) -> None:
    """Measure one model and put its report in place."""
    bundle = kept(name)
    options = (*MODELS[name].options, "--baseline", "transformers", "--baseline", "optimum", "--effort", effort)
    first = compare(bundle, f"{name}-report", *options)
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(first / "report.json", target)
    (target / AGREEMENT).unlink(missing_ok=True)
    if twice:
        second = compare(bundle, f"{name}-again", *options)
        agreed = agreement(*(read(directory / "report.json") for directory in (first, second)))
        (target / AGREEMENT).write_text(json.dumps(agreed, indent=1) + "\n", encoding="utf-8")


def photograph(target: Path) -> None:
    """Render a report beside the kept bundles, and take a picture of the top of its page where there is Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        print("Chromium is not installed: the picture stays as it is", file=sys.stderr)
        return
    rendered = KEPT / f"{target.name}-rendered"
    program = str(Path(sys.executable).with_name("bertport"))
    render = [program, "compare", "--from", str(target / "report.json"), "--output", str(rendered)]
    subprocess.run(render, check=True, stdout=subprocess.DEVNULL)
    command = [
        chromium,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--window-size=1100,1500",
    ]
    picture = target / "report.png"
    subprocess.run(
        [*command, f"--screenshot={picture}", (rendered / "report.html").as_uri()],
        check=True,
        capture_output=True,
        timeout=120,
    )
    print(f"{picture.relative_to(ROOT)}: {make_smaller(picture):,} bytes")


def read(path: Path) -> dict[str, Any]:
    """Read a report."""
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def agreement(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return whether two runs agree: the order of rows whose intervals do not meet, and the ratios to fp32.

    Returns:
        `rank`: pairs of rows that both runs tell apart by SingleStream p90, and how many of them they rank alike;
        `ratios`: how many times as fast as fp32, row by row and workload by workload, how many of the second run's
        are within the first one's interval and how many of the two intervals meet; what does not, in `outside`.
    """
    ranks = [
        {
            entry["name"]: entry["speed"]["single_stream"]["p90"]
            for entry in report["rows"]
            if entry["speed"]["single_stream"]
        }
        for report in (first, second)
    ]
    names = [name for name in ranks[0] if name in ranks[1]]
    pairs = [(one, other) for number, one in enumerate(names) for other in names[number + 1 :]]
    orders = {pair: [order(*(run[name] for name in pair)) for run in ranks] for pair in pairs}
    told = {pair: both for pair, both in orders.items() if all(both)}
    rows = {entry["name"]: entry for entry in second["rows"]}
    ratios = [
        (before["name"], workload, ratio, rows[before["name"]]["times_faster"][workload])
        for before in first["rows"]
        if before["name"] in rows
        for workload, ratio in before["times_faster"].items()
        if workload in rows[before["name"]]["times_faster"]
    ]
    within = [one["low"] <= other["value"] <= one["high"] for _, _, one, other in ratios]
    meet = [one["low"] <= other["high"] and other["low"] <= one["high"] for _, _, one, other in ratios]
    ends = ("value", "low", "high")
    return {
        "measured": [report["created"] for report in (first, second)],
        "rank": {
            "pairs": len(told),
            "alike": sum(both[0] == both[1] for both in told.values()),
            "unlike": [list(pair) for pair, both in told.items() if both[0] != both[1]],
        },
        "ratios": {
            "count": len(ratios),
            "second_within_first": sum(within),
            "intervals_meet": sum(meet),
            "outside": [
                {
                    "row": name,
                    "workload": workload,
                    "first": [one[end] for end in ends],
                    "second": [other[end] for end in ends],
                }
                for (name, workload, one, other), inside in zip(ratios, within, strict=True)
                if not inside
            ],
        },
    }


def in_words(agreed: dict[str, Any]) -> str:
    """Return a sentence on whether two runs agreed."""
    rank, ratios = agreed["rank"], agreed["ratios"]
    return (
        f"measured twice, one run after the other: {rank['alike']} of the {rank['pairs']} pairs of rows that both runs "
        f"tell apart are ranked alike; of {ratios['count']} speed ratios to fp32, "
        f"{ratios['second_within_first']} of the second run are within the first run's interval, and the intervals of "
        f"{ratios['intervals_meet']} meet."
    )


def order(one: dict[str, float], other: dict[str, float]) -> int:
    """Return which is faster: 1 or -1, or 0 where the intervals meet."""
    if one["low"] <= other["high"] and other["low"] <= one["high"]:
        return 0
    return 1 if one["value"] < other["value"] else -1


def index(reports: Path) -> str:
    """Return the page that lists the reports."""
    rows, twice, pictures, render, commands = [], [], [], [], []
    for name in MODELS:
        path = reports / name / "report.json"
        if not path.is_file():
            continue
        report = read(path)
        labels = ", ".join(f"{bundle['name']} ({bundle['weights']} weights)" for bundle in report["bundles"])
        where = f"{report['machine']['cpu']}, {report['created'][:10]}, effort {report['settings']['name']}"
        if path.with_name("report.png").is_file():
            pictures.append(f"![The top of the report of {name}]({name}/report.png)")
        rows.append(f"| {labels} | [report.json]({name}/report.json) | {where} |")
        render.append(f"bertport compare --from docs/reports/{name}/report.json --output out/{name}-report")
        again = path.with_name(AGREEMENT)
        effort = "" if report["settings"]["name"] == EFFORT else f" --effort {report['settings']['name']}"
        commands.append(f"`python -m bench.reports {name}{effort}{' --twice' if again.is_file() else ''}`")
        if again.is_file():
            twice.append(f"{name}, {in_words(read(again))} [Figures]({name}/{AGREEMENT}).")
    below = "".join(f"\n{block}\n" for block in (*twice, *pictures))
    how = "\n".join(wrapped(HOW.format(commands=" and ".join(commands))))
    return INDEX.format(how=how, rows="\n".join(rows), below=below, render="\n".join(render))


def main() -> None:
    """Write the reports named on the command line, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"{', '.join(MODELS)}; all when none is named")
    parser.add_argument("--effort", choices=PRESETS, default=EFFORT, help=f"how much to measure  [default: {EFFORT}]")
    parser.add_argument("--twice", action="store_true", help="compare twice, and write whether the runs agree")
    parser.add_argument("--prepare", action="store_true", help="make the bundles, measure nothing")
    parser.add_argument("--again", action="store_true", help="take the pictures again, measure nothing")
    parser.add_argument("--output", type=Path, default=REPORTS, help="where the reports go  [default: docs/reports]")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.models if name not in MODELS]
    if unknown:
        parser.error(f"no such model: {', '.join(unknown)} (known: {', '.join(MODELS)})")
    for name in arguments.models or MODELS:
        target = arguments.output / name
        if arguments.prepare:
            kept(name)
            continue
        if not arguments.again:
            write(name, target, effort=arguments.effort, twice=arguments.twice)
        elif not (target / "report.json").is_file():
            continue
        if name in PICTURED:
            photograph(target)
        (arguments.output / "README.md").write_text(index(arguments.output), encoding="utf-8")


if __name__ == "__main__":
    main()
