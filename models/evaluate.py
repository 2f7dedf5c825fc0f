"""Score a bundle or a checkpoint on held-out text, and regenerate the default model's card.

`python models/evaluate.py --help`.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np

import excerpts
from bertport.measure.machine import describe_machine
from bertport.quantize.job import Options
from bertport.quantize.remeasure import remeasure
from bertport.runtime import load
from bertport.runtime.bundle.directory import Bundle, file_sha256
from bertport.runtime.commands.options import FiniteRange
from bertport.runtime.errors import BertportError
from evaluation.answers import answer_prompts, read_prompts
from evaluation.card import write_card
from evaluation.record import EVALUATION, TRAINING
from evaluation.scorers import BundleScorer, CheckpointScorer, Scorer, is_bundle, serving_variants
from evaluation.scores import score_batches, score_sentences, summarize
from pretraining.corpus import Corpus, load_corpus, read_sections
from pretraining.errors import RecipeError
from pretraining.objective import BatchSource
from pretraining.trainer import heldout_batches
from pretraining.vocabulary import special_tokens

DEFAULT = Path(__file__).parent / "default"
SEED = 20_261_123
LENGTHS = {128: 2048, 512: 128}
"""Rows by their length in tokens: 2,048 pairs with 38,912 masked tokens, and 128 with 9,728."""
SENTENCES = 200
AGREEMENT_POSITIONS = 10_000
"""Masked positions on which a quantized variant is held against fp32: agreement to a quarter of a per cent."""
DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
TEXT = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(context_settings={"show_default": True})
@click.argument("model", type=DIRECTORY, default=DEFAULT)
@click.option("--heldout", type=TEXT, help="Held-out text: JSON lines, plain or .xz.  [default: none, card only]")
@click.option("--variant", "variants", multiple=True, help="A variant of the bundle; may be repeated.  [default: all]")
@click.option("--output", type=FILE, help="Where the scores go.  [default: the default bundle's record, or nowhere]")
@click.option("--share", type=FiniteRange(0, 1, min_open=True), default=1.0, help="Score this part of the sample.")
def main(*, model: Path, heldout: Path | None, variants: tuple[str, ...], output: Path | None, share: float) -> None:
    """Score MODEL on held-out text; for the default bundle, write its card as well.

    A bundle is run by bertport's own runtime, every serving variant of it, and answers the prompts of
    prompts.json too; a checkpoint directory is run by PyTorch. The scores are written as JSON. The default bundle's
    quantized variants are also measured against fp32 again, on the held-out text that no sample in data/ holds. With
    --output, the default bundle is scored as any other: its record and its card stay as they are.
    """
    own = output is None and model.resolve() == DEFAULT.resolve()
    if own and (variants or share < 1):
        raise click.UsageError(
            f"{EVALUATION.name} and the card have all variants on the whole sample: leave --variant and --share out, "
            "or name a file by --output"
        )
    if not (own or heldout):
        raise click.UsageError(f"there is no text to score {model} on: name one by --heldout")
    target = EVALUATION if own else output
    if target:  # before the minutes that scoring takes
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if heldout:
            record = score_model(model, heldout, variants, share)
            if target:
                target.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            if not own:
                click.echo(json.dumps(record["scores"], indent=1))
        if own:
            write_own(heldout)
    except (RecipeError, BertportError) as error:
        raise click.ClickException(str(error)) from error


def write_own(heldout: Path | None) -> None:
    """Measure the default bundle's quantized variants again where there is text for it, and write its card."""
    if heldout:
        remeasure_quantized(DEFAULT, heldout)
    write_card(DEFAULT, TRAINING)
    click.echo(f"{DEFAULT / 'README.md'}: written", err=True)


def score_model(path: Path, heldout: Path, variants: tuple[str, ...], share: float) -> dict[str, Any]:
    """Score a model and, for a bundle, record its answers."""
    record: dict[str, Any] = {
        "heldout_sha256": file_sha256(heldout),
        "seed": SEED,
        "rows": {str(length): round(rows * share) for length, rows in LENGTHS.items()},
        "sentences": round(SENTENCES * share),
        "machine": describe_machine().cpu,
    }
    if is_bundle(path):
        manifest = Bundle.open(path).manifest
        chosen = variants or tuple(serving_variants(Bundle.open(path)))
        scorers: dict[str, Scorer] = {name: BundleScorer(path, name) for name in chosen}
        record["weights_sha256"] = manifest.source.weights_sha256
    else:
        scorers = {"pytorch": CheckpointScorer(path)}
    with tempfile.TemporaryDirectory() as cache:
        tokenizer = next(iter(scorers.values())).tokenizer
        corpus = load_corpus(heldout, tokenizer, Path(cache))
    record["scores"] = {}
    for name, scorer in scorers.items():
        click.echo(f"scoring {path.name} ({name}) …", err=True)
        record["scores"][name] = score(scorer, corpus, share)
    if is_bundle(path):
        record["answers"] = {
            name: answer_prompts(load(path, variant=name, provider="cpu"), read_prompts()) for name in scorers
        }
    return record


def remeasure_quantized(bundle: Path, heldout: Path) -> None:
    """Measure a bundle's quantized variants again, for its manifest; nothing happens where there is none."""
    if not any(variant.fidelity for variant in Bundle.open(bundle).manifest.variants.values()):
        return
    with tempfile.TemporaryDirectory() as directory:
        rest = Path(directory) / "rest.jsonl"
        excerpts.write_rest(list(read_sections(heldout)), rest)
        remeasure(bundle, options=Options(text=rest, positions=AGREEMENT_POSITIONS))


def score(scorer: Scorer, corpus: Corpus, share: float) -> dict[str, Any]:
    """Return every score, by sample and by source."""
    special = special_tokens(scorer.tokenizer)
    source = BatchSource(corpus, special, tokens_per_batch=2048, seed=SEED)
    samples = {
        str(length): score_batches(
            scorer,
            heldout_batches(source, rows=round(rows * share), length=length, rows_per_batch=2048 // length),
            corpus,
        )
        for length, rows in LENGTHS.items()
        if length <= scorer.max_length
    }
    samples["sentences"] = score_sentences(scorer, corpus, special, sentences=round(SENTENCES * share), seed=SEED)
    origins = np.array([name.partition("/")[0] for name in corpus.names])
    parts = {"all": np.ones(len(origins), dtype=bool)} | {name: origins == name for name in sorted(set(origins))}
    return {sample: {part: summarize(sums, kept) for part, kept in parts.items()} for sample, sums in samples.items()}


if __name__ == "__main__":
    main()
