"""The workloads of a comparison, made of the text given: MLPerf's scenarios, and batches of one length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bertport.measure.quality.model import read_tokenizer
from bertport.measure.speed.baselines import padded_tokens
from bertport.measure.speed.tasks import TIMED, Drawn, decodes, timed_task
from bertport.measure.speed.workload import SERVER, Shape, Texts
from bertport.runtime.errors import InputTextError
from bertport.runtime.text.tokenizer import Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

    from bertport.compare.codec import JSON
    from bertport.compare.entries import ComparedBundle
    from bertport.compare.presets import Preset
    from bertport.measure.labelled.data import LabelledData
    from bertport.measure.text import Text
    from bertport.runtime.bundle.manifest import Architecture

__all__ = [
    "COLD_START",
    "Inputs",
    "InputsSummary",
    "arrivals",
    "flops",
    "labelled_inputs",
    "make_inputs",
    "scenario",
    "server_name",
    "shapes",
]

LEVELS = (0, 10, 25, 50, 75, 90, 100)
"""Levels of the percentiles of lengths."""
SPARE = 4
"""Examples that are drawn for each that is timed: some may be too long."""
EMBEDDINGS = "embeddings"
TIMED_AS = {"sentence-similarity": EMBEDDINGS}
"""By task without a row of its own in `TIMED`: the task that is timed in its place."""
COLD_START = "cold start"
"""Name of the workload of fresh processes."""


class Encoding(Protocol):
    """Encoding of the package tokenizers, which ships no types: the properties that are read of it."""

    @property
    def word_ids(self) -> list[int | None]:
        """The word of each token; None for a special one."""

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Start and end of each token in the text, in characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputsSummary:
    """Summary of the inputs of the timed scenarios."""

    task: str
    """The task that is timed: the first of the table of timed tasks that every bundle has a head for."""
    texts: int
    """Number of texts."""
    cut: int
    """Number of texts that were cut because they were longer than a model takes."""
    real_tokens: int
    """Tokens of all texts."""
    padded_tokens_in_batches_of_8: int
    """The same where each text is padded to the longest of its batch."""
    padded_tokens_to_longest: int
    """The same where each text is padded to the longest of all."""
    lengths: tuple[int, ...]
    """Tokens of each text."""
    percentiles: dict[str, float]
    """Percentiles of the lengths, by level from `0` to `100`."""
    percentiles_of_all: dict[str, float]
    """Percentiles of the lengths of every text given, uncut."""

    def __post_init__(self) -> None:
        """See that the levels that pages show are there.

        Raises:
            ValueError: for one that is not.
        """
        missing = [str(level) for level in LEVELS if str(level) not in self.percentiles]
        if missing:
            raise ValueError(f"percentiles has no {', '.join(missing)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Inputs of the timed scenarios."""

    task: str
    """The task that is timed: a row of `bertport.measure.speed.tasks.TIMED`."""
    texts: tuple[JSON, ...]
    """Inputs of the task; for fill-mask texts with one mask each."""
    rows: tuple[tuple[int, ...], ...]
    """Tokens of each text, or pair of texts, that the model reads for each, with special ones, by the first bundle's
    tokenizer: several for a question with its choices or a query with its documents."""
    cut: int
    """Number of texts that were cut because they were longer than a model takes."""
    all_lengths: tuple[int, ...]
    """Tokens of every text given, uncut."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens that the model reads for each."""
        return tuple(map(sum, self.rows))

    def summary(self) -> InputsSummary:
        """Return counts and quantiles."""
        read = [length for row in self.rows for length in row]
        return InputsSummary(
            task=self.task,
            texts=len(self.texts),
            cut=self.cut,
            real_tokens=sum(self.lengths),
            padded_tokens_in_batches_of_8=padded_tokens(read),
            padded_tokens_to_longest=max(read) * len(read),
            lengths=self.lengths,
            percentiles=_percentiles(self.lengths),
            percentiles_of_all=_percentiles(self.all_lengths),
        )


