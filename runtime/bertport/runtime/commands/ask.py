"""`bertport fill-mask`, `next-sentence`, `sentence-order`, `replaced-tokens` and `features`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bertport.runtime.commands.options import Chosen, as_json, model_options, truncation
from bertport.runtime.commands.output import show, show_json
from bertport.runtime.heads import DEFAULT_TOP_K
from bertport.runtime.tasks.poolings import meanings

if TYPE_CHECKING:
    from bertport.runtime.tasks.answers import NextSentence, SentenceOrder

__all__ = ["features", "fill_mask", "next_sentence", "replaced_tokens", "sentence_order"]


@click.command(name="fill-mask")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@model_options
@click.option("-k", "--top-k", default=DEFAULT_TOP_K, show_default=True, help="Answers per mask.")
@click.option("-t", "--target", "targets", multiple=True, metavar="WORD", help="Rank only this word; may be repeated.")
@truncation
@as_json
def fill_mask(  # noqa: PLR0913 — one parameter per option
    *,
    texts: tuple[str, ...],
    chosen: Chosen,
    top_k: int,
    targets: tuple[str, ...],
    truncation: bool,
    as_json: bool,
) -> None:
    """Fill in each mask of TEXT with its likeliest words.

    A mask is written as the model's tokenizer does, [MASK] or <mask>. Each word is shown in its place in TEXT.

    With --json, the fields are those of transformers' fill-mask pipeline.
    """
    from bertport.runtime.commands import render

    model = chosen.load()
    answers = model.fill_mask(list(texts), top_k=top_k, targets=targets or None, truncation=truncation)
    if as_json:
        show_json(answers, indent=2)
        return
    every = [answers] if len(texts) == 1 else answers
    show("\n\n".join(render.fill_mask(text, answer, model.tokens) for text, answer in zip(texts, every, strict=True)))


@click.command(name="next-sentence")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@model_options
@truncation
@as_json
def next_sentence(
    *,
    a: str,
    b: str,
    chosen: Chosen,
    truncation: bool,
    as_json: bool,
) -> None:
    """Judge whether text B follows text A."""
    answer = chosen.load().next_sentence(a, b, truncation=truncation)
    meaning = "B follows A" if answer["follows"] else "B is from another place"
    _show_verdict(answer, meaning, as_json=as_json)


@click.command(name="sentence-order")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@model_options
@truncation
@as_json
def sentence_order(
    *,
    a: str,
    b: str,
    chosen: Chosen,
    truncation: bool,
    as_json: bool,
) -> None:
    """Judge whether texts A and B are in the order in which they were written."""
    answer = chosen.load().sentence_order(a, b, truncation=truncation)
    meaning = "A comes before B" if answer["in_order"] else "B comes before A"
    _show_verdict(answer, meaning, as_json=as_json)


def _show_verdict(answer: NextSentence | SentenceOrder, meaning: str, *, as_json: bool) -> None:
    """Print what a head says of a pair of texts: its answer as JSON, or its probabilities with what they mean."""
    from bertport.runtime.commands import render

    if as_json:
        show_json(answer, indent=2)
    else:
        show(render.verdict(answer["probabilities"], meaning))


@click.command(name="replaced-tokens")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@model_options
@click.option(
    "--ignore-label",
    "ignored",
    multiple=True,
    metavar="LABEL",
    help="Leave out tokens with this label; may be repeated.",
)
@truncation
@as_json
def replaced_tokens(
    *,
    texts: tuple[str, ...],
    chosen: Chosen,
    ignored: tuple[str, ...],
    truncation: bool,
    as_json: bool,
) -> None:
    """Judge for each token of TEXT whether it replaces another.

    With --json, a list with one item per text, whose rows have the fields of transformers' token-classification
    pipeline.
    """
    from bertport.runtime.commands import render

    model = chosen.load()
    answers = model.replaced_tokens(list(texts), ignore_labels=ignored, truncation=truncation)
    if as_json:
        show_json(answers, indent=2)
    else:
        show("\n\n".join(render.token_labels(text, rows) for text, rows in zip(texts, answers, strict=True)))


@click.command(name="features")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@model_options
@click.option(
    "--pooling",
    default="none",
    show_default=True,
    metavar="NAME",
    help=f"{meanings()}.",
)
@click.option("--normalize", is_flag=True, help="Scale pooled vectors to length 1.")
@truncation
@as_json
def features(  # noqa: PLR0913 — one parameter per option
    *,
    texts: tuple[str, ...],
    chosen: Chosen,
    pooling: str,
    normalize: bool,
    truncation: bool,
    as_json: bool,
) -> None:
    """Return the encoder's vectors for TEXT.

    Without --json, each vector's shape, length and first numbers; with it, a list with one item per text.
    """
    from bertport.runtime.commands import render

    model = chosen.load()
    vectors = model.features(list(texts), pooling=pooling, normalize=normalize, truncation=truncation)
    if as_json:
        show_json([vector.tolist() for vector in vectors], indent=2)
    else:
        show("\n".join(render.features(text, vector) for text, vector in zip(texts, vectors, strict=True)))
