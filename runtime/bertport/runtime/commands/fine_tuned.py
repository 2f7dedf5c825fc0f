"""`bertport classify`, `tag`, `answer`, `rank` and `embed`: the heads of fine-tuned models."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bertport.runtime.commands.inputs import read_text
from bertport.runtime.commands.options import Chosen, as_json, model_options, truncation
from bertport.runtime.commands.output import keep_apart, report, show, show_json
from bertport.runtime.errors import PathError, UsageError
from bertport.runtime.heads import DEFAULT_TOP_K
from bertport.runtime.tasks.parameters import whole_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bertport.runtime.model import Model
    from bertport.runtime.tasks.answers import ScoredLabel, ZeroShot

__all__ = ["answer", "classify", "embed", "rank", "tag"]

VECTOR_FILES = (".npy", ".json")
"""Suffixes of the names of files of vectors."""


@click.command(name="classify")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@model_options
@click.option("--pair", metavar="TEXT", help="The second text of a pair, of which TEXT is the first.")
@click.option(
    "-l",
    "--label",
    "candidates",
    multiple=True,
    metavar="LABEL",
    help="A label of your own, for a model trained on entailment; may be repeated.",
)
@click.option("--multi-label", is_flag=True, help="Several of your labels may fit one text.")
@click.option("-k", "--top-k", default=DEFAULT_TOP_K, show_default=True, help="Labels shown, best first.")
@click.option(
    "--function",
    metavar="NAME",
    help="How logits become scores: softmax, sigmoid or none.  [default: what the head's problem type says]",
)
@truncation
@as_json
def classify(  # noqa: PLR0913 — one parameter per option
    *,
    texts: tuple[str, ...],
    chosen: Chosen,
    pair: str | None,
    candidates: tuple[str, ...],
    multi_label: bool,
    top_k: int,
    function: str | None,
    truncation: bool,
    as_json: bool,
) -> None:
    """Label each TEXT, or a pair of TEXT and --pair.

    With --label, the labels are yours: zero-shot classification.

    With --json, a list with one item per text: its labels, in the fields of transformers' text-classification pipeline,
    or of its zero-shot-classification pipeline.
    """
    if candidates:
        whole_number("top_k", top_k, DEFAULT_TOP_K)
        if pair is not None or function is not None:
            raise UsageError("--label takes labels of your own, without --pair and --function: leave those two out")
        answers = chosen.load().zero_shot(list(texts), list(candidates), multi_label=multi_label, truncation=truncation)
        _show_zero_shot(answers, top_k, as_json=as_json)
        return
    if multi_label:
        raise UsageError("--multi-label needs labels of your own: name them with --label")
    if pair is not None and len(texts) > 1:
        raise UsageError(f"--pair makes a pair of one text, and {len(texts)} were given: give one")
    _classify(chosen.load(), list(texts), pair, top_k, function, truncation=truncation, as_json=as_json)


def _classify(  # noqa: PLR0913 — the verb's options
    model: Model,
    texts: list[str],
    pair: str | None,
    top_k: int,
    function: str | None,
    *,
    truncation: bool,
    as_json: bool,
) -> None:
    """Print the labels of texts, or of one pair."""
    from bertport.runtime.commands import render_fine_tuned

    pairs = None if pair is None else [pair]
    answers = model.classify(texts, pairs, top_k=top_k, function_to_apply=function, truncation=truncation)
    if as_json:
        show_json(answers, indent=2)
        return
    probable = _gives_probabilities(model, function)
    titles = texts if pair is None else [f"{texts[0]} | {pair}"]
    show(
        "\n\n".join(
            render_fine_tuned.labels(title, rows, probable=probable)
            for title, rows in zip(titles, answers, strict=True)
        )
    )


def _show_zero_shot(answers: Sequence[ZeroShot], top_k: int, *, as_json: bool) -> None:
    """Print how well labels fit texts."""
    from bertport.runtime.commands import render_fine_tuned

    if as_json:
        show_json(answers, indent=2)
        return
    blocks = []
    for answer in answers:
        ranked = zip(answer["labels"], answer["scores"], strict=True)
        rows: list[ScoredLabel] = [{"label": label, "score": score} for label, score in ranked]
        blocks.append(render_fine_tuned.labels(answer["sequence"], rows[:top_k], probable=True))
    show("\n\n".join(blocks))


def _gives_probabilities(model: Model, function: str | None) -> bool:
    """Return whether scores of the classifier's labels are probabilities, not logits as a regression's are."""
    from bertport.runtime.heads import SEQUENCE_CLASSIFICATION
    from bertport.runtime.tasks.labels import activation_of, labelled

    entry, labels = labelled(SEQUENCE_CLASSIFICATION, model.bundle.manifest)
    return (function or activation_of(entry, len(labels))) != "none"


def _lines(file: str | None) -> list[str]:
    """Return the lines of a file that are not blank; none where no file is given."""
    return [] if file is None else [line.strip() for line in read_text(file).split("\n") if line.strip()]


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
    help="Leave out tokens and entities with this label; may be repeated.  [default: O]",
)
@click.option("--stride", type=int, metavar="N", help="Read a long text in windows that share N tokens.")
@truncation
@as_json
def tag(  # noqa: PLR0913 — one parameter per option
    *,
    texts: tuple[str, ...],
    chosen: Chosen,
    aggregation: str,
    ignored: tuple[str, ...],
    stride: int | None,
    truncation: bool,
    as_json: bool,
) -> None:
    """Mark the entities of each TEXT.

    With --json, a list with one item per text, whose rows have the fields of transformers' token-classification
    pipeline.
    """
    from bertport.runtime.commands import render_fine_tuned

    answers = chosen.load().tag(
        list(texts),
        aggregation_strategy=aggregation,
        ignore_labels=ignored or ("O",),
        stride=stride,
        truncation=truncation,
    )
    if as_json:
        show_json(answers, indent=2)
    else:
        show("\n\n".join(render_fine_tuned.entities(text, rows) for text, rows in zip(texts, answers, strict=True)))


@click.command(name="answer")
@click.argument("questions", nargs=-1, required=True, metavar="QUESTION...")
@click.option(
    "-c", "--context", required=True, metavar="FILE|TEXT", help="Text that holds the answers; - for standard input."
)
@model_options
@click.option("-k", "--top-k", default=1, show_default=True, help="Answers to each question, best first.")
@click.option("--longest", default=15, show_default=True, metavar="N", help="Tokens of an answer, at most.")
@click.option("--stride", type=int, metavar="N", help="Tokens that windows of a long text share.  [default: 128]")
@click.option("--or-none", is_flag=True, help="Allow an empty answer, for a model that was trained to give one.")
@as_json
def answer(  # noqa: PLR0913 — one parameter per option
    *,
    questions: tuple[str, ...],
    context: str,
    chosen: Chosen,
    top_k: int,
    longest: int,
    stride: int | None,
    or_none: bool,
    as_json: bool,
) -> None:
    """Answer each QUESTION with a part of a text.

    A context that is one word, or a file's path, is read from that file. A long text is read in windows that overlap.

    With --json, a list with one item per question: its answers, in the fields of transformers' question-answering
    pipeline.
    """
    from bertport.runtime.commands import render_fine_tuned

    text = read_text(context) if _names_file(context) else context
    answers = chosen.load().answer(
        list(questions),
        text,
        top_k=top_k,
        max_answer_len=longest,
        doc_stride=stride,
        handle_impossible_answer=or_none,
    )
    listed = [given if isinstance(given, list) else [given] for given in answers]
    if as_json:
        show_json(listed, indent=2)
    else:
        show(
            "\n\n".join(
                render_fine_tuned.answers(question, text, rows)
                for question, rows in zip(questions, listed, strict=True)
            )
        )


def _names_file(context: str) -> bool:
    """Return whether a context names the file that holds it: one word does, and so does the path of a file."""
    if len(context.split()) == 1:
        return True
    try:
        return Path(context).is_file()
    except (OSError, ValueError):  # a text may be longer than a path, and hold a NUL
        return False


@click.command(name="rank")
@click.argument("query", metavar="QUERY")
@click.argument("documents", nargs=-1, metavar="[DOCUMENT]...")
@model_options
@click.option("--documents", "file", metavar="FILE", help="Also rank the lines of a file; - for standard input.")
@click.option("-k", "--top-k", type=int, metavar="N", help="Documents shown, best first.  [default: all]")
@click.option(
    "--function",
    metavar="NAME",
    help="How the logit becomes a score: sigmoid or none.  [default: what the model states, or sigmoid]",
)
@truncation
@as_json
def rank(  # noqa: PLR0913 — one parameter per option
    *,
    query: str,
    documents: tuple[str, ...],
    chosen: Chosen,
    file: str | None,
    top_k: int | None,
    function: str | None,
    truncation: bool,
    as_json: bool,
) -> None:
    """Rank each DOCUMENT by how well it fits QUERY.

    Each line shows a document's place, score, number in the list given, counted from 0, and beginning.

    With --json, a list of corpus_id (the document's place, counted from 0), score and text, best first.
    """
    from bertport.runtime.commands import render_fine_tuned

    listed = [*documents, *_lines(file)]
    if not listed:
        raise UsageError("rank takes a query and documents, and no document was given: give some, or --documents FILE")
    answer = chosen.load().rank(
        query, listed, top_k=top_k, return_documents=True, function_to_apply=function, truncation=truncation
    )
    if as_json:
        show_json(answer, indent=2)
    else:
        show(render_fine_tuned.ranking(query, answer))


@click.command(name="embed")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@model_options
@click.option("--texts", "file", metavar="FILE", help="Also embed the lines of a file; - for standard input.")
@click.option("--prompt", metavar="TEXT", help="Text put before each text.  [default: what the model states]")
@click.option("--prompt-name", metavar="NAME", help="One of the model's prompts, for example query.")
@click.option("--truncate-dim", type=int, metavar="N", help="Keep the first N numbers of a vector.  [default: all]")
@click.option("--normalize", is_flag=True, help="Scale vectors to length 1.")
@click.option("-o", "--output", metavar="FILE", help="Write the vectors to FILE.npy, an array, or FILE.json.")
@truncation
@as_json
def embed(  # noqa: PLR0913 — one parameter per option
    *,
    texts: tuple[str, ...],
    chosen: Chosen,
    file: str | None,
    prompt: str | None,
    prompt_name: str | None,
    truncate_dim: int | None,
    normalize: bool,
    output: str | None,
    truncation: bool,
    as_json: bool,
) -> None:
    """Make one vector of each TEXT, as sentence-transformers does.

    Without --json, each vector's shape, length and first numbers; with it, a list with one item per text.
    """
    from bertport.runtime.commands import render

    if output is not None and not output.endswith(VECTOR_FILES):
        raise UsageError(f"cannot write vectors as {output}: name a file that ends in {' or '.join(VECTOR_FILES)}")
    if output is not None:
        keep_apart(output, (file,), (chosen.path,))
    listed = [*texts, *_lines(file)]
    if not listed:
        raise UsageError("embed takes texts, and none was given: give some, or --texts FILE")
    vectors = chosen.load().embed(
        listed,
        prompt=prompt,
        prompt_name=prompt_name,
        normalize=normalize,
        truncate_dim=truncate_dim,
        truncation=truncation,
    )
    if output is not None:
        _write_vectors(output, vectors)
        report(f"{output}: {len(vectors):,} x {vectors.shape[1]:,} numbers, float32")
    if as_json:
        show_json(vectors.tolist(), indent=2)
    elif output is None:
        show("\n".join(render.features(text, vector) for text, vector in zip(listed, vectors, strict=True)))


def _write_vectors(output: str, vectors: NDArray[np.float32]) -> None:
    """Write vectors `[texts, dimension]` to a file, in the form that its name says.

    Raises:
        PathError: where it cannot be written.
    """
    import numpy as np

    content = io.BytesIO()
    if output.endswith(".npy"):
        np.save(content, vectors, allow_pickle=False)
    else:
        content.write(json.dumps(vectors.tolist()).encode("ascii"))
    try:
        Path(output).write_bytes(content.getbuffer())
    except (OSError, ValueError) as error:  # a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise PathError(f"cannot write {output} ({reason}): name a file in a directory that can be written") from error
