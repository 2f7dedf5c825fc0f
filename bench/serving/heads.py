"""Serving a classifier and embeddings, beside transformers and sentence-transformers behind the same framework.

    python -m bench.serving.heads    [--rounds 5] [--seconds 12] [--quick]

The encoder is the default model's. The classifier on it is seeded and untrained, since times do not depend on values;
the embeddings are the normalized mean. Both are made once and kept in out/bench. The load comes from a second process
on the same machine, while the machine's lock is held. Beside each speed stands how far its answers are from the peer's.
Writes docs/data/serving-heads.json and a section of docs/research/serving.md.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.checkout import ROOT, check_section, is_made_of, provenance, read_data, write_section
from bench.performance import models
from bench.performance.models import FEW, KEPT, few_texts
from bench.serving.server import CLIENTS, PYTHON, Process, make_bodies, serve, under_load
from bertport.measure.machine import machine_lock
from bertport.measure.quality.metrics import cosines
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.providers.cpu import cpu

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

DATA = Path("data") / "serving-heads.json"
PAGE = Path("research") / "serving.md"
SECTION = "heads"
ASKED = 64
"""Texts by whose answers the servers are compared."""
VARIANTS = ("int8-dynamic", "fp32")
PEER = "peer"
LABELS = ("negative", "neutral", "positive")

CLASSIFIER = f"""
import sys, torch
from transformers import AutoModelForSequenceClassification
labels = dict(enumerate({LABELS!r}))
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], num_labels=len(labels), id2label=labels)
torch.manual_seed(0)
torch.nn.init.normal_(model.classifier.weight)  # wide enough to decide: an undecided head flips at every rounding
model.save_pretrained(sys.argv[2])
"""
EMBEDDINGS = """
import sys
from sentence_transformers import SentenceTransformer, models
encoder = models.Transformer(sys.argv[1])
pooling = models.Pooling(encoder.get_word_embedding_dimension(), pooling_mode="mean")
SentenceTransformer(modules=[encoder, pooling, models.Normalize()], device="cpu").save(sys.argv[2])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One row: a head that is served, and the peer that serves the same weights."""

    name: str
    """Name of the head on the page."""
    task: str
    """Task that the peer is asked for."""
    program: str
    """Writes its checkpoint: from that of the encoder, to a directory."""
    path: str
    """Path at which our server answers it."""
    peer: str
    """Name of the peer on the page."""
    compare: Callable[[Sequence[Any], Sequence[Any]], dict[str, float]]
    """From two servers' answers to the same texts to how far they are apart."""


def of_labels(reference: Sequence[Any], answers: Sequence[Any]) -> dict[str, float]:
    """Return the share of texts with the same best label, and the largest difference of its score."""
    one, two = ([_best(answer) for answer in side] for side in (reference, answers))
    differences = [abs(a["score"] - b["score"]) for a, b in zip(one, two, strict=True) if a["label"] == b["label"]]
    return {"same_label": len(differences) / len(one), "largest_score_difference": max(differences, default=1.0)}


def of_vectors(reference: Sequence[Any], answers: Sequence[Any]) -> dict[str, float]:
    """Return the mean and the smallest cosine of the vectors of the same texts."""
    one, two = (np.array([np.ravel(answer) for answer in side], dtype=np.float64) for side in (reference, answers))
    of_texts = cosines(one, two)
    return {"mean_cosine": float(of_texts.mean()), "smallest_cosine": float(of_texts.min())}


def _best(answer: Any) -> dict[str, Any]:  # noqa: ANN401 — what a server answers for one text
    """Return the best label of an answer: a label, or a list of them within whatever lists."""
    while isinstance(answer, list) and len(answer) == 1:
        [answer] = answer
    if isinstance(answer, dict):
        return answer
    best: dict[str, Any] = max(answer, key=lambda label: label["score"])
    return best


SERVED = (
    Served(
        name="classifier",
        task="text-classification",
        program=CLASSIFIER,
        path="/tasks/text-classification",
        peer="transformers' pipeline",
        compare=of_labels,
    ),
    Served(
        name="embeddings",
        task="embeddings",
        program=EMBEDDINGS,
        path="/embed",
        peer="sentence-transformers",
        compare=of_vectors,
    ),
)


