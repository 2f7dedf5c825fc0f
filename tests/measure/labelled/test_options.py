"""The options that say which labelled data to measure on: what they become, and which task they lead to."""

from __future__ import annotations

import dataclasses
import inspect

import click
import pytest
from click.testing import CliRunner

from bertport.measure.labelled import data, kinds, options
from bertport.measure.labelled.options import COLUMN_HELP, TASKS_HELP, DataChoice, data_options
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import InputTextError, MissingHeadError, UsageError
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION
from tests.heads import head_bundle

CHOICE = DataChoice(data=None, task=None, columns={}, label_map={}, positive=None)


def chosen(*arguments):
    """The options as a command gets them."""
    taken = []

    @click.command()
    @data_options()
    def command(*, labelled):
        taken.append(labelled)

    done = CliRunner().invoke(command, list(arguments))
    if done.exception:
        raise done.exception
    return taken[0]


def test_nothing_is_chosen_without_options():
    assert chosen() == CHOICE


def test_every_option_is_taken():
    given = chosen(
        *("--data", "a.csv", "--task", "text-classification", "--text-column", "first", "--text-pair-column", "second"),
        *("--label-map", "yes=positive", "--label-map", "a=b=c", "--positive", "positive"),
        *("--query-prompt-name", "query", "--document-prompt", ""),
    )
    assert given == DataChoice(
        data="a.csv",
        task="text-classification",
        columns={"text": "first", "text_pair": "second"},
        label_map={"yes": "positive", "a": "b=c"},
        positive="positive",
        prompts={"query_prompt_name": "query", "document_prompt": ""},
    )


@pytest.mark.parametrize(
    ("maps", "said"),
    [
        (["yes"], "written A=B, the data's label and the bundle's, not 'yes'"),
        (["=b"], "written A=B"),
        (["a="], "written A=B"),
        (["a=b", "a=c"], "the data's label 'a' is mapped to 'b' and to 'c': choose one"),
    ],
)
def test_a_label_map_that_is_none(maps, said):
    with pytest.raises(UsageError, match=said):
        chosen(*(part for one in maps for part in ("--label-map", one)))


def test_names_are_those_of_the_data():
    assert list(COLUMN_HELP) == [field.name for field in dataclasses.fields(data.Columns)]
    assert set(TASKS_HELP.replace(" or ", ", ").split(", ")) == set(kinds.TASK_KINDS)


def test_help_imports_neither_numpy_nor_what_reads_the_data():
    imports = [line for line in inspect.getsource(options).splitlines() if line.startswith(("import", "from"))]
    assert not [line for line in imports if "numpy" in line or "labelled" in line]


def test_no_file_is_one_sentence(manifest):
    with pytest.raises(UsageError, match="no labelled data was given: name the file with --data"):
        CHOICE.read(manifest)


def test_the_task_follows_from_bundle_and_columns(tmp_path_factory, tmp_path):
    """A head of one label makes both a regression and a ranker."""
    settings = {"labels": ["LABEL_0"], "problem_type": "regression"}
    one_label = Bundle.open(head_bundle(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION, **settings)[1]).manifest
    rating = tmp_path / "rating.csv"
    rating.write_text("text,label\n" + "".join(f"bread {number},{number}\n" for number in range(9)))
    assert dataclasses.replace(CHOICE, data=str(rating)).read(one_label).task == "text-classification"
    ranking = tmp_path / "ranking.jsonl"
    ranking.write_text('{"query": "a", "documents": ["b", "c"], "relevance": [0, 1]}\n' * 9)
    assert dataclasses.replace(CHOICE, data=str(ranking)).read(one_label).task == "text-ranking"
    both = tmp_path / "both.jsonl"
    both.write_text('{"text": "a", "label": 1, "query": "a", "documents": ["b"], "relevance": [1]}\n')
    with pytest.raises(UsageError, match=r"does text-classification, text-ranking, .* fit several of these: choose"):
        dataclasses.replace(CHOICE, data=str(both)).read(one_label)
    other = tmp_path / "other.csv"
    other.write_text("sentence,stars\na,1\n")
    with pytest.raises(UsageError, match="fit none of these: choose one with --task, and name its columns"):
        dataclasses.replace(CHOICE, data=str(other)).read(one_label)
    empty = tmp_path / "empty.csv"
    empty.write_text("text,label\n")
    with pytest.raises(InputTextError, match=r"empty\.csv holds no examples: give a file with an example a line"):
        dataclasses.replace(CHOICE, data=str(empty)).read(one_label)
    named = dataclasses.replace(CHOICE, data=str(other), columns={"text": "sentence", "label": "stars"})
    with pytest.raises(InputTextError, match="too short"):
        named.read(one_label)
    with pytest.raises(InputTextError, match="no column text"):
        dataclasses.replace(CHOICE, data=str(other), task="text-classification").read(one_label)


def test_a_bundle_without_a_head_for_a_task(tiny_bundle, tmp_path):
    with pytest.raises(MissingHeadError, match="does none of the tasks that can be measured on labelled data"):
        dataclasses.replace(CHOICE, data=str(tmp_path / "a.csv")).read(Bundle.open(tiny_bundle).manifest)
