"""report.json and report.csv: every figure, laid out for people and for programs."""

import copy
import csv
import dataclasses
import io
import json

import pytest

from bertport.compare.codec import laid_out
from bertport.compare.report.assembly import conclude
from bertport.compare.report.files import as_csv, as_json
from bertport.measure.budget import UNDECIDED
from bertport.measure.statistics import share
from tests.compare.conftest import typed


def test_the_layout_of_the_json_changes_nothing(report, document):
    changed = {**document, "text": "[\n {a}"}
    assert json.loads(laid_out(changed)) == changed
    assert len(as_json(report).splitlines()) < len(json.dumps(document, indent=1).splitlines()) / 2


def test_the_verdicts_are_in_the_table_of_figures(document):
    trained = copy.deepcopy(document)
    trained["bundles"][0]["weights"] = "trained"
    trained["settings"]["budget"] = {"nsp": 0.005}
    for row in trained["rows"]:
        if row["name"] == "noisy":
            row["quality"]["nsp"]["flips"] = dataclasses.asdict(share([1] + [0] * 59, [1] * 60))
    lines = list(csv.DictReader(io.StringIO(as_csv(conclude(typed(trained))))))
    [line] = [line for line in lines if line["figure"] == "budget.nsp"]
    assert (line["row"], line["verdict"], line["count"]) == ("noisy", UNDECIDED, "60")
    assert float(line["high"]) == pytest.approx(0.0894, abs=1e-4)
    assert {line["verdict"] for line in lines if not line["figure"].startswith("budget.")} == {""}
