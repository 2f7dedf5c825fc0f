"""Write docs/reports: the comparison of the default model, and of a BERT-base with seeded random weights.

    python bench/reports.py [default] [bert-base] [--quick] [--twice] [--again]

Each bundle is copied and gets the variants for the CPU that it lacks; both baselines run beside them. `--quick` takes
few samples and rounds. `--twice` compares twice and writes whether the runs agree. `--again` writes the pages of the
reports that are there without measuring.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertport.quantize.budget import NO_BUDGET, parse_budget
from bertport.quantize.quantizer import Options, quantize
from bertport.quantize.recipes import RECIPES
from bertport.runtime.bundle import Bundle
from bertport.runtime.embedded import default_bundle

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / "docs" / "reports"
SEED = 0
FILES = ("report.html", "report.md", "report.json", "report.csv")
INDEX = """# Reports

Written by `python bench/reports.py`; [comparison.md](../comparison.md) explains each figure. The pages (`report.html`)
open in any browser, from the disk.

| model | report | measured on |
|---|---|---|
{rows}
{below}"""


def default(directory: Path) -> Path:
    """Copy the embedded default."""
    return shutil.copytree(default_bundle(), directory / "default")


def bert_base(directory: Path) -> Path:
    """Export a BERT-base with seeded random weights and the default's vocabulary."""
    import torch
    from transformers import BertConfig, BertForPreTraining

    from bertport.export import export

    torch.manual_seed(SEED)
    checkpoint = directory / "bert-base-random"
    BertForPreTraining(BertConfig()).save_pretrained(checkpoint)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(default_bundle() / name, checkpoint / name)
    return export(checkpoint, directory / "bert-base").path


MODELS: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "default": (default, ()),
    "bert-base": (bert_base, ("--random-weights",)),
}
"""What makes a bundle, and the options of its comparison."""


def add_variants(bundle: Path) -> None:
    """Add every variant for the CPU that the bundle lacks, whatever it costs in accuracy or speed."""
    have = Bundle.open(bundle).manifest.variants
    missing = [name for name, row in RECIPES.items() if "cpu" in row.providers and name not in have]
    options = Options(budget=parse_budget(NO_BUDGET), force=True, positions=200, pairs=50)
    for name in missing:
        print(f"making {name} …", file=sys.stderr, flush=True)
        quantize(bundle, [name], options=options)


def compare(bundle: Path, output: str, *options: str) -> None:
    """Compare in a process of its own, from the bundle's parent, so that the command in the report has no paths."""
    command = [str(Path(sys.executable).with_name("bertport")), "compare", bundle.name, "--output", output, *options]
    print(" ".join(["bertport", *command[1:]]), file=sys.stderr, flush=True)
    subprocess.run(command, cwd=bundle.parent, check=True, stdout=subprocess.DEVNULL)


def write(name: str, *, quick: bool, twice: bool) -> None:
    """Measure one model and put its report in place."""
    make, own = MODELS[name]
    options = (*own, "--baseline", "transformers", "--baseline", "optimum", *(("--quick",) if quick else ()))
    with tempfile.TemporaryDirectory() as scratch:
        bundle = make(Path(scratch))
        add_variants(bundle)
        compare(bundle, "report", *options)
        place(Path(scratch) / "report", REPORTS / name)
        if twice:
            compare(bundle, "second", *options)
            first, second = (read(Path(scratch) / each / "report.json") for each in ("report", "second"))
            found = json.dumps(repeated(first, second), indent=1) + "\n"
            (REPORTS / name / "repeated.json").write_text(found, encoding="utf-8")


def place(report: Path, target: Path) -> None:
    """Put a report's files in place."""
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copy(report / name, target / name)


