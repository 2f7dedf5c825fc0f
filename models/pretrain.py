"""Pretrain a BERT with MLM and NSP heads: `python models/pretrain.py --help`."""

import sys
from pathlib import Path

import click
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from pretraining import corpus as corpora
from pretraining import model as models
from pretraining.objective import BatchSource
from pretraining.trainer import Schedule, heldout_batches, train

@click.command()
@click.option("--corpus", type=click.Path(exists=True, path_type=Path), required=True, help="Training text: JSON lines (.xz or plain).")
@click.option("--heldout", type=click.Path(exists=True, path_type=Path), required=True, help="Held-out text of the same form.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Where the run keeps its checkpoint, log and result.")
@click.option("--init", type=click.Path(exists=True, path_type=Path), help="Checkpoint directory whose encoder and tokenizer to start from.")
@click.option("--layers", type=int, help="Keep this many layers of --init, evenly spaced.")
@click.option("--tokens", type=int, default=12_000_000, show_default=True, help="Tokens to train on.")
@click.option("--tokens-per-batch", type=int, default=2048, show_default=True)
@click.option("--rate", type=float, default=5e-4, show_default=True, help="Peak learning rate.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--threads", type=int, default=2, show_default=True)
def main(corpus, heldout, output, init, layers, tokens, tokens_per_batch, rate, seed, threads):
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16
    tokenizer = models.read_tokenizer(init / "tokenizer.json")
    special = models.special_tokens(tokenizer)
    text = corpora.load_corpus(corpus, tokenizer, output / "cache")
    held = corpora.load_corpus(heldout, tokenizer, output / "cache")
    model = models.from_encoder(init, layers=layers)
    models.start_decoder_at_frequencies(model, text.tokens)
    schedule = Schedule(tokens=tokens, tokens_per_batch=tokens_per_batch, peak_rate=rate)
    source = BatchSource(text, special, tokens_per_batch=tokens_per_batch, seed=seed)
    batches = heldout_batches(BatchSource(held, special, tokens_per_batch=tokens_per_batch, seed=7), rows=256, length=128)
    train(model, source, schedule, batches, output, device=device, dtype=dtype)
    model.save_pretrained(output / "model")


if __name__ == "__main__":
    main()
