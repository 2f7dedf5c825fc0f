"""The training loop: resumable to the same result, and polite to whatever else the machine does."""

import fcntl
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import AdamW
from transformers import BertForPreTraining

from .model import losses
from .objective import Batch, BatchSource

MACHINE_LOCK = Path(tempfile.gettempdir()) / "bertport-machine.lock"
"""Whoever measures holds this file's exclusive lock; training holds a shared one during each step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What is trained for how long; the defaults suit tens of millions of tokens."""

    tokens: int
    """Tokens to train on in all."""
    tokens_per_batch: int = 2048
    """Tokens in one optimizer step."""
    peak_rate: float = 5e-4
    """Learning rate at the end of the warm-up."""
    warmup: float = 0.04
    """Share of the steps in which the rate rises from 0 to its peak, linearly; it then falls linearly to 0."""
    length: int = 128
    """Sequence length of the first nine tenths of the steps, in tokens."""
    long_length: int = 512
    """Sequence length of the last tenth."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay, on matrices only."""

    @property
    def steps(self) -> int:
        """The number of optimizer steps."""
        return max(1, self.tokens // self.tokens_per_batch)

    def rate(self, step: int) -> float:
        """Give the learning rate of a step, counted from 0."""
        rising = max(1, round(self.warmup * self.steps))
        if step < rising:
            return self.peak_rate * (step + 1) / rising
        return self.peak_rate * max(0.0, (self.steps - step) / max(1, self.steps - rising))

    def length_at(self, step: int) -> int:
        """Give the sequence length of a step, counted from 0."""
        return self.length if step < self.steps * 9 // 10 else self.long_length


@dataclass(slots=True)
class Progress:
    """Where a run stands; stored in every checkpoint."""

    step: int = 0
    anchors: int = 0
    tokens: int = 0
    seconds: float = 0.0


def train(
    model: BertForPreTraining,
    source: BatchSource,
    schedule: Schedule,
    heldout: list[Batch],
    output: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    save_every_s: float = 300.0,
    evaluate_every: int = 250,
    stop_after: int | None = None,
) -> Progress:
    """Train to the end of the schedule, resuming from `output/checkpoint.pt` when it is there.

    Appends one JSON object to `output/log.jsonl` at each evaluation. A killed run loses what came after its
    last checkpoint, at most `save_every_s` seconds; continued, it takes the same steps again.
    `stop_after` ends the call at that step, with a checkpoint.
    """
    optimizer = AdamW(_parameter_groups(model, schedule), lr=0.0, betas=(0.9, 0.98), eps=1e-6, fused=True)
    model.to(device).train()
    progress = _resume(output / "checkpoint.pt", model, optimizer)
    end = schedule.steps if stop_after is None else min(stop_after, schedule.steps)
    last_save = began = time.monotonic()
    window: list[float] = []
    while progress.step < end:
        with machine_lock(shared=True):
            entered = time.monotonic()
            batch, anchors = source.batch(progress.step, progress.anchors, schedule.length_at(progress.step))
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(progress.step)
            mlm, nsp, _, _ = losses(model, batch, device, dtype)
            (mlm + nsp).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            window.append(mlm.item())
            progress.step += 1
            progress.anchors = anchors
            progress.tokens += batch.input_ids.size
            progress.seconds += time.monotonic() - entered
        if progress.step % evaluate_every == 0 or progress.step == end:
            scores = evaluate(model, heldout, device, dtype)
            now = time.monotonic()
            _log(output / "log.jsonl", progress, schedule, sum(window) / len(window), scores)
            window, began = [], now
        if progress.step == end or time.monotonic() - last_save > save_every_s:
            _save(output / "checkpoint.pt", model, optimizer, progress)
            last_save = time.monotonic()
    return progress


def evaluate(
    model: BertForPreTraining, batches: list[Batch], device: torch.device, dtype: torch.dtype
) -> dict[str, float]:
    """Score held-out batches: MLM loss (nats), MLM top-1 and NSP accuracy."""
    model.eval()
    loss, right, masked, nsp_right, rows = 0.0, 0, 0, 0, 0
    with torch.no_grad():
        for batch in batches:
            mlm, _, mlm_logits, nsp_logits = losses(model, batch, device, dtype)
            loss += mlm.item() * len(batch.masked_labels)
            right += int((mlm_logits.argmax(-1).cpu() == torch.from_numpy(batch.masked_labels)).sum())
            masked += len(batch.masked_labels)
            nsp_right += int((nsp_logits.argmax(-1).cpu() == torch.from_numpy(batch.next_sentence_labels)).sum())
            rows += len(batch.next_sentence_labels)
    model.train()
    return {"mlm_loss": loss / masked, "mlm_top1": right / masked, "nsp_accuracy": nsp_right / rows}


def heldout_batches(source: BatchSource, *, rows: int, length: int, rows_per_batch: int = 16) -> list[Batch]:
    """Draw a fixed set of held-out batches of one length."""
    from .objective import make_batch

    rng = np.random.default_rng([source.seed, 2**33])
    anchors = rng.permutation(len(source.corpus.sentence_starts) - 1)[:rows]
    return [
        make_batch(source.corpus, source.special, anchors[begin : begin + rows_per_batch], length, rng)
        for begin in range(0, len(anchors), rows_per_batch)
    ]


@contextmanager
def machine_lock(*, shared: bool) -> Iterator[None]:
    """Hold the machine's lock: shared to train one step, exclusive to measure; released even by a crash."""
    with MACHINE_LOCK.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


def _parameter_groups(model: BertForPreTraining, schedule: Schedule) -> list[dict[str, Any]]:
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _resume(path: Path, model: BertForPreTraining, optimizer: AdamW) -> Progress:
    if not path.exists():
        return Progress()
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return Progress(**state["progress"])


def _save(path: Path, model: BertForPreTraining, optimizer: AdamW, progress: Progress) -> None:
    unfinished = path.with_suffix(".tmp")
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": {name: getattr(progress, name) for name in Progress.__slots__},
    }
    torch.save(state, unfinished)
    unfinished.replace(path)


def _log(path: Path, progress: Progress, schedule: Schedule, mlm_loss: float, scores: dict[str, float]) -> None:
    row = {
        "step": progress.step,
        "tokens": progress.tokens,
        "seconds": round(progress.seconds, 1),
        "tokens_per_second": round(progress.tokens / progress.seconds, 1),
        "rate": schedule.rate(progress.step),
        "train_mlm_loss": round(mlm_loss, 4),
        **{f"heldout_{name}": round(value, 4) for name, value in scores.items()},
    }
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
