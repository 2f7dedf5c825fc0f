"""How fast and how near to fp32 each way of quantizing is, written into the tables of docs/quantization.md.

    python bench/quantization.py speed [--only NAME]...
    python bench/quantization.py accuracy BUNDLE --text FILE [--only NAME]... [--cpu Haswell] [--positions 600]

`speed` times a BERT-base with seeded random weights against the fp32 serving graph, each in its own process, taking
turns. `accuracy` measures a bundle's model on held-out text; with `--cpu` the candidates run under qemu-user, which
emulates a CPU without VNNI with ONNX Runtime's own kernels for it (slow: seconds a text).
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

import numpy as np

from bertport.compare.bundled import conventions
from bertport.compare.fidelity import measure
from bertport.compare.graph import open_onnx
from bertport.compare.machine import describe_machine
from bertport.compare.timing import interleave, speedup, summarize
from bertport.compare.workload import Shape, Subject
from bertport.quantize.activations import collect
from bertport.quantize.evaluation import read_evaluation
from bertport.quantize.fitted import SAMPLES
from bertport.quantize.fusing import fuse
from bertport.quantize.layer_times import linears
from bertport.runtime.bundle import Bundle
from bertport.runtime.manifest import Architecture
from quantization_alternatives import ALTERNATIVES, Source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

    from bertport.compare.graph import Batch, Outputs
    from bertport.quantize.activations import Activations

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "quantization.md"
SHAPES = ((1, 16), (1, 128))

EMULATED = """
import sys, json
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 3
for key, value in json.loads(sys.argv[2]).items():
    options.add_session_config_entry(key, value)
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print("ready", flush=True)
for line in sys.stdin:
    task = json.loads(line)
    feeds = {name: numpy.array(values, dtype=numpy.int64) for name, values in task["feeds"].items()}
    numpy.savez(task["to"], **dict(zip(task["names"], session.run(task["names"], feeds))))
    print("done", flush=True)
"""


class EmulatedGraph:
    """A graph that runs under qemu-user, to be measured as any other."""

    def __init__(self, path: Path, cpu: str, config: dict[str, str], directory: Path, outputs: tuple[str, ...]) -> None:
        emulator = shutil.which("qemu-x86_64")
        if emulator is None:
            sys.exit("--cpu needs qemu-user: apt-get install qemu-user")
        self.outputs = outputs
        self._answer = directory / "answer.npz"
        command = [emulator, "-cpu", cpu, sys.executable, "-c", EMULATED, str(path), json.dumps(config)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._expect("ready")

    def run(self, batch: Batch, outputs: Sequence[str]) -> Outputs:
        """Run one batch."""
        names = ("input_ids", "attention_mask", "token_type_ids", "masked_positions")
        feeds = {name: getattr(batch, name).tolist() for name in names}
        task = {"feeds": feeds, "names": list(outputs), "to": str(self._answer)}
        if self._process.stdin:
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()
        self._expect("done")
        with np.load(self._answer) as found:
            return {name: found[name] for name in outputs}

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _expect(self, word: str) -> None:
        line = self._process.stdout.readline().strip() if self._process.stdout else ""
        if line != word:
            sys.exit(f"the emulated process answered {line!r} instead of {word!r}")


def random_base(directory: Path) -> tuple[Path, Architecture]:
    """Write the fp32 serving graph of a BERT-base with seeded random weights."""
    import torch
    from transformers import BertConfig

    from bertport.export.graphs import FILES, make_graphs
    from bertport.export.model import BertWithHeads
    from bertport.export.progress import Stages
    from bertport.export.storage import EXTERNAL_ABOVE

    torch.manual_seed(0)
    config = BertConfig(attn_implementation="eager")
    model = BertWithHeads(config, ("mlm", "nsp", "pooler"))
    head: Any = model.cls["predictions"]
    head.decoder.weight = model.bert.embeddings.word_embeddings.weight
    stages = Stages(lambda event: print(event.text, file=sys.stderr))
    model.train(mode=False)
    make_graphs(model, directory, opset=17, half=False, external_above=EXTERNAL_ABOVE, stages=stages)
    shape = Architecture(
        model_class="BertForPreTraining",
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        vocab_size=config.vocab_size,
        type_vocab_size=config.type_vocab_size,
        parameters=sum(each.numel() for each in model.parameters()),
    )
    return directory / FILES["fp32"], shape


def speed(only: Sequence[str], rounds: int) -> tuple[str, str]:
    """Time the alternatives; give the table's name and its text."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        path, shape = random_base(directory)
        weights = sum(each.stat().st_size for each in path.parent.iterdir())
        fused = fuse(path, shape)
        subjects = [Subject(name="fp32", file=str(path))]
        sizes = {"fp32": 1.0}
        for number, row in enumerate(ALTERNATIVES.values()):
            if only and row.name not in only:
                continue
            file = directory / f"alternative-{number}.onnx"
            row.make(Source(fused=fused, activations={}), file)
            sizes[row.name] = file.stat().st_size / weights
            subjects.append(Subject(name=row.name, file=str(file), config=dict(row.config)))
        del fused
        workloads = {f"{rows}x{length}": Shape(rows=rows, length=length, vocabulary=30522) for rows, length in SHAPES}
        times = interleave(subjects, workloads, rounds=rounds, runs=3, warmup=2, progress=_progress)
    by_name = {(run.subject, run.workload): run for run in times}
    lines = ["| way | size | " + " | ".join(workloads) + " |", "|---|---|" + "---|" * len(workloads)]
    for subject in subjects:
        cells = []
        for name in workloads:
            run, before = by_name[subject.name, name], by_name["fp32", name]
            ratio = speedup(before, run)
            found = f"{summarize(run).median.value * 1e3:.1f} ms"
            cells.append(
                found if run is before else f"{found}, **{ratio.value:.2f}x** ({ratio.low:.2f}-{ratio.high:.2f})"
            )
        lines.append(f"| {subject.name} | {sizes[subject.name]:.3f} | {' | '.join(cells)} |")
    machine = describe_machine()
    note = (
        f"BERT-base with seeded random weights, {rounds} rounds of 3 runs, on {machine.cpu} "
        f"({machine.instruction_set}), {machine.usable_cores:g} cores, ONNX Runtime {machine.versions['onnxruntime']}. "
        "Medians; the ratio to fp32 of the same run with its 95% interval."
    )
    return "speed", "\n".join([note, "", *lines])


