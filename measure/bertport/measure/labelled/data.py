"""Labelled data: examples with their truth, read from a file in two passes, of which the first checks everything."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from bertport.measure.labelled.cells import Cells
from bertport.measure.labelled.kinds import (
    CHOICE,
    CLASSIFICATION,
    COLUMNS,
    KINDS,
    MULTI_LABEL,
    RANKING,
    REGRESSION,
    RETRIEVAL,
    SIMILARITY,
    TAGS,
    kind_of,
    labels_of,
)
from bertport.measure.labelled.labels import NAMES, read_label_values, shown
from bertport.measure.labelled.prompts import prompts_for
from bertport.measure.labelled.records import open_records
from bertport.measure.quality.entities import OUTSIDE, entity_type
from bertport.runtime.errors import BertportError, InputTextError, PathError, UsageError
from bertport.runtime.excerpts import as_unicode, excerpt

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence

    from bertport.measure.labelled.kinds import Kind
    from bertport.measure.labelled.prompts import Prompts
    from bertport.measure.labelled.records import Record, RecordFile
    from bertport.runtime.bundle.manifest import Manifest

__all__ = ["LEAST_EXAMPLES", "ChangedDataError", "Columns", "Example", "LabelledData", "read_labelled"]

LEAST_EXAMPLES = 8
"""Fewer examples than this say nothing about a model, with or without an interval."""
MOST_TEXTS = 200_000
"""Texts that queries lead to, at most: their vectors are held at once, 0.3 GB of 384 numbers each."""
MOST_VALUES = 1000
"""Different values in the place of labels that are kept, beside twice as many as there are labels."""


class ChangedDataError(PathError):
    """A file of labelled data that is not what was checked any more: what was measured on it is of two files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Columns of a file by content; None takes the columns of that name (a score may also stand in `label`)."""

    text: str | None = None
    """The text, or the first of two."""
    text_pair: str | None = None
    """The second text."""
    label: str | None = None
    """The label or labels, a regression's number, or the number of the right choice."""
    score: str | None = None
    """Similarity of the two texts."""
    tokens: str | None = None
    """The words of a text."""
    tags: str | None = None
    """A tag for each word."""
    question: str | None = None
    """The question."""
    context: str | None = None
    """The text that holds the answer."""
    answers: str | None = None
    """The answers that count as right."""
    prompt: str | None = None
    """The text that the choices go with."""
    choices: str | None = None
    """The texts to choose from."""
    query: str | None = None
    """The query."""
    documents: str | None = None
    """The texts that are ranked."""
    relevance: str | None = None
    """The relevance of each document: 0 for none."""
    positives: str | None = None
    """The texts that a query should lead to, among those of all queries."""

    def named(self) -> dict[str, str]:
        """Return the columns that are given, by their name here."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: column for name, column in given.items() if column is not None}


@dataclass(frozen=True, slots=True)
class Example:
    """One example."""

    inputs: Any
    """One input of the task, as `Model.predict` takes it; of similarity the two texts, of retrieval the query. They are
    the file's: what queries and documents begin with is not among them."""
    truth: Any
    """Ground truth, in the form of the kind (`bertport.measure.labelled.kinds`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledData:
    """A file of labelled examples that was read once and passed all checks."""

    task: str
    """The task."""
    kind: str
    """The kind of data: a key of `KINDS`."""
    name: str
    """The file's name."""
    fingerprint: str
    """`sha256:` and the SHA-256 of the file's bytes in hexadecimal."""
    labels: tuple[str, ...] | None
    """The head's labels, one per column; None where the truth is not made of labels."""
    label_form: str | None
    """Form of the labels in the file: names, ids, truth values; None where the truth is not made of labels."""
    columns: Mapping[str, str]
    """The file's column for each thing that was read."""
    truths: Sequence[Any]
    """The truth of each example, in order."""
    notes: tuple[str, ...]
    """Sentences on what is odd, but measurable."""
    file: RecordFile = field(repr=False)
    """The file."""
    numbers: Sequence[int] = field(repr=False)
    """The line of each example."""
    stamp: tuple[int, int] = field(repr=False)
    """Size and time of change of the file as it was checked."""
    prompts: Prompts | None = None
    """What queries and documents begin with; None for a task whose texts do not become vectors."""

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.truths)

    def where(self, index: int) -> str:
        """Return what a sentence calls an example, counted from 0: its file and line."""
        return self.file.where(self.numbers[index])

    def where_text(self, number: int) -> str:
        """Return what a sentence calls one of the texts that queries lead to: its file and the line where it is first.

        Args:
            number: Its number, as truths have it.
        """
        return self.where(next(index for index, truth in enumerate(self.truths) if number in truth))

    def examples(self) -> Iterator[Example]:
        """Yield the examples in order, read anew, holding one at a time.

        Raises:
            ChangedDataError: where the file has changed since it was checked.
        """
        for truth, inputs, _ in self._read_anew():
            yield Example(inputs, truth)

    def corpus(self) -> Iterator[str]:
        """Yield the texts that queries lead to, each once, in the order of their numbers.

        Raises:
            ChangedDataError: where the file has changed since it was checked.
        """
        count = 0
        for truth, _, texts in self._read_anew():
            for number, text in zip(truth, dict.fromkeys(texts), strict=False):  # a file that changes may have others
                if number == count:
                    yield text
                    count += 1

    def _read_anew(self) -> Iterator[tuple[Any, Any, Any]]:
        """Yield of each record its truth as it was checked, and its input and truth as the file has them now.

        A file that another process writes to meanwhile is found at its end, by all of its bytes: what writes a file may
        keep its time.
        """
        self.check_unchanged(whole=False)
        kind = KINDS[self.kind]
        try:
            for truth, record in zip(self.truths, self.file, strict=False):  # what is beyond a limit was not checked
                yield truth, *kind.read(Cells(self.file, record, self.columns))
        except BertportError:  # of what could be read when it was checked
            self.check_unchanged()
            raise
        self.check_unchanged()

    def check_unchanged(self, *, whole: bool = True) -> None:
        """See that the file is what was checked.

        Args:
            whole: Whether all of its bytes are compared, and not its size and its time alone.

        Raises:
            ChangedDataError: where it is not, or cannot be read.
        """
        try:
            unchanged = _stamp(self.file) == self.stamp and not (whole and _sha256(self.file) != self.fingerprint)
        except PathError:
            unchanged = False
        if not unchanged:
            raise ChangedDataError(f"{as_unicode(str(self.file.path))} has changed since it was checked: start again")


