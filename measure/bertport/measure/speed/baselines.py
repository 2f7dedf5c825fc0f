"""The baselines: models of other libraries, made from a bundle's weights and opened as their manuals say.

They run the same numbers as the bundle, so that only the way of running differs: `bertport restore` writes them as a
checkpoint. As a program, this makes Optimum's export of a checkpoint for a task:

    python -m bertport.measure.speed.baselines TASK CHECKPOINT OUT
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.measure.speed.peers import BATCH, ChoiceModel, Pipeline, Ranker, SentenceEncoder
from bertport.measure.speed.tasks import FILL_MASK, TIMED
from bertport.runtime.errors import BertportError, MissingDependencyError, UnknownNameError, UsageError
from bertport.runtime.installation import first_missing
from bertport.runtime.providers.table import onnxruntime
from bertport.runtime.session import session_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bertport.measure.speed.loaded import Loaded
    from bertport.measure.speed.workload import WorkerSpec
    from bertport.runtime.bundle.directory import Bundle

__all__ = [
    "BASELINES",
    "Baseline",
    "BaselineError",
    "check_baseline",
    "check_task",
    "open_pipeline",
    "padded_by",
    "padded_tokens",
    "prepare_baseline",
]

CHOICE, RANKING = "multiple-choice", "text-ranking"
"""Tasks without a pipeline."""
CHECKPOINT = "transformers"
"""The directory of a bundle's checkpoint."""


class BaselineError(BertportError, RuntimeError):
    """A baseline that could not be made from a bundle."""


def check_baseline(name: str) -> None:
    """See that a baseline's packages are installed.

    Raises:
        MissingDependencyError: when one is not.
    """
    row = BASELINES[name]
    if missing := first_missing(row.packages):
        own = f"pip install {row.own}" if missing == row.packages[-1] and row.own else None
        raise MissingDependencyError(f"--baseline {name}", missing, row.extra, command=own)


def check_task(name: str, task: str) -> None:
    """See that a baseline answers a task.

    Raises:
        UsageError: when it does not.
    """
    tasks = BASELINES[name].classes
    if task not in tasks:
        raise UsageError(
            f"the baseline {name} answers {', '.join(tasks)}, and these bundles are timed by {task}: leave --baseline "
            f"{name} out"
        )


def prepare_baseline(name: str, bundle: Bundle, directory: Path, task: str = FILL_MASK) -> Path:
    """Make what a baseline loads, in processes of their own: PyTorch's memory and threads end with them.

    Args:
        name: A row of the table of baselines.
        bundle: The bundle that holds the weights.
        directory: Where to put the models of this bundle.
        task: What it is to answer.

    Raises:
        MissingDependencyError: when a package is not installed.
        UsageError: when the baseline does not answer the task.
        BaselineError: when the bundle does not either, or has no weights that can be restored.
    """
    check_baseline(name)
    check_task(name, task)
    head = TIMED[task].head
    if head is not None and head not in bundle.manifest.heads:
        raise BaselineError(
            f"the baseline {name} cannot be made from {bundle.path}: it answers {task}, and the bundle has no {head} "
            "head"
        )
    checkpoint, converted = directory / CHECKPOINT, directory / name
    try:
        _make(checkpoint, "bertport.runtime", "restore", str(bundle.path))
        if BASELINES[name].converted:
            _make(converted, __name__, task, str(checkpoint))
    except BaselineError as error:
        raise BaselineError(f"the baseline {name} cannot be made from {bundle.path}: {error}") from error
    return converted if BASELINES[name].converted else checkpoint


def _make(out: Path, *arguments: str) -> None:
    """Have a module write a directory, its last argument, in a process of its own; one that is there is kept.

    Raises:
        BaselineError: with the last line that it wrote to stderr, when it fails; nothing is left at `out`.
    """
    if out.is_dir():
        return
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", *arguments, str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(out, ignore_errors=True)
        raise BaselineError((done.stderr.strip() or "no message").splitlines()[-1].removeprefix("bertport: error: "))


def main(task: str, checkpoint: str, out: str) -> None:
    """Write Optimum's own export of a checkpoint for a task, with its tokenizer."""
    from transformers import AutoTokenizer

    _optimum_class(task).from_pretrained(checkpoint, export=True).save_pretrained(out)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(out)


def open_pipeline(spec: WorkerSpec) -> Loaded:
    """Open a baseline.

    Raises:
        UnknownNameError: for an unknown baseline.
    """
    if spec.baseline not in BASELINES:
        raise UnknownNameError("baseline", str(spec.baseline), BASELINES)
    os.environ["HF_HUB_OFFLINE"] = "1"  # the model is in a directory: nothing is to be fetched
    return BASELINES[spec.baseline].open(str(spec.file), spec.threads, spec.task)


def _transformers(directory: str, threads: int | None, task: str) -> Loaded:
    import transformers

    name = BASELINES["transformers"].classes[task]
    if not hasattr(transformers, name):
        raise UsageError(
            f"transformers {transformers.__version__} has no {name}: compare in an environment of transformers 4, such "
            "as that of the extra export-optimum"
        )
    _limit(threads)
    # The directory may hold several heads; a pipeline leaves the others out and says so.
    transformers.logging.set_verbosity_error()
    if task == CHOICE:
        model = transformers.AutoModelForMultipleChoice.from_pretrained(directory, local_files_only=True)
        return ChoiceModel(model.eval(), _tokenizer(directory))
    pipeline: Any = transformers.pipeline  # typed for tasks that are known beforehand alone
    return Pipeline(pipeline(task, model=directory, device="cpu"))


