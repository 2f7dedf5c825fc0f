"""A comparison on labelled data: what is refused before anything is measured, what is timed, and how it goes on."""

import dataclasses
import json
import os
import shutil
import sys

import pytest
from click.testing import CliRunner
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from bertport.compare import labelled as labelled_module
from bertport.compare.entries import VARIANT, Entry, open_bundles
from bertport.compare.labelled import LabelledBench, data_info
from bertport.compare.options import Options
from bertport.compare.resume import JOURNAL
from bertport.compare.runner import LABELLED, PEAK, QUALITY, Comparison
from bertport.export import export
from bertport.measure.labelled.data import ChangedDataError
from bertport.measure.speed.workload import WorkerSpec
from bertport.runtime import load
from bertport.runtime.cli import app
from bertport.runtime.errors import InputTextError, MissingHeadError, OutputError, UsageError
from bertport.runtime.heads import MULTIPLE_CHOICE, QUESTION_ANSWERING, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION
from bertport.runtime.session import Graph
from tests.compare.conftest import Interrupting, choice, written
from tests.heads import head_bundle
from tests.sentence_models import PROMPTS, sentence_model


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
        ([{"text": "a", "label": "green"}] * 9, "the label 'green' is not one of the bundle's"),
        ([{"text": "a", "label": 0.5}] * 9, "label must be the name or the number of a label, and is 0.5"),
        ([{"text": "a"}] * 9, "there is no column label"),
        ([{"text": "a", "label": "neutral"}], "too short"),
        ([{"text": "a " * count, "label": "neutral"} for count in (*range(1, 9), 600)], "line 9: the input has"),
    ],
)
def test_bad_data_is_refused_before_anything_is_measured(asked, tmp_path, lines, message):
    path = written(tmp_path / "bad.jsonl", lines)
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


@pytest.mark.parametrize(
    ("options", "idle"),
    [
        (("bundle",), "BUNDLE"),
        (("bundle", "--resume", "--data", "texts.jsonl"), "BUNDLE, --data, --resume"),
        (("--variant", "int8", "--quick", "--seed", "0"), "--quick, --variant, --seed"),
        (("--text", "my.txt", "--baseline", "transformers"), "--text, --baseline"),
    ],
)
def test_what_to_measure_and_a_finished_report_are_not_taken_together(tmp_path, options, idle):
    command = ["compare", "--from", "report.json", "--output", str(tmp_path / "out"), *options]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert done.stderr == f"bertport: error: --from takes a report as it is: leave {idle} out\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [["--metric", "f1"], ["--limit", "9"], ["--task", "x"], ["--label-column", "y"]])
def test_options_of_data_without_data_are_refused(tmp_path, option):
    done = CliRunner().invoke(app, ["compare", "--output", str(tmp_path / "out"), *option])
    assert done.exit_code == 2
    assert "given without the data: name the file with --data" in done.stderr
    assert not (tmp_path / "out").exists()


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


def test_an_error_of_onnx_runtime_is_a_rows_reason(asked, monkeypatch):
    run = Graph.run

    def failing(graph, *arguments):
        if loaded[-1] == "noisy":
            raise Fail("no kernel")
        return run(graph, *arguments)

    def loading(path, **settings):
        loaded.append(settings["variant"])
        return load(path, **settings)

    loaded = []
    monkeypatch.setattr(Graph, "run", failing)
    monkeypatch.setattr(labelled_module, "load", loading)
    measured = Comparison(asked(), Interrupting(f"{QUALITY}fp32")).run()
    assert "fp32" in measured.labelled
    [said] = [sentence for sentence in measured.left_out if sentence.startswith("noisy, the labelled data: ")]
    assert said.endswith("('no kernel'): choose another variant or provider")


def test_data_that_changes_is_no_rows_reason(asked, labelled_bundle, tmp_path):
    """A reason that is written down would be kept when the comparison goes on."""

    class Changing(Interrupting):
        def begin(self, step, label):
            if step == f"{LABELLED}noisy":
                path.write_text("", encoding="utf-8")
            super().begin(step, label)

    path = tmp_path / "texts.jsonl"
    shutil.copy(labelled_bundle / "texts.jsonl", path)
    said = "texts.jsonl has changed since the comparison began: put it back as it was and go on with --resume, or begin"
    with pytest.raises(ChangedDataError, match=said):
        Comparison(asked(path), Changing(None)).run()
    with pytest.raises(InputTextError, match="holds no examples"):
        Comparison(asked(path, resume=True))
    shutil.copy(labelled_bundle / "texts.jsonl", path)
    progress = Interrupting(f"{QUALITY}fp32")
    measured = Comparison(asked(path, resume=True), progress).run()
    assert progress.begun[0] == f"{LABELLED}noisy"
    assert measured.labelled["noisy"].why is None


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes")
def test_a_reason_that_names_a_file_whose_name_is_no_unicode_can_be_recorded(labelled_bundle, tmp_path, monkeypatch):
    path, bundle = tmp_path / os.fsdecode(b"no\xff.jsonl"), labelled_bundle / "bundle"
    shutil.copy(labelled_bundle / "texts.jsonl", path)
    [compared] = open_bundles([bundle])
    data = choice(path).read(compared.bundle.manifest)
    fp32, noisy = (
        Entry(
            bundle=compared.label,
            kind=VARIANT,
            recipe=name,
            size_bytes=1,
            spec=WorkerSpec(name=name, bundle=str(bundle), variant=name, threads=1),
        )
        for name in ("fp32", "noisy")
    )
    bench = LabelledBench(compared, fp32, data, Options(output=tmp_path, labelled=choice(path)))

    def broken(*_, **__):
        raise OutputError(f"{data.where(0)}: the model gives no finite numbers")

    monkeypatch.setattr(labelled_module, "predict_labelled", broken)
    step = bench.measure(noisy, lambda *_: None)
    assert step.why.endswith("no\\udcff.jsonl, line 1: the model gives no finite numbers")
    path.write_text("", encoding="utf-8")
    monkeypatch.undo()
    with pytest.raises(ChangedDataError, match=r"no\\udcff\.jsonl has changed since the comparison began"):
        bench.measure(noisy, lambda *_: None)


