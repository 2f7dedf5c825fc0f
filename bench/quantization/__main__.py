"""Speed and accuracy beside fp32 of each way of quantizing: docs/data/quantization-*.json and a page in docs/research.

    python -m bench.quantization accuracy [BUNDLE] [--text FILE] [--only NAME]... [--output FILE]
    python -m bench.quantization speed [--only NAME]... [--output FILE]
    python -m bench.quantization page

`accuracy` measures a bundle's model on held-out text. `speed` times a BERT-base with seeded random weights against the
fp32 serving graph, each in its own process, taking turns, with the machine's lock held. Each writes its file of figures
and the tables of the page; `page` writes the tables from the files that there are. Figures of a CPU with AVX2 alone,
real or shown by `python -m bench.avx2 python -m bench.quantization ...`, have files and tables of their own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checkout import provenance
from bench.quantization.alternatives import ALTERNATIVES, Alternative
from bench.quantization.material import Material
from bench.quantization.page import DATA, write_tables
from bertport.measure.quality.fidelity import measure
from bertport.measure.quality.model import CachedModel, conventions, open_onnx
from bertport.measure.speed.timing import interleave, speedup, summarize
from bertport.measure.speed.workload import Shape, WorkerSpec
from bertport.quantize.graph.storage import size_on_disk, write_graph
from bertport.quantize.texts import read_evaluation
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bertport.runtime.bundle.manifest import Architecture

SHAPES = ((1, 16), (1, 128))
STABILITY = 16
"""Texts of each kind on which batch invariance is measured."""


def accuracy(given: argparse.Namespace) -> dict[str, Any]:
    """Measure the alternatives against fp32 on held-out text."""
    bundle = Bundle.open(given.bundle or default_bundle())
    fp32 = bundle.file(bundle.manifest.variants["fp32"].file)
    material = Material(path=fp32, architecture=bundle.manifest.architecture, bundle=bundle)
    evaluation = read_evaluation(bundle, given.text, sample="evaluation", positions=given.positions, pairs=given.pairs)
    reference = CachedModel(open_onnx(fp32, threads=1))
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for alternative in _chosen(given.only, list(ALTERNATIVES.values())):
            file = Path(temporary) / "candidate.onnx"
            written = write_graph(alternative.make(material), file)
            candidate = open_onnx(file, threads=1, config=dict(alternative.config))
            measured = measure(
                reference, candidate, evaluation.samples, conventions=conventions(bundle), stability=STABILITY
            )
            for path in (file, *written):
                path.unlink(missing_ok=True)
            rows.append({"name": alternative.name, "what": alternative.what, **measured.to_json()})
            print(f"{alternative.name}: {_said(rows[-1])}", file=sys.stderr, flush=True)
    return {
        **provenance(),
        "model": bundle.manifest.name,
        "source": dataclasses.asdict(bundle.manifest.source),
        "text": evaluation.to_json(),
        "rows": rows,
    }


def speed(given: argparse.Namespace) -> dict[str, Any]:
    """Time the alternatives against the fp32 serving graph of a BERT-base."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        path, shape = random_base(directory)
        material = Material(path=path, architecture=shape)
        subjects = [WorkerSpec(name="fp32", file=str(path))]
        sizes = {"fp32": 4 * shape.parameters}
        timed = [alternative for alternative in ALTERNATIVES.values() if alternative.timed]
        for number, alternative in enumerate(_chosen(given.only, timed)):
            file = directory / f"alternative-{number}.onnx"
            write_graph(alternative.make(material), file)
            sizes[alternative.name] = size_on_disk(file)
            subjects.append(WorkerSpec(name=alternative.name, file=str(file), config=dict(alternative.config)))
        del material
        workloads = {f"{rows}x{length}": Shape(rows=rows, length=length, vocabulary=30522) for rows, length in SHAPES}
        times = interleave(subjects, workloads, rounds=given.rounds, runs=3, warmup=2, progress=_progress)
    by_name = {(run.subject, run.workload): run for run in times}
    rows = []
    for subject in subjects:
        figures = {}
        for name in workloads:
            run = by_name[subject.name, name]
            ratio = dataclasses.asdict(speedup(by_name["fp32", name], run))
            figures[name] = {"ms": summarize(run).median.value * 1e3, "speedup": ratio}
        rows.append({"name": subject.name, "bytes": sizes[subject.name], "times": figures})
    return {**provenance(), "model": "BERT-base with seeded random weights", "rounds": given.rounds, "rows": rows}


