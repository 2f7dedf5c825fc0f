"""`bertport classify` and `tag`: the heads of fine-tuned models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bertport.runtime.commands.options import Chosen, as_json, model_options, truncation
from bertport.runtime.commands.output import show, show_json
from bertport.runtime.errors import UsageError
from bertport.runtime.heads import DEFAULT_TOP_K

if TYPE_CHECKING:
    from bertport.runtime.model import Model

__all__ = ["classify", "tag"]


@click.command(name="classify")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@model_options
@click.option("--pair", metavar="TEXT", help="The second text of a pair, of which TEXT is the first.")
@click.option("-k", "--top-k", default=DEFAULT_TOP_K, show_default=True, help="Labels shown, best first.")
@click.option(
    "--function",
    metavar="NAME",
    help="softmax, sigmoid or none: what makes scores of the logits.  [default: what the head's problem type says]",
)
@truncation
@as_json
def classify(  # noqa: PLR0913 — one parameter per option
    *,
    texts: tuple[str, ...],
    chosen: Chosen,
    pair: str | None,
    top_k: int,
    function: str | None,
    truncation: bool,
    as_json: bool,
) -> None:
    """Label each TEXT, or one TEXT and the second of its pair.

    With --json, a list with one item per text: its labels, in the fields of transformers' text-classification pipeline.
    """
    from bertport.runtime.commands import render_fine_tuned

    if pair is not None and len(texts) > 1:
        raise UsageError(f"--pair makes a pair of one text, and {len(texts)} were given: give one")
    model = chosen.load()
    answers = model.classify(
        list(texts),
        None if pair is None else [pair],
        top_k=top_k,
        function_to_apply=function,
        truncation=truncation,
    )
    if as_json:
        show_json(answers, indent=2)
        return
    probable = _gives_probabilities(model, function)
    shown = [text if pair is None else f"{text} | {pair}" for text in texts]
    show(
        "\n\n".join(
            render_fine_tuned.labels(text, rows, probable=probable) for text, rows in zip(shown, answers, strict=True)
        )
    )


def _gives_probabilities(model: Model, function: str | None) -> bool:
    """Return whether scores of the classifier's labels are probabilities, not logits as a regression's are."""
    from bertport.runtime.heads import SEQUENCE_CLASSIFICATION
    from bertport.runtime.tasks.labels import activation_of, labelled

    entry, labels = labelled(SEQUENCE_CLASSIFICATION, model.bundle.manifest)
    return (function or activation_of(entry, len(labels))) != "none"


@click.command(name="tag")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@model_options
@click.option(
    "--aggregation",
    default="simple",
    show_default=True,
    metavar="NAME",
    help="none: each token; simple: neighbouring tokens of one label as an entity; first, average, max: by words.",
)
@click.option(
    "--ignore-label",
    "ignored",
    multiple=True,
    metavar="LABEL",
    help="Leave out what has this label; may be repeated.  [default: O]",
)
@truncation
@as_json
def tag(  # noqa: PLR0913 — one parameter per option
    *,
    texts: tuple[str, ...],
    chosen: Chosen,
    aggregation: str,
    ignored: tuple[str, ...],
    truncation: bool,
    as_json: bool,
) -> None:
    """Mark the entities of each TEXT.

    With --json, a list with one item per text, whose rows have the fields of transformers' token-classification
    pipeline.
    """
    from bertport.runtime.commands import render_fine_tuned

    answers = chosen.load().tag(
        list(texts), aggregation_strategy=aggregation, ignore_labels=ignored or ("O",), truncation=truncation
    )
    if as_json:
        show_json(answers, indent=2)
    else:
        show("\n\n".join(render_fine_tuned.entities(text, rows) for text, rows in zip(texts, answers, strict=True)))
