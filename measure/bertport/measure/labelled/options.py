"""Options of commands that measure on labelled data: the file, the task, and what its columns and labels mean.

`--help` imports this module, so that what reads the data is imported when it is read.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bertport.runtime.errors import MissingHeadError, UsageError
from bertport.runtime.excerpts import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bertport.measure.labelled.data import Columns, LabelledData
    from bertport.runtime.bundle.manifest import Manifest

__all__ = ["COLUMN_HELP", "PROMPT_HELP", "TASKS_HELP", "DataChoice", "data_options"]

F = TypeVar("F", bound="Callable[..., Any]")

COLUMN_HELP = {
    "text": "the text, or the first of two",
    "text_pair": "the second text",
    "label": "the label or labels, a number, or the right choice",
    "score": "how alike two texts are",
    "tokens": "the words of a text",
    "tags": "a tag for each word",
    "question": "the question",
    "context": "the text that holds the answer",
    "answers": "the answers that count as right",
    "prompt": "the text that the choices go with",
    "choices": "the texts to choose from",
    "query": "the query",
    "documents": "the texts to rank",
    "relevance": "the relevance of each document",
    "positives": "the texts that a query should lead to",
}
"""Descriptions of the columns, by the names of `bertport.measure.labelled.data.Columns`."""
PROMPT_HELP = {
    "query_prompt_name": "The model's prompt before each query, or the first of two texts.  [default: query for "
    "queries]",
    "query_prompt": "Text before each query, or the first of two texts, in place of a prompt of the model.",
    "document_prompt_name": "The model's prompt before each document, or the second of two texts.  [default: document, "
    "passage or corpus for documents]",
    "document_prompt": "Text before each document, or the second of two texts, in place of a prompt of the model.",
}
"""Help of the options for prompts, by their names; those that take a text end in `prompt`."""
TASKS_HELP = (
    "text-classification, token-classification, question-answering, multiple-choice, text-ranking or "
    "sentence-similarity"
)
"""The tasks that labelled data measures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataChoice:
    """Labelled data to measure on, and the way to read it, as the options say."""

    data: str | None
    """The file; None for no labelled data."""
    task: str | None
    """The task; None for the one that the bundle has and the file's columns fit."""
    columns: Mapping[str, str]
    """The file's column for each name of `COLUMN_HELP` that was given."""
    label_map: Mapping[str, str]
    """The bundle's name for labels that the file calls otherwise."""
    positive: str | None
    """The label that counts as positive; None for what the metric takes."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """What queries and documents begin with, by each name of `PROMPT_HELP` that was given."""

    def read(self, manifest: Manifest, *, limit: int | None = None) -> LabelledData:
        """Return the data, read and checked.

        Args:
            manifest: The bundle's.
            limit: Take the first so many examples; all when not given.

        Raises:
            UsageError: where no file was given, or several tasks fit it; and what `read_labelled` raises.
        """
        from bertport.measure.labelled.data import Columns, read_labelled

        if self.data is None:
            raise UsageError("no labelled data was given: name the file with --data")
        columns = Columns(**self.columns)
        task = self._task(manifest, columns) if self.task is None else self.task
        return read_labelled(
            self.data, task, manifest, columns, label_map=self.label_map, prompts=self.prompts, limit=limit
        )

    def refuse_idle(self, *others: object) -> None:
        """Refuse settings of labelled data where there is none.

        Args:
            others: Further settings of the command that mean nothing without data; false where they are left out.

        Raises:
            UsageError: for such a setting.
        """
        if self.data is None and any((self.task, self.columns, self.label_map, self.positive, self.prompts, *others)):
            raise UsageError("options of labelled data were given without the data: name the file with --data")

    def _task(self, manifest: Manifest, columns: Columns) -> str:
        """Return the one task that the bundle does and whose columns the file has.

        Raises:
            MissingHeadError: where the bundle does none.
            UsageError: where several fit, or none of several.
        """
        from bertport.measure.labelled.kinds import TASK_KINDS

        possible = [task for task in TASK_KINDS if _does(task, manifest)]
        if not possible:
            raise MissingHeadError(
                f"{manifest.name} does none of the tasks that can be measured on labelled data "
                f"({', '.join(TASK_KINDS)}): "
                "use a bundle with the head of one"
            )
        if len(possible) == 1:
            return possible[0]
        first = _columns_of(str(self.data))
        if first is None:
            return possible[0]  # of no example there is nothing to tell, and reading says so
        there = first | columns.named().keys()
        fitting = [task for task in possible if _fits(task, manifest, there)]
        if len(fitting) == 1:
            return fitting[0]
        raise UsageError(
            f"{manifest.name} does {', '.join(possible)}, and the columns of {self.data} fit "
            f"{'several' if fitting else 'none'} of these: choose one with --task, and name its columns"
        )


def _does(task: str, manifest: Manifest) -> bool:
    """Return whether a bundle does a task in a form that labelled data measures."""
    from bertport.measure.labelled.kinds import kind_of

    try:
        kind_of(task, manifest, ())
    except UsageError:
        return False
    return True


def _fits(task: str, manifest: Manifest, there: set[str]) -> bool:
    """Return whether a task finds what it needs in columns of these names."""
    from bertport.measure.labelled.kinds import COLUMNS, kind_of

    named = {name for name, columns in COLUMNS.items() if name in there or there.intersection(columns)}
    return set(kind_of(task, manifest, named).needs) <= named


def _columns_of(path: str) -> set[str] | None:
    """Return the columns of a file's first record; None where it has none."""
    from bertport.measure.labelled.records import open_records

    first = open_records(path).first()
    return None if first is None else set(first.values)


