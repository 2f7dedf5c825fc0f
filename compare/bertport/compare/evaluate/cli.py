"""`bertport evaluate`: the command."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bertport.measure.labelled.options import data_options
from bertport.runtime.commands import completion
from bertport.runtime.commands.options import LIBRARY, PROVIDER, Once, as_json, truncation
from bertport.runtime.commands.output import keep_apart, show, show_json
from bertport.runtime.commands.progress import Progress
from bertport.runtime.providers.table import AUTO

if TYPE_CHECKING:
    from bertport.measure.labelled.options import DataChoice

__all__ = ["evaluate"]

METRIC_NAMES = (
    "accuracy, f1, f1_micro, f1_macro, matthews, pearson, spearman, entity_f1, exact_match, answer_f1, ndcg@10, "
    "mrr@10, recall@10, ece"
)
"""The names of `bertport.measure.labelled.metrics.METRICS`, which `--help` is not to import."""
MOST_EXAMPLES = 10
"""Examples that are shown, at most: a look, and no way around the licence of the data."""


@click.command()
@click.argument("bundle", type=click.Path())
@data_options(required=True)
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="NAME",
    help="Only this variant and the reference; may be repeated.",
    shell_complete=completion.variants,
)
@click.option(
    "--against",
    "reference",
    metavar="VARIANT",
    help="The variant to compare with.  [default: fp32]",
    shell_complete=completion.variants,
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help=f"Only this metric; may be repeated: {METRIC_NAMES}.  [default: those of the task]",
)
@click.option(
    "--provider",
    cls=Once,
    default=(AUTO,),
    show_default=True,
    metavar="NAME",
    help=PROVIDER,
    shell_complete=completion.providers,
)
@click.option("--provider-library", metavar="PATH", help=LIBRARY)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Threads of the CPU.  [default: one per core]")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of resamples and permutations."
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N examples.  [default: all]")
@click.option(
    "--examples",
    type=click.IntRange(0, MOST_EXAMPLES),
    default=0,
    metavar="N",
    help=f"Show the N examples on which variants differ most, {MOST_EXAMPLES} at most.  [default: none]",
)
@truncation
@as_json
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Write the JSON into this file too.")
def evaluate(  # noqa: PLR0913 — one parameter per option
    *,
    bundle: str,
    labelled: DataChoice,
    variants: tuple[str, ...],
    reference: str | None,
    metrics: tuple[str, ...],
    provider: str,
    provider_library: str | None,
    threads: int | None,
    seed: int,
    limit: int | None,
    examples: int,
    truncation: bool,
    as_json: bool,
    output: Path | None,
) -> None:
    """Measure every variant of BUNDLE on labelled data, and what each costs against fp32.

    Each metric has a 95% interval, and each difference from fp32 is tested on the same examples. Texts of the data are
    shown only with --examples. Needs the extras cpu and evaluate.
    """
    from bertport.compare.codec import encode, laid_out
    from bertport.compare.evaluate.measuring import Options
    from bertport.compare.evaluate.measuring import evaluate as run_evaluate
    from bertport.compare.evaluate.output import check_output, write_output
    from bertport.compare.evaluate.tables import shown
    from bertport.measure.interrupts import explained, stoppable
    from bertport.runtime.excerpts import as_unicode

    if output is not None:
        keep_apart(output, (labelled.data,), (bundle,))
        check_output(output)
    options = Options(
        bundle=bundle,
        labelled=labelled,
        variants=variants,
        reference=reference,
        metrics=metrics,
        provider=provider,
        provider_library=provider_library,
        threads=threads,
        seed=seed,
        limit=limit,
        examples=examples,
        truncation=truncation,
        command=shlex.join(["bertport", *sys.argv[1:]]),
    )
    place = "" if output is None else f", and {output} is as it was"
    with (
        stoppable(),
        explained(
            interrupted=f"interrupted: nothing was measured to its end{place}",
            out_of_memory=f"out of memory while evaluating {bundle}{place}: free some memory, or take fewer examples "
            "(--limit)",
        ),
        Progress(sys.stderr, erase=True) as progress,
    ):
        evaluation = run_evaluate(options, progress)
    try:
        if output is not None:
            write_output(output, as_unicode(laid_out(encode(evaluation))))
    finally:  # what was measured is shown where the disk is full, too
        if as_json:
            show_json(encode(evaluation), indent=1)
        else:
            show(shown(evaluation))