def _percentiles(lengths: tuple[int, ...]) -> dict[str, float]:
    return {str(level): float(np.percentile(lengths, level)) for level in LEVELS}


def make_inputs(bundles: Sequence[ComparedBundle], texts: Sequence[Text], count: int, seed: int) -> Inputs:
    """Draw texts and make inputs of a task of them, so that their lengths are those of the text given.

    Raises:
        InputTextError: when no text has a word to mask.
    """
    tokenizers = [read_tokenizer(compared.bundle) for compared in bundles]
    room = min(compared.bundle.manifest.max_length for compared in bundles)
    # A text is one for all bundles: those whose masks are not the same are asked for something else.
    mask, *others = dict.fromkeys(Tokens.read(compared.bundle).mask_token for compared in bundles)
    row = timed_task([compared.bundle.manifest.heads for compared in bundles], None if others else mask)
    rng = np.random.default_rng([seed, 3])
    added = tokenizers[0].num_special_tokens_to_add(is_pair=False)
    most = max(1, int(row.room * room) - added)
    encoded = [tokenizers[0].encode(text.text, add_special_tokens=False) for text in texts]
    ends = [
        len(text.text) if len(encoding.ids) <= most else encoding.offsets[most - 1][1]
        for text, encoding in zip(texts, encoded, strict=True)
    ]
    chosen: list[JSON] = []
    cut = 0
    order = rng.permutation(len(texts)).tolist()
    for place, number in enumerate(order):
        if len(chosen) == count:
            break
        text, end = texts[number].text, ends[number]
        words = [span for span in _words(encoded[number]) if span[1] <= end]
        if (mask is not None and mask in text) or not words:
            continue
        beside = [order[(place + step) % len(order)] for step in range(1, row.others + 1)]
        drawn = Drawn(
            text=text[:end],
            words=words,
            word=int(rng.integers(len(words))),
            mask=mask,
            others=tuple(texts[other].text[: ends[other]] for other in beside),
        )
        asked = row.ask(drawn)
        if all(length <= room for tokenizer in tokenizers for length in _lengths(tokenizer, row.name, asked)):
            chosen.append(asked)
            cut += end < len(text)
    if not chosen:
        raise InputTextError(
            "the text has no word that could be masked, so there is nothing to time: give text in words"
        )
    return Inputs(
        task=row.name,
        texts=tuple(chosen),
        rows=tuple(tuple(_lengths(tokenizers[0], row.name, asked)) for asked in chosen),
        cut=cut,
        all_lengths=tuple(len(encoding.ids) + added for encoding in encoded),
    )


def labelled_inputs(bundles: Sequence[ComparedBundle], data: LabelledData, count: int, seed: int) -> Inputs:
    """Return examples drawn from labelled data, so that their lengths are those of the task, which fit every bundle.

    Raises:
        InputTextError: when none of those that were drawn fits.
    """
    tokenizers = [read_tokenizer(compared.bundle) for compared in bundles]
    room = min(compared.bundle.manifest.max_length for compared in bundles)
    task = TIMED_AS.get(data.task, data.task)
    drawn = np.random.default_rng([seed, 5]).permutation(len(data))[: SPARE * count].tolist()
    kept: dict[int, JSON] = dict.fromkeys(drawn)
    lengths: list[int] = []
    for number, example in enumerate(data.examples()):
        asked = _asked(task, example.inputs)
        lengths.append(sum(_lengths(tokenizers[0], task, asked)))
        if number in kept:
            kept[number] = asked
    fitting = [
        number
        for number in drawn
        if all(length <= room for tokenizer in tokenizers for length in _lengths(tokenizer, task, kept[number]))
    ][:count]
    if not fitting:
        raise InputTextError(
            f"the examples of {data.name} are longer than the {room:,} tokens of a bundle, so that there is nothing to "
            "time: give shorter ones"
        )
    return Inputs(
        task=task,
        texts=tuple(kept[number] for number in fitting),
        rows=tuple(tuple(_lengths(tokenizers[0], task, kept[number])) for number in fitting),
        cut=0,
        all_lengths=tuple(lengths),
    )