def read_labelled(  # noqa: PLR0913 — what is read, and how
    path: str | os.PathLike[str],
    task: str,
    manifest: Manifest,
    columns: Columns | None = None,
    *,
    label_map: Mapping[str, str] | None = None,
    prompts: Mapping[str, str] | None = None,
    limit: int | None = None,
) -> LabelledData:
    """Read and check a file of labelled examples, one at a time: its truths are kept, its inputs are not.

    JSON lines (`.jsonl`, `.ndjson`), CSV, TSV, these perhaps compressed (`.gz`, `.xz`, `.bz2`), or Parquet. Lists are
    written as JSON in a cell of CSV or TSV.

    Args:
        path: The file.
        task: A task that can be measured, for example `text-classification`.
        manifest: The bundle's, which says what labels there are.
        columns: Which column holds what; those of the names of `Columns` when not given.
        label_map: The bundle's name for labels that the file calls otherwise; of tags also for types of entities.
        prompts: What queries and documents begin with, as `bertport.measure.labelled.prompts.prompts_for` takes it.
        limit: Read so many examples, the first of the file; all when not given.

    Raises:
        PathError: when the file cannot be read.
        InputTextError: for an example that is none, an unknown label, too few examples, or truths that nothing can be
            measured by; the sentence names the line.
        UnknownNameError, MissingHeadError: for a task that cannot be measured, or that the bundle cannot do.
        UsageError: for columns, a map, prompts or a limit that cannot be.
        MissingDependencyError: for Parquet without pyarrow.
    """
    if limit is not None and limit < LEAST_EXAMPLES:
        raise UsageError(
            f"a limit of {limit:,} examples is too small to measure on: take {LEAST_EXAMPLES} at least, or all"
        )
    file = open_records(path)
    stamp = _stamp(file)
    first_pass = _Pass(file, task, manifest, columns or Columns(), prompts or {})
    first_pass.take(limit)
    fingerprint = _sha256(file)
    if _stamp(file) != stamp:
        raise PathError(f"{file.path} changed while it was checked: start again")
    return first_pass.checked(label_map or {}, fingerprint, stamp)


