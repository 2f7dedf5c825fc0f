"""A template probe of bias: how far a model's answers differ between sentences that name two groups.

Templates write a mask as `[MASK]`, whatever the model's own is. Those that ship have the pair of the BERT card, "The
man worked as a [MASK]." and "The woman worked as a [MASK].", and more in its spirit. The distance between the two
distributions of answers is the Jensen-Shannon divergence in bits (Lin 1991, "Divergence measures based on the Shannon
entropy"): 0 where they are the same, 1 where they share nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.measure.quality.metrics import log_softmax
from bertport.measure.quality.model import make_batch
from bertport.measure.quality.samples import Sample
from bertport.measure.text import read_beginning
from bertport.runtime.errors import InputTextError
from bertport.runtime.excerpts import as_unicode, excerpt
from bertport.runtime.heads import MLM, output_of
from bertport.runtime.text.encoder import lone_surrogate

if TYPE_CHECKING:
    import os
    from collections.abc import Sized

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from bertport.measure.quality.model import Graph
    from bertport.measure.quality.samples import SampleTokenizer

__all__ = [
    "SHIPPED",
    "SHIPPED_FOR_LABELS",
    "PairAnswers",
    "Probe",
    "check_length",
    "jensen_shannon",
    "probe",
    "read_label_probe",
    "read_probe",
]

SHIPPED = Path(__file__).parent / "resources" / "bias-templates.json"
"""The templates that ship."""
SHIPPED_FOR_LABELS = SHIPPED.with_name("bias-templates-labels.json")
"""The templates that ship for classifiers, without a mask."""
MASK, SLOT = "[MASK]", "{}"
"""Placeholders in templates for the model's mask, and for a group."""
SHOWN = 5
"""Answers that are kept for each sentence."""
MOST = 2000
"""Pairs of sentences that a file may give."""
MOST_BYTES = 16 << 20
"""Bytes of such a file, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A set of templates."""

    name: str
    """Name in the report."""
    description: str
    """Where it is from and what it covers."""
    templates: tuple[str, ...]
    """Sentences with the slot `{}`, once each, and with the mask `[MASK]` once, or without it for classifiers."""
    groups: tuple[tuple[str, str], ...]
    """Words for the slot, two by two."""

    def pairs(self) -> list[tuple[int, str, str]]:
        """Return the number of the template and both sentences, templates in order."""
        return [
            (number, template.replace(SLOT, one), template.replace(SLOT, other))
            for number, template in enumerate(self.templates)
            for one, other in self.groups
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairAnswers:
    """A model's answers to the two sentences of a pair of the bias probe."""

    template: int
    """Number of the template."""
    a: str
    """The sentence with the first word."""
    b: str
    """The sentence with the second word."""
    distance: float
    """Distance of the two distributions of answers, in bits."""
    answers_a: tuple[tuple[str, float], ...]
    """The best answers to the first sentence, each with its probability."""
    answers_b: tuple[tuple[str, float], ...]
    """The best answers to the second sentence."""


def read_probe(path: str | os.PathLike[str] | None = None, *, mixed: bool = False) -> Probe:
    """Read templates with a mask: a JSON object with `templates` and `groups`, perhaps a `name` and a `description`.

    Args:
        path: The file; None for the one that ships.
        mixed: Leave out templates without a mask instead of refusing them; then there may be none left.

    Raises:
        PathError: when the file cannot be read.
        InputTextError: when it is not such an object; says what was found.
    """
    return _read(SHIPPED if path is None else Path(path), masks=1, mixed=mixed)


def read_label_probe(path: str | os.PathLike[str] | None = None, *, mixed: bool = False) -> Probe:
    """Read templates without a mask, for a classifier; all else is as `read_probe` has it."""
    return _read(SHIPPED_FOR_LABELS if path is None else Path(path), masks=0, mixed=mixed)


def _read(path: Path, *, masks: int, mixed: bool) -> Probe:
    what = f"one {SLOT} and one {MASK}" if masks else f"one {SLOT} and no {MASK}"
    expected = f'expected an object with "templates": sentences with {what}, and "groups": pairs of words'
    value = _json(path, expected)
    templates, groups = (value.get("templates"), value.get("groups")) if isinstance(value, dict) else (None, None)
    if not (isinstance(templates, list) and templates and isinstance(groups, list) and groups):
        raise InputTextError(f"{path} has no list of templates and of groups: {expected}")
    allowed = {0, 1} if mixed else {masks}
    for template in templates:
        if not isinstance(template, str) or template.count(SLOT) != 1 or template.count(MASK) not in allowed:
            raise InputTextError(f"{path}: the template {excerpt(template, 80)} does not have {what}: {expected}")
    for group in groups:
        if not isinstance(group, list) or len(group) != 2 or not all(isinstance(word, str) and word for word in group):  # noqa: PLR2004 — a pair
            raise InputTextError(f"{path}: the group {excerpt(group, 80)} is not two words: {expected}")
    for text in (*templates, *(word for group in groups for word in group)):
        if lone_surrogate(text):
            raise InputTextError(f"{path}: {excerpt(text)} has half of a surrogate pair, no character: mend it")
    if len(templates) * len(groups) > MOST:
        raise InputTextError(
            f"{path} makes {len(templates) * len(groups):,} pairs of sentences, at most {MOST:,}: leave some out"
        )
    return Probe(
        name=as_unicode(str(value.get("name", path.name))),
        description=as_unicode(str(value.get("description", ""))),
        templates=tuple(template for template in templates if template.count(MASK) == masks),
        groups=tuple((one, other) for one, other in groups),
    )


def _json(path: Path, expected: str) -> Any:  # noqa: ANN401 — whatever it holds
    """Return the JSON of a file of templates."""
    content = read_beginning(path, MOST_BYTES + 1, "templates", expected)
    if len(content) > MOST_BYTES:
        raise InputTextError(f"{path} has more than {MOST_BYTES:,} bytes, as no file of templates has: {expected}")
    try:
        return json.loads(content.decode("utf-8-sig"))  # editors on Windows write a byte order mark
    except (ValueError, RecursionError) as error:
        raise InputTextError(f"{path} is not JSON in UTF-8 ({error}): {expected}") from error


def probe(graph: Graph, tokenizer: SampleTokenizer, sentences: Probe, *, max_length: int) -> list[PairAnswers]:
    """Ask a model all sentences of a probe, with its own mask; return its answers pair by pair.

    Args:
        graph: The variant.
        tokenizer: The model's.
        sentences: The probe, whose templates have a mask.
        max_length: Longest input that the model takes, in tokens.

    Raises:
        InputTextError: for a sentence that is too long, or in which the tokenizer does not find one mask.
    """
    answers = []
    for template, one, other in sentences.pairs():
        first, second = (_answer(graph, tokenizer, text, template, max_length) for text in (one, other))
        answers.append(
            PairAnswers(
                template=template,
                a=one,
                b=other,
                distance=jensen_shannon(first, second),
                answers_a=_best(first, tokenizer.tokenizer),
                answers_b=_best(second, tokenizer.tokenizer),
            )
        )
    return answers


def jensen_shannon(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the Jensen-Shannon divergence, in bits, of two distributions given as log-probabilities (nats)."""
    middle = np.logaddexp(first, second) - np.log(2)
    nats = 0.5 * sum(float((np.exp(each) * (each - middle)).sum()) for each in (first, second))
    return min(1.0, max(0.0, nats / float(np.log(2))))


def check_length(ids: Sized, text: str, max_length: int) -> None:
    """See that a model takes a sentence of a probe.

    Args:
        ids: Its token ids, with special ones.
        text: The sentence.
        max_length: Longest input that the model takes, in tokens.

    Raises:
        InputTextError: for one that is too long.
    """
    if len(ids) > max_length:
        raise InputTextError(
            f"a sentence of the bias probe has {len(ids)} tokens and the model takes {max_length}: "
            f"shorten its template: {excerpt(text)}"
        )


def _answer(graph: Graph, tokenizer: SampleTokenizer, text: str, template: int, max_length: int) -> NDArray[np.float64]:
    mask = tokenizer.vocabulary.mask
    own = text.replace(MASK, tokenizer.tokenizer.id_to_token(mask))
    ids, types = tokenizer.around(tokenizer.ids(own))
    check_length(ids, text, max_length)
    positions = np.flatnonzero(ids == mask)
    if len(positions) != 1:
        raise InputTextError(f"the tokenizer finds {len(positions)} masks in {own!r}: write the mask as {MASK}, once")
    sample = Sample(text=template, input_ids=ids, token_type_ids=types, positions=positions, labels=ids[positions])
    answer: NDArray[np.float64] = log_softmax(graph.run(make_batch([sample]), [output_of(MLM)])[output_of(MLM)])[0]
    return answer


def _best(answer: NDArray[np.float64], tokenizer: Tokenizer) -> tuple[tuple[str, float], ...]:
    order = (int(index) for index in np.argsort(-answer, kind="stable"))
    named = ((_word(tokenizer, index), index) for index in order if tokenizer.id_to_token(index) is not None)
    return tuple((token, float(np.exp(answer[index]))) for token, index in islice(named, SHOWN))


def _word(tokenizer: Tokenizer, index: int) -> str:
    """Return a token as text, without the space that some vocabularies begin words with."""
    return str(tokenizer.decode([index], skip_special_tokens=False).strip() or tokenizer.id_to_token(index))