def _asked(task: str, inputs: JSON) -> JSON:
    """Return the input that is timed for an example: of words, the text they make up; of embeddings, the first text."""
    match inputs:
        case {"words": [*words]}:
            return " ".join(map(str, words))
        case {"prompt": prompt, "choices": choices}:
            return {"text": prompt, "choices": choices}
        case {"query": text} | [text, *_] if task == EMBEDDINGS:
            return text
    return inputs


def _lengths(tokenizer: Tokenizer, task: str, asked: JSON) -> list[int]:
    """Return the tokens of each text that a model reads for an input."""
    texts = TIMED[task].texts(asked)
    return [len(tokenizer.encode(*([text] if isinstance(text, str) else text)).ids) for text in texts]


def _words(encoding: Encoding) -> list[tuple[int, int]]:
    """Return where each word of letters begins and ends in the text."""
    spans: dict[int, tuple[int, int]] = {}
    for word, (begin, end) in zip(encoding.word_ids, encoding.offsets, strict=True):
        if word is not None:
            spans[word] = (spans.get(word, (begin, end))[0], end)
    return [span for span in spans.values() if span[1] > span[0]]


def scenario(name: str, inputs: Inputs, *, rate: float = 0.0, requests: int = 0, seed: int = 0) -> Texts:
    """Make a scenario's workload; `rate` (requests a second) and `requests` are those of Server."""
    return Texts(
        task=inputs.task,
        inputs=inputs.texts,
        parameters=dict(TIMED[inputs.task].parameters),
        scenario=name,
        arrivals=arrivals(rate, requests, seed) if name == SERVER else (),
    )


def arrivals(rate: float, requests: int, seed: int) -> tuple[float, ...]:
    """Draw a Poisson process: exponential gaps with a mean of 1/rate seconds, ascending times from the first gap."""
    gaps = np.random.default_rng([seed, 4]).exponential(1 / rate, size=requests)
    return tuple(float(arrival) for arrival in gaps.cumsum())


def shapes(bundles: Sequence[ComparedBundle], preset: Preset) -> dict[str, Shape]:
    """Make the workloads of one length, none longer than every bundle takes.

    One position is decoded in each row where every bundle has a head for it.
    """
    decoded = int(all(decodes(compared.bundle.manifest.heads) for compared in bundles))
    room = min(compared.bundle.manifest.max_length for compared in bundles)
    vocabulary = min(compared.bundle.manifest.architecture.vocab_size for compared in bundles)
    sizes = dict.fromkeys((rows, min(length, room)) for rows, length in preset.shapes)
    return {
        f"{rows}x{length}": Shape(rows=rows, length=length, masked=decoded, vocabulary=vocabulary)
        for rows, length in sizes
    }


def server_name(share: float) -> str:
    """Return the name of the Server scenario's workload at a share of the reference's rate."""
    return f"{SERVER} {share:g}"


def flops(shape: Architecture, rows: int, length: int, masked: int = 1) -> float:
    """Count the floating-point operations of a batch with `masked` positions decoded in each row.

    Per token and layer: 8h^2 (queries, keys, values, output) + 4hi (feed-forward) + 4Sh (attention); per decoded
    position 2h^2 + 2hV (transform and vocabulary). A multiplication and its addition are two operations. The pooler
    and everything that is not a matrix product are left out: below a hundredth.
    """
    hidden, inner = shape.hidden_size, shape.intermediate_size
    token = shape.layers * (8 * hidden**2 + 4 * hidden * inner + 4 * length * hidden)
    position = 2 * hidden**2 + 2 * hidden * shape.vocab_size
    return float(rows * (length * token + masked * position))
