"""A comparison on labelled data: what is refused before anything is measured, what is timed, and how it goes on."""

import json

import pytest
from click.testing import CliRunner

from bertport.compare.resume import JOURNAL
from bertport.compare.runner import LABELLED, PEAK, QUALITY, Comparison
from bertport.runtime.cli import app
from bertport.runtime.errors import InputTextError, MissingHeadError, UsageError
from tests.compare.conftest import Interrupting, choice


@pytest.fixture
def asked(make_options, labelled_bundle, tmp_path):
    """Make the options of a comparison on the labelled texts, or on others."""

    def make(path=labelled_bundle / "texts.jsonl", *, chosen=(), **changes):
        settings = {"bundles": (str(labelled_bundle / "bundle"),), "budget": "none", **changes}
        return make_options(tmp_path / "out", labelled=choice(path, **dict(chosen)), **settings)

    return make


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "holds no examples"),
        ([{"text": "a", "label": "green"}] * 9, "the label 'green' is none of the bundle's"),
        ([{"text": "a", "label": 0.5}] * 9, "label is the name or the number of a label, not 0.5"),
        ([{"text": "a"}] * 9, "there is no column label"),
        ([{"text": "a", "label": "neutral"}], "too short"),
    ],
)
def test_bad_data_is_refused_before_anything_is_measured(asked, tmp_path, lines, message):
    path = tmp_path / "bad.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(InputTextError, match=message):
        Comparison(asked(path))
    assert not (tmp_path / "out").exists()


def test_what_does_not_go_together_is_refused(asked, compared_bundle):
    with pytest.raises(UsageError, match="--random-weights says that labelled metrics mean nothing"):
        Comparison(asked(random_weights=True))
    with pytest.raises(MissingHeadError, match="sequence-classification"):
        Comparison(asked(bundles=(str(compared_bundle),), chosen={"task": "text-classification"}))
    with pytest.raises(UsageError, match="limit is a whole number from 1 up, not 0"):
        asked(limit=0)


def test_data_and_a_finished_report_are_not_taken_together(labelled_bundle, tmp_path):
    command = ["compare", "--from", "report.json", "--data", str(labelled_bundle / "texts.jsonl"), "--output"]
    done = CliRunner().invoke(app, [*command, str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "--from takes a report as it is: leave bundles, --data and --resume out" in done.stderr


def test_examples_of_the_data_are_timed(asked, labelled_bundle):
    comparison = Comparison(asked())
    lines = (labelled_bundle / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    assert comparison.inputs.task == "text-classification"
    assert len(comparison.inputs.texts) == 4
    assert set(comparison.inputs.texts) <= set(texts)
    assert len(comparison.inputs.all_lengths) == len(texts)


def test_an_interrupted_comparison_goes_on_and_gives_the_same(asked, labelled, tmp_path):
    Comparison(asked(), Interrupting(f"{LABELLED}noisy")).run()
    progress = Interrupting(PEAK)
    again = Comparison(asked(resume=True), progress).run()
    assert progress.begun[0] == f"{LABELLED}noisy"
    assert progress.begun.index(f"{LABELLED}noisy") < progress.begun.index(f"{QUALITY}fp32")
    [kept] = [row for row in labelled["rows"] if row["name"] == "noisy"]
    accuracy = again.labelled["noisy"].differences["accuracy"]
    assert accuracy.difference.value == kept["labelled"]["differences"]["accuracy"]["difference"]["value"]
    assert again.labelled["fp32"].figures.metrics["accuracy"].value == 0.75
    assert again.data.name == "texts.jsonl"
    with pytest.raises(UsageError, match="begun with another labelled data"):
        Comparison(asked(resume=True, limit=20))
    assert (tmp_path / "out" / JOURNAL).exists()
