"""Labelled rows: read, checked, turned into token ids, and put into batches without waste."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from bertport.measure.labelled.cells import Cells
from bertport.measure.labelled.records import COMPRESSIONS, open_records
from bertport.runtime.excerpts import excerpt
from pretraining.errors import RecipeError

from .tasks import Task

UNLABELLED = -100
"""The target of a token that is not trained on: a special token, padding, or a word's second token and later ones."""
_COLUMNS = {name: name for name in ("text", "text_pair", "label", "tokens", "tags", "question", "context", "answers")}
_POOL = 64
"""Batches that are sorted by length together: enough to leave little padding, few enough to keep the order random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One labelled row."""

    text: str | tuple[str, ...]
    """The text, or its words where each word has a tag; of a question, the question."""
    text_pair: str | None = None
    """The second text of a pair; of a question, the context that holds the answer."""
    target: int | float | tuple[int, ...]
    """The label's number, a score, the number of each word's tag, or where the answer is in the context."""
    answers: tuple[str, ...] = ()
    """The answers that count as right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Rows as token ids; each list has an entry a row."""

    input_ids: list[NDArray[np.int64]]
    """Token ids with special tokens. Shape of each: (tokens,)"""
    token_type_ids: list[NDArray[np.int64]]
    """0 for the first text and 1 for the second. Shape of each: (tokens,)"""
    targets: list[NDArray[Any]]
    """Label (int64) or score (float32), shape (); the tag of each word's first token, shape (tokens,); or the
    answer's first and last token, shape (2,), both 0 where the answer is cut away."""
    offsets: list[NDArray[np.int64]]
    """Characters of each token in the context, [start, end), or -1 elsewhere; only of questions. Shape of each:
    (tokens, 2)"""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.input_ids)

    def batch(self, rows: NDArray[np.int64], *, pad: int) -> dict[str, torch.Tensor]:
        """Return some rows padded to the longest: input_ids, attention_mask, token_type_ids and targets."""
        ids = [torch.from_numpy(self.input_ids[row]) for row in rows]
        types = [torch.from_numpy(self.token_type_ids[row]) for row in rows]
        targets = [torch.from_numpy(self.targets[row]) for row in rows]
        padded = torch.nn.utils.rnn.pad_sequence
        return {
            "input_ids": padded(ids, batch_first=True, padding_value=pad),
            "attention_mask": padded([torch.ones_like(each) for each in ids], batch_first=True),
            "token_type_ids": padded(types, batch_first=True),
            "targets": padded(targets, batch_first=True, padding_value=UNLABELLED)
            if targets[0].ndim
            else torch.stack(targets),
        }


def data_file(directory: Path, task: str, part: str) -> Path | None:
    """Return the file of a task's part, `<task>-<part>.jsonl`, perhaps compressed, or none where none is there."""
    paths = (directory / f"{task}-{part}.jsonl{compression}" for compression in ("", *COMPRESSIONS))
    return next((path for path in paths if path.is_file()), None)


def read_rows(path: Path, task: Task) -> list[Row]:
    """Read the rows of a file.

    Raises:
        RecipeError: for a label that the task does not have, naming the line, and for a file without rows.
        BertportError: for a file that cannot be read, or a line of another form, naming the line.
    """
    file = open_records(path)
    rows = [_row(Cells(file, record, _COLUMNS, advice="correct or remove the line"), task) for record in file]
    if not rows:
        raise RecipeError(f"{path} is empty: expected one JSON object a line")
    return rows


def absent_labels(rows: list[Row], task: Task) -> tuple[str, ...]:
    """Return the labels of a task that no row has; none of a task without labels."""
    if not task.labels:
        return ()
    targets = (row.target if isinstance(row.target, tuple) else (row.target,) for row in rows)
    there = {number for of_row in targets for number in of_row}
    return tuple(label for number, label in enumerate(task.labels) if number not in there)


