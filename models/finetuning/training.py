"""The training loop: resumable to the same result, and polite to whatever else the machine does."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import AdamW
from transformers import PreTrainedModel

from pretraining.checkpoint import Progress, append_log, resume, rewind_log, save
from pretraining.machine import Hardware, machine_lock
from pretraining.schedule import linear_rate
from pretraining.trainer import descend, parameter_groups

from .data import Encoded, epoch
from .model import logits, loss
from .tasks import Settings

WARMUP, WEIGHT_DECAY, CLIP = 0.1, 0.01, 1.0
"""Hyperparameters of BERT: the share of the steps in which the rate rises, the decoupled weight decay, the largest
gradient norm."""
BETAS, EPSILON = (0.9, 0.999), 1e-6
"""Adam's, as in BERT."""


def steps_of(rows: int, settings: Settings) -> int:
    """Return the number of optimizer steps."""
    return settings.epochs * math.ceil(rows / settings.batch)


def train(  # noqa: PLR0913 — a run is made of these
    model: PreTrainedModel,
    data: Encoded,
    settings: Settings,
    output: Path,
    *,
    seed: int,
    pad: int,
    hardware: Hardware,
    save_every_s: float = 300.0,
    log_every: int = 50,
    stopping: Callable[[], bool] = lambda: False,
) -> Progress:
    """Train to the end, resuming from `output/checkpoint.pt` when it is there.

    Appends one JSON object to `output/log.jsonl` every `log_every` steps. A killed run loses what came after its
    last checkpoint, at most `save_every_s` seconds and a step; continued, it takes the same steps again. When
    `stopping` gives true, the call ends after the step under way, with a checkpoint.

    Returns:
        Where the run stands: at its last step unless it was stopped.

    Raises:
        RecipeError: when there is a checkpoint that this model cannot resume from.
        DivergedError: when the loss is not finite any more.
    """
    steps = steps_of(len(data), settings)
    model.to(hardware.device).train()  # type: ignore[arg-type]  # mypy takes the decorated method for a function
    optimizer = AdamW(parameter_groups(model, WEIGHT_DECAY), lr=0.0, betas=BETAS, eps=EPSILON, fused=True)
    progress = resume(output / "checkpoint.pt", model, optimizer)
    rewind_log(output / "log.jsonl", progress.step)
    order = _Order(data, settings, seed)
    last_save = time.monotonic()
    window: list[float] = []
    while progress.step < steps and not stopping():
        with machine_lock(stopping) as held:
            if not held:
                break
            began = time.monotonic()
            # Each step seeds its own dropout, so that a resumed run drops what an uninterrupted one does.
            torch.manual_seed(seed * 1_000_003 + progress.step)
            rate = linear_rate(progress.step, steps=steps, peak=settings.rate, warmup=WARMUP)
            for group in optimizer.param_groups:
                group["lr"] = rate
            rows = order.rows(progress.step)
            batch = data.batch(rows, pad=pad)
            value = loss(logits(model, batch, hardware), batch["targets"].to(hardware.device))
            descend(model, optimizer, value, progress, clip=CLIP)
            window.append(value.item())
            progress.step += 1
            progress.tokens += int(batch["attention_mask"].sum())
            progress.seconds += time.monotonic() - began
            if progress.step % log_every == 0 or progress.step == steps:
                append_log(output / "log.jsonl", _row(progress, order.per_epoch, rate, window))
                window = []
            if time.monotonic() - last_save > save_every_s:
                save(output / "checkpoint.pt", model, optimizer, progress)
                last_save = time.monotonic()
    save(output / "checkpoint.pt", model, optimizer, progress)
    return progress


class _Order:
    """Order of the rows: each epoch's comes from the seed and the epoch's number."""

    def __init__(self, data: Encoded, settings: Settings, seed: int) -> None:
        self.data, self.size, self.seed = data, settings.batch, seed
        self.per_epoch = math.ceil(len(data) / settings.batch)
        self._number = -1
        self._batches: list[NDArray[np.int64]] = []

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return the numbers of a step's rows."""
        number, at = divmod(step, self.per_epoch)
        if number != self._number:
            self._number = number
            self._batches = list(epoch(self.data, self.size, np.random.default_rng([self.seed, number])))
        return self._batches[at]


def _row(progress: Progress, per_epoch: int, rate: float, window: list[float]) -> dict[str, float]:
    return {
        "step": progress.step,
        "epoch": round(progress.step / per_epoch, 3),
        "tokens": progress.tokens,
        "seconds": round(progress.seconds, 1),
        "tokens_per_second": round(progress.tokens / progress.seconds, 1),
        "rate": rate,
        "train_loss": round(float(np.mean(window)), 4),
    }
