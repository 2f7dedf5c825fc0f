"""INT8 on tasks with labels: what checkpoints of models/finetune.py lose, for docs/research/tasks.md.

    python -m bench.tasks measure --checkpoints RUNS --data DATA [--work out/bench/tasks] [--task NAME ...]
    python -m bench.tasks time --checkpoints RUNS --data DATA [--work out/bench/tasks] [--task NAME ...]
    python -m bench.tasks page [--check]

RUNS is a directory of runs, a task and a seed each, such as `sst2-0/model`; DATA one of labelled tasks, such as
`sst2-dev.jsonl.xz`. `measure` exports and quantizes every checkpoint that is there, has all variants, transformers and
the stock tool's INT8 answer the task's dev part, and writes the data of this machine's class of CPU, which chooses the
kernels of 8 bits: docs/data/tasks.json with VNNI, docs/data/tasks-avx2.json with AVX2 alone. What was made and measured
of the same weights and data, by the recipes of today, is kept in `--work`: an interrupted run goes on, one with further
checkpoints adds them, and the data are of all that is kept. `time` times what was made of the first run of each
task, on an idle machine. Both then write the page, as `page` does of the data alone. Needs
bertport[export,cpu,quantize,evaluate], two minutes a checkpoint, and 2 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT, check_section, provenance, read_data, write_section
from bench.performance.classes import CLASSES, class_of
from bench.tasks.finish import finish_of
from bench.tasks.page import section
from bench.tasks.tables import TASKS, VARIANTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.tasks.made import Made
    from bertport.measure.labelled.data import LabelledData
    from bertport.measure.labelled.predictions import Predictions

PAGE = ROOT / "docs" / "research" / "tasks.md"
FINISH_PAGE = ROOT / "docs" / "research" / "quantization.md"
"""Says what a finish by distillation could win back."""
DATA = {name: ROOT / "docs" / "data" / ("tasks.json" if name == "vnni" else f"tasks-{name}.json") for name in CLASSES}
"""The data by class of CPU; VNNI's were the first."""
KEPT = ROOT / "out" / "bench" / "tasks"
MARK, FINISH_MARK = "measured-{}", "finish-{}"
"""Name the sections of a class of CPU on the two pages."""
PROGRAM = "bench.tasks"
POSITIONS = 500
"""Held-out texts, and as many pairs, on which budgets are judged: a quarter of what `bertport quantize` takes, which
would be most of the time, while what counts here is measured on the tasks' own examples."""
RUN = re.compile(rf"({'|'.join(TASKS)})-(\d+)")


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what is asked, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (("measure", "measure every checkpoint"), ("time", "time the first run of each task")):
        command = commands.add_parser(name, help=what)
        command.add_argument("--checkpoints", type=Path, required=True, help="directory of runs, such as sst2-0/model")
        command.add_argument("--data", type=Path, required=True, help="directory of sst2-dev.jsonl.xz and others")
        command.add_argument("--work", type=Path, default=KEPT, help="where what was made is kept [out/bench/tasks]")
        command.add_argument(
            "--task", action="append", choices=TASKS, help="measure or time this task alone; may be repeated"
        )
        command.add_argument("--recipe", action="append", choices=VARIANTS, help="a variant; may be repeated [all]")
        command.add_argument(
            "--positions", type=int, default=POSITIONS, help="as bertport quantize has it [%(default)s]"
        )
        command.add_argument("--output", type=Path, help="the data [docs/data/tasks….json, by this machine's class]")
        command.add_argument("--quick", action="store_true", help="few examples are timed: to see that it works")
    commands.add_parser("page", help="write the page").add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    if options.command == "page":
        write_page(check=options.check)
        return
    if options.quick and not options.output:
        parser.error("--quick times few examples, and the page has all: add --output FILE, a copy of the data")
    options.output = options.output.resolve() if options.output else data_of_this_machine()
    data = measure_all(options) if options.command == "measure" else time_all(options)
    options.output.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    if options.output in DATA.values():
        write_page()


def data_of_this_machine() -> Path:
    """Return the file that the figures of this machine's class of CPU belong into.

    Raises:
        SystemExit: with a sentence, where the page has no such class.
    """
    from bertport.measure.machine import describe_machine

    found = class_of(describe_machine().instruction_set).name
    if found not in DATA:
        sys.exit(f"the page has sections for {', '.join(DATA)}, and this CPU is {found}: name a file by --output")
    return DATA[found]


def write_page(*, check: bool = False) -> None:
    """Write the two pages' sections of each class of CPU that there are data of, or compare them with the data.

    Raises:
        SystemExit: with a sentence, where a page is not what the data say.
    """
    for name, path in DATA.items():
        if path.exists():
            data, title = read_data(path, PROGRAM), CLASSES[name].title
            sections = {PAGE: (section(data, title), MARK), FINISH_PAGE: (finish_of(data, title), FINISH_MARK)}
            for page, (text, mark) in sections.items():
                if check:
                    check_section(page, text, PROGRAM, mark.format(name))
                else:
                    write_section(page, text, mark.format(name))


def runs_in(checkpoints: Path, tasks: Sequence[str] | None) -> list[tuple[str, int]]:
    """Return the task and the seed of each run that is finished, in the order of the page.

    Raises:
        SystemExit: with a sentence, where there is none.
    """
    matches = [RUN.fullmatch(path.parent.name) for path in checkpoints.glob("*/model")]
    names = [(match[1], int(match[2])) for match in matches if match]
    wanted = [(task, seed) for task, seed in names if task in (tasks or TASKS)]
    if not wanted:
        sys.exit(
            f"there is no run of {' or '.join(tasks or TASKS)} in {checkpoints}: train one with models/finetune.py"
        )
    return sorted(wanted, key=lambda run: (list(TASKS).index(run[0]), run[1]))


