"""Train a head on the frozen default encoder, and bundle the two: `python models/demonstration.py --help`."""

import importlib
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread

import click

from bertport.compare.codec import encode
from bertport.compare.evaluate.document import Evaluation
from bertport.compare.evaluate.measuring import Options as EvaluateOptions
from bertport.compare.evaluate.measuring import evaluate
from bertport.compare.evaluate.output import check_output, write_output
from bertport.compare.evaluate.tables import shown
from bertport.export import export, restore
from bertport.export.progress import Event, Stages
from bertport.measure.budget import Budget, parse_budget
from bertport.measure.labelled.data import LEAST_EXAMPLES
from bertport.measure.labelled.options import DataChoice
from bertport.quantize.job import Options as QuantizeOptions
from bertport.quantize.quantizer import quantize
from bertport.runtime import load
from bertport.runtime.commands.progress import Progress
from bertport.runtime.errors import BertportError
from bertport.runtime.heads import POOLER, SEQUENCE_CLASSIFICATION
from pretraining.errors import RecipeError
from subjects.head import train_head, write_checkpoint
from subjects.passages import LONGEST, Passage, Split, split_passages, write_labelled

DEFAULT = Path(__file__).parent / "default"
NAME = "bertport-subjects"
BUDGET = "top1=0.98,nsp=0.005"
"""Budget of INT8 for the encoder's own heads; its cost for the classifier is measured on labels."""
POSITIONS, PAIRS = 1000, 1000
"""Numbers of samples that INT8 is measured on beside labels: half of the defaults of `bertport quantize`, for the time.

With 400 one flip more of the next-sentence head would break the budget, and a search take minutes."""
AHEAD = ("transformers.models.bert.modeling_bert", "sklearn.linear_model")
"""Modules that take seconds to import, while the corpus is decompressed by one core."""
CREDIT = """\
## Training text

The head `{head}` was trained on passages of OpenStax textbooks ({subjects}), which are licensed under
[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/): access for free at openstax.org, copyright OpenStax, Rice
University. Each was cut to its first {words} words. The encoder under it was not changed; its own model card says what
it was trained on.
"""
FRONT_MATTER = "---\nlanguage:\n  - en\n{licence}---\n\n# Subjects of textbooks\n\n"
"""Front matter of the card of the classifier's checkpoint, whose weights but for the head are the encoder's."""
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.command(context_settings={"show_default": True})
@click.option("--corpus", type=FILE, required=True, help='Text with textbooks: JSON lines {"id", "paragraphs"} or .xz.')
@click.option("--output", type=DIRECTORY, required=True, help="Directory to make: the bundle and its sources.")
@click.option("--bundle", type=DIRECTORY, default=DEFAULT, help="A BERT with a pooler, which stays as it is.")
@click.option("--passages", type=click.IntRange(min=2), default=1000, help="Passages to train on.")
@click.option(
    "--heldout",
    type=click.IntRange(min=LEAST_EXAMPLES),
    default=400,
    help="Passages of other chapters to measure on.",
)
@click.option(
    "--accuracy-budget", "budget", metavar="LIMITS", default=BUDGET, help="How far INT8 may be from fp32, or none."
)
@click.option("--seed", type=click.IntRange(min=0), default=1, help="Seed of the sample and of the held-out chapters.")
@click.option(
    "--figures",
    type=click.Path(dir_okay=False, path_type=Path),
    show_default=False,
    help="File for the seconds of each stage and the evaluation, as JSON.",
)
def main(  # noqa: PLR0913 — one parameter per option
    *,
    corpus: Path,
    output: Path,
    bundle: Path,
    passages: int,
    heldout: int,
    budget: str,
    seed: int,
    figures: Path | None,
) -> None:
    """Make a bundle of the encoder of --bundle, its heads, and a classifier of subjects that is trained here.

    The encoder is frozen: features of passages are computed once, by the runtime, and a linear layer is fitted to
    them. It is written as an ordinary checkpoint, exported beside the encoder's own heads, quantized, and measured
    on passages of chapters that it was not trained on.
    """
    if output.exists() and any(output.iterdir()):
        raise click.ClickException(f"{output} is not empty: name a directory that is to be made")
    began, seconds = time.monotonic(), dict[str, float]()

    def told(event: Event) -> None:
        if event.kind == "end":
            seconds[event.text] = event.seconds
            passed = time.monotonic() - began
            click.echo(f"{event.text}: {event.seconds:.1f} s, {passed:.0f} s since the start", err=True)

    stages = Stages(told)
    Thread(target=import_ahead, daemon=True).start()
    try:
        limits = Budget(bounds=parse_budget(budget))
        if figures and figures.parent != output:  # which is made on the way
            check_output(figures)
        with stages.stage("reading passages"):
            split = split_passages(corpus, training=passages, heldout=heldout, seed=seed)
        evaluation = make(bundle, output, split, limits, stages)
        click.echo(shown(evaluation))
        subject, share = most_frequent(split.training, split.heldout)
        click.echo(
            f"\nAlways saying {subject!r}, the most frequent subject, is right on {share:.1%} of these passages."
        )
        if figures:
            value = {"seconds": seconds, "most_frequent": share, "evaluation": encode(evaluation)}
            write_output(figures, json.dumps(value, indent=1) + "\n")
    except (RecipeError, BertportError) as error:
        raise click.ClickException(str(error)) from error


