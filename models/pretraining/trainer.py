"""The training loop: resumable to the same result, and polite to whatever else the machine does."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from transformers import BertForPreTraining

from .checkpoint import Progress, append_log, resume, rewind_log, save
from .errors import DivergedError, RecipeError
from .machine import Hardware, machine_lock
from .model import losses
from .objective import Batch, BatchSource, make_batch
from .schedule import Schedule


def train(  # noqa: PLR0913 — a run is made of these
    model: BertForPreTraining,
    source: BatchSource,
    schedule: Schedule,
    heldout: list[Batch],
    output: Path,
    *,
    hardware: Hardware,
    save_every_s: float = 300.0,
    evaluate_every: int = 250,
    stopping: Callable[[], bool] = lambda: False,
    keep: Callable[[Progress], None] | None = None,
    started: float | None = None,
) -> Progress:
    """Train to the end of the schedule, resuming from `output/checkpoint.pt` when it is there.

    Appends one JSON object to `output/log.jsonl` at each evaluation. A killed run loses what came after its
    last checkpoint, at most `save_every_s` seconds and a step; continued, it takes the same steps again.
    When `stopping` gives true, the call ends after the step under way, with a checkpoint. Where there is a `keep`,
    it is called in place of writing checkpoints, and before an evaluation, which may take longer than there is time.
    `started` is when the program began, of the monotonic clock.

    Returns:
        Where the run stands: at `schedule.steps` unless it was stopped.

    Raises:
        RecipeError: when there is a checkpoint that this model cannot resume from, or time for no step.
        DivergedError: when the loss is not finite any more.
    """
    model.to(hardware.device).train()  # type: ignore[arg-type]  # mypy takes the decorated method for a function
    optimizer = AdamW(
        parameter_groups(model, schedule.weight_decay), lr=0.0, betas=schedule.betas, eps=schedule.epsilon, fused=True
    )

    def checkpoint(progress: Progress) -> None:
        save(output / "checkpoint.pt", model, optimizer, progress)

    # A checkpoint comes after the log's row, which a run that is resumed from it would not write again.
    before, after = (keep, _nothing) if keep else (_nothing, checkpoint)
    progress = resume(output / "checkpoint.pt", model, optimizer)
    rewind_log(output / "log.jsonl", progress.step)
    last_save = time.monotonic()
    started = started or last_save
    first = last_save - started

    def place() -> int:
        return schedule.place(progress.step, first=first, now=time.monotonic() - started)

    window: list[tuple[float, float]] = []
    at = place()
    if at == schedule.steps and not progress.step:
        raise RecipeError(
            f"the time was over {first:.0f} seconds after the start, before the first step: give more --seconds, or "
            "texts that models/pack.py has packed"
        )
    while at < schedule.steps and not stopping():
        with machine_lock(lambda: stopping() or place() == schedule.steps) as held:
            if not held:
                break
            window.append(_step(model, optimizer, source, schedule, at, progress, hardware))
            at = place()
            ended = at == schedule.steps
            due = ended or time.monotonic() - last_save > save_every_s
            if due:
                before(progress)
            if progress.step % evaluate_every == 0 or ended:
                scores = evaluate(model, heldout, hardware)
                append_log(output / "log.jsonl", _row(progress, schedule.rate(at), window, scores))
                window = []
            if due:
                after(progress)
                last_save = time.monotonic()
    if at < schedule.steps:
        before(progress)
        after(progress)
    return progress


def _nothing(_: Progress) -> None:
    """Do nothing."""


def _step(  # noqa: PLR0913, PLR0917 — one value per thing that a step reads or changes
    model: BertForPreTraining,
    optimizer: AdamW,
    source: BatchSource,
    schedule: Schedule,
    at: int,
    progress: Progress,
    hardware: Hardware,
) -> tuple[float, float]:
    """Take one optimizer step at a place of the schedule and count it; give its MLM and NSP losses."""
    began = time.monotonic()
    batch, anchors = source.batch(progress.step, progress.anchors, schedule.length_at(at))
    for group in optimizer.param_groups:
        group["lr"] = schedule.rate(at)
    mlm, nsp, _, _ = losses(model, batch, hardware)
    descend(model, optimizer, mlm + nsp, progress, clip=schedule.clip)
    result = mlm.item(), nsp.item()
    progress.step += 1
    progress.anchors = anchors
    progress.tokens += math.prod(batch.input_ids.shape)
    progress.seconds += time.monotonic() - began
    return result


def descend(model: nn.Module, optimizer: Optimizer, loss: torch.Tensor, progress: Progress, *, clip: float) -> None:
    """Change the weights by one step down a loss, with a gradient of that norm at most.

    Raises:
        DivergedError: where the loss or the gradient is not finite: the weights stay as they are.
    """
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    if not torch.isfinite(loss + norm):
        raise DivergedError(progress)
    optimizer.step()
    optimizer.zero_grad()


def evaluate(model: BertForPreTraining, batches: list[Batch], hardware: Hardware) -> dict[str, float]:
    """Score held-out batches: MLM and NSP loss (nats), MLM top-1 and NSP accuracy (shares)."""
    model.eval()
    sums = {"mlm_loss": 0.0, "nsp_loss": 0.0, "mlm_top1": 0.0, "nsp_accuracy": 0.0}
    masked = rows = 0
    with torch.no_grad():
        for batch in batches:
            mlm, nsp, mlm_logits, nsp_logits = losses(model, batch, hardware)
            sums["mlm_loss"] += mlm.item() * len(batch.masked_labels)
            sums["nsp_loss"] += nsp.item() * len(batch.next_sentence_labels)
            sums["mlm_top1"] += int((mlm_logits.argmax(-1).cpu() == torch.from_numpy(batch.masked_labels)).sum())
            labels = torch.from_numpy(batch.next_sentence_labels)
            sums["nsp_accuracy"] += int((nsp_logits.argmax(-1).cpu() == labels).sum())
            masked += len(batch.masked_labels)
            rows += len(batch.next_sentence_labels)
    model.train()
    return {name: value / (masked if name.startswith("mlm") else rows) for name, value in sums.items()}


def heldout_batches(source: BatchSource, *, rows: int, length: int, rows_per_batch: int = 16) -> list[Batch]:
    """Draw a fixed set of held-out batches of one length."""
    rng = np.random.default_rng([source.seed, 2**33])
    anchors = rng.permutation(len(source.corpus.sentence_starts) - 1)[:rows]
    return [
        make_batch(source.corpus, source.special, anchors[begin : begin + rows_per_batch], length, rng)
        for begin in range(0, len(anchors), rows_per_batch)
    ]


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the model's parameters as AdamW takes them: matrices with weight decay, biases and LayerNorm without."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _row(
    progress: Progress, rate: float, window: list[tuple[float, float]], scores: dict[str, float]
) -> dict[str, float]:
    mlm, nsp = np.mean(window, axis=0)
    return {
        "step": progress.step,
        "tokens": progress.tokens,
        "seconds": round(progress.seconds, 1),
        "tokens_per_second": round(progress.tokens / progress.seconds, 1),
        "rate": rate,
        "train_mlm_loss": round(float(mlm), 4),
        "train_nsp_loss": round(float(nsp), 4),
        **{f"heldout_{name}": round(value, 4) for name, value in scores.items()},
    }