def accuracy(given: argparse.Namespace) -> tuple[str, str]:
    """Measure the alternatives against fp32; give the table's name and its text."""
    bundle, emulated = Bundle.open(given.bundle), given.cpu
    fp32 = bundle.file(bundle.manifest.variants["fp32"].file)
    fused = fuse(fp32, bundle.manifest.architecture)
    evaluation = read_evaluation(bundle, given.text, sample="evaluation", positions=given.positions, pairs=given.pairs)
    reference = open_onnx(fp32)
    source = Source(fused=fused, activations=calibrated(bundle, fused))
    lines = ["| way | top-1 | KL (nats) | NSP flips | cosine | KL moved by batch mates |", "|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as temporary:
        for row in ALTERNATIVES.values():
            if given.only and row.name not in given.only:
                continue
            file = Path(temporary) / "candidate.onnx"
            row.make(source, file)
            if emulated:
                candidate: Any = EmulatedGraph(file, emulated, dict(row.config), Path(temporary), reference.outputs)
            else:
                candidate = open_onnx(file, config=row.config)
            found = measure(
                reference,
                candidate,
                evaluation.samples,
                conventions=conventions(bundle),
                stability=0 if emulated else 16,
                progress=_progress,
            )
            if emulated:
                candidate.close()
            mlm, nsp, hidden = found.mlm, found.nsp, found.hidden
            if not (mlm and nsp and hidden):
                sys.exit("the model must have both heads")
            moved = found.stability.batch_mates.kl if found.stability else None
            lines.append(
                f"| {row.name} | {mlm.top1_agreement.value:.2%} ({mlm.top1_agreement.low:.2%}-"
                f"{mlm.top1_agreement.high:.2%}) | {mlm.kl.value:.5f} ({mlm.kl.low:.5f}-{mlm.kl.high:.5f}) | "
                f"{nsp.flips.value:.2%} | {hidden.cosine.value:.5f} | {f'{moved.value:.1e}' if moved else ''} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
    where = f"emulated {emulated} CPU (AVX2, no VNNI)" if emulated else describe_machine().instruction_set
    said = evaluation.to_json()
    note = (
        f"{bundle.manifest.name}, {said['masked_positions']:,} masked positions and {said['pairs']:,} pairs of "
        f"{said['name']}, {where}."
    )
    return f"accuracy-{emulated.lower() if emulated else 'native'}", "\n".join([note, "", *lines])


def calibrated(bundle: Bundle, fused: onnx.ModelProto) -> Mapping[str, Activations]:
    """Run the calibration text that ships."""
    text = read_evaluation(bundle, None, sample="calibration", **SAMPLES)
    sources = (layer.source for layer in linears(fused))
    return collect(fused, sources, text.samples, threads=0, progress=lambda _, done, count: _progress(done, count))


def write(name: str, text: str) -> None:
    """Put a table between its marks in the page."""
    page = PAGE.read_text(encoding="utf-8")
    begin, end = f"<!-- table: {name} -->\n", f"<!-- end: {name} -->"
    before, _, rest = page.partition(begin)
    _, mark, after = rest.partition(end)
    if not mark:
        sys.exit(f"{PAGE} has no marks for the table {name!r}")
    PAGE.write_text(f"{before}{begin}{text}\n{end}{after}", encoding="utf-8")


def _progress(done: int, count: int) -> None:
    if done == count or done % 50 == 0:
        print(f"{done} of {count}", file=sys.stderr, flush=True)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    timed = commands.add_parser("speed")
    timed.add_argument("--rounds", type=int, default=8)
    near = commands.add_parser("accuracy")
    near.add_argument("bundle")
    near.add_argument("--text", required=True)
    near.add_argument("--positions", type=int, default=600)
    near.add_argument("--pairs", type=int, default=60)
    near.add_argument("--cpu", help="a CPU model of qemu-user's, such as Haswell")
    for each in (timed, near):
        each.add_argument("--only", action="append", default=[], choices=list(ALTERNATIVES), metavar="NAME")
        each.add_argument("--print", action="store_true", help="print the table instead of writing it into the page")
    given = parser.parse_args()
    if given.command == "speed":
        name, text = speed(given.only, given.rounds)
    else:
        name, text = accuracy(given)
    if given.print:
        print(text)
    else:
        write(name, text)


if __name__ == "__main__":
    main()