def _optimum(directory: str, threads: int | None, task: str) -> Loaded:
    import transformers

    options = session_options(threads=threads, config={})
    model = _optimum_class(task).from_pretrained(
        directory, provider="CPUExecutionProvider", session_options=options, local_files_only=True
    )
    if task == CHOICE:
        return ChoiceModel(model, _tokenizer(directory))
    pipeline: Any = transformers.pipeline  # as above
    return Pipeline(pipeline(task, model=model, tokenizer=_tokenizer(directory)))


def _tokenizer(directory: str) -> Any:  # noqa: ANN401 — transformers' tokenizers are not typed
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory, local_files_only=True)


def _optimum_class(task: str) -> Any:  # noqa: ANN401 — it ships no types
    onnxruntime()
    from optimum import onnxruntime as optimum  # type: ignore[import-untyped]  # it ships no types

    return getattr(optimum, BASELINES["optimum"].classes[task])


def _sentence_transformers(directory: str, threads: int | None, task: str) -> Loaded:
    from sentence_transformers import CrossEncoder, SentenceTransformer

    _limit(threads)
    if task == RANKING:
        return Ranker(CrossEncoder(directory, device="cpu", local_files_only=True))
    return SentenceEncoder(SentenceTransformer(directory, device="cpu", local_files_only=True))


def _limit(threads: int | None) -> None:
    """Have PyTorch use so many threads; None leaves the choice to it."""
    import torch

    if threads:
        torch.set_num_threads(threads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """One row: another library that can take part."""

    name: str
    """Name for users."""
    packages: tuple[str, ...]
    """Modules that must be installed."""
    extra: str
    """The extras of bertport that install them and what compares."""
    own: str = ""
    """The distribution of the last of these modules where no extra installs it."""
    distributions: tuple[str, ...]
    """Distributions whose versions a report states."""
    converted: bool = False
    """Whether it loads an export of its own rather than the checkpoint."""
    sorts: bool = False
    """Whether it sorts texts by length, the longest first, before it makes batches of them."""
    classes: Mapping[str, str]
    """The tasks that it answers, each with the name of the class that does."""
    open: Callable[[str, int | None, str], Loaded]
    """Returns the open model for a directory, a number of threads and a task."""


BASELINES: dict[str, Baseline] = {
    row.name: row
    for row in (
        Baseline(
            name="transformers",
            packages=("torch", "transformers", "onnx", "onnx_ir", "safetensors"),
            extra="cpu,compare,export",
            distributions=("torch", "transformers"),
            classes={
                "fill-mask": "FillMaskPipeline",
                "text-classification": "TextClassificationPipeline",
                "token-classification": "TokenClassificationPipeline",
                "question-answering": "QuestionAnsweringPipeline",
                CHOICE: "AutoModelForMultipleChoice",
            },
            open=_transformers,
        ),
        Baseline(
            name="optimum",
            packages=("torch", "transformers", "onnx", "onnx_ir", "safetensors", "optimum.onnxruntime"),
            extra="cpu,compare,export-optimum",
            distributions=("torch", "transformers", "optimum", "optimum-onnx"),
            converted=True,
            classes={
                "fill-mask": "ORTModelForMaskedLM",
                "text-classification": "ORTModelForSequenceClassification",
                "token-classification": "ORTModelForTokenClassification",
                "question-answering": "ORTModelForQuestionAnswering",
                CHOICE: "ORTModelForMultipleChoice",
            },
            open=_optimum,
        ),
        Baseline(
            name="sentence-transformers",
            packages=("torch", "transformers", "onnx", "onnx_ir", "safetensors", "sentence_transformers"),
            extra="cpu,compare,export",
            own="sentence-transformers",
            distributions=("torch", "transformers", "sentence-transformers"),
            sorts=True,
            classes={"embeddings": "SentenceTransformer", RANKING: "CrossEncoder"},
            open=_sentence_transformers,
        ),
    )
}
"""Baselines by name: transformers on PyTorch, Optimum on ONNX Runtime, both by their pipelines, and
sentence-transformers."""


def padded_tokens(lengths: Sequence[int], rows: int = BATCH) -> int:
    """Count the tokens that batches in the order given take when each is padded to its longest text."""
    batches = (lengths[begin : begin + rows] for begin in range(0, len(lengths), rows))
    return sum(len(batch) * max(batch) for batch in batches)


def padded_by(name: str, task: str, rows: Sequence[Sequence[int]]) -> int:
    """Count the tokens that a baseline computes where it answers all inputs of a task, padding included.

    Args:
        name: A row of the table of baselines.
        task: A task that it answers.
        rows: By input, the tokens of each text that the model reads for it.
    """
    if task == CHOICE:  # the choices of a question are a batch
        return sum(padded_tokens(row, len(row)) for row in rows)
    if task == RANKING:  # one query after the other
        return sum(padded_tokens(sorted(row, reverse=True)) for row in rows)
    lengths = [length for row in rows for length in row]
    return padded_tokens(sorted(lengths, reverse=True) if BASELINES[name].sorts else lengths)


if __name__ == "__main__":
    if len(sys.argv) != len(("program", "task", "checkpoint", "out")):
        sys.exit("usage: python -m bertport.measure.speed.baselines TASK CHECKPOINT OUT")
    main(*sys.argv[1:])
