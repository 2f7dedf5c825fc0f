"""One run: data and encoder opened, settings chosen, the model trained, scored and put into its place."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from bertport.runtime.bundle.directory import file_sha256
from pretraining import run
from pretraining.checkpoint import Progress
from pretraining.errors import DivergedError, RecipeError
from pretraining.machine import Hardware
from pretraining.model import weights_file

from .data import Encoded, Row, absent_labels, data_file, encode, read_rows
from .model import Start, open_start
from .scoring import outputs, score
from .selection import choose, split
from .tasks import TASKS, Settings, Task
from .training import steps_of, train


def _unnoted(note: str) -> None:  # noqa: ARG001 — the signature
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Parameters of a run."""

    name: str
    """The task's name."""
    data: Path
    """Directory of the task's files."""
    init: Path
    """Bundle or checkpoint to start from."""
    output: Path
    """Directory that keeps the run."""
    seed: int
    """Seed of the fresh head, the order of rows and dropout."""
    candidates: tuple[Settings, ...]
    """The settings to choose from; the first is taken where nothing is chosen."""
    select: bool
    """Whether to choose, on a tenth of train held out."""
    trial_rows: int | None
    """Most rows that a trial is trained on; None for all."""
    hardware: Hardware
    """Device and number format of the training."""
    save_every_s: float
    """Seconds that a kill can lose at most."""
    stopping: Callable[[], bool]
    """Whether to end after the step under way."""
    noted: Callable[[str], None] = _unnoted
    """Given each sentence on what is odd about the data, before anything is trained."""

    @property
    def task(self) -> Task:
        """The task's row."""
        return TASKS[self.name]

    @property
    def record(self) -> Path:
        """The record's file."""
        return self.output / "run.json"


def perform(job: Job) -> str:
    """Carry a run to its end, or to where it was stopped, and say in a sentence where that is.

    Raises:
        RecipeError: when the data, the encoder or an earlier run in the same place does not fit, or nothing is learned.
        BertportError: when a bundle cannot be restored.
    """
    files = {part: data_file(job.data, job.name, part) for part in ("train", "dev")}
    if files["train"] is None:
        raise RecipeError(
            f"{job.data} holds no {job.name}-train.jsonl, nor one that is compressed: put the training rows there"
        )
    paths = {part: path for part, path in files.items() if path is not None}
    parts = {part: read_rows(path, job.task) for part, path in paths.items()}
    job.output.mkdir(parents=True, exist_ok=True)
    start = open_start(job.init, job.task, job.output / "cache")
    _begin(job, start, paths)
    for part, rows_of_part in parts.items():
        if absent := absent_labels(rows_of_part, job.task):
            which = f"{len(absent)} of the task's {len(job.task.labels)} labels never occur{'s'[len(absent) - 1 :]}"
            job.noted(f"{which} in {paths[part]}: {', '.join(absent)}")
    if (job.output / "model").is_dir():
        shutil.rmtree(job.output / "cache", ignore_errors=True)  # of the bundle, restored again to compare its weights
        return f"{job.output / 'model'} is finished already: choose another --output for another run"
    settings = _choose(job, start, parts["train"]) if job.select else job.candidates[0]
    if settings is None:
        return "stopped during a trial: the same command goes on"
    rows = _to_train_on(job, start, parts["train"])
    trained = _train(job, start, rows, settings, job.output, seed=job.seed)
    if trained is None:
        return "stopped in training: the same command goes on"
    model, progress = trained
    parameters = sum(parameter.numel() for parameter in model.parameters())
    cost = {"chosen": asdict(settings), "progress": asdict(progress), "parameters": parameters}
    run.write(job.record, run.read(job.record) | cost | run.surroundings(job.hardware))
    shown = _score_dev(job, start, model, parts["dev"]) if "dev" in parts else "no dev part to score on"
    _save(start, model, job.output)
    return f"{job.output / 'model'}: {progress.tokens:,} tokens in {progress.seconds / 60:.1f} minutes; {shown}"


