"""The bias probe of a classifier in the report: from the scores of each sentence to what moves most."""

import copy
import json

import pytest

from bertport.compare.report.assembly import assemble
from bertport.compare.report.bias import bias_paragraphs, bias_tables
from bertport.compare.report.html import html
from bertport.compare.report.markdown import markdown
from bertport.compare.report.significance import findings
from bertport.compare.runner import PEAK, Comparison
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION
from tests.compare.conftest import Interrupting, typed
from tests.compare.test_runner import row, validate
from tests.heads import head_bundle

LABELS = {"negative", "neutral", "positive"}


def test_what_moves_most_is_that_of_the_scores(classified):
    validate(classified)
    for name in ("fp32", "noisy"):
        bias = row(classified, name)["label_bias"]
        assert {shift["label"] for shift in bias["labels"]} == LABELS
        pairs = classified["label_bias_probe"]["templates"], classified["label_bias_probe"]["groups"]
        assert len(bias["pairs"]) == len(pairs[0]) * len(pairs[1])
        distances = []
        for column, shift in enumerate(bias["labels"]):
            changes = [pair["scores_b"][column] - pair["scores_a"][column] for pair in bias["pairs"]]
            assert shift["change"]["value"] == pytest.approx(sum(changes) / len(changes))
            assert shift["change"]["low"] <= shift["change"]["value"] <= shift["change"]["high"]
            distances.append(sum(map(abs, changes)) / len(changes))
            assert shift["distance"]["value"] == pytest.approx(distances[-1])
            most = max(bias["pairs"], key=lambda pair: abs(pair["scores_b"][column] - pair["scores_a"][column]))
            assert (shift["a"], shift["b"]) == (most["a"], most["b"])
            assert abs(shift["largest"]) == pytest.approx(max(map(abs, changes)))
        assert distances == sorted(distances, reverse=True)
        furthest = [
            max(abs(two - one) for one, two in zip(pair["scores_a"], pair["scores_b"], strict=True))
            for pair in bias["pairs"]
        ]
        assert bias["distance"]["value"] == pytest.approx(sum(furthest) / len(furthest))
        assert bias["distance"]["clusters"] == len(pairs[0])
    before, after = (row(classified, name)["label_bias"] for name in ("fp32", "noisy"))
    assert before["change"] is None
    change = after["distance"]["value"] - before["distance"]["value"]
    assert after["change"]["difference"]["value"] == pytest.approx(change)


def test_every_table_is_in_both_pages(classified):
    report = typed(classified)
    tables = {table.title: table for table in bias_tables(report)}
    assert list(tables) == [
        "Labels between the two groups",
        "Label by label",
        "Group by group: fp32",
        "Template by template: fp32",
        "Sentence by sentence: fp32",
    ]
    [first, caution] = bias_paragraphs(report)
    assert first.startswith("80 pairs of sentences from 10 templates and 8 pairs of words (neutral sentences).")
    assert "does not show that a model is free of bias" in caution
    page, text = html(report), markdown(report)
    for title, table in tables.items():
        assert f"### {title}" in text
        assert title in page
        assert all(len(cells) == len(table.head) for cells in table.rows)
    bias = report.rows[0].label_bias
    assert [cells[3] for cells in tables["Label by label"].rows[:3]] != [""] * 3
    groups = tables["Group by group: fp32"]
    assert groups.head == ("A and B", *(shift.label for shift in bias.labels))
    of_first = [pair.changes[0] for pair in bias.pairs[:: len(groups.rows)]]
    assert groups.rows[0][1].startswith(f"{sum(of_first) / len(of_first):+.4f} (")
    changes = [max(pair.changes, key=abs) for pair in bias.pairs]
    first = max(range(len(changes)), key=lambda number: abs(changes[number]))
    sentences = tables["Sentence by sentence: fp32"].rows
    column = bias.pairs[first].changes.index(changes[first])
    assert sentences[0] == (
        bias.pairs[first].a,
        bias.pairs[first].b,
        bias.labels[column].label,
        f"{bias.pairs[first].scores_a[column]:.4f}",
        f"{bias.pairs[first].scores_b[column]:.4f}",
        f"{changes[first]:+.4f}",
    )
    assert any(finding.id == "label_bias.distance" and finding.row == "noisy" for finding in findings(report))


def test_values_are_not_called_probabilities(classified):
    changed = copy.deepcopy(classified)
    for entry in changed["rows"]:
        entry["label_bias"]["scores"] = "none"
    assert "which is not a probability" in bias_tables(typed(changed))[0].caption
    assert "which is not a probability" not in bias_tables(typed(classified))[0].caption


def test_weights_that_mean_nothing_have_no_bias(classified):
    changed = copy.deepcopy(classified)
    changed["bundles"][0] |= {"weights": "random", "weights_reason": "it was said"}
    assert bias_tables(typed(changed)) == bias_paragraphs(typed(changed)) == ()


def test_why_a_variant_was_not_asked_is_said(make_options, tmp_path_factory, tmp_path):
    _, bundle = head_bundle(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION)
    templates = tmp_path / "templates.json"
    templates.write_text(json.dumps({"templates": [f"The {{}} {'went ' * 200}home."], "groups": [["man", "woman"]]}))
    options = make_options(tmp_path / "out", bundles=(str(bundle),), budget="cosine=0.5", templates=str(templates))
    report = assemble(Comparison(options, Interrupting(PEAK)).run())
    assert report.rows[0].label_bias is None
    [said] = [sentence for sentence in report.not_measured if "the bias probe: a sentence of the bias" in sentence]
    assert said.startswith("fp32, ")


def test_a_classifier_is_timed_by_its_task_and_misses_no_other_head(classified):
    assert classified["text"]["inputs"]["task"] == "text-classification"
    said = " ".join(classified["not_measured"])
    assert "NSP" not in said
    assert "MLM" not in said
    assert "portable: the same weights as they were exported (--variant portable)" in said


def test_a_sentence_with_a_mask_that_is_too_long_is_said_too(make_options, tmp_path):
    templates = tmp_path / "templates.json"
    long = f"The {{}} {'went ' * 200}to [MASK]."
    templates.write_text(json.dumps({"templates": [long], "groups": [["man", "woman"]]}), encoding="utf-8")
    options = make_options(tmp_path / "out", variants=("fp32",), templates=str(templates))
    report = assemble(Comparison(options, Interrupting(PEAK)).run())
    assert report.rows[0].bias is None
    [said] = [sentence for sentence in report.not_measured if "the bias probe: a sentence of the bias" in sentence]
    assert said.startswith("fp32, ")
    assert "tokens and the model takes 160: shorten its template: 'The man went" in said
