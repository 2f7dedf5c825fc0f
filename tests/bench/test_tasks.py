"""INT8 on tasks with labels: the page follows from the data, means and bars from answers, and a short run ends."""

from __future__ import annotations

import itertools
import json
import lzma
import math
import shutil
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef

from bench.checkout import ROOT, read_data
from bench.tasks import __main__ as program
from bench.tasks.finish import finish_of
from bench.tasks.graphs import open_stock
from bench.tasks.made import Made, is_made, make, quantize_as_stock, training_texts
from bench.tasks.measuring import is_measured, measure, of_the_commonest
from bench.tasks.page import METRICS, commits_of, difference, lacking, mean_difference, section
from bench.tasks.peer import class_logits, word_labels
from bench.tasks.summary import BARS, TaskRuns, careful_low_end, summarize
from bench.tasks.tables import CHANGES, FP32, GLUE, PYTORCH, STOCK, SUBJECTS, TASKS, VARIANTS
from bertport.measure.labelled.data import read_labelled
from bertport.measure.labelled.predictions import Predictions, predict_labelled
from bertport.measure.statistics import Settings, resample_weights
from bertport.runtime import load
from bertport.runtime.bundle.directory import Bundle, file_sha256
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION
from tests.heads import head_bundle

WORDS = "the a good bad old new music word play game city water see love hate this is not very".split()  # noqa: SIM905 — words read better so
PAIRED = ("not_equivalent", "equivalent")


def texts(count, least=1):
    """Return texts of words, each of another length than its neighbours."""
    rng = np.random.default_rng(count)
    return [" ".join(rng.choice(WORDS, size=least + index % 7)) for index in range(count)]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A checkpoint and its bundle, of MRPC's labels."""
    return head_bundle(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION, labels=PAIRED)