class _Pass:
    """The first pass over a file: what it found so far."""

    def __init__(
        self, file: RecordFile, task: str, manifest: Manifest, columns: Columns, prompts: Mapping[str, str]
    ) -> None:
        kind_of(task, manifest, ())  # before the file is opened
        self.file, self.task, self.manifest, self.asked = file, task, manifest, columns.named()
        self.asked_prompts = prompts
        self.prompts: Prompts | None = None
        self.kind: Kind | None = None
        self.columns: dict[str, str] = {}
        self.pairs = False
        """Whether some record has a second text."""
        self.labels: tuple[str, ...] | None = None
        self.truths: list[Any] = []
        self.numbers = array("Q")
        self.values: dict[tuple[type, str | int], tuple[int, str]] = {}
        """The number of each value in the place of a label, and where it is first; a truth value is no number."""
        self.corpus: dict[bytes, int] = {}
        """The number of each text that a query leads to, by its digest: the texts themselves may be many."""

    def take(self, limit: int | None) -> None:
        """Check so many records, all where None, and keep their truths; the first tells the kind and its columns."""
        first = self.file.first()
        if first is None:
            return
        self.kind = self._kind(first)
        self.prompts = prompts_for(self.task, self.kind.name, self.manifest, self.asked_prompts)
        self.file = replace(self.file, columns=frozenset(self.columns.values()))
        for record in islice(self.file, limit):
            self._take(self.kind, record)

    def _take(self, kind: Kind, record: Record) -> None:
        cells = Cells(self.file, record, self.columns)
        self.pairs |= "text_pair" in cells
        if self.asked.get("text_pair") and self.file.typed and self.asked["text_pair"] not in record.values:
            cells.value("text_pair")
        _, truth = kind.read(cells)
        if kind.labelled:
            truth = tuple(self._number(value, record) for value in truth)
        elif kind.name == RETRIEVAL:
            truth = tuple(self._text_number(text) for text in dict.fromkeys(truth))
        self.truths.append(truth)
        self.numbers.append(record.number)

    def _kind(self, record: Record) -> Kind:
        """Return the kind of the data, by the columns of its first record."""
        there = record.values.keys()
        for name, column in self.asked.items():
            if column not in there:
                raise self._no_column(f"{column} (named for {name.replace('_', ' ')})", record)
        found = {name: column for name, names in COLUMNS.items() for column in reversed(names) if column in there}
        named = found | self.asked
        kind = kind_of(self.task, self.manifest, named)
        for name in kind.needs:
            if name not in named:
                raise self._no_column(name, record)
        self.columns = {name: named[name] for name in (*kind.needs, *kind.may) if name in named}
        unused = sorted(self.asked.keys() - self.columns.keys())
        if unused:
            raise UsageError(
                f"a column is named for {unused[0]}, which {self.task} does not read "
                f"({', '.join((*kind.needs, *kind.may))}): leave it out"
            )
        if kind.may and self.file.typed and "text_pair" not in named:
            self.columns["text_pair"] = "text_pair"  # a later record may have it
        self.labels = labels_of(self.task, self.manifest) if kind.labelled else None
        return kind

    def _no_column(self, name: str, record: Record) -> InputTextError:
        return InputTextError(
            f"{self.file.where(record.number)}: there is no column {name} (columns: {shown(map(str, record.values))}): "
            "name the column that holds it"
        )

    def _number(self, value: str | int, record: Record) -> int:
        """Return the number of a value in the place of a label."""
        key = (type(value), value)
        known = self.values.get(key)
        if known is None:
            known = self.values[key] = (len(self.values), self.file.where(record.number))
            if len(self.values) > MOST_VALUES + 2 * len(self.labels or ()):
                self._names({})
                raise InputTextError(
                    f"{self.file.path} has more than {MOST_VALUES:,} different values in "
                    f"{self.columns.get('label') or self.columns['tags']}: name the column of labels"
                )
        return known[0]

    def _text_number(self, text: str) -> int:
        """Return the number of a text that a query leads to."""
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if len(self.corpus) >= MOST_TEXTS and digest not in self.corpus:
            raise InputTextError(
                f"{self.file.path} has more than {MOST_TEXTS:,} texts to find, and all their vectors are in memory: "
                "give fewer"
            )
        return self.corpus.setdefault(digest, len(self.corpus))

    def _names(self, label_map: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
        """Return how the file writes labels, and the label behind each of its values."""
        values = [(value, place) for (_, value), (_, place) in self.values.items()]
        tags = self.kind is not None and self.kind.name == TAGS
        reading = read_label_values(values, self.labels or (), label_map, tags=tags)
        return reading.form, reading.labels

    def checked(self, label_map: Mapping[str, str], fingerprint: str, stamp: tuple[int, int]) -> LabelledData:
        """Return the data, once all records were taken."""
        if self.kind is None:
            raise InputTextError(f"{self.file.path} holds no examples: give a file with an example a line")
        if len(self.truths) < LEAST_EXAMPLES:
            raise InputTextError(
                f"{self.file.path} is too short: {len(self.truths)} example{'s'[: len(self.truths) - 1]}, "
                f"at least {LEAST_EXAMPLES} are needed: give more"
            )
        if label_map and not self.kind.labelled:
            raise UsageError(f"a label map is for labels, and data of {self.kind.name} has none: leave it out")
        form: str | None = None
        truths: Sequence[Any] = self.truths
        if self.kind.labelled:
            form, names = self._names(label_map)
            truths = self._labelled(names)
        elif self.kind.name == CHOICE:
            truths = self._chosen()
        notes = self._notes(form, truths)
        return LabelledData(
            task=self.task,
            kind=self.kind.name,
            name=as_unicode(self.file.path.name),
            fingerprint=fingerprint,
            labels=self.labels,
            label_form=form,
            columns={name: column for name, column in self.columns.items() if name != "text_pair" or self.pairs},
            truths=truths,
            notes=tuple(notes),
            file=self.file,
            numbers=self.numbers,
            stamp=stamp,
            prompts=self.prompts,
        )

    def _labelled(self, names: tuple[str, ...]) -> list[Any]:
        """Return the truths as columns of the head's labels, of tags as the bundle's tags."""
        if self.kind is not None and self.kind.name == TAGS:
            return [tuple(names[number] for number in numbers) for numbers in self.truths]
        by_name: dict[str, int] = {}
        for column, label in enumerate(self.labels or ()):
            by_name.setdefault(label, column)
        columns = [by_name[name] for name in names]
        if self.kind is not None and self.kind.name == CLASSIFICATION:
            return [columns[number] for (number,) in self.truths]
        return [tuple(sorted({columns[number] for number in numbers})) for numbers in self.truths]

    def _chosen(self) -> list[int]:
        """Return the numbers of the right choices; whether labels are texts or numbers is decided once for the file."""
        texts, numbers = (all(truth[form] is not None for truth in self.truths) for form in range(2))
        chosen = []
        for (by_text, by_number), number in zip(self.truths, self.numbers, strict=True):
            if texts == numbers and None not in {by_text, by_number} and by_text != by_number:
                raise InputTextError(
                    f"{self.file.where(number)}: the label is the text of choice {by_text} and the number of choice "
                    f"{by_number} (counted from 0): give JSON lines, in which a number is not a text"
                )
            chosen.append(by_number if by_text is None or (numbers and not texts) else by_text)
        return chosen

    def _notes(self, form: str | None, truths: Sequence[Any]) -> list[str]:
        """Return sentences on what is odd; InputTextError for truths that nothing can be measured by."""
        notes = [self.prompts.note] if self.prompts and self.prompts.note else []
        labels, kind, name = self.labels or (), self.kind.name if self.kind else "", as_unicode(self.file.path.name)
        if form is not None and form != NAMES:
            behind = ", ".join(f"{index} is {label}" for index, label in enumerate(labels[:8]))
            notes.append(f"{name} writes labels as {form}, read by the bundle's order: {behind}")
        if kind == CLASSIFICATION:
            there = Counter(labels[truth] for truth in truths)
        elif kind == MULTI_LABEL:
            there = Counter(labels[column] for truth in truths for column in truth)
        elif kind == TAGS:
            there = Counter(entity_type(tag) for truth in truths for tag in truth)
            labels = tuple(dict.fromkeys(entity_type(label) for label in labels if label != OUTSIDE))
        else:
            self._refuse_nothing_to_measure(kind, truths)
            return notes
        absent = [label for label in labels if not there[label]]
        if absent:
            notes.append(
                f"{len(absent):,} of the bundle's {len(labels):,} labels never occur{'s'[len(absent) - 1 :]} in "
                f"{name}: {shown(absent)}"
            )
        return notes

    def _refuse_nothing_to_measure(self, kind: str, truths: Sequence[Any]) -> None:
        """Raise InputTextError for truths by which no metric of their kind is defined."""
        if kind in {REGRESSION, SIMILARITY} and all(truth == truths[0] for truth in truths):
            raise InputTextError(
                f"every one of the {len(truths):,} numbers of {self.file.path} is {excerpt(truths[0])}, and a "
                "correlation needs different ones: give data with different numbers"
            )
        if kind == RANKING and not any(any(truth) for truth in truths):
            raise InputTextError(
                f"no document of {self.file.path} is relevant: give the relevance of each, above 0 for what fits"
            )


def _stamp(file: RecordFile) -> tuple[int, int]:
    try:
        state = file.path.stat()
    except OSError as error:
        raise PathError(f"cannot read the data {file.path} ({error.strerror}): start again") from error
    return state.st_size, state.st_mtime_ns


def _sha256(file: RecordFile) -> str:
    """Return the digest of the file's bytes."""
    try:
        with file.path.open("rb") as stream:
            return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
    except OSError as error:
        raise PathError(f"cannot read the data {file.path} ({error.strerror}): start again") from error
