"""zero-shot-classification: how well labels of the caller's choice fit a text, by a classifier of entailment.

For each candidate label the text is run with a hypothesis that names the label. The answers are those of transformers'
pipeline, field for field.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from string import Formatter
from typing import TYPE_CHECKING

import numpy as np

from bertport.runtime.errors import InputTextError, UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION
from bertport.runtime.tasks.inputs import MOST_ROWS, Parts, texts_in
from bertport.runtime.tasks.labels import columns, labelled, probabilities
from bertport.runtime.tasks.parameters import boolean
from bertport.runtime.text.windows import Windows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from bertport.runtime.bundle.manifest import Manifest
    from bertport.runtime.tasks.answers import ZeroShot
    from bertport.runtime.text.encoder import Encoded
    from bertport.runtime.text.tokenizer import Tokens

__all__ = ["Options", "finish", "lacking", "read", "windows"]

LONGEST_TEMPLATE = 1024
"""Characters of a template, which is written once for each label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Parameters of zero-shot-classification."""

    candidate_labels: str | Sequence[str] | None = None
    """The labels: a list, or a text with commas between them; None where each input gives its own."""
    hypothesis_template: str = "This example is {}."
    """The hypothesis, with {} in the place of a label."""
    multi_label: bool = False
    """Whether several labels may fit: each has a probability of its own, instead of a share of one."""
    truncation: bool = False
    """Cut a text that is too long beside a hypothesis, which stays whole, instead of refusing it."""


def read(options: Options, tokens: Tokens, manifest: Manifest) -> Callable[[object], Parts]:  # noqa: ARG001 — every task's `read` takes the tokenizer
    """Return the function that reads a text, or an object with `text` and perhaps labels: a row for each label.

    Raises:
        MissingHeadError: for a bundle that does not record the labels of its classifier.
        UsageError: for a parameter out of range.
    """
    _, names = labelled(SEQUENCE_CLASSIFICATION, manifest)
    column = next(column for column, name in enumerate(names) if _means_entailment(name))  # `lacking` saw that it is
    boolean("multi_label", options.multi_label)
    before, after = _template(options.hypothesis_template)
    given = None if options.candidate_labels is None else candidates(options.candidate_labels, UsageError)

    def parts(value: object) -> Parts:
        text, labels = value, given
        match value:
            case {"text": own, "candidate_labels": listed, **other} if not other:
                text, labels = own, candidates(listed, InputTextError)
            case {"text": own, **other} if not other:
                text = own
        if not isinstance(text, str):
            raise InputTextError(
                f'zero-shot-classification takes a text, {{"text": …}}, or {{"text": …, "candidate_labels": […]}}, '
                f"not {excerpt(value)}"
            )
        if labels is None:
            raise InputTextError(
                "zero-shot-classification needs labels to choose from, and there are none: pass candidate_labels, a "
                f"list or a text with commas between them: {excerpt(value)}"
            )
        return Parts(
            texts=tuple((text, f"{before}{label}{after}") for label in labels),
            combine=partial(_answer, text, labels, column, options),
        )

    return parts


def finish(
    options: Options,  # noqa: ARG001 — every task's `finish` takes the options
    tokens: Tokens,  # noqa: ARG001 — and the tokenizer
    manifest: Manifest,
) -> Callable[[NDArray[np.float32], Encoded], NDArray[np.float32]]:
    """Return the function that gives the logits `[labels]` of a text with one hypothesis."""
    _, names = labelled(SEQUENCE_CLASSIFICATION, manifest)
    return lambda logits, _: columns(logits, names, manifest)


def windows(options: Options, tokens: Tokens) -> Windows | None:
    """Return how a text is cut that is too long: as the pipeline does, never the hypothesis; None where it is not."""
    return Windows(length=tokens.max_length, stride=0, cut=0, first=True) if options.truncation else None


def lacking(manifest: Manifest) -> str | None:
    """Return which label is needed, and which the classifier has instead; None where it has one for entailment."""
    labels = manifest.heads[SEQUENCE_CLASSIFICATION].labels
    if labels is None or any(map(_means_entailment, labels)):
        return None
    return (
        "a classifier that was trained on entailment, with a label that begins with 'entail', and that of "
        f"{manifest.name} has {excerpt(list(labels), 200)}"
    )


def candidates(value: object, error: type[UsageError]) -> tuple[str, ...]:
    """Return candidate labels: those of a list, or what stands between the commas of a text.

    Raises:
        UsageError: of the kind `error`, for what is no labels, none, or too many.
    """
    if isinstance(value, str):
        # One more than there may be is as wrong as a million.
        value = [name for part in value.split(",", MOST_ROWS) if (name := part.strip())]
    return texts_in("candidate_labels", value, error)


def _means_entailment(label: str) -> bool:
    """Return whether a label means entailment, by the pipeline's rule."""
    return label.lower().startswith("entail")


def _template(template: object) -> tuple[str, str]:
    """Return what a hypothesis has before the label and behind it; in literal text, `{{` stands for a brace.

    Raises:
        UsageError: for what is no template of one `{}`.
    """
    if not isinstance(template, str) or len(template) > LONGEST_TEMPLATE:
        raise UsageError(
            f"hypothesis_template is a text of {LONGEST_TEMPLATE:,} characters at most, not {excerpt(template)}"
        )
    literals, places = [""], 0
    try:
        for literal, field, form, conversion in Formatter().parse(template):
            literals[-1] += literal
            if field is not None:
                places += 1 if (field, form, conversion) in {("", "", None), ("0", "", None)} else 2
                literals.append("")
    except ValueError:  # a brace alone
        places = 0
    if places != 1:
        raise UsageError(f"hypothesis_template is {excerpt(template)} and must have {{}} once, in place of the label")
    return literals[0], literals[1]


def _answer(
    text: str, labels: tuple[str, ...], column: int, options: Options, rows: list[NDArray[np.float32]]
) -> ZeroShot:
    """Return the labels of a text, best first, from the logits of each with its hypothesis."""
    logits = np.stack(rows)
    if options.multi_label or len(labels) == 1:
        # Column 0 is what the pipeline takes for contradiction, or the last one where 0 is entailment.
        scores = probabilities(logits[:, [0 if column else -1, column]])[:, 1]
    else:
        scores = probabilities(logits[:, column])
    order = np.argsort(scores, kind="stable")[::-1]
    return {
        "sequence": text,
        "labels": [labels[place] for place in order],
        "scores": scores[order].tolist(),
    }
