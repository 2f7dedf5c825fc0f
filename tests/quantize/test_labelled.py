"""Labelled data in quantization: what judges, what is recorded and shown, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from bertport.measure.budget import Budget
from bertport.measure.labelled.options import DataChoice
from bertport.measure.quality.task_rows import SCORES
from bertport.quantize import quantizer, render
from bertport.quantize.deadline import Deadline, TimeUpError
from bertport.quantize.evaluation import Speed
from bertport.quantize.job import Options, read_data
from bertport.quantize.labelled import LabelledJudge, LabelledMaterial, open_candidate, standing_drops
from bertport.runtime import load
from bertport.runtime.bundle.changes import replace_figures
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.cli import app
from bertport.runtime.errors import InputTextError, MissingHeadError, OutputError, ProviderError, UsageError
from bertport.runtime.heads import (
    EMBEDDING,
    MULTIPLE_CHOICE,
    QUESTION_ANSWERING,
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
)
from bertport.runtime.session import Graph
from tests.conftest import WORDS, contents
from tests.heads import head_bundle
from tests.quantize.conftest import manifest_of, silent

TASK = "text-classification"
OTHER = {"data": {"name": "answers.jsonl", "fingerprint": "sha256:00"}}
"""What a manifest has of another file of the same name."""


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A bundle of three labels, opened; not to be changed."""
    return Bundle.open(head_bundle(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION)[1])


@pytest.fixture(scope="module")
def data(classifier, tmp_path_factory):
    """A file of 120 texts, each with the label that fp32 gives it."""
    rng = np.random.default_rng(4)
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(4, 16))) for _ in range(120)]
    answers = load(classifier.path, variant="fp32").predict(TASK, texts)
    path = tmp_path_factory.mktemp("labelled") / "answers.jsonl"
    lines = ({"text": text, "label": answer["label"]} for text, answer in zip(texts, answers, strict=True))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def choice(path, task=None, **columns):
    return DataChoice(data=str(path), task=task, columns=columns, label_map={}, positive=None)


def judge(bundle, path, **drops):
    return LabelledJudge.of(bundle, LabelledMaterial.read(choice(path), bundle, drops), silent)


def run(*arguments):
    return CliRunner().invoke(app, ["quantize", *map(str, arguments)], prog_name="bertport")


def graph(bundle):
    return bundle.file(bundle.manifest.variants["fp32"].file)


def test_a_candidate_answers_as_the_model_that_it_will_be(classifier, data):
    texts = [json.loads(line)["text"] for line in data.read_text(encoding="utf-8").splitlines()]
    wanted = list(load(classifier.path, variant="fp32", provider="cpu").predict(TASK, texts, top_k=None))
    for candidate in ("fp32", graph(classifier)):
        assert list(open_candidate(classifier, candidate).predict(TASK, texts, top_k=None)) == wanted
    by_fp32 = judge(classifier, data, accuracy=0.05)
    assert by_fp32.figures.metrics["accuracy"].value == 1.0
    itself = by_fp32.measure(classifier, graph(classifier), progress=silent, name="itself")
    assert itself.differences["accuracy"].difference.value == 0
    assert itself.broken == ()
    assert itself.shares == {}
    assert itself.head == SEQUENCE_CLASSIFICATION
    [[name, verdict]] = itself.verdicts.items()
    assert (name, verdict.verdict) == ("accuracy.drop", "held")