def photograph(target: Path) -> None:
    """Take a picture of the top of a page, where Chromium is installed."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        print("Chromium is not installed: the picture stays as it is", file=sys.stderr)
        return
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
        [*command, f"--screenshot={picture}", (target / "report.html").as_uri()],
        check=True,
        capture_output=True,
        timeout=120,
    )


def read(path: Path) -> dict[str, Any]:
    """Read a report."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def repeated(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Say whether two runs agree: the order of rows whose intervals do not meet, and the ratios to fp32.

    Returns:
        `pairs` that both runs tell apart by SingleStream p90 and how many of them they rank alike; `ratios` to fp32
        and how many of the second run's are within the first one's interval, and how many intervals meet.
    """
    times = [
        {row["name"]: row["speed"]["single_stream"]["p90"] for row in each["rows"] if row["speed"]["single_stream"]}
        for each in (first, second)
    ]
    names = [name for name in times[0] if name in times[1]]
    signs = []
    for one in names:
        for other in names:
            if one < other:
                found = [order(run[one], run[other]) for run in times]
                if all(found):
                    signs.append(found[0] == found[1])
    ratios = [
        (ratio, after["times_faster"][workload])
        for before in first["rows"]
        for after in second["rows"]
        if before["name"] == after["name"]
        for workload, ratio in before["times_faster"].items()
        if workload in after["times_faster"]
    ]
    within = [one["low"] <= other["value"] <= one["high"] for one, other in ratios]
    meet = [one["low"] <= other["high"] and other["low"] <= one["high"] for one, other in ratios]
    return {
        "pairs": len(signs),
        "ranked_alike": sum(signs),
        "ratios": len(ratios),
        "within": sum(within),
        "meet": sum(meet),
    }


def order(one: dict[str, float], other: dict[str, float]) -> int:
    """Say which is faster: 1 or -1, or 0 where the intervals meet."""
    if one["low"] <= other["high"] and other["low"] <= one["high"]:
        return 0
    return 1 if one["value"] < other["value"] else -1


def index() -> None:
    """Write the page that lists the reports."""
    rows, twice, pictures = [], [], []
    for path in sorted(REPORTS.glob("*/report.json")):
        found, name = read(path), path.parent.name
        labels = ", ".join(f"{each['name']} ({each['weights']} weights)" for each in found["bundles"])
        where = f"{found['machine']['cpu']}, {found['created'][:10]}, {found['settings']['name']}"
        if path.with_name("report.png").is_file():
            pictures.append(f"![The top of the report of {name}]({name}/report.png)")
        rows.append(f"| {labels} | [Markdown]({name}/report.md), [page]({name}/report.html) | {where} |")
        again = path.with_name("repeated.json")
        if again.is_file():
            seen = read(again)
            twice.append(
                f"{name}, measured twice: {seen['ranked_alike']} of the {seen['pairs']} pairs of rows that both runs "
                "tell apart are ranked alike; "
                f"{seen['within']} of {seen['ratios']} ratios to fp32 are within the first run's interval, and "
                f"{seen['meet']} intervals meet."
            )
    below = "".join(f"\n{each}\n" for each in (*twice, *pictures))
    text = INDEX.format(rows="\n".join(rows), below=below)
    (REPORTS / "README.md").write_text(text, encoding="utf-8")


def main() -> None:
    """Write the reports named on the command line, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"{', '.join(MODELS)}; all when none is named")
    parser.add_argument("--quick", action="store_true", help="few samples and rounds")
    parser.add_argument("--twice", action="store_true", help="compare twice, and write whether the runs agree")
    parser.add_argument("--again", action="store_true", help="write the pages again, measure nothing")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.models if name not in MODELS]
    if unknown:
        parser.error(f"no such model: {', '.join(unknown)} (known: {', '.join(MODELS)})")
    REPORTS.mkdir(parents=True, exist_ok=True)
    for name in arguments.models or MODELS:
        if arguments.again:
            report = REPORTS / name / "report.json"
            command = [str(Path(sys.executable).with_name("bertport")), "compare", "--from", str(report)]
            subprocess.run([*command, "--output", str(report.parent)], check=True, stdout=subprocess.DEVNULL)
        else:
            write(name, quick=arguments.quick, twice=arguments.twice)
        photograph(REPORTS / name)
    index()


if __name__ == "__main__":
    main()