@pytest.fixture(scope="module")
def pairs(classifier, tmp_path_factory):
    """Pairs with labels."""
    path = tmp_path_factory.mktemp("pairs") / "mrpc-dev.jsonl"
    rows = [
        {"text": one, "text_pair": other, "label": PAIRED[index % 3 > 0]}
        for index, (one, other) in enumerate(zip(texts(40), texts(40, 3), strict=True))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_labelled(path, "text-classification", Bundle.open(classifier[1]).manifest)


@pytest.fixture(params=[name for name, path in program.DATA.items() if path.exists()])
def measured(request):
    """A class of CPU, and what was measured on one."""
    return request.param, read_data(program.DATA[request.param], program.PROGRAM)


def test_the_pages_are_what_the_data_say():
    program.main(["page", "--check"])


def test_a_page_that_the_data_do_not_give_is_refused(tmp_path, monkeypatch):
    page = tmp_path / "tasks.md"
    page.write_text(program.PAGE.read_text(encoding="utf-8").replace("lowest", "least"), encoding="utf-8")
    monkeypatch.setattr("bench.checkout.ROOT", tmp_path)
    monkeypatch.setattr(program, "PAGE", page)
    with pytest.raises(SystemExit, match=r"tasks\.md is not what the data say"):
        program.main(["page", "--check"])


LEAST = {
    "agreement sst2": 0.985,
    "agreement cola": 0.985,
    "agreement mrpc rte": 0.985,
    "rank correlation": 0.995,
    "mean": -0.005,
    "mean, low end": -0.01,
}
"""Lower bounds of 8 bits on dev, by bar."""
MISSED = {("vnni", "int8-static-cpu"): {"agreement mrpc rte"}}
"""The bars that a variant of ours misses on a class of CPU; the page says so."""


def test_the_data_hold_what_int8_is_held_to(measured):
    cpu, data = measured
    for name in VARIANTS:
        bars = data["summary"].get(name, {"bars": {}})["bars"]
        missed = {bar for bar, figure in bars.items() if figure["value"] < LEAST[bar]}
        assert missed == MISSED.get((cpu, name), set())
        assert missed == {bar for bar, figure in bars.items() if not figure["met"]}
    transformers = [run["subjects"][PYTORCH] for run in data["runs"]]
    assert all((subject["agreement"] or {"value": 1})["value"] > 0.999 for subject in transformers)
    assert all((subject["rank_correlation"] or 1) > 0.9999 for subject in transformers)


def test_every_bar_was_held_against_int8_dynamic_on_one_class():
    data = read_data(program.DATA["vnni"], program.PROGRAM)
    assert {run["task"] for run in data["runs"]} >= set(GLUE)
    assert data["summary"]["int8-dynamic"]["bars"].keys() == LEAST.keys() == {bar.name for bar in BARS}


def test_no_large_loss_of_a_single_run_stands_without_its_test(measured):
    _, data = measured
    page = program.PAGE.read_text(encoding="utf-8")
    for run_, name in itertools.product(data["runs"], (*VARIANTS, STOCK)):
        for metric, paired in run_["subjects"].get(name, {}).get("against_fp32", {}).items():
            if paired["difference"] < -0.015:
                told = (
                    f"{TASKS[run_['task']].title}, seed {run_['seed']}, {METRICS[metric]}: {difference(paired)}, p = "
                )
                assert 0 < paired["p"] <= 1
                assert told in " ".join(page.split())


def git(*arguments):
    command = ["git", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_figures_of_older_recipes_are_told_from_those_of_today(measured):
    cpu, data = measured
    page = program.PAGE.read_text(encoding="utf-8")
    text = " ".join(page.partition(f"<!-- measured-{cpu}: begin -->")[2].partition("### ")[0].split())
    have = {name for name in VARIANTS if name in data["summary"]}
    older = [row for row in CHANGES if data["date"] < row.date and have.intersection(row.recipes)]
    assert lacking(data) == older
    assert all(f"{row.what} ({row.commit})" in text for row in older)
    assert (f"are of commit {data['commit'][:7]}.**" in text) is bool(older)
    assert text.count("(") == sum(len(have.intersection(row.recipes)) for row in older)


def test_the_page_says_what_changed_in_a_recipe_since_its_figures(measured):
    _, data = measured
    fresh = {**data, "date": "2099-01-01T00:00:00Z"}
    assert lacking(fresh) == []
    assert "Recipes have changed" not in section(fresh, "VNNI")
    old = section({**data, "date": "2026-01-01T00:00:00Z"}, "VNNI")
    assert "GELU is computed by tanh (2184413)" in " ".join(old.split())


def test_a_date_says_which_changes_the_measured_commit_has(measured):
    _, data = measured
    assert [row.date for row in CHANGES] == sorted(row.date for row in CHANGES)
    if any(git("cat-file", "-e", f"{commit}^{{commit}}").returncode for commit in (data["commit"], CHANGES[0].commit)):
        pytest.skip("the history is not here")
    for row in CHANGES:
        has = git("merge-base", "--is-ancestor", row.commit, data["commit"]).returncode
        assert has == (1 if data["date"] < row.date else 0), row.commit


def test_what_older_recipes_made_is_made_anew(classifier, tmp_path, monkeypatch):
    checkpoint, _ = classifier
    made = Made(
        place=tmp_path,
        weights_sha256=file_sha256(checkpoint / "model.safetensors"),
        refused={},
        seconds={},
        positions=1,
    )
    made.keep()
    assert make(checkpoint, tmp_path, (), positions=1) == made
    assert is_made(checkpoint, tmp_path, 1)
    assert not is_made(checkpoint, tmp_path, 2)
    stamp = {"changes": [row.commit for row in CHANGES]}
    for made_of, known in ((stamp, True), ({"changes": stamp["changes"][:-1]}, False), ({}, False)):
        (tmp_path / "figures.json").write_text(json.dumps({"made_of": made_of}), encoding="utf-8")
        assert is_measured(tmp_path) is known
    monkeypatch.setattr("bench.tasks.made.CHANGED", ["another"])
    monkeypatch.setattr("bench.tasks.made._exported", lambda *_: "exported anew")
    assert make(checkpoint, tmp_path, (), positions=1) == "exported anew"


def test_what_is_kept_says_when_it_was_measured_and_what_was_refused_since(classifier, pairs, tmp_path, monkeypatch):
    checkpoint, bundle = classifier
    shutil.copytree(bundle, tmp_path / "bundle")
    made = Made(place=tmp_path, weights_sha256="0" * 64, refused={}, seconds={}, positions=1)
    answered = []
    figures = {FP32: {"bytes": 1}}
    monkeypatch.setattr("bench.tasks.measuring._answered", lambda *given: answered.append(given) or figures)
    monkeypatch.setattr("bench.tasks.measuring.provenance", lambda: {"commit": f"after {len(answered)}"})
    first = measure(TASKS["mrpc"], checkpoint, made, pairs)
    second = measure(TASKS["mrpc"], checkpoint, replace(made, refused={"int8-static": "too far"}), pairs)
    assert len(answered) == 1
    assert first == {"measured": {"commit": "after 1"}, "subjects": figures}
    assert second == {**first, "subjects": {**figures, "int8-static": {"refused": "too far"}}}


def test_a_recipe_that_is_calibrated_on_a_task_needs_its_training_part(classifier, tmp_path):
    checkpoint, bundle = classifier
    shutil.copytree(bundle, tmp_path / "bundle")
    weights = file_sha256(checkpoint / "model.safetensors")
    Made(place=tmp_path, weights_sha256=weights, refused={}, seconds={}, positions=1).keep()
    with pytest.raises(SystemExit, match=r"^int8-static is calibrated on texts of the task's training part, and there"):
        make(checkpoint, tmp_path, ["int8-static"], positions=1)


def test_nothing_that_was_measured_is_removed_to_time_it(classifier, tmp_path):
    checkpoint, _ = classifier
    runs, kept = tmp_path / "runs" / "mrpc-0", tmp_path / "work" / "mrpc-0"
    for place in (runs, kept):
        place.mkdir(parents=True)
    (runs / "model").symlink_to(checkpoint, target_is_directory=True)
    for file in (kept / "figures.json", tmp_path / "tasks.json"):
        file.write_text("{}", encoding="utf-8")
    options = SimpleNamespace(
        checkpoints=runs.parent,
        data=tmp_path,
        work=kept.parent,
        output=tmp_path / "tasks.json",
        task=None,
        positions=60,
    )
    with pytest.raises(
        SystemExit, match=r"mrpc-0 holds nothing of this checkpoint by the recipes of today that was judged on 60 "
    ):
        program.time_all(options)
    assert (kept / "figures.json").exists()


def test_a_run_says_when_it_was_measured_where_another_was_not_then(measured):
    _, data = measured
    first = {"commit": "a" * 40, "date": "2099-01-01T00:00:00Z"}
    second = {"commit": "b" * 40, "date": "2099-02-01T00:00:00Z"}
    runs = [{**run_, "measured": first} for run_ in data["runs"]]
    alike = {**data, **first, "runs": runs}
    mixed = {**alike, "runs": [*runs[:-1], {**runs[-1], "measured": second}]}
    assert (commits_of(alike), commits_of(mixed)) == ("commit aaaaaaa", "commits aaaaaaa, bbbbbbb")
    assert ", measured 2099-" not in section(alike, "VNNI")
    assert section(mixed, "VNNI").count(", measured 2099-02-01 at commit bbbbbbb") == 1
    assert "(commits aaaaaaa, bbbbbbb)" in finish_of(mixed, "VNNI")


def test_times_of_tasks_say_each_when_they_were_taken(measured):
    _, data = measured
    figures = {name: {"value": 9.0} for name in ("texts_per_second", "median_ms", "times_pytorch")}
    row = {"median_tokens": 9.0, "subjects": {PYTORCH: figures}}
    idle = {**data["machine"], "busy": 0.5}
    first, second = ({"commit": letter * 40, "date": "2099-01-01T00:00:00Z", "machine": idle} for letter in "ab")
    alike = section({**data, "speed": {**first, "tasks": {"sst2": row, "cola": row}}}, "VNNI")
    assert len([line for line in alike.splitlines() if line.startswith("Timed on ")]) == 1
    mixed = section({**data, "speed": {"tasks": {"sst2": {**first, **row}, "cola": {**second, **row}}}}, "VNNI")
    said = [line for line in mixed.splitlines() if ": timed on " in line]
    assert [line.partition(":")[0] for line in said] == ["- SST-2", "- CoLA"]
    assert [line[-9:] for line in said] == [" aaaaaaa.", " bbbbbbb."]


def test_the_mean_reaches_further_where_few_answers_change(measured):
    _, data = measured
    examples = {name: facts["examples"] for name, facts in data["tasks"].items()}
    for name, summary in data["summary"].items():
        low = careful_low_end(summary, examples)
        by_task = {
            task: np.mean([max(row["difference"] - row["low"], 0) for row in summary["differences"][task].values()])
            for task in summary["mean_of"]
        }
        least = {task: 0 if task == "stsb" else 3.8415 / (examples[task] + 3.8415) for task in by_task}
        added = math.hypot(*(max(by_task[task], least[task]) for task in by_task)) / len(by_task)
        assert low <= summary["mean"]["difference"] - added + 1e-4, name
        bar = summary["bars"].get("mean, low end")
        if bar:
            assert low >= LEAST["mean, low end"]
            assert f"{low * 100:+.2f} ({name})" in section(data, "")


def test_one_run_has_one_interval(measured):
    _, data = measured
    page = section(data, "")
    for run_, name in itertools.product(data["runs"], (*VARIANTS, STOCK)):
        same = [other for other in data["runs"] if other["task"] == run_["task"] and name in other["subjects"]]
        if len(same) == 1 and "against_fp32" in run_["subjects"].get(name, {}):
            for metric, paired in run_["subjects"][name]["against_fp32"].items():
                assert mean_difference(data, name, run_["task"], metric) == paired
                assert page.count(difference(paired)) >= 2


def test_only_what_answered_is_listed(measured):
    _, data = measured
    listed = section(data, "").partition("What answered:")[2]
    answering = {name for run_ in data["runs"] for name in run_["subjects"]}
    assert {name for name in SUBJECTS if f"- {name}: " in listed} == answering


def test_the_summary_follows_from_the_runs(measured):
    _, data = measured
    for name in VARIANTS:
        own = [run for run in data["runs"] if "metrics" in run["subjects"].get(name, {})]
        if not own:
            continue
        summary = data["summary"][name]
        by_task = {
            task: [
                np.mean([paired["difference"] for paired in run["subjects"][name]["against_fp32"].values()])
                for run in own
                if run["task"] == task
            ]
            for task in summary["mean_of"]
        }
        assert summary["mean"]["difference"] == pytest.approx(np.mean([np.mean(runs) for runs in by_task.values()]))
        for bar in BARS:
            if bar.name in summary["bars"] and bar.name.startswith("agreement"):
                shares = [run["subjects"][name]["agreement"] for run in own if run["task"] in bar.tasks]
                weights = [share["count"] for share in shares]
                assert summary["bars"][bar.name]["value"] == pytest.approx(
                    np.average([share["value"] for share in shares], weights=weights)
                )


def test_the_lowest_is_that_of_a_seed_over_the_tasks_of_a_target(measured):
    """One target is about two tasks: a run of one of them may agree less than both together."""
    _, data = measured
    assert "“lowest” is that of the worst seed." in section(data, "").replace("\n", " ")
    for name, bar in itertools.product(VARIANTS, BARS):
        figure = data["summary"].get(name, {"bars": {}})["bars"].get(bar.name)
        if figure is None or not bar.name.startswith("agreement"):
            continue
        by_seed = {}
        for run_ in data["runs"]:
            if run_["task"] in bar.tasks and "metrics" in run_["subjects"].get(name, {}):
                by_seed.setdefault(run_["seed"], []).append(run_["subjects"][name]["agreement"])
        means = [
            np.average([share["value"] for share in shares], weights=[share["count"] for share in shares])
            for shares in by_seed.values()
        ]
        assert figure["lowest"] == pytest.approx(min(means))


def test_transformers_answer_as_the_bundle_of_the_same_weights(classifier, pairs):
    checkpoint, bundle = classifier
    ours = predict_labelled(load(bundle, threads=1), pairs)
    logits = class_logits(checkpoint, [example.inputs for example in pairs.examples()])
    theirs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.abs(ours.scores - theirs).max() < 1e-5  # what float32 leaves of sums in another order


def test_transformers_tag_words_as_the_bundle_does(tmp_path_factory, tmp_path):
    checkpoint, bundle = head_bundle(tmp_path_factory, "bert", TOKEN_CLASSIFICATION)
    path = tmp_path / "tags.jsonl"
    words = [[*text.split(), "unheardofness", "\u200b"] for text in texts(12)]
    path.write_text(
        "".join(json.dumps({"tokens": row, "tags": ["O"] * (len(row) - 1) + ["B-PER"]}) + "\n" for row in words)
    )
    data = read_labelled(path, "token-classification", Bundle.open(bundle).manifest)
    ours = predict_labelled(load(bundle, threads=1), data).values
    theirs = word_labels(checkpoint, [{"words": row} for row in words])
    assert [tuple(row) for row in ours] == theirs
    assert len({label for row in theirs for label in row}) > 1


def test_the_stock_graph_answers_a_text_alike_whatever_is_beside_it(classifier, pairs, tmp_path):
    _, bundle = classifier
    quantize_as_stock(Bundle.open(bundle), tmp_path / "stock.onnx")
    model = open_stock(tmp_path / "stock.onnx", bundle, threads=1)
    together = predict_labelled(model, pairs).scores
    alone = [
        {row["label"]: row["score"] for row in next(model.predict("text-classification", [example.inputs], top_k=None))}
        for example in pairs.examples()
    ]
    assert np.array_equal(together, np.array([[row[label] for label in PAIRED] for row in alone], dtype=np.float32))
    exact = predict_labelled(load(bundle, variant=FP32, threads=1), pairs).scores
    assert 0 < np.abs(together - exact).max() < 0.1  # it is another graph, and of the same weights


def answered(data, *seeds, wrong):
    """Return answers of fp32 and of an INT8 that differs from it in some examples, for some seeds."""
    answers = {}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        right = np.asarray(data.truths)
        fp32 = np.where(rng.random(len(data)) < 0.2, 1 - right, right)
        int8 = fp32.copy()
        int8[rng.choice(len(data), wrong, replace=False)] ^= 1
        row = {"task": data.task, "kind": data.kind, "fingerprint": data.fingerprint}
        answers[seed] = {
            FP32: Predictions(**row, variant=FP32, values=fp32),
            "int8-dynamic": Predictions(**row, variant="int8-dynamic", values=int8),
        }
    return answers


def run(task, seed, differences, ranks=None):
    """Return the figures of a run, as the data have them."""
    paired = {
        name: {"difference": value, "low": value - 0.01, "high": value + 0.01, "p": 0.5, "test": "permutation"}
        for name, value in differences.items()
    }
    metrics = {name: {"value": 0.8, "low": 0.7, "high": 0.9} for name in differences}
    agreement = {"value": 0.99, "low": 0.98, "high": 0.995, "count": 40, "clusters": 40}
    int8 = {
        "metrics": metrics,
        "against_fp32": paired,
        "agreement": agreement,
        "rank_correlation": ranks,
        "bytes": 2**20,
    }
    subjects = {PYTORCH: int8, FP32: {"metrics": metrics, "bytes": 2**22}, "int8-dynamic": int8}
    return {"task": task, "seed": seed, "training": {"rate": 1e-4, "epochs": 3}, "subjects": subjects}


@pytest.mark.slow
def test_a_mean_draws_the_same_examples_for_every_seed(pairs):
    row = TaskRuns(task=TASKS["mrpc"], data=pairs, answers=answered(pairs, 0, 1, wrong=3))
    runs = [run("mrpc", seed, {"accuracy": -0.02, "f1": 0.0}) for seed in (0, 1)]
    summary = summarize(runs, [row])["int8-dynamic"]
    truth = np.asarray(pairs.truths)

    def figure(name, chosen):
        compute = f1_score if name == "f1" else lambda one, other: np.mean(one == other)
        return np.mean(
            [
                compute(truth[chosen], answers["int8-dynamic"].values[chosen])
                - compute(truth[chosen], answers[FP32].values[chosen])
                for answers in row.answers.values()
            ]
        )

    weights = np.concatenate(list(resample_weights(40, Settings(seed=list(TASKS).index("mrpc")))), axis=1)[:, :200]
    samples = [np.repeat(np.arange(40), drawn.astype(int)) for drawn in weights.T]
    for name in TASKS["mrpc"].metrics:
        resampled = row.differences("int8-dynamic")[name]
        assert resampled[0] == pytest.approx(figure(name, np.arange(40)), abs=1e-12)
        assert resampled[1:201] == pytest.approx([figure(name, chosen) for chosen in samples], abs=1e-12)
    mean = summary["mean"]
    assert mean["difference"] == pytest.approx(np.mean([figure(name, np.arange(40)) for name in TASKS["mrpc"].metrics]))
    assert mean["low"] < mean["difference"] < mean["high"]
    assert [loss["metric"] for loss in summary["losses"]] == ["accuracy", "accuracy"]


def test_matthews_is_that_of_scikit_learn(pairs):
    row = TaskRuns(task=TASKS["cola"], data=pairs, answers=answered(pairs, 0, wrong=4))
    truth, answers = np.asarray(pairs.truths), row.answers[0]
    one, other = (matthews_corrcoef(truth, answers[name].values) for name in ("int8-dynamic", FP32))
    assert row.differences("int8-dynamic")["matthews"][0] == pytest.approx(one - other)


@pytest.mark.parametrize(("wrong", "met"), [(0, True), (1, False)])
def test_agreement_is_held_against_its_bar(pairs, wrong, met):
    row = TaskRuns(task=TASKS["cola"], data=pairs, answers=answered(pairs, 0, 1, wrong=wrong))
    runs = [run("cola", seed, {"matthews": 0.0}) for seed in (0, 1)]
    bar = summarize(runs, [row])["int8-dynamic"]["bars"]["agreement cola"]
    assert bar["value"] == bar["lowest"] == 1 - wrong / 40
    assert (bar["met"], bar["every_run"]) == (met, met)


def test_the_lowest_of_the_runs_is_told_from_their_mean():
    runs = [
        run("stsb", seed, {"pearson": 0.0, "spearman": 0.0}, ranks=ranks) for seed, ranks in ((0, 0.999), (1, 0.994))
    ]
    bar = summarize(runs, [])["int8-dynamic"]["bars"]["rank correlation"]
    assert (bar["met"], bar["every_run"]) == (True, False)


def test_every_bar_and_subject_has_a_row_on_the_page(pairs):
    row = TaskRuns(task=TASKS["mrpc"], data=pairs, answers=answered(pairs, 0, wrong=3))
    runs = [run("mrpc", 0, {"accuracy": -0.02, "f1": -0.001})]
    runs[0]["subjects"]["int8-static"] = {"refused": "int8-static does not hold its budget"}
    machine = {"cpu": "CPU", "instruction_set": "avx2", "usable_cores": 2, "busy": 0.5, "versions": {"numpy": "2"}}
    data = {
        "commit": "0" * 40,
        "date": "2026-01-01T00:00:00Z",
        "machine": machine,
        "encoder": {"layers": 6, "hidden_size": 384, "parameters": 22_000_000},
        "tasks": {
            "mrpc": {
                "examples": 40,
                "fingerprint": pairs.fingerprint,
                "commonest": of_the_commonest(TASKS["mrpc"], pairs),
            }
        },
        "runs": runs,
        "summary": summarize(runs, [row]),
        "speed": None,
    }
    text = section(data, "AVX2 alone")
    for bar in BARS:
        assert f"| {bar.what} |" in text
    assert "| MiB | 1.0 | 4.0 | 1.0 |" in text
    true = sum(pairs.truths) / 40
    assert f"| MRPC | F1 | 40 | 0 | {200 * true / (1 + true):.2f} |" in text
    assert f"| MRPC | accuracy | 40 | 0 | {100 * true:.2f} |" in text
    assert "MRPC, seed 0, accuracy: -2.00 (-3.00 to -1.00), p = 0.5" in text
    assert "MRPC, seed 0, int8-static: int8-static does not hold its budget" in text
    assert "| MRPC | 0 | accuracy | 80.00 | 80.00 (70.0-90.0) | -2.00 (-3.00 to -1.00), p = 0.5 |" in text
    assert {name for name in SUBJECTS if f"- {name}: " in text} == runs[0]["subjects"].keys()


def test_tables_agree():
    assert set(SUBJECTS) == {PYTORCH, FP32, *VARIANTS, STOCK}
    assert GLUE == ("sst2", "cola", "mrpc", "rte", "stsb")
    assert all(set(bar.tasks) <= TASKS.keys() for bar in BARS)


def test_the_pages_are_written_of_their_data_by_whatever_path_these_were_named(tmp_path, monkeypatch):
    written = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(program, "DATA", {"vnni": tmp_path.resolve() / "tasks.json"})
    monkeypatch.setattr(program, "measure_all", lambda _: {})
    monkeypatch.setattr(program, "write_page", lambda: written.append("pages"))
    program.main(["measure", "--checkpoints", ".", "--data", ".", "--output", "tasks.json"])
    assert (tmp_path / "tasks.json").exists()
    assert written == ["pages"]


def test_few_examples_are_not_written_in_the_place_of_all(capsys, monkeypatch):
    monkeypatch.setattr(program, "time_all", lambda _: pytest.fail("it was timed"))
    with pytest.raises(SystemExit):
        program.main(["time", "--checkpoints", ".", "--data", ".", "--quick"])
    assert "--quick times few examples, and the page has all: add --output FILE" in capsys.readouterr().err


def test_what_is_missing_is_a_sentence(tmp_path):
    with pytest.raises(SystemExit, match=r"there is no run of sst2 in .*: train one with models/finetune\.py"):
        program.runs_in(tmp_path, ["sst2"])
    (tmp_path / "sst2-0" / "model").mkdir(parents=True)
    (tmp_path / "sst2-x" / "model").mkdir(parents=True)
    assert program.runs_in(tmp_path, None) == [("sst2", 0)]
    with pytest.raises(SystemExit, match=r"there is no run of rte in "):
        program.measure_all(SimpleNamespace(checkpoints=tmp_path, task=["rte"], work=tmp_path))
    options = SimpleNamespace(data=tmp_path)
    with pytest.raises(SystemExit, match=r"there is no sst2-dev\.jsonl in .*: name the directory"):
        program.prepare(options, "sst2", 0)


def test_calibration_gets_the_texts_of_a_training_part_without_labels(tmp_path):
    pair, tagged = {"text": "a \u2028 b", "text_pair": "c"}, {"tokens": ["a", "b"]}
    (tmp_path / "mrpc-train.jsonl").write_text(json.dumps({**pair, "label": "equivalent"}) + "\n", encoding="utf-8")
    with lzma.open(tmp_path / "wnut17-train.jsonl.xz", "wt", encoding="utf-8") as file:
        file.write(json.dumps({**tagged, "tags": ["O", "O"]}) + "\n")
    for name, expected in (("mrpc-train.jsonl", pair), ("wnut17-train.jsonl.xz", {"text": "a b"})):
        texts = training_texts(tmp_path / name, tmp_path / "texts.jsonl")
        assert [json.loads(line) for line in texts.read_text(encoding="utf-8").splitlines()] == [expected]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_short_run_measures_times_and_goes_on_where_it_was(classifier, tmp_path, capsys):
    checkpoint, _ = classifier
    for seed in (0, 1):
        place = tmp_path / "runs" / f"mrpc-{seed}"
        place.mkdir(parents=True)
        (place / "model").symlink_to(checkpoint, target_is_directory=True)
    rows = [
        {"text": one, "text_pair": other, "label": PAIRED[index % 2]}
        for index, (one, other) in enumerate(zip(texts(30), texts(30, 3), strict=True))
    ]
    for part in ("train", "dev"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"mrpc-{part}.jsonl").write_text(text, encoding="utf-8")
    given = ["--checkpoints", str(tmp_path / "runs"), "--data", str(tmp_path), "--work", str(tmp_path / "work")]
    given += ["--output", str(tmp_path / "tasks.json"), "--positions", "60", "--quick"]
    given += ["--recipe", "int8-dynamic", "--recipe", "int8-static"]
    program.main(["measure", *given])
    data = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    assert [run["seed"] for run in data["runs"]] == [0, 1]
    subjects = data["runs"][0]["subjects"]
    assert {PYTORCH, FP32, STOCK, "int8-dynamic", "int8-static"} <= subjects.keys()
    assert subjects[PYTORCH]["agreement"]["value"] == 1
    variants = Bundle.open(tmp_path / "work" / "mrpc-0" / "bundle").manifest.variants
    assert variants["int8-static"].fidelity["calibration"]["text"]["name"] == "calibration.jsonl"
    assert variants["int8-dynamic"].fidelity["weights_fitted_to"]["name"] == "calibration.txt"
    assert data["summary"][STOCK]["mean_of"] == ["mrpc"]
    made = (tmp_path / "work" / "mrpc-0" / "made.json").stat().st_mtime_ns
    program.main(["time", *given])
    timed = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    assert (tmp_path / "work" / "mrpc-0" / "made.json").stat().st_mtime_ns == made
    assert timed["runs"] == data["runs"]
    assert all(row["texts_per_second"]["value"] > 0 for row in timed["speed"]["tasks"]["mrpc"]["subjects"].values())
    assert "### Speed" in section(timed, "AVX2 alone")
    assert capsys.readouterr().err.count("measured") == 2