def _begin(job: Job, start: Start, paths: dict[str, Path]) -> None:
    record = run.read(job.record)
    settings = {
        "task": job.name,
        "start": job.init.resolve().name,
        "start_sha256": file_sha256(weights_file(start.path)),
        "seed": job.seed,
        "candidates": [asdict(candidate) for candidate in job.candidates],
        "trial_rows": job.trial_rows,
        "dtype": str(job.hardware.dtype).removeprefix("torch."),
        **{f"{part}_sha256": file_sha256(path) for part, path in paths.items()},
    }
    run.require_same(record, settings, job.output)
    run.write(job.record, record)


def _choose(job: Job, start: Start, rows: list[Row]) -> Settings | None:
    parts = split(rows, most=job.trial_rows)
    taught = _to_train_on(job, start, parts.train)

    def trial(candidate: Settings, directory: Path) -> tuple[Progress, dict[str, float]] | None:
        # Every run makes the same trials, whatever its own seed.
        try:
            trained = _train(job, start, taught, candidate, directory, seed=0)
        except DivergedError as error:  # the others may learn
            return error.progress, {}
        if trained is None:
            return None
        model, progress = trained
        return progress, _score(job, start, model, parts.heldout)[1]

    trials: list[dict[str, Any]] = run.read(job.record).get("trials", [])

    def keep(entry: dict[str, Any]) -> None:
        trials.append(entry)
        run.write(job.record, run.read(job.record) | {"trials": trials})

    return choose(job.candidates, job.task.metrics[0], trial, job.output, trials, keep)


def _to_train_on(job: Job, start: Start, rows: list[Row]) -> Encoded:
    length = min(job.task.length, start.longest)
    return encode(rows, start.tokenizer.backend_tokenizer, length=length)


def _train(  # noqa: PLR0913 — of a trial or of the run itself
    job: Job, start: Start, rows: Encoded, settings: Settings, output: Path, *, seed: int
) -> tuple[PreTrainedModel, Progress] | None:
    """Train from the start to the end; nothing when it was stopped before."""
    model = start.model(dropout=settings.dropout, seed=seed)
    progress = train(
        model,
        rows,
        settings,
        output,
        seed=seed,
        pad=start.pad,
        hardware=job.hardware,
        save_every_s=job.save_every_s,
        stopping=job.stopping,
    )
    return (model, progress) if progress.step == steps_of(len(rows), settings) else None


def _score(
    job: Job, start: Start, model: PreTrainedModel, rows: list[Row]
) -> tuple[list[NDArray[np.float32]], dict[str, float]]:
    data = encode(rows, start.tokenizer.backend_tokenizer, length=start.longest)
    answers = outputs(model, data, pad=start.pad, hardware=job.hardware)
    return answers, score(answers, data, rows, job.task)


def _score_dev(job: Job, start: Start, model: PreTrainedModel, rows: list[Row]) -> str:
    """Record the scores on dev, keep the outputs of its rows, and name the scores."""
    answers, scores = _score(job, start, model, rows)
    run.write(job.record, run.read(job.record) | {"dev": {"rows": len(rows)} | scores})
    lines = (json.dumps({"row": number, "logits": answer.tolist()}) + "\n" for number, answer in enumerate(answers))
    unfinished = job.output / "dev-predictions.tmp"
    unfinished.write_text("".join(lines), encoding="utf-8")
    unfinished.replace(job.output / "dev-predictions.jsonl")
    return "dev: " + ", ".join(f"{metric} {value:.4f}" for metric, value in scores.items())


def _save(start: Start, model: PreTrainedModel, output: Path) -> None:
    unfinished = output / "model.tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    start.tokenizer.backend_tokenizer.no_truncation()
    model.save_pretrained(unfinished)
    start.tokenizer.save_pretrained(unfinished)
    unfinished.replace(output / "model")
    # The result is in its place: what only a resumption needs can go.
    (output / "checkpoint.pt").unlink(missing_ok=True)
    shutil.rmtree(output / "cache", ignore_errors=True)