@pytest.mark.slow
def test_a_baselines_texts_begin_with_the_prompts_of_the_data(tiny_checkpoint, tmp_path):
    """And not with the model's default as well."""
    checkpoint = sentence_model(tmp_path / "model", tiny_checkpoint, prompts=PROMPTS, default_prompt="query")
    export(checkpoint, tmp_path / "bundle")
    file = written(
        tmp_path / "pairs.jsonl",
        [{"text": one, "text_pair": TEXTS[number - 1], "score": number} for number, one in enumerate(TEXTS)] * 2,
    )
    [compared] = open_bundles([tmp_path / "bundle"])
    given = choice(file, prompts={"query_prompt": "a day ", "document_prompt": ""})
    spec = WorkerSpec(name="fp32", bundle=str(tmp_path / "bundle"), variant="fp32", threads=1)
    fp32 = Entry(bundle=compared.label, kind=VARIANT, recipe="fp32", size_bytes=1, spec=spec)
    name = "sentence-transformers"
    spec = WorkerSpec(name=name, baseline=name, file=str(checkpoint), task="embeddings", threads=1)
    options = Options(output=tmp_path, labelled=given)
    bench = LabelledBench(compared, fp32, given.read(compared.bundle.manifest), options)
    step = bench.measure(dataclasses.replace(fp32, kind=name, spec=spec), lambda *_: None)
    assert step.why is None
    assert step.differences["spearman"].spearman.value == pytest.approx(1)
    own = bench.measure(fp32, lambda *_: None).figures.metrics["pearson"].value
    assert step.figures.metrics["pearson"].value == pytest.approx(own, abs=1e-5)  # float32
    assert data_info(options, {"": given.read(compared.bundle.manifest)}).prompts == {"query": "a day ", "document": ""}


TEXTS = [
    "the man went home",
    "a day of the year",
    "the world was old",
    "he slept",
    "and the day",
    "man",
    "the year was",
]
RECORDS = {
    "text-classification": [
        {"text": text, "text_pair": pair, "label": label}
        for text, pair, label in zip(TEXTS * 2, reversed(TEXTS * 2), ["neutral", "negative"] * 7, strict=True)
    ],
    "token-classification": [
        {"tokens": text.split(), "tags": ["B-PER", "O", "B-LOC", "I-LOC", "O"][: len(text.split())]}
        for text in TEXTS * 2
    ],
    "multiple-choice": [
        {"prompt": text, "choices": [TEXTS[0], TEXTS[3], text], "label": number % 3}
        for number, text in enumerate(TEXTS)
    ]
    * 2,
    "text-ranking": [
        {"query": text, "documents": TEXTS[:4], "relevance": [number % 2, 1, 0, 2]} for number, text in enumerate(TEXTS)
    ]
    * 2,
    "question-answering": [
        {"question": "who?", "context": f"{text} {TEXTS[number - 1]}", "answers": [text]}
        for number, text in enumerate(TEXTS)
    ]
    * 2,
}
PEERS = {
    "text-classification": ("transformers", SEQUENCE_CLASSIFICATION, None),
    "token-classification": ("transformers", TOKEN_CLASSIFICATION, None),
    "multiple-choice": ("transformers", MULTIPLE_CHOICE, ()),
    "text-ranking": ("sentence-transformers", SEQUENCE_CLASSIFICATION, ("LABEL_0",)),
    "question-answering": ("transformers", QUESTION_ANSWERING, ()),
}
"""By task: the baseline, the head, and its labels where they are not the usual ones."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "task",
    [
        pytest.param(task, marks=pytest.mark.optimum) if task == "question-answering" else task  # transformers 4 has it
        for task in PEERS
    ],
)
def test_a_baseline_predicts_what_fp32_does(tmp_path_factory, tmp_path, task):
    name, head, labels = PEERS[task]
    checkpoint, path = head_bundle(tmp_path_factory, "bert", head, labels=labels)
    file = written(tmp_path / "data.jsonl", RECORDS[task])
    [compared] = open_bundles([path])
    data = choice(file, task=task).read(compared.bundle.manifest)
    fp32 = Entry(
        bundle=compared.label,
        kind=VARIANT,
        recipe="fp32",
        size_bytes=1,
        spec=WorkerSpec(name="fp32", bundle=str(path), variant="fp32", threads=1),
    )
    spec = WorkerSpec(name=name, baseline=name, file=str(checkpoint), task=task, threads=1)
    bench = LabelledBench(compared, fp32, data, Options(output=tmp_path, labelled=choice(file)))
    step = bench.measure(dataclasses.replace(fp32, kind=name, spec=spec), lambda *_: None)
    assert step.why is None
    own = bench.measure(fp32, lambda *_: None)
    for metric, estimate in own.figures.metrics.items():
        assert step.figures.metrics[metric].value == pytest.approx(estimate.value, abs=1e-5)  # float32
        assert step.differences[metric].difference.value == pytest.approx(0, abs=1e-5)
        assert step.differences[metric].agreement.value == 1
