"""The baselines as a worker runs them: fill-mask pipelines of other libraries, opened as their manuals say."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from bertport.runtime.errors import UnknownNameError, UsageError
from bertport.runtime.providers.table import onnxruntime
from bertport.runtime.session import session_options
from bertport.runtime.top_k import DEFAULT_TOP_K

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bertport.measure.speed.workload import Shape, Subject, Texts

__all__ = ["BATCH", "PIPELINES", "Pipeline", "open_pipeline", "padded_tokens"]

BATCH = 8
"""Rows of a batch in the Offline scenario; the pipelines' own default of 1 would never batch."""


class Pipeline:
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

    def best(self, texts: Texts) -> list[int]:
        """Return the best token of each input."""
        return [self._pipe(each, top_k=1)[0]["token"] for each in texts.inputs]

    def forward(self, shape: Shape) -> Callable[[], object]:
        """Return what runs random ids of a shape through the model alone."""
        import torch

        from bertport.measure.speed.worker import random_batch

        batch = random_batch(shape)
        feeds = {
            name: torch.from_numpy(getattr(batch, name)) for name in ("input_ids", "attention_mask", "token_type_ids")
        }

        def run() -> object:
            with torch.inference_mode():
                return self._pipe.model(**feeds)

        return run


def open_pipeline(subject: Subject) -> Pipeline:
    """Open a baseline.

    Raises:
        UnknownNameError: for a baseline that there is not.
    """
    if subject.baseline not in PIPELINES:
        kind = "baseline"
        raise UnknownNameError(kind, str(subject.baseline), PIPELINES)
    os.environ["HF_HUB_OFFLINE"] = "1"  # the model is in a directory: nothing is to be fetched
    return Pipeline(PIPELINES[subject.baseline](str(subject.file), subject.threads))


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
    from optimum.onnxruntime import ORTModelForMaskedLM  # type: ignore[import-untyped]  # it ships no types

    options = session_options(threads=threads, config={})
    model = ORTModelForMaskedLM.from_pretrained(
        directory, provider="CPUExecutionProvider", session_options=options, local_files_only=True
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
    return transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer)


PIPELINES: dict[str, Callable[[str, int | None], object]] = {"transformers": _transformers, "optimum": _optimum}
"""By name of the baseline."""


def padded_tokens(lengths: Sequence[int], rows: int = BATCH) -> int:
    """Count the tokens that batches in the order given take when each is padded to its longest text."""
    batches = (lengths[begin : begin + rows] for begin in range(0, len(lengths), rows))
    return sum(len(batch) * max(batch) for batch in batches)