def random_base(directory: Path) -> tuple[Path, Architecture]:
    """Write the fp32 serving graph of a BERT-base with seeded random weights."""
    import torch
    from transformers import BertConfig, BertForPreTraining

    from bertport.export.checkpoint.families import BERT, FAMILIES
    from bertport.export.checkpoint.heads import entry_of
    from bertport.export.checkpoint.layout import layout_of
    from bertport.export.graph.build import FILES, make_graphs
    from bertport.export.graph.onnx_files import EXTERNAL_ABOVE
    from bertport.export.graph.tracing import Tracing
    from bertport.export.graph.wrapper import EncoderWithHeads, tie
    from bertport.export.metadata import architecture
    from bertport.export.progress import Stages
    from bertport.runtime.heads import MLM, NSP, POOLER

    torch.manual_seed(0)
    config, family = BertConfig(), FAMILIES[BERT]
    config._attn_implementation = "eager"  # noqa: SLF001 — transformers' own way to set it on a config
    layout = layout_of(family, config)
    labels = {name: entry_of(name, {}).labels for name in (MLM, NSP, POOLER)}
    model = EncoderWithHeads(family, config, layout, labels, family.inputs)
    tie(model, layout.ties(model.heads, decoders=True))
    stages = Stages(lambda event: print(event.text, file=sys.stderr))
    model.train(mode=False)
    make_graphs(model, directory, Tracing(opset=17), half=False, external_above=EXTERNAL_ABOVE, stages=stages)
    return directory / FILES["fp32"], architecture(model, BertForPreTraining.__name__)


def _chosen(only: Sequence[str], alternatives: Sequence[Alternative]) -> Iterator[Alternative]:
    return (alternative for alternative in alternatives if not only or alternative.name in only)


def _said(measured: dict[str, Any]) -> str:
    mlm, nsp = measured["mlm"], measured["nsp"]
    words = [f"top-1 {mlm['top1_agreement']['value']:.2%}, KL {mlm['kl']['value']:.5f}"] if mlm else []
    return ", ".join([*words, *([f"NSP flips {nsp['flips']['value']:.2%}"] if nsp else [])])


def _progress(done: int, count: int) -> None:
    if done == count or done % 50 == 0:
        print(f"{done} of {count}", file=sys.stderr, flush=True)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    near = commands.add_parser("accuracy")
    near.add_argument("bundle", nargs="?", help="the embedded default when not given")
    near.add_argument("--text", help="held-out text; the sample that ships when not given")
    near.add_argument("--positions", type=int, default=2000, help="masked positions, about")
    near.add_argument("--pairs", type=int, default=400, help="sentence pairs, at most")
    timed = commands.add_parser("speed")
    timed.add_argument("--rounds", type=int, default=8)
    for command in (near, timed):
        command.add_argument("--only", action="append", default=[], choices=list(ALTERNATIVES), metavar="NAME")
        command.add_argument("--output", type=Path, help="write the figures there, and no page")
    commands.add_parser("page")
    given = parser.parse_args()
    if given.command != "page":
        if given.only and not given.output:
            commands.choices[given.command].error("--only measures some ways, and the table has all: add --output FILE")
        result = accuracy(given) if given.command == "accuracy" else speed(given)
        kind = "-avx2" if result["machine"]["instruction_set"] == "avx2" else ""
        file = given.output or DATA / f"quantization-{given.command}{kind}.json"
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        if given.output:
            return
    write_tables()


if __name__ == "__main__":
    main()