def data_options(*, required: bool = False) -> Callable[[F], F]:
    """Return what adds the options that say which labelled data to measure on; the command gets them as `labelled`.

    Args:
        required: Whether the command cannot do without data.
    """
    options = (
        click.option(
            "--data",
            type=click.Path(),
            required=required,
            metavar="FILE",
            help="Labelled data: JSON lines, CSV or TSV (also .gz, .xz, .bz2), or Parquet.",
        ),
        click.option(
            "--task",
            metavar="TASK",
            help=f"{TASKS_HELP}.  [default: the one that the bundle does and the columns fit]",
        ),
        *(
            click.option(
                f"--{name.replace('_', '-')}-column",
                f"{name}_column",
                metavar="NAME",
                help=f"Column of {meaning}.",
            )
            for name, meaning in COLUMN_HELP.items()
        ),
        click.option(
            "--label-map",
            multiple=True,
            metavar="A=B",
            help="The data's label A is the bundle's label B; may be repeated.",
        ),
        click.option(
            "--positive", metavar="LABEL", help="The label that f1 is for.  [default: one of two, as a note says]"
        ),
        *(
            click.option(
                f"--{name.replace('_', '-')}", name, metavar="TEXT" if name.endswith("prompt") else "NAME", help=said
            )
            for name, said in PROMPT_HELP.items()
        ),
    )

    def adding(command: F) -> F:
        @functools.wraps(command)
        def gathering(**values: Any) -> Any:  # noqa: ANN401 — whatever the command takes and gives
            columns = {name: values.pop(f"{name}_column") for name in COLUMN_HELP}
            labelled = DataChoice(
                data=values.pop("data"),
                task=values.pop("task"),
                columns={name: column for name, column in columns.items() if column is not None},
                label_map=_label_map(values.pop("label_map")),
                positive=values.pop("positive"),
                prompts={name: value for name in PROMPT_HELP if (value := values.pop(name)) is not None},
            )
            return command(labelled=labelled, **values)

        wrapped: Any = gathering
        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped  # type: ignore[no-any-return]  # the command, with options

    return adding


def _label_map(pairs: tuple[str, ...]) -> dict[str, str]:
    """Return labels of the bundle by those of the data.

    Raises:
        UsageError: for what is no pair, and for a label with two meanings.
    """
    labels: dict[str, str] = {}
    for pair in pairs:
        of_data, equals, of_bundle = pair.partition("=")
        if not (equals and of_data and of_bundle):
            raise UsageError(f"a label map is written A=B, the data's label and the bundle's, not {excerpt(pair)}")
        if labels.setdefault(of_data, of_bundle) != of_bundle:
            raise UsageError(
                f"the data's label {excerpt(of_data)} is mapped to {excerpt(labels[of_data])} and to "
                f"{excerpt(of_bundle)}: choose one"
            )
    return labels