def test_what_a_damaged_candidate_loses_breaks_the_bound(classifier, data):
    import onnx
    from onnx import numpy_helper

    model = onnx.load(graph(classifier))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    [matrix] = [name for name in constants if name.startswith("classifier") and name.endswith("weight")]
    damaged = numpy_helper.from_array(-numpy_helper.to_array(constants[matrix]), matrix)
    constants[matrix].CopyFrom(damaged)
    measured = judge(classifier, data, accuracy=0.05).measure(
        classifier, model.SerializeToString(), progress=silent, name="damaged"
    )
    lost = 1 - measured.candidate.metrics["accuracy"].value
    assert lost > 0.3
    assert measured.verdicts["accuracy.drop"].verdict == "broken"
    [sentence] = measured.broken
    assert f"the drop of accuracy is {lost:.4f} on 120 examples" in sentence
    assert measured.shares == {SEQUENCE_CLASSIFICATION: pytest.approx((0.05 / lost) ** 2)}
    [record] = measured.record().values()
    assert record["metrics"]["accuracy"]["difference"]["value"] == pytest.approx(-lost)
    assert record["metrics"]["accuracy"]["verdict"] == "broken"
    assert record["columns"] == {"text": "text", "label": "label"}
    assert (record["label_map"], record["positive"], record["truncation"]) == ({}, None, False)
    digits = measured.candidate.fingerprint.removeprefix("sha256:")[:8]
    for recorded, name in (
        ([{}, {"answers.jsonl": record}], "answers.jsonl"),  # of the same data
        ([{"answers.jsonl": record}, {"answers.jsonl": OTHER}], f"answers.jsonl ({digits})"),
        ([{"answers.jsonl": {"spearman": 0.8}}], f"answers.jsonl ({digits})"),  # of another program
    ):
        assert list(measured.record(recorded)) == [name]


def test_an_error_names_the_candidate_and_not_fp32(classifier, data, monkeypatch):
    import onnx
    from onnx import numpy_helper

    model = onnx.load(graph(classifier))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    [bias] = [name for name in constants if name.startswith("classifier") and name.endswith("bias")]
    infinite = np.full_like(numpy_helper.to_array(constants[bias]), np.inf)
    constants[bias].CopyFrom(numpy_helper.from_array(infinite, bias))
    by_fp32 = judge(classifier, data)
    with pytest.raises(OutputError, match=r"gives no finite numbers .* of variant 'fp16' of "):
        by_fp32.measure(classifier, model.SerializeToString(), progress=silent, name="fp16")

    def failing(*_):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(Graph, "run", failing)
    with pytest.raises(ProviderError, match=r"^variant 'bf16' of .* fails on answers\.jsonl on the provider 'cpu'"):
        by_fp32.measure(classifier, "fp32", progress=silent, name="bf16")


def test_what_figures_depend_on_is_recorded(tmp_path_factory, tmp_path):
    bundle = Bundle.open(head_bundle(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION, labels=["no", "yes"])[1])
    path = tmp_path / "reviews.csv"
    path.write_text("review,verdict\n" + "\n".join(f"{word},{'y' if len(word) % 2 else 'no'}" for word in WORDS[:20]))
    given = DataChoice(
        data=str(path),
        task=None,
        columns={"text": "review", "label": "verdict"},
        label_map={"y": "yes"},
        positive="no",
    )
    material = LabelledMaterial.read(given, bundle, {}, truncation=True)
    measured = LabelledJudge.of(bundle, material, silent).measure(bundle, "fp32", progress=silent, name="itself")
    [record] = measured.record().values()
    assert {key: record[key] for key in ("columns", "label_map", "positive", "truncation")} == {
        "columns": {"text": "review", "label": "verdict"},
        "label_map": {"y": "yes"},
        "positive": "no",
        "truncation": True,
    }


def test_a_recorded_bound_is_of_one_way_to_read_the_data(tmp_path_factory, tmp_path):
    bundle = Bundle.open(head_bundle(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION, labels=["no", "yes"])[1])
    path = tmp_path / "reviews.csv"
    lines = [
        f"{word},{other},{'yes' if len(word) % 2 else 'no'}" for word, other in zip(WORDS, WORDS[::-1], strict=True)
    ]
    path.write_text("text,other,label\n" + "\n".join(lines), encoding="utf-8")

    def read(positive=None, **columns):
        given = DataChoice(data=str(path), task=None, columns=columns, label_map={}, positive=positive)
        return LabelledMaterial.read(given, bundle, {})

    def recorded(**bounds):
        material = read("no")
        figures = {metric: {"drop_bound": bound} for metric, bound in bounds.items()}
        data = {"name": "reviews.csv", "fingerprint": material.data.fingerprint}
        return {"reviews.csv": {"task": TASK, "data": data, "metrics": figures, **material.read_as}}

    assert read("no").recorded_drops("int8", recorded(f1=0.1, accuracy=0.02)) == {"f1": 0.1, "accuracy": 0.02}
    assert read("yes").recorded_drops("int8", recorded(accuracy=0.02)) == {"accuracy": 0.02}  # of all labels
    with pytest.raises(
        UsageError,
        match=r"^variant 'int8' is held to f1\.drop=0\.1 on reviews\.csv, measured with the positive label 'no', and "
        r"this is with 'yes': measure as before, or bound it anew with --accuracy-budget$",
    ):
        read("yes").recorded_drops("int8", recorded(f1=0.1))
    with pytest.raises(UsageError, match=r"measured with the columns .*'text': 'text'.*, and this is with .*'other'"):
        read("no", text="other").recorded_drops("int8", recorded(accuracy=0.02))
    with pytest.raises(UsageError, match="and exact_match is not measured now"):
        read("no").recorded_drops("int8", recorded(exact_match=0.02))
    other = recorded(accuracy=0.02)
    other["reviews.csv"]["data"] = OTHER["data"]
    for nothing in ({}, other, {"reviews.csv": 3}, {"reviews.csv": OTHER}, recorded(accuracy=2), recorded(speed=0.1)):
        assert read("no").recorded_drops("int8", nothing) == {}