def import_ahead() -> None:
    """Import modules before they are needed; what is missing is said where it is."""
    for name in AHEAD:
        with suppress(ImportError):
            importlib.import_module(name)


def make(bundle: Path, output: Path, split: Split, budget: Budget, stages: Stages) -> Evaluation:
    """Train the head, and make, quantize and measure the bundle.

    Returns:
        The evaluation of its variants on the held-out passages.

    Raises:
        BertportError, RecipeError: for a bundle that this cannot be done with.
    """
    encoder, classifier, made = (output / name for name in ("encoder", "classifier", "bundle"))
    data = output / "heldout.jsonl"
    credit = CREDIT.format(head=SEQUENCE_CLASSIFICATION, subjects=", ".join(split.subjects), words=LONGEST)
    with stages.stage(f"training on {len(split.training):,} passages"):
        model = load(bundle, variant="fp32", provider="cpu")
        head = train_head(model, split.training, split.subjects)
    manifest = model.bundle.manifest
    with stages.stage("exporting the encoder with both heads"):
        output.mkdir(parents=True, exist_ok=True)
        write_labelled(split.heldout, data)
        restore(bundle, encoder, progress=lambda _: None)
        licence = f"license: {manifest.licence}\n" if manifest.licence else ""
        write_checkpoint(encoder, head, split.subjects, classifier, FRONT_MATTER.format(licence=licence) + credit)
        heads = [name for name in manifest.heads if name != POOLER]
        export(
            encoder,
            made,
            add_heads=[classifier],
            heads=[*heads, SEQUENCE_CLASSIFICATION],
            weights="float16",
            name=NAME,
            progress=lambda _: None,
        )
        with (made / "README.md").open("a", encoding="utf-8") as card:
            card.write(f"\n{credit}")
    with stages.stage("quantizing"):
        quantize(made, options=QuantizeOptions(budget=budget, positions=POSITIONS, pairs=PAIRS, force=True))
    with stages.stage("evaluating"), Progress(sys.stderr, erase=True) as progress:
        choice = DataChoice(data=str(data), task="text-classification", columns={}, label_map={}, positive=None)
        return evaluate(EvaluateOptions(bundle=str(made), labelled=choice), progress)


def most_frequent(training: Sequence[Passage], heldout: Sequence[Passage]) -> tuple[str, float]:
    """Return the subject with most passages to train on, and its share of those held out: what a guess would reach."""
    [(subject, _)] = Counter(passage.subject for passage in training).most_common(1)
    return subject, sum(passage.subject == subject for passage in heldout) / len(heldout)


if __name__ == "__main__":
    main()
