"""The baselines: fill-mask pipelines of other libraries, made from a bundle's weights and opened as their manuals say.

They run the same numbers as the bundle, so that only the way of running differs: `bertport restore` writes them as a
checkpoint. As a program, this makes Optimum's export of a checkpoint:

    python -m bertport.measure.speed.baselines CHECKPOINT OUT
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.measure.speed.loaded import Answer, Loaded
from bertport.measure.speed.workload import random_batch
from bertport.runtime.errors import BertportError, MissingDependencyError, UnknownNameError, UsageError
from bertport.runtime.heads import DEFAULT_TOP_K, MLM
from bertport.runtime.installation import first_missing
from bertport.runtime.providers.table import onnxruntime
from bertport.runtime.session import session_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bertport.measure.speed.workload import Shape, Texts, WorkerSpec
    from bertport.runtime.bundle.directory import Bundle

__all__ = [
    "BASELINES",
    "BATCH",
    "Baseline",
    "BaselineError",
    "Pipeline",
    "check_baseline",
    "open_pipeline",
    "padded_tokens",
    "prepare_baseline",
]

CHECKPOINT = "transformers"
"""The directory of a bundle's checkpoint."""
BATCH = 8
"""Rows of a batch in the Offline scenario; the pipelines' own default of 1 would never batch."""


class BaselineError(BertportError, RuntimeError):
    """A baseline that could not be made from a bundle."""


def check_baseline(name: str) -> None:
    """See that a baseline's packages are installed.

    Raises:
        MissingDependencyError: when one is not.
    """
    row = BASELINES[name]
    if missing := first_missing(row.packages):
        raise MissingDependencyError(f"--baseline {name}", missing, row.extra)


def prepare_baseline(name: str, bundle: Bundle, directory: Path) -> Path:
    """Make what a baseline loads, in processes of their own: PyTorch's memory and threads end with them.

    Args:
        name: `transformers` or `optimum`.
        bundle: The bundle that holds the weights.
        directory: Where to put the models of this bundle.

    Raises:
        MissingDependencyError: when a package is not installed.
        BaselineError: when the bundle fills no masks, or has no weights that can be restored.
    """
    check_baseline(name)
    if MLM not in bundle.manifest.heads:
        raise BaselineError(
            f"the baseline {name} cannot be made from {bundle.path}: it fills masks, and the bundle has no {MLM} head"
        )
    checkpoint, converted = directory / CHECKPOINT, directory / name
    try:
        _make(checkpoint, "bertport.runtime", "restore", str(bundle.path))
        if BASELINES[name].converted:
            _make(converted, __name__, str(checkpoint))
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


def main(checkpoint: str, out: str) -> None:
    """Write Optimum's own export of a checkpoint, with its tokenizer."""
    onnxruntime()
    from optimum.onnxruntime import ORTModelForMaskedLM  # type: ignore[import-untyped]  # it ships no types
    from transformers import AutoTokenizer

    ORTModelForMaskedLM.from_pretrained(checkpoint, export=True).save_pretrained(out)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(out)


class Pipeline(Loaded):
    """A fill-mask pipeline.

    Args:
        pipe: What transformers' `pipeline` made.
    """

    def __init__(self, pipe: Any) -> None:  # noqa: ANN401 — transformers' pipelines are not typed
        self._pipe = pipe

    def answering(self, texts: Texts) -> Callable[[Sequence[Any]], object]:
        """Return what answers a list of inputs.

        Raises:
            UsageError: for another task than fill-mask.
        """
        if texts.task != "fill-mask":
            raise UsageError(f"baselines answer fill-mask, not {texts.task}: compare bundles with the MLM head")
        top_k = texts.parameters.get("top_k", DEFAULT_TOP_K)

        def answer(inputs: Sequence[Any]) -> object:
            if len(inputs) == 1:
                return self._pipe(inputs[0], top_k=top_k)
            return self._pipe(list(inputs), top_k=top_k, batch_size=BATCH)

        return answer

    def answers(self, texts: Texts) -> list[Answer]:
        """Return the best token of each input."""
        rows = (self._pipe(text, top_k=1) for text in texts.inputs)
        return [{"token": best["token"], "score": best["score"]} for best, *_ in rows]

    def forward(self, shape: Shape) -> Callable[[], object]:
        """Return what runs random ids of a shape through the model alone."""
        import torch

        batch = random_batch(shape)
        feeds = {name: torch.from_numpy(getattr(batch, name)) for name in self._pipe.tokenizer.model_input_names}

        def run() -> object:
            with torch.inference_mode():
                return self._pipe.model(**feeds)

        return run


def open_pipeline(spec: WorkerSpec) -> Pipeline:
    """Open a baseline.

    Raises:
        UnknownNameError: for a baseline that there is not.
    """
    if spec.baseline not in BASELINES:
        raise UnknownNameError("baseline", str(spec.baseline), BASELINES)
    os.environ["HF_HUB_OFFLINE"] = "1"  # the model is in a directory: nothing is to be fetched
    return Pipeline(BASELINES[spec.baseline].open(str(spec.file), spec.threads))


def _transformers(directory: str, threads: int | None) -> object:
    import torch
    import transformers

    if threads:
        torch.set_num_threads(threads)
    # The directory may hold both heads; fill-mask leaves the other one out and says so.
    transformers.logging.set_verbosity_error()
    return transformers.pipeline("fill-mask", model=directory, device="cpu")


def _optimum(directory: str, threads: int | None) -> object:
    onnxruntime()
    import transformers
    from optimum.onnxruntime import ORTModelForMaskedLM

    options = session_options(threads=threads, config={})
    model = ORTModelForMaskedLM.from_pretrained(
        directory, provider="CPUExecutionProvider", session_options=options, local_files_only=True
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
    return transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """One row: another library that can take part."""

    name: str
    """What users call it."""
    packages: tuple[str, ...]
    """Modules that must be installed."""
    extra: str
    """The extras of bertport that install them and what compares."""
    distributions: tuple[str, ...]
    """Distributions whose versions a report states."""
    converted: bool = False
    """Whether it loads an export of its own rather than the checkpoint."""
    open: Callable[[str, int | None], object]
    """From a directory and a number of threads to a fill-mask pipeline."""


BASELINES: dict[str, Baseline] = {
    row.name: row
    for row in (
        Baseline(
            name="transformers",
            packages=("torch", "transformers", "onnx", "onnx_ir", "safetensors"),
            extra="cpu,compare,export",
            distributions=("torch", "transformers"),
            open=_transformers,
        ),
        Baseline(
            name="optimum",
            packages=("torch", "transformers", "onnx", "onnx_ir", "safetensors", "optimum.onnxruntime"),
            extra="cpu,compare,export-optimum",
            distributions=("torch", "transformers", "optimum", "optimum-onnx"),
            converted=True,
            open=_optimum,
        ),
    )
}
"""By name: the fill-mask pipeline of transformers on PyTorch, and of Optimum on ONNX Runtime."""


def padded_tokens(lengths: Sequence[int], rows: int = BATCH) -> int:
    """Count the tokens that batches in the order given take when each is padded to its longest text."""
    batches = (lengths[begin : begin + rows] for begin in range(0, len(lengths), rows))
    return sum(len(batch) * max(batch) for batch in batches)


if __name__ == "__main__":
    if len(sys.argv) != len(("program", "checkpoint", "out")):
        sys.exit("usage: python -m bertport.measure.speed.baselines CHECKPOINT OUT")
    main(*sys.argv[1:])