def test_bounds_on_data_that_is_not_measured_again_stand(classifier, data):
    def entry(value, bound, fingerprint="sha256:00", task=TASK):
        figures = {"difference": {"value": value}, "drop_bound": bound}
        return {"task": task, "data": {"fingerprint": fingerprint}, "metrics": {"accuracy": figures}}

    material = LabelledMaterial.read(choice(data), classifier, {})
    for recorded, drops, broken in (
        ({}, {}, False),
        ({"a": entry(-0.01, 0.02)}, {"accuracy": 0.02}, False),
        ({"a": entry(-0.03, 0.02)}, {"accuracy": 0.02}, True),
        ({"a": entry(0.03, 0.0)}, {"accuracy": 0.0}, False),
        ({"a": entry(None, 0.02)}, {"accuracy": 0.02}, True),
        ({"a": entry(-0.03, 0.04), "b": entry(-0.01, 0.02)}, {"accuracy": 0.02}, False),
        ({"a": entry(-0.03, None), "b": 3, "c": OTHER}, {}, False),
    ):
        assert standing_drops(recorded, None) == (drops, broken)
        assert standing_drops(recorded, material.data) == (drops, broken)
    same = {"a": entry(-0.03, 0.02, material.data.fingerprint)}
    assert standing_drops(same, None) == ({"accuracy": 0.02}, True)
    assert standing_drops(same, material.data) == ({}, False)  # it is judged anew
    other = {"a": entry(-0.03, 0.02, material.data.fingerprint, task="token-classification")}
    assert standing_drops(other, material.data) == ({"accuracy": 0.02}, True)


def test_a_recorded_bound_is_of_the_prompts_that_it_was_measured_with(sentence_bundle, tmp_path):
    bundle, path = Bundle.open(sentence_bundle), tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(LINES[EMBEDDING](number)) + "\n" for number in range(24)), encoding="utf-8")

    def read(**prompts):
        given = dataclasses.replace(choice(path), prompts=prompts)
        return LabelledMaterial.read(given, bundle, {})

    first = read(query_prompt_name="query")
    assert first.read_as["prompts"] == {"query": "the query ", "document": ""}
    data = {"name": "pairs.jsonl", "fingerprint": first.data.fingerprint}
    entry = {"task": first.data.task, "data": data, "metrics": {"spearman": {"drop_bound": 0.01}}, **first.read_as}
    assert read(query_prompt="the query ").recorded_drops("int8", {"pairs.jsonl": entry}) == {"spearman": 0.01}
    with pytest.raises(UsageError, match=r"measured with the prompts .*the query .*, and this is with "):
        read().recorded_drops("int8", {"pairs.jsonl": entry})