def measure_all(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every run that is asked for; return the data of all that are measured.

    Raises:
        SystemExit: with a sentence, where there is none, or a file of data is missing.
    """
    from bench.tasks.made import is_made
    from bench.tasks.measuring import is_measured, measure, of_the_commonest, read_answers
    from bench.tasks.summary import TaskRuns, summarize

    runs: list[dict[str, Any]] = []
    facts: dict[str, Any] = {}
    answers: dict[str, dict[int, dict[str, Predictions]]] = {}
    data: dict[str, LabelledData] = {}
    encoder: dict[str, Any] = {}
    wanted = runs_in(options.checkpoints, options.task)
    for name, seed in runs_in(options.checkpoints, None):
        checkpoint, place = options.checkpoints / f"{name}-{seed}" / "model", options.work / f"{name}-{seed}"
        if (name, seed) not in wanted and not (is_measured(place) and is_made(checkpoint, place, options.positions)):
            print(f"{name}-{seed}: left out, for it is not measured by the recipes of today", file=sys.stderr)
            continue
        made, labelled = prepare(options, name, seed, VARIANTS if (name, seed) in wanted else ())
        figures = measure(TASKS[name], checkpoint, made, labelled)
        runs.append({"task": name, "seed": seed, "training": _training(checkpoint.with_name("run.json")), **figures})
        facts[name] = {
            "examples": len(labelled),
            "fingerprint": labelled.fingerprint,
            "commonest": of_the_commonest(TASKS[name], labelled),
        }
        encoder = encoder or _encoder(made)
        answers.setdefault(name, {})[seed] = read_answers(made, labelled)
        data[name] = labelled
        print(f"{name}-{seed}: measured", file=sys.stderr, flush=True)
    together = [TaskRuns(task=TASKS[name], data=data[name], answers=answers[name]) for name in data]
    old = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {}
    return {
        **min((run["measured"] for run in runs), key=lambda stamp: stamp["date"]),  # no newer than any figure
        "encoder": encoder,
        "tasks": facts,
        "runs": runs,
        "summary": summarize(runs, together),
        "speed": old.get("speed"),
    }


def time_all(options: argparse.Namespace) -> dict[str, Any]:
    """Time the first run of each task; return the data with what was timed.

    Raises:
        SystemExit: with a sentence, where `measure` has to come first.
    """
    from bench.tasks.made import is_made
    from bench.tasks.timing import time_task

    data = read_data(options.output, f"{PROGRAM} measure")
    former: dict[str, Any] = data.get("speed") or {"tasks": {}}
    timed: dict[str, Any] = {name: {**_stamp(former), **row} for name, row in former["tasks"].items()}
    first = dict(runs_in(options.checkpoints, options.task)[::-1])
    for name, seed in first.items():
        place = options.work / f"{name}-{seed}"
        if not is_made(options.checkpoints / f"{name}-{seed}" / "model", place, options.positions):
            sys.exit(
                f"{place} holds nothing of this checkpoint by the recipes of today that was judged on "
                f"{options.positions} positions: run python -m {PROGRAM} measure first"
            )
    for name, seed in sorted(first.items(), key=lambda run: list(TASKS).index(run[0])):
        made, labelled = prepare(options, name, seed)
        inputs = [example.inputs for example in labelled.examples()]
        checkpoint = options.checkpoints / f"{name}-{seed}" / "model"
        timed[name] = {**provenance(), **time_task(TASKS[name], checkpoint, made, inputs, quick=options.quick)}
        print(f"{name}-{seed}: timed", file=sys.stderr, flush=True)
    return {**data, "speed": {"tasks": timed}}


def _stamp(data: dict[str, Any]) -> dict[str, Any]:
    """Return when and where data were measured that say so of the whole."""
    return {key: data[key] for key in ("commit", "date", "machine") if key in data}


def prepare(
    options: argparse.Namespace, name: str, seed: int, variants: Sequence[str] = ()
) -> tuple[Made, LabelledData]:
    """Make what answers a run's task, as far as it is not kept, and read the task's dev part.

    Args:
        options: Of the command line.
        name: The task.
        seed: The seed.
        variants: Of which those that the command line asks for are made, where they are not there.

    Raises:
        SystemExit: with a sentence, where there is no dev part.
    """
    from bench.tasks.made import make
    from bertport.measure.labelled.data import read_labelled
    from bertport.runtime.bundle.directory import Bundle

    parts = sorted(options.data.glob(f"{name}-dev.*"))
    if not parts:
        sys.exit(f"there is no {name}-dev.jsonl in {options.data}: name the directory of labelled tasks by --data")
    made = make(
        options.checkpoints / f"{name}-{seed}" / "model",
        options.work / f"{name}-{seed}",
        [variant for variant in variants if variant in (options.recipe or VARIANTS)],
        positions=options.positions,
        training=next(iter(sorted(options.data.glob(f"{name}-train.*"))), None),
    )
    return made, read_labelled(parts[0], TASKS[name].task, Bundle.open(made.bundle).manifest)


def _training(record: Path) -> dict[str, Any]:
    """Return the settings that a run chose."""
    if not record.exists():
        return {}
    chosen: dict[str, Any] = json.loads(record.read_text(encoding="utf-8")).get("chosen", {})
    return chosen


def _encoder(made: Made) -> dict[str, Any]:
    """Return the size of the encoder that was fine-tuned."""
    from bertport.runtime.bundle.directory import Bundle

    found = Bundle.open(made.bundle).manifest.architecture
    return {"layers": found.layers, "hidden_size": found.hidden_size, "parameters": found.parameters}


if __name__ == "__main__":
    main()