def prepare(row: Served, *, tiny: bool) -> tuple[Path, Path]:
    """Make a checkpoint and its bundle with both variants, as far as they are not kept from before."""
    _say(f"{row.name}: models")
    place = KEPT / ("heads-tiny" if tiny else "heads")
    kept, made_of = place / "made-of", models.made_of()
    if place.exists() and not (is_made_of(kept, made_of)):
        shutil.rmtree(place)
    place.mkdir(parents=True, exist_ok=True)
    kept.write_text(made_of, encoding="ascii")
    checkpoint, bundle = (place / name for name in (row.name, f"{row.name}-bundle"))
    name = "tiny" if tiny else "default"
    encoder = models.prepare(name, instruction_set=cpu().instruction_set, quantize=False).checkpoint
    _make(checkpoint, "-c", row.program, encoder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        if not (checkpoint / file).exists():
            shutil.copy(encoder / file, checkpoint / file)
    calibration = place / "calibration.txt"
    calibration.write_text(few_texts(FEW), encoding="utf-8")
    _make(bundle, "-m", "bertport.runtime", "export", checkpoint)
    if VARIANTS[0] not in Bundle.open(bundle).manifest.variants:
        # The figures in the manifest are not used here, so few samples do.
        options = ["--recipe", VARIANTS[0], "--accuracy-budget", "none", "--positions", "100", "--pairs", "10"]
        _run("-m", "bertport.runtime", "quantize", bundle, *options, "--calibration", calibration, "--force")
    return checkpoint, bundle


def _make(out: Path, *arguments: str | Path) -> None:
    """Have Python write a directory, its last argument; one that is there is kept."""
    if not out.exists():
        unfinished = out.with_name(f"{out.name}.tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        _run(*arguments, unfinished)
        unfinished.rename(out)


def _run(*arguments: str | Path) -> None:
    command = [PYTHON, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command[:4])} failed: {done.stderr.strip()[-2000:]}")


def asked(port: int, path: str, bodies: Path) -> list[Any]:
    """Return the answers to the first bodies, one after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    answers = []
    for body in bodies.read_bytes().splitlines()[:ASKED]:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        if response.status != http.client.OK:
            sys.exit(f"{path} answers with {response.status}: {content[:200].decode()}")
        answers.append(json.loads(content))
    connection.close()
    return answers


def measure(row: Served, made: tuple[Path, Path], rounds: int, seconds: float, scratch: Path) -> dict[str, Any]:
    """Measure our variants and the peer in turns, in one order and the next time in the other."""
    checkpoint, bundle = made
    bodies = make_bodies(scratch / f"{row.name}.jsonl", Bundle.open(bundle), masked=False)
    names = (*VARIANTS, PEER)
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    answers: dict[str, list[Any]] = {}
    for number in range(rounds):
        _say(f"{row.name}: round {number + 1} of {rounds}")
        for name in names[:: 1 if number % 2 == 0 else -1]:
            path = "/" if name == PEER else row.path
            if name == PEER:
                server = Process([PYTHON, "-m", "bench.serving.peer", row.task, checkpoint]).prints_its_port()
            else:
                server = serve(bundle, name)
            try:
                if name not in answers:
                    answers[name] = asked(server.port, path, bodies)
                turns[name].append(under_load(server, bodies, seconds, "--clients", CLIENTS, "--path", path))
            finally:
                server.stop(signal.SIGKILL if name == PEER else signal.SIGTERM)
    return {
        "task": row.task,
        "peer": row.peer,
        "servers": {
            name: {"rounds": turns[name], "fidelity": row.compare(answers[PEER], answers[name])} for name in names
        },
    }


def section(data: Mapping[str, Any]) -> str:
    """Return the section's text."""
    machine = data["machine"]
    how = (
        "`python -m bench.serving.heads` writes this section in about fifteen minutes. The default model's encoder has "
        f"a seeded classifier of {len(LABELS)} labels, or is a model of sentence-transformers (the normalized mean). "
        f"{data['clients']} clients in a second process on the same machine ask for one held-out sentence each, "
        f"again as soon as they are answered; medians of {data['rounds']} rounds of {data['seconds']:g} s, the servers "
        "in turns; times the peer's is the median of the rounds' ratios. "
        "The peers run PyTorch in fp32 behind Starlette and uvicorn. Answers are compared with the peer's on "
        f"{data['asked']} sentences. Machine: {machine['cpu']}, {machine['instruction_set']}, "
        f"{machine['usable_cores']:g} cores, {machine['system']}. Commit {data['commit'][:12]}, {data['date']}."
    )
    lines = ["## A classifier and embeddings", "", how, ""]
    lines += [
        "| head | server | requests/s | times the peer's | p50, ms | p99, ms | CPU a request, ms | against the peer |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, measured in data["heads"].items():
        servers = measured["servers"]
        for server, figures in servers.items():
            own, peer = ([turn["requests_per_s"] for turn in servers[key]["rounds"]] for key in (server, PEER))
            cells = [f"{median(own):.1f}", f"{median(a / b for a, b in zip(own, peer, strict=True)):.1f}"]
            cells += [
                f"{median(turn[key] for turn in figures['rounds']):{form}}"
                for key, form in (("p50_ms", ".0f"), ("p99_ms", ".0f"), ("cpu_ms_per_request", ".2f"))
            ]
            said = f"{measured['peer']}, fp32" if server == PEER else f"`bertport serve`, {server}"
            beside = "" if server == PEER else _beside(figures["fidelity"])
            lines.append(f"| {name} | {said} | {' | '.join(cells)} | {beside} |")
    return "\n".join([*lines, "", _outcomes(data), ""])


def _beside(fidelity: Mapping[str, float]) -> str:
    if "same_label" in fidelity:
        return (
            f"same label {fidelity['same_label']:.1%}, "
            f"largest score difference {fidelity['largest_score_difference']:.2g}"
        )
    return f"cosine {fidelity['mean_cosine']:.6f}, smallest {fidelity['smallest_cosine']:.6f}"


def _outcomes(data: Mapping[str, Any]) -> str:
    """Return how many of our answers were what was asked for."""
    counts: dict[str, int] = {}
    for measured in data["heads"].values():
        for name in VARIANTS:
            for turn in measured["servers"][name]["rounds"]:
                for outcome, count in turn["outcomes"].items():
                    counts[outcome] = counts.get(outcome, 0) + count
    said = ", ".join(f"{outcome}: {count:,}" for outcome, count in sorted(counts.items()))
    return f"Our servers' answers under load, by status: {said}."


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} serving heads: {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Measure and write; with --check compare the page with the data and measure nothing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--quick", action="store_true", help="a tiny model, one short round: to see that it works")
    parser.add_argument("--output", type=Path, help="where the report is written: docs, or out/bench/quick")
    parser.add_argument("--check", action="store_true", help="see that the page is what the data say")
    arguments = parser.parse_args()
    output = arguments.output or ROOT / ("out/bench/quick" if arguments.quick else "docs")
    program = "bench.serving.heads"
    if arguments.check:
        check_section(output / PAGE, section(read_data(output / DATA, program)), program, SECTION)
        return
    rounds, seconds = (1, 1.0) if arguments.quick else (arguments.rounds, arguments.seconds)
    made = {row.name: prepare(row, tiny=arguments.quick) for row in SERVED}  # before the lock: quantizing waits for it
    # A quick run measures nothing, so nothing has to pause for it.
    with tempfile.TemporaryDirectory() as scratch, nullcontext() if arguments.quick else machine_lock():
        heads = {row.name: measure(row, made[row.name], rounds, seconds, Path(scratch)) for row in SERVED}
    data = {
        **provenance(),
        "clients": CLIENTS,
        "rounds": rounds,
        "seconds": seconds,
        "asked": ASKED,
        "heads": heads,
    }
    for path in (DATA, PAGE):
        (output / path).parent.mkdir(parents=True, exist_ok=True)
    (output / DATA).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    write_section(output / PAGE, section(data), SECTION)
    print(section(data))


if __name__ == "__main__":
    main()