def test_measuring_on_labelled_data_ends_with_the_time(classifier, data):
    material = LabelledMaterial.read(choice(data), classifier, {})
    with pytest.raises(TimeUpError):
        LabelledJudge.of(classifier, material, Deadline(1e-9).watching(silent))
    fp32 = LabelledJudge.of(classifier, material, silent)
    with pytest.raises(TimeUpError):
        fp32.measure(classifier, "fp32", progress=Deadline(1e-9).watching(silent), name="fp32")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"budget": Budget.parse("accuracy.drop=0.01")},
            r"^the budget bounds accuracy\.drop, which is measured on labelled data: name the file with --data, or",
        ),
        ({"labelled": "data", "calibration": "data"}, r"is given as labelled data and to calibrate on, and what a"),
    ],
)
def test_what_cannot_judge_is_refused(classifier, data, settings, words):
    given = {"labelled": choice(data), "calibration": data}
    options = Options(**{key: given[key] if value == "data" else value for key, value in settings.items()})
    with pytest.raises(UsageError, match=words):
        read_data(classifier, options)


def test_a_bound_on_a_metric_of_another_task_is_refused(classifier, data):
    with pytest.raises(
        UsageError, match=r"bounds exact_match\.drop, and text-classification on .* measured by accuracy"
    ):
        judge(classifier, data, exact_match=0.1)


@pytest.mark.parametrize(
    ("drop", "positive", "words"),
    [
        ("f1", "positive", "^F1 of 'positive' is not defined: no example of"),
        ("matthews", None, "^matthews is 0 whatever is predicted: every example of .* has the label 'neutral'"),
    ],
)
def test_a_bound_on_a_metric_that_says_nothing_is_refused(classifier, tmp_path, drop, positive, words):
    path = tmp_path / "one_label.jsonl"
    path.write_text((json.dumps({"text": WORDS[0], "label": "neutral"}) + "\n") * 9, encoding="utf-8")
    given = DataChoice(data=str(path), task=None, columns={}, label_map={}, positive=positive)
    with pytest.raises(UsageError, match=words):
        LabelledMaterial.read(given, classifier, {drop: 0.01})
    assert drop in {metric.name for metric in LabelledMaterial.read(given, classifier, {}).chosen.metrics}