def _row(cells: Cells, task: Task) -> Row:
    if task.head == "token-classification":
        words, tags = cells.texts("tokens"), cells.values("tags")
        if len(words) != len(tags):
            cells.wrong("tags", f"a list of {len(words):,} tags, one for each token")
        return Row(text=tuple(words), target=tuple(_number(cells, tag, task) for tag in tags))
    if task.head == "question-answering":
        return _question(cells)
    text, pair = cells.text("text"), cells.text("text_pair") if task.pair else None
    target = _number(cells, cells.value("label"), task) if task.labels else cells.number("label")
    return Row(text=text, text_pair=pair, target=target)


def _question(cells: Cells) -> Row:
    context, answers = cells.text("context"), cells.mapping("answers")
    match answers:
        case {"text": [str(text), *_] as texts, "answer_start": [int(begin), *_]} if (
            text and context[begin : begin + len(text)] == text and all(isinstance(other, str) for other in texts)
        ):
            place = begin, begin + len(text)
        case _:
            cells.wrong("answers", "an object whose text stands at answer_start in the context")
    return Row(text=cells.text("question"), text_pair=context, target=place, answers=tuple(texts))


def _number(cells: Cells, label: object, task: Task) -> int:
    """Return the place of a label among the task's."""
    if not isinstance(label, str) or label not in task.labels:
        raise RecipeError(
            f"{cells.file.where(cells.record.number)}: {excerpt(label)} is none of the task's labels "
            f"({', '.join(task.labels)}): correct or remove the line"
        )
    return task.labels.index(label)


def encode(rows: list[Row], tokenizer: Tokenizer, *, length: int) -> Encoded:
    """Turn rows into token ids, cut to `length` tokens, the longer text of a pair first."""
    words, asked = isinstance(rows[0].text, tuple), bool(rows[0].answers)
    tokenizer.enable_truncation(length)
    texts: list[Any] = [
        list(row.text) if words else row.text if row.text_pair is None else (row.text, row.text_pair) for row in rows
    ]
    encodings = tokenizer.encode_batch(texts, is_pretokenized=words)
    offsets = [_offsets(encoding) for encoding in encodings] if asked else []
    targets = map(_span, rows, offsets) if asked else map(_target, rows, encodings)
    return Encoded(
        input_ids=[np.asarray(encoding.ids, dtype=np.int64) for encoding in encodings],
        token_type_ids=[np.asarray(encoding.type_ids, dtype=np.int64) for encoding in encodings],
        targets=list(targets),
        offsets=offsets,
    )


def _target(row: Row, encoding: Encoding) -> NDArray[Any]:
    if isinstance(row.target, float):
        return np.asarray(row.target, dtype=np.float32)
    if isinstance(row.target, int):
        return np.asarray(row.target, dtype=np.int64)
    tags = np.full(len(encoding.ids), UNLABELLED, dtype=np.int64)
    for word, token in first_tokens(encoding).items():
        tags[token] = row.target[word]
    return tags


def _offsets(encoding: Encoding) -> NDArray[np.int64]:
    inside = np.asarray([sequence == 1 for sequence in encoding.sequence_ids])
    return np.where(inside[:, None], np.asarray(encoding.offsets, dtype=np.int64), -1)


def _span(row: Row, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first and the last token that hold a part of the answer."""
    begin, end = row.target  # type: ignore[misc]  # a question's target has two numbers
    (tokens,) = np.nonzero((offsets[:, 1] > begin) & (offsets[:, 0] < end) & (offsets[:, 0] >= 0))
    if not len(tokens) or offsets[tokens[-1], 1] < end:
        return np.zeros(2, dtype=np.int64)
    return tokens[[0, -1]]


def first_tokens(encoding: Encoding) -> dict[int, int]:
    """Return the position of each word's first token, by the word's number; cut words are not in it."""
    firsts: dict[int, int] = {}
    for token, word in enumerate(encoding.word_ids):
        if word is not None:
            firsts.setdefault(word, token)
    return firsts


def epoch(data: Encoded, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Yield an epoch's batches of row numbers: random, with rows of nearly one length in a batch."""
    order = rng.permutation(len(data))
    lengths = np.asarray([len(ids) for ids in data.input_ids])
    batches: list[NDArray[np.int64]] = []
    for begin in range(0, len(order), size * _POOL):
        pool = order[begin : begin + size * _POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[at : at + size] for at in range(0, len(pool), size)]
    for number in rng.permutation(len(batches)):
        yield batches[number]
