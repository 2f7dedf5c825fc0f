"""Labelled rows: read, checked, turned into token ids, and put into batches without waste."""

import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from pretraining.errors import RecipeError

from .tasks import Task

UNLABELLED = -100
"""The target of a token that is not trained on: a special token, padding, or a word's second token and later ones."""
_POOL = 64
"""Batches that are sorted by length together: enough to leave little padding, few enough to keep the order random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One labelled row."""

    text: str | tuple[str, ...]
    """The text, or its words where each word has a tag."""
    text_pair: str | None = None
    """The second text of a pair."""
    target: int | float | tuple[int, ...]
    """The label's number, the score of a regression, or the number of each word's tag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Rows as token ids; each list has an entry a row."""

    input_ids: list[NDArray[np.int64]]
    """Token ids with special tokens. Shape of each: (tokens,)"""
    token_type_ids: list[NDArray[np.int64]]
    """0 for the first text and 1 for the second. Shape of each: (tokens,)"""
    targets: list[NDArray[Any]]
    """Label (int64) or score (float32), shape (); or the tag of each word's first token, shape (tokens,)."""

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
    """Return the file of a task's part, `<task>-<part>.jsonl`, plain or .xz, or none where neither is there."""
    paths = (directory / f"{task}-{part}.jsonl", directory / f"{task}-{part}.jsonl.xz")
    return next((path for path in paths if path.is_file()), None)


def read_rows(path: Path, task: Task) -> list[Row]:
    """Read the rows of a JSON lines file.

    Raises:
        RecipeError: for a line of another form, naming the line, and for a file without lines.
    """
    rows: list[Row] = []
    try:
        with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as lines:
            for line in lines:
                rows.append(parse_row(json.loads(line), task))  # noqa: PERF401 — the error below counts the rows so far
    except (ValueError, EOFError, lzma.LZMAError) as error:
        raise RecipeError(f"{path}, line {len(rows) + 1}: {error}: mend or remove the line") from error
    if not rows:
        raise RecipeError(f"{path} is empty: expected one JSON object a line")
    return rows


def parse_row(value: object, task: Task) -> Row:
    """Return the row that an object of a JSON line makes.

    Raises:
        RecipeError: when it has other columns, or a label that the task does not have.
    """
    match value:
        case {"tokens": [*words], "tags": [*tags]} if task.head == "token-classification":
            if len(words) != len(tags) or not words or not all(isinstance(word, str) for word in words):
                raise RecipeError(f"expected words and as many tags, found {len(words)} and {len(tags)}")
            return Row(text=tuple(words), target=tuple(_label(tag, task) for tag in tags))
        case {"text": str(text), "text_pair": str(pair), "label": label} if task.pair:
            return Row(text=text, text_pair=pair, target=_label(label, task))
        case {"text": str(text), "label": label} if task.head == "sequence-classification" and not task.pair:
            return Row(text=text, target=_label(label, task))
    columns = '"tokens", "tags"' if task.head == "token-classification" else '"text", "label"'
    columns = '"text", "text_pair", "label"' if task.pair else columns
    raise RecipeError(f"expected {{{columns}}}, found {json.dumps(value, ensure_ascii=False):.60}")


def _label(value: object, task: Task) -> Any:  # noqa: ANN401 — an int or a float, as the task has it
    if not task.labels:
        if isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value):
            return float(value)
        raise RecipeError(f"expected a number as label, found {json.dumps(value):.60}")
    if value not in task.labels:
        raise RecipeError(f"expected one of the labels {', '.join(task.labels)}, found {json.dumps(value):.60}")
    return task.labels.index(str(value))


def encode(rows: list[Row], tokenizer: Tokenizer, *, length: int) -> Encoded:
    """Turn rows into token ids, cut to `length` tokens (the longer text of a pair first)."""
    tokenizer.enable_truncation(length)
    words = isinstance(rows[0].text, tuple)
    texts: list[Any] = [
        list(row.text) if words else row.text if row.text_pair is None else (row.text, row.text_pair) for row in rows
    ]
    encodings = tokenizer.encode_batch(texts, is_pretokenized=words)
    return Encoded(
        input_ids=[np.asarray(each.ids, dtype=np.int64) for each in encodings],
        token_type_ids=[np.asarray(each.type_ids, dtype=np.int64) for each in encodings],
        targets=[_target(row, encoding) for row, encoding in zip(rows, encodings, strict=True)],
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