def test_a_text_that_is_too_long_is_refused_before_fp32_predicts_the_others(classifier, tmp_path):
    path = tmp_path / "long.jsonl"
    lines = [{"text": "a " * count, "label": "neutral"} for count in (*range(1, 9), 600)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(InputTextError, match=r"line 9: the input has"):
        read_data(classifier, Options(labelled=choice(path)))
    assert read_data(classifier, Options(labelled=choice(path), truncation=True)).truncation


def test_a_bundle_without_the_head_is_refused_before_anything_is_measured(bundle_copy, data):
    before = contents(bundle_copy)
    answer = run(bundle_copy, "--data", data, "--task", TASK)
    assert answer.exit_code == 2
    assert "text-classification needs the head 'sequence-classification'" in answer.stderr
    assert "measuring" not in answer.stderr
    assert contents(bundle_copy) == before
    with pytest.raises(MissingHeadError):
        read_data(Bundle.open(bundle_copy), Options(labelled=choice(data, TASK)))


LINES = {
    SCORES: lambda n: {"text": WORDS[n], "text_pair": WORDS[n + 9], "label": n % 5 + n / 20},
    TOKEN_CLASSIFICATION: lambda n: {"tokens": WORDS[n : n + 3], "tags": ["B-PER", "I-PER", "O"]},
    QUESTION_ANSWERING: lambda n: {
        "question": f"what is {WORDS[n]}",
        "context": " ".join(WORDS[n : n + 9]),
        "answers": {"text": [WORDS[n + 2]]},
    },
    MULTIPLE_CHOICE: lambda n: {"prompt": WORDS[n], "choices": WORDS[n + 1 : n + 4], "label": n % 3},
    EMBEDDING: lambda n: {"text": WORDS[n], "text_pair": WORDS[n + 9], "score": n % 5 + n / 20},
}
"""A line of labelled data by the row of measured heads that it is for."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "metric"),
    [
        (SCORES, "spearman"),
        (TOKEN_CLASSIFICATION, "entity_f1"),
        (QUESTION_ANSWERING, "answer_f1"),
        (MULTIPLE_CHOICE, "accuracy"),
        (EMBEDDING, "spearman"),
    ],
)
def test_each_task_is_judged_by_its_own_metric_and_head(request, row, metric, tmp_path):
    if row == EMBEDDING:
        bundle = Bundle.open(request.getfixturevalue("sentence_bundle"))
    else:
        factory = request.getfixturevalue("tmp_path_factory")
        settings = {"labels": ["LABEL_0"], "problem_type": "regression"} if row == SCORES else {}
        head = SEQUENCE_CLASSIFICATION if row == SCORES else row
        bundle = Bundle.open(head_bundle(factory, "bert", head, **settings)[1])
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(LINES[row](number)) + "\n" for number in range(24)), encoding="utf-8")
    given = judge(bundle, path, **{metric: 0.01})
    measured = given.measure(bundle, graph(bundle), progress=silent, name="itself")
    assert measured.head == row
    assert measured.differences[metric].difference.value == 0
    assert measured.broken == ()
    [record] = measured.record().values()
    assert record["metrics"][metric]["drop_bound"] == 0.01
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert metric in render.labelled("itself", measured)


def test_a_metric_that_is_not_defined_is_shown_as_none(tmp_path_factory, tmp_path):
    bundle = Bundle.open(head_bundle(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION, labels=["no", "yes"])[1])
    [answer] = load(bundle.path, variant="fp32").predict(TASK, WORDS[:1])
    path = tmp_path / "one_label.jsonl"
    path.write_text((json.dumps({"text": WORDS[0], "label": answer["label"]}) + "\n") * 9, encoding="utf-8")
    positive = "no" if answer["label"] == "yes" else "yes"
    given = DataChoice(data=str(path), task=None, columns={}, label_map={}, positive=positive)
    material = LabelledMaterial.read(given, bundle, {})
    measured = LabelledJudge.of(bundle, material, silent).measure(bundle, "fp32", progress=silent, name="itself")
    rows = [line.split() for line in render.labelled("itself", measured).splitlines()]
    assert ["f1", "-", "-", "-", "-", "-"] in rows


@pytest.mark.slow
def test_figures_on_labelled_data_are_recorded_judged_and_shown(classifier, data, held_out, tmp_path):
    path = shutil.copytree(classifier.path, tmp_path / "bundle")
    few = ["--text", held_out, "--calibration", held_out, "--positions", 60, "--pairs", 8, "--force"]
    answer = run(path, *few, "--data", data, "--accuracy-budget", "class=0.2,accuracy.drop=0.3")
    assert answer.exit_code == 0, answer.stderr
    assert "drop at most 0.3: held" in answer.stdout
    assert "none of them was calibrated on" in answer.stdout
    variant = manifest_of(path)["variants"]["int8-dynamic"]
    assert variant["fidelity"]["budget"] == "class=0.2,accuracy.drop=0.3"
    assert variant["fidelity"]["verdicts"]["accuracy.drop"]["verdict"] == "held"
    record = variant["task_metrics"]["answers.jsonl"]
    assert record["examples"] == 120
    assert record["data"]["fingerprint"].startswith("sha256:")
    # what is recorded is what the variant answers, once it is in the bundle
    lines = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    answers = load(path, variant="int8-dynamic").predict(TASK, [line["text"] for line in lines])
    right = np.mean([answer["label"] == line["label"] for answer, line in zip(answers, lines, strict=True)])
    assert record["metrics"]["accuracy"]["candidate"]["value"] == pytest.approx(right)
    assert record["metrics"]["accuracy"]["difference"]["value"] == pytest.approx(right - 1)

    shown = CliRunner().invoke(app, ["inspect", str(path)]).stdout
    assert "answers.jsonl (120 examples)" in shown
    assert f"| int8-dynamic | answers.jsonl (120 examples) | accuracy | 1.0000 | {right:.4f} |" in (
        path / "README.md"
    ).read_text(encoding="utf-8")

    shutil.copytree(path, tmp_path / "of another directory")
    elsewhere = tmp_path / "elsewhere" / data.name
    elsewhere.parent.mkdir()
    elsewhere.write_text("".join(data.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    both = run(tmp_path / "of another directory", *few, "--remeasure", "--json", "--data", elsewhere)
    assert both.exit_code == 0, both.stderr
    first, second = json.loads(both.stdout)["int8-dynamic"]["task_metrics"].values()
    assert (first, second["examples"]) == (record, 119)

    again = run(path, *few, "--remeasure", "--json", "--accuracy-budget", "none")
    assert again.exit_code == 0, again.stderr
    assert json.loads(again.stdout)["int8-dynamic"]["task_metrics"]["answers.jsonl"] == record  # not measured again
    anew = run(path, *few, "--remeasure", "--json", "--data", data, "--accuracy-budget", "accuracy.drop=0.0001")
    assert anew.exit_code == 0, anew.stderr
    given = json.loads(anew.stdout)["int8-dynamic"]
    assert given["task_metrics"]["answers.jsonl"]["metrics"]["accuracy"]["drop_bound"] == 0.0001
    assert given["fidelity"]["budget"] == ("none" if right < 0.9999 else "accuracy.drop=0.0001")


@pytest.mark.slow
def test_a_recorded_bound_on_a_drop_holds_where_variants_are_measured_again(classifier, data, held_out, tmp_path):
    path, name = shutil.copytree(classifier.path, tmp_path / "bundle"), "int8-dynamic"
    few = ["--text", held_out, "--calibration", held_out, "--positions", 60, "--pairs", 8, "--force"]
    made = run(path, *few, "--data", data, "--accuracy-budget", "class=0.2,accuracy.drop=0.3")
    assert made.exit_code == 0, made.stderr
    bounds = {"none", "class=0.98,accuracy.drop=0.3"}  # the default budget, which the variant may break

    def remeasured(*options):
        answer = run(path, *few, "--remeasure", "--json", *options)
        assert answer.exit_code == 0, answer.stderr
        return json.loads(answer.stdout)[name]

    for options in (("--data", data), ()):
        given = remeasured(*options)
        bounded = given["task_metrics"]["answers.jsonl"]["metrics"]["accuracy"]
        assert (bounded["drop_bound"], bounded["verdict"]) == (0.3, "held")
        assert given["fidelity"]["verdicts"]["accuracy.drop"]["verdict"] == "held"
        assert given["fidelity"]["budget"] in bounds

    bundle = Bundle.open(path)
    variant = bundle.manifest.variants[name]
    bounded["difference"]["value"] = -0.31
    lost = dataclasses.replace(variant, task_metrics=given["task_metrics"])
    replace_figures(bundle, name, lost, default=lambda now: now.manifest.default_variant)
    assert remeasured()["fidelity"]["budget"] == "none"
    given = remeasured("--accuracy-budget", "class=0.2")  # which replaces every other bound
    assert given["fidelity"]["budget"] == "class=0.2"
    assert "accuracy.drop" not in given["fidelity"]["verdicts"]


@pytest.mark.slow
def test_a_search_serves_a_bound_on_labelled_data(classifier, data, held_out, tmp_path):
    path = shutil.copytree(classifier.path, tmp_path / "bundle")
    few = ["--text", held_out, "--calibration", held_out, "--positions", 60, "--pairs", 8, "--force"]
    recipe = ["--recipe", "int4-weight-only", "--json", "--data", data]
    answer = run(path, *few, *recipe, "--accuracy-budget", "accuracy.drop=0.02")
    assert answer.exit_code == 0, answer.stderr
    [given] = json.loads(answer.stdout).values()
    assert given["fidelity"]["higher_precision"]
    assert given["task_metrics"]["answers.jsonl"]["metrics"]["accuracy"]["difference"]["value"] >= -0.02


@pytest.mark.slow
def test_what_is_refused_comes_with_its_figures(classifier, data, held_out, tmp_path, monkeypatch):
    slow = Speed(reference_ms=1.0, ms=2.0, speedup=0.5, low=0.5, high=0.5)
    monkeypatch.setattr(quantizer, "time_against", lambda *_, **__: {"1x16": slow})
    path = shutil.copytree(classifier.path, tmp_path / "bundle")
    few = ["--text", held_out, "--calibration", held_out, "--positions", 60, "--pairs", 8]
    answer = run(path, *few, "--json", "--data", data, "--accuracy-budget", "none")
    assert answer.exit_code == 3, answer.stderr
    [given] = json.loads(answer.stdout).values()
    assert "slower than fp32" in given["refused"]
    assert "verdict" not in given["task_metrics"]["answers.jsonl"]["metrics"]["accuracy"]
    assert manifest_of(path)["variants"].keys() == {"portable", "fp32"}
