"""A head that nobody knew before is in every part of the report by its row in measure's table alone."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from bertport.compare.report.assembly import conclude
from bertport.compare.report.document import read_report
from bertport.compare.report.files import as_csv, as_json
from bertport.compare.report.html import html
from bertport.compare.report.markdown import markdown
from bertport.compare.report.plots import plots
from bertport.compare.report.regressions import differences, parse_tolerance
from bertport.compare.report.schema import report_schema
from bertport.compare.report.sections import sections
from bertport.measure.quality import heads
from bertport.measure.quality.heads import HEADS
from bertport.measure.quality.results import HeadFigures
from bertport.measure.quality.rows import Column, Head, Limit, Moved
from bertport.measure.quality.samples import TEXTS
from bertport.measure.statistics import Difference, Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics(HeadFigures):
    """A head that tells a text's topic."""

    agreement: Estimate
    """Share of texts with fp32's topic."""
    score_reference: Estimate
    """Score of fp32, of 10."""
    score_candidate: Estimate
    """Score of the variant."""
    score_difference: Difference
    """Candidate minus reference."""

    @property
    def distance(self):
        """Share of texts with another topic."""
        return 1 - self.agreement.value


ROW = Head(
    name="topic",
    output="topic_logits",
    samples=frozenset({TEXTS}),
    columns=(),
    compare=lambda *_: None,
    summarize=lambda *_: None,
    results=Topics,
    figures=(),
    title="Topics",
    caption="{positions} texts of {texts} documents.",
    meaning="TOPIC is the head that tells what a text is about.",
    reported=(
        Column(
            key="score_candidate",
            title="topic score",
            heading="score",
            form=".2f",
            labelled=True,
            headline=True,
            more_is_better=True,
        ),
        Column(
            key="agreement",
            title="topic agreement",
            heading="agreement",
            form=".1%",
            headline=True,
            meaning="Topic agreement: texts with fp32's topic.",
            cost="of texts have fp32's topic",
            more_is_better=True,
        ),
    ),
    tests=(
        heads.Test(
            key="score_difference",
            reference="score_reference",
            candidate="score_candidate",
            title="topic score",
            form="+.2f",
            unit="texts",
            more_is_better=True,
        ),
    ),
    moved=(Moved(key="score", name="topic_score", title="score", unit="points"),),
    limits=(
        Limit(
            name="topic",
            meaning="topic agreement",
            path=("topic", "agreement"),
            at_least=True,
            form=".1%",
            fine=".2%",
            counts=True,
            unit="texts",
        ),
    ),
)


def estimate(value, arm=0.001):
    return {"value": value, "low": value - arm, "high": value + arm, "count": 1000, "clusters": 900}


def figures(agreement, score):
    return {
        "agreement": estimate(agreement),
        "score_reference": estimate(7.5),
        "score_candidate": estimate(score),
        "score_difference": {"difference": estimate(score - 7.5), "p_value": 0.001, "test": "bootstrap"},
    }


@pytest.fixture
def with_topics(document, monkeypatch):
    """The document as if its weights were trained, with a head for topics, of which `noisy` answers 99% alike."""
    monkeypatch.setitem(HEADS, "topic", ROW)
    changed = copy.deepcopy(document)
    changed["bundles"][0] |= {"weights": "trained", "weights_reason": "", "heads": ["mlm", "topic"]}
    changed["settings"]["budget"] = {"topic": 0.9}
    for row in changed["rows"]:
        if row["quality"]:
            row["quality"]["topic"] = figures(*((1.0, 7.5) if row["reference"] else (0.99, 7.1)))
            row["quality"]["stability"]["batch_mates"]["topic_score"] = estimate(0.25)
            row["size_bytes"] = 1000 if row["reference"] else 1
    return changed


def read(document, path):
    path.write_text(json.dumps(document), encoding="utf-8")
    return conclude(read_report(path))


def test_it_is_in_the_tables_the_plots_the_summary_and_the_recommendations(with_topics, tmp_path):
    report = read(with_topics, tmp_path / "report.json")
    text = markdown(report)
    assert "### Topics\n\n1,000 texts of 900 documents." in text
    assert "| variant | score | agreement |" in text
    assert "| noisy | 7.10 (7.10 to 7.10) | 99.0% (98.9 to 99.1) |" in text
    [summary, *_] = sections(report)
    [glance] = summary.tables
    assert glance.head[5:9] == ("MLM top-1 accuracy", "MLM top-1 agreement", "topic score", "topic agreement")
    assert "Topic agreement: texts with fp32's topic." in glance.caption
    assert "TOPIC is the head that tells what a text is about." in summary.paragraphs[1]
    said = " ".join(summary.points)
    assert "99.0% (98.9 to 99.1) of texts have fp32's topic" in said
    assert "topic score 7.10, fp32 7.50 (p = 0.001)" in said
    assert "score moved by the batch, points" in text
    assert "0.25000 (0.24900 to 0.25100)" in text
    drawn = {plot.title: plot for plot in plots(report)}
    assert "Topic score against latency" in drawn
    assert "accuracy budget" in drawn["Topic agreement with fp32 against latency"].svg
    assert "Topic score against latency" in html(report)
    [finding] = [finding for finding in report.findings if finding.id == "topic.score_difference"]
    assert finding.sentence.startswith("topic score: worse than fp32; difference -0.40")
    assert "paired bootstrap over texts (MLM head, TOPIC head" in text
    [verdict] = report.verdicts
    assert (verdict.row, verdict.verdict, verdict.bounds[0].limit) == ("noisy", "held", "topic")
    assert report.recommendations[2].choice == "noisy"
    assert "quality.topic.agreement,0.99," in as_csv(report)


def test_a_bound_on_it_that_is_broken_bars_a_variant(with_topics, tmp_path):
    with_topics["settings"]["budget"] = {"topic": 0.999}
    report = read(with_topics, tmp_path / "report.json")
    assert report.verdicts[0].verdict == "broken"
    assert {recommendation.choice for recommendation in report.recommendations} == {"fp32"}


def test_it_is_compared_with_an_older_report(with_topics, tmp_path):
    old = read(with_topics, tmp_path / "old.json")
    for row in with_topics["rows"]:
        if row["name"] == "noisy":
            row["quality"]["topic"] |= {"score_candidate": estimate(5.0)}
    changes = differences(old, read(with_topics, tmp_path / "new.json"), parse_tolerance("0.05")).changes
    assert [change.sentence for change in changes] == [
        "noisy: topic score went from 7.1 to 5 (-29.6%): worse, beyond the tolerance"
    ]


def test_it_is_in_the_json_and_the_schema(with_topics, tmp_path):
    import jsonschema

    report = read(with_topics, tmp_path / "report.json")
    written = json.loads(as_json(report))
    assert written["rows"][0]["quality"]["topic"] == with_topics["rows"][0]["quality"]["topic"]
    schema = report_schema()
    assert schema["$defs"]["Topics"]["properties"]["agreement"]["description"] == "Share of texts with fp32's topic."
    jsonschema.Draft202012Validator(schema).validate(written)


def test_without_its_row_it_is_passed_over(with_topics, tmp_path, monkeypatch):
    monkeypatch.delitem(HEADS, "topic")
    with_topics["settings"]["budget"] = {}
    rows = read(with_topics, tmp_path / "report.json").rows
    assert [list(row.quality.heads) for row in rows if row.quality] == [list(HEADS)] * 2


def test_no_head_is_named_in_the_code():
    paths = list((Path(__file__).parents[3] / "compare").rglob("*.py"))
    assert paths
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert '"mlm"' not in text
        assert '"nsp"' not in text
