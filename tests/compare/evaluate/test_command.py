"""`bertport evaluate` prints what the variants answer, and a mistake is one sentence before anything runs."""

from __future__ import annotations

import dataclasses
import json
import lzma
import os
import shutil
import sys
from pathlib import Path

import jsonschema
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from bertport.compare.codec import decode
from bertport.compare.evaluate import measuring
from bertport.compare.evaluate.cli import METRIC_NAMES
from bertport.compare.evaluate.document import Evaluation
from bertport.compare.evaluate.schema import SCHEMA_FILE, evaluation_schema
from bertport.measure.labelled.metrics import METRICS
from bertport.runtime import load
from bertport.runtime.bundle.digest import sealed
from bertport.runtime.bundle.packing import pack
from bertport.runtime.errors import OutputError, PathError
from bertport.runtime.providers import cpu, plugins
from bertport.runtime.providers.table import PROVIDERS
from bertport.runtime.session import Graph
from tests.compare.conftest import written
from tests.compare.evaluate.conftest import LABELS, sentences
from tests.conftest import contents

COUNT = 60
QUICK = ("--metric", "accuracy")
"""One metric, whose test is exact, where it does not matter which."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Texts with labels in turn."""
    records = [{"text": text, "label": LABELS[number % 3]} for number, text in enumerate(sentences(COUNT))]
    return written(tmp_path_factory.mktemp("labelled") / "reviews.jsonl", records)


def test_the_figures_are_those_of_the_answers(invoke, classifier, data):
    done = invoke("evaluate", classifier, "--data", data, "--json")
    assert done.exit_code == 0, done.stderr
    value = json.loads(done.stdout)
    jsonschema.validate(value, evaluation_schema())
    evaluation = decode(Evaluation, value)
    records = [json.loads(line) for line in data.read_text().splitlines()]
    right = {}
    for name in ("fp32", "noisy"):
        answers = load(classifier, variant=name).predict("text-classification", [record["text"] for record in records])
        right[name] = [answer["label"] == record["label"] for answer, record in zip(answers, records, strict=True)]
    assert [variant.name for variant in evaluation.variants] == ["fp32", "noisy"]
    for variant in evaluation.variants:
        accuracy = variant.figures.metrics["accuracy"]
        assert accuracy.value == sum(right[variant.name]) / COUNT
        assert accuracy.low < accuracy.value < accuracy.high
    [comparison] = evaluation.comparisons
    difference = comparison.differences["accuracy"].difference
    assert difference.value == pytest.approx((sum(right["noisy"]) - sum(right["fp32"])) / COUNT)
    assert evaluation.data.examples == COUNT
    assert evaluation.task == "text-classification"
    assert evaluation.examples is None
    assert "portable" in evaluation.left_out[0]


def test_people_are_shown_the_same_figures(invoke, classifier, data):
    value = json.loads(invoke("evaluate", classifier, "--data", data, "--json").stdout)
    shown = invoke("evaluate", classifier, "--data", data).stdout
    assert f"text-classification on {COUNT} examples of reviews.jsonl" in shown
    for variant in value["variants"]:
        accuracy = variant["figures"]["metrics"]["accuracy"]
        assert f"{100 * accuracy['value']:.1f} ({100 * accuracy['low']:.1f} to {100 * accuracy['high']:.1f})" in shown
    for sentence in (*value["comparisons"][0]["sentences"], value["conclusion"]):
        assert sentence in shown


def test_the_kept_schema_is_that_of_the_types():
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == evaluation_schema()


def test_the_metrics_that_help_names_are_all_there_are():
    assert METRIC_NAMES.split(", ") == list(METRICS)


def test_texts_are_shown_only_where_they_are_asked_for(invoke, classifier, tmp_path):
    records = [{"text": f"good\x1b[31m\r bad {text}", "label": "neutral"} for text in sentences(COUNT)]
    data = written(tmp_path / "odd.jsonl", records)
    quiet = invoke("evaluate", classifier, "--data", data, *QUICK)
    assert "good" not in quiet.stdout + quiet.stderr
    shown = invoke("evaluate", classifier, "--data", data, "--examples", "3", *QUICK)
    assert shown.stdout.count("good") == 3
    assert not set(shown.stdout) & {"\x1b", "\r"}
    given = json.loads(invoke("evaluate", classifier, "--data", data, "--examples", "3", *QUICK, "--json").stdout)[
        "examples"
    ]
    assert [records[example["line"] - 1]["text"] for example in given] == [json.loads(one["inputs"]) for one in given]
    flips = ["noisy" if len({text.split()[0] for text in one["predictions"].values()}) > 1 else "" for one in given]
    assert flips == sorted(flips, reverse=True)


def test_the_file_is_what_is_printed(invoke, classifier, data, tmp_path):
    output = tmp_path / "evaluation.json"
    printed = json.loads(invoke("evaluate", classifier, "--data", data, *QUICK, "--json", "--output", output).stdout)
    assert json.loads(output.read_text(encoding="utf-8")) == printed
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]


def test_what_was_measured_is_shown_where_its_file_cannot_be_written(invoke, classifier, data, tmp_path, monkeypatch):
    def full(path, _):
        raise PathError(f"cannot write {path} (No space left on device)")

    monkeypatch.setattr("bertport.compare.evaluate.output.write_output", full)
    command = ("evaluate", classifier, "--data", data, *QUICK, "--output", tmp_path / "evaluation.json")
    for form in ((), ("--json",)):
        done = invoke(*command, *form)
        assert done.exit_code == 2
        assert "evaluation.json (No space left on device)" in done.stderr
        assert "text-classification" in done.stdout
        assert "noisy" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes")
def test_a_file_whose_name_is_not_utf_8(invoke, classifier, tmp_path):
    data = tmp_path / os.fsdecode(b"no\xff.jsonl")
    written(data, [{"text": text, "label": "neutral"} for text in sentences(9)])  # with a note, which names the file
    done = invoke("evaluate", classifier, "--data", data, *QUICK, "--output", tmp_path / "out.json")
    assert done.exit_code == 0
    assert "no\\udcff.jsonl" in done.stdout
    assert "never occur" in " ".join(json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["data"]["notes"])


def test_variants_and_reference_are_chosen(invoke, classifier, data):
    value = json.loads(invoke("evaluate", classifier, "--data", data, "--against", "noisy", *QUICK, "--json").stdout)
    assert value["reference"] == "noisy"
    assert [variant["name"] for variant in value["variants"]] == ["noisy", "portable", "fp32"]
    options = [*QUICK, "--variant", "portable", "--limit", "20", "--threads", "1", "--provider", "cpu", "--json"]
    value = json.loads(invoke("evaluate", classifier, "--data", data, *options).stdout)
    assert [variant["name"] for variant in value["variants"]] == ["fp32", "portable"]
    [comparison] = value["comparisons"]
    assert comparison["differences"]["accuracy"]["difference"]["value"] == 0
    assert comparison["sentences"][0].startswith("portable has fp32's accuracy (difference ")
    assert (value["data"]["examples"], value["data"]["limit"]) == (20, 20)
    alone = invoke("evaluate", classifier, "--data", data, "--variant", "fp32", *QUICK).stdout
    assert "fp32 was measured alone" in alone


def test_a_bundle_without_fp32_is_measured_against_what_is_named(invoke, classifier, data, tmp_path):
    packed = pack(classifier, tmp_path / "packed", ["noisy"]).path
    done = invoke("evaluate", packed, "--data", data, *QUICK)
    assert done.exit_code == 2
    assert "no variant 'fp32' or 'portable' that the others are compared with: name one of its own" in done.stderr
    assert "--against (noisy)" in done.stderr
    assert "noisy was measured alone" in invoke("evaluate", packed, "--data", data, "--against", "noisy", *QUICK).stdout


@pytest.fixture
def measured_on(classifier, tmp_path):
    """A function that gives the bundle with one more variant, of fp32's files, that was measured on a provider."""

    def made(name, precision, provider):
        path = shutil.copytree(classifier, tmp_path / "measured")
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        variants = manifest["variants"]
        requires = variants["fp32"]["requires"] | {"precision": precision}
        variants[name] = variants["fp32"] | {"recipe": name, "requires": requires, "fidelity": {"provider": provider}}
        (path / "manifest.json").write_bytes(sealed(manifest))
        return path

    return made


def test_a_variant_that_needs_a_provider_which_is_not_here_is_left_out(invoke, measured_on, data, monkeypatch):
    without_bf16 = cpu.Cpu(model="a test's CPU", flags=frozenset({"avx2"}), physical_cores=2)
    monkeypatch.setattr(cpu, "cpu", lambda: without_bf16)
    bundle = measured_on("bf16", "bf16", "openvino")
    value = json.loads(invoke("evaluate", bundle, "--data", data, *QUICK, "--json").stdout)
    assert [variant["name"] for variant in value["variants"]] == ["fp32", "noisy"]
    assert [said.partition(" '")[0] for said in value["left_out"]] == [
        "portable: the weights of fp32 as they were exported (--variant portable)",
        "bf16: provider",
    ]
    monkeypatch.setattr(measuring, "load", None)  # what was asked for is refused before any variant answers
    done = invoke("evaluate", bundle, "--data", data, "--variant", "bf16")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("bertport: error: provider 'openvino' ")


def test_a_variant_that_a_library_is_not_for_is_left_out_wherever_it_was_measured(
    invoke, measured_on, data, monkeypatch
):
    row = dataclasses.replace(PROVIDERS["cpu"], name="MyExecutionProvider", precisions=frozenset({"fp32"}))
    monkeypatch.setattr(plugins, "rows", lambda *_: (row,))
    bundle = measured_on("int8-static-cpu", "int8-static", "cpu")
    options = ("--provider-library", "libmy.so", *QUICK, "--json")
    value = json.loads(invoke("evaluate", bundle, "--data", data, *options).stdout)
    assert [variant["name"] for variant in value["variants"]] == ["fp32"]
    said = "int8-static-cpu: variant 'int8-static-cpu' is made for cpu, openvino, not for MyExecutionProvider: "
    assert [sentence for sentence in value["left_out"] if sentence.startswith(said)]


def test_the_seed_draws_the_resamples(invoke, classifier, data):
    def measured(seed):
        options = ("--metric", "ece", "--seed", seed, "--json")
        value = json.loads(invoke("evaluate", classifier, "--data", data, *options).stdout)
        assert value["settings"]["seed"] == seed
        figures = [variant["figures"]["metrics"]["ece"] for variant in value["variants"]]
        return [figure["value"] for figure in figures], [(figure["low"], figure["high"]) for figure in figures]

    first, again, other = (measured(seed) for seed in (1, 1, 2))
    assert first == again
    assert first[0] == other[0]
    assert all(one != two for one, two in zip(first[1], other[1], strict=True))


def test_a_stop_leaves_what_was_there(invoke, classifier, data, tmp_path, monkeypatch):
    output = tmp_path / "evaluation.json"
    output.write_text("before")

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring, "predict_labelled", stop)
    done = invoke("evaluate", classifier, "--data", data, "--output", output)
    assert done.exit_code == 130
    assert "interrupted: nothing was measured to its end, and " in done.stderr
    assert done.stdout == ""
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"evaluation.json": "before"}


def test_a_variant_without_finite_numbers_is_left_out_where_it_was_not_asked_for(invoke, classifier, data, monkeypatch):
    """What the others answer is not lost for it."""
    predict = measuring.predict_labelled

    def broken(model, *arguments, **options):
        if model.variant == "noisy":
            raise OutputError(f"{data}, line 7: the model gives no finite numbers")
        return predict(model, *arguments, **options)

    monkeypatch.setattr(measuring, "predict_labelled", broken)
    value = json.loads(invoke("evaluate", classifier, "--data", data, *QUICK, "--json").stdout)
    assert [variant["name"] for variant in value["variants"]] == ["fp32"]
    assert value["left_out"][-1] == f"noisy: {data}, line 7: the model gives no finite numbers"
    assert value["conclusion"].startswith("fp32 was measured alone")
    for option in ("--variant", "--against"):
        done = invoke("evaluate", classifier, "--data", data, *QUICK, option, "noisy")
        assert (done.exit_code, done.stdout) == (1, "")
        assert "line 7: the model gives no finite numbers" in done.stderr


def test_a_variant_that_fails_is_left_out_where_it_was_not_asked_for(invoke, classifier, data, tmp_path, monkeypatch):
    """What the others answer is not lost for it."""
    run = Graph.run

    def failing(graph, *arguments):
        if len(opened) > 1:
            raise Fail("no kernel")
        return run(graph, *arguments)

    def opening(*arguments, **options):
        opened.append(load(*arguments, **options))
        return opened[-1]

    opened = []
    with monkeypatch.context() as patched:
        patched.setattr(Graph, "run", failing)
        patched.setattr(measuring, "load", opening)
        value = json.loads(invoke("evaluate", classifier, "--data", data, *QUICK, "--json").stdout)
    assert [variant["name"] for variant in value["variants"]] == ["fp32"]
    assert value["left_out"][-1].startswith("noisy: variant 'noisy' of ")
    assert value["left_out"][-1].endswith("('no kernel'): choose another variant or provider")

    damaged = tmp_path / "bundle"
    shutil.copytree(classifier, damaged)
    (damaged / "onnx" / "noisy.onnx").write_bytes(b"not a graph")
    value = json.loads(invoke("evaluate", damaged, "--data", data, *QUICK, "--json").stdout)
    assert value["left_out"][-1].startswith("noisy: ")
    assert invoke("evaluate", damaged, "--data", data, *QUICK, "--variant", "noisy").exit_code == 1

    def changing(*arguments, **options):
        if options["variant"] == "noisy":
            manifest = damaged / "manifest.json"
            manifest.write_text(manifest.read_text(encoding="utf-8") + "\n", encoding="utf-8")
        return load(*arguments, **options)

    monkeypatch.setattr(measuring, "load", changing)
    done = invoke("evaluate", damaged, "--data", data, *QUICK)
    assert (done.exit_code, done.stdout) == (1, "")


@pytest.fixture(scope="module")
def unopenable(classifier, tmp_path_factory):
    """A bundle whose graphs are gone: whatever opens a session of it fails."""
    path = tmp_path_factory.mktemp("unopenable") / "bundle"
    shutil.copytree(classifier, path)
    for graph in (path / "onnx").iterdir():
        graph.unlink()
    return path


def test_whatever_opens_a_session_of_the_bundle_without_graphs_fails(invoke, unopenable, data):
    done = invoke("evaluate", unopenable, "--data", data)
    assert done.exit_code == 1
    assert "onnx" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--variant", "int9"], "unknown variant 'int9' (available: portable, fp32, noisy)"),
        (["--against", "int9"], "unknown variant 'int9'"),
        (["--provider", "tpu"], "unknown provider 'tpu'"),
        (["--task", "translation"], "unknown task with labelled data 'translation'"),
        (["--task", "question-answering"], "question-answering needs the head 'question-answering'"),
        (["--label-map", "a"], "a label map is written A=B"),
        (["--metric", "bleu"], "unknown metric of text-classification (classification) 'bleu' (available: accuracy"),
        (["--positive", "fine"], "'fine'"),
        (["--metric", "accuracy", "--positive", "fine"], "a positive label is for f1, which is not among the metrics"),
        (["--metric", "f1"], "f1 is of one label, and the bundle has 3: name that label with --positive"),
        (["--text-column", "sentence"], "there is no column sentence"),
        (["--output", "/nowhere/out.json"], "cannot write /nowhere/out.json (No such file or directory)"),
        (["--output", "/tmp"], "cannot write /tmp (it exists and is not a file)"),  # noqa: S108 — nothing is written
    ],
)
def test_an_option_that_cannot_be(invoke, unopenable, data, options, said):
    refused(invoke("evaluate", unopenable, "--data", data, *options), said)


@pytest.mark.parametrize("name", ["data.jsonl", "link.jsonl", "bundle/config.json", "bundle/new.json"])
def test_an_output_is_no_file_that_is_read_or_in_the_bundle(invoke, unopenable, tmp_path, name):
    bundle = shutil.copytree(unopenable, tmp_path / "bundle")
    data = written(tmp_path / "data.jsonl", [{"text": "good", "label": "neutral"}] * 9)
    (tmp_path / "link.jsonl").symlink_to(data)
    before = contents(tmp_path)
    said = "the command reads that file" if name.endswith("jsonl") else "it is in the bundle"
    refused(invoke("evaluate", bundle, "--data", data, "--output", tmp_path / name), f"{name} ({said}")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("output", "said"), [(".", "reads that file"), ("bundle/out", "is in the bundle")])
def test_a_report_takes_the_place_of_nothing_that_is_read(invoke, unopenable, tmp_path, output, said):
    bundle = shutil.copytree(unopenable, tmp_path / "bundle")
    data = written(tmp_path / "report.csv", [{"text": "good"}])
    before = contents(tmp_path)
    refused(invoke("compare", bundle, "--data", data, "--output", tmp_path / output), said)
    assert contents(tmp_path) == before


COMMANDS = {
    "evaluate": (),
    "quantize": ("--text", "held-out.txt", "--accuracy-budget", "accuracy.drop=0.01"),
    "compare": ("--text", "held-out.txt", "--output", "out"),
}
"""Commands that measure labelled data, with what else they take."""


@pytest.fixture
def here(tmp_path, held_out, monkeypatch):
    """The directory that commands run in: it has a text."""
    shutil.copy(held_out, tmp_path / "held-out.txt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(params=["sklearn", "scipy"])
def missing(request, monkeypatch):
    """Name of a package that is not installed."""
    monkeypatch.setitem(sys.modules, request.param, None)
    return {"sklearn": "scikit-learn"}.get(request.param, request.param)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_package_that_is_not_installed(invoke, unopenable, command, missing, here):
    data = written(here / "data.jsonl", [{"text": "good", "label": "neutral"}] * 9)
    done = invoke(command, unopenable, "--data", data, *COMMANDS[command])
    assert done.exit_code == 1
    assert done.stdout == ""
    what = command if command == "evaluate" else f"{command} --data"
    *before, error = done.stderr.splitlines()
    assert error.startswith(f"bertport: error: {what} needs the package {missing}, which is not installed: ")
    assert "[cpu,evaluate]" in error  # of bertport, or of this checkout
    assert all(line.endswith(" …") for line in before)  # what it was doing
    assert {path.name for path in here.iterdir()} == {"data.jsonl", "held-out.txt"}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_odd_is_told_before_a_session_is_opened(invoke, unopenable, command, here):
    data = written(here / "odd.jsonl", [{"text": text, "label": 1} for text in sentences(20)])
    done = invoke(command, unopenable, "--data", data, *COMMANDS[command])
    assert done.exit_code == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("note: ")] == [
        "note: odd.jsonl writes labels as ids, read by the bundle's order: 0 is negative, 1 is neutral, 2 is positive",
        "note: 2 of the bundle's 3 labels never occur in odd.jsonl: negative, positive",
    ]


GOOD = '{"text": "good", "label": "neutral"}\n' * 9
TABLE = "text,label\n" + "good,neutral\n" * 9
BAD = {
    "empty.jsonl": ("", "empty.jsonl holds no examples"),
    "header.csv": ("text,label\n", "header.csv holds no examples"),
    "one.jsonl": (GOOD.splitlines()[0], "too short: 1 example"),
    "list.jsonl": ('["good"]\n' * 9, "line 1: ['good'] is not an object"),
    "array.jsonl": ("[" + GOOD.strip().replace("\n", ",") + "]", "line 1: [{'text': 'good'"),
    "nul.jsonl": (GOOD + '{"text": "a\0b"}', "line 10: a NUL character"),
    "latin1.jsonl": (GOOD.encode() + b'{"text": "\xe9", "label": 0}', "line 10: not UTF-8 (byte 0xe9)"),
    "utf16.jsonl": (GOOD.encode("utf-16"), "line 1: not UTF-8"),
    "surrogate.jsonl": (GOOD + '{"text": "a\\ud800", "label": 0}', "line 10: text has an invalid character (\\ud800)"),
    "unknown.jsonl": (GOOD + '{"text": "a", "label": "\\u001b[31mred"}', r"line 10: the label '\x1b[31mred' is not"),
    "float.jsonl": ('{"text": "good", "label": 1.0}\n' * 9, "line 1: label must be the name or the number of a label"),
    "nan.jsonl": ('{"text": "good", "label": NaN}\n' * 9, "line 1: label must be the name or the number of a label"),
    "huge.jsonl": ('{"text": "good", "label": 1' + "0" * 4000 + "}\n" + GOOD, "line 1"),
    "null.jsonl": ('{"text": null, "label": 0}\n' * 9, "line 1: text is null"),
    "missing.csv": ("text\n" + "good\n" * 9, "there is no column label (columns: text)"),
    "twice.csv": ("text,label,text\n" + "a,neutral,b\n" * 9, "2 columns named 'text'"),
    "wide.csv": (",".join(map(str, range(10_000))) + "\n" + "," * 9_999, "there is no column text"),
    "ragged.csv": (TABLE + "good\n", "line 11: 1 fields under 2 columns"),
    "open.csv": (TABLE + '"good,neutral\n' + "good,neutral\n" * 20_000, "not CSV (unexpected end of data)"),
    "deep.jsonl": ("[" * 100_000, "line 1: not JSON"),
    "long.jsonl": (GOOD + json.dumps({"text": "good " * 300, "label": "neutral"}), "line 10: the input has"),
    "packed.jsonl.gz": (GOOD, "Not a gzipped file"),
    "bomb.jsonl.xz": (lzma.compress(b"x" * (16 << 20), preset=0), "line 1: longer than"),
    "other.parquet": (GOOD, "cannot read the data"),
    "other.json": (GOOD, "cannot tell the format of the data"),
}
"""Files that are no data, each with what is said of it."""


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_one_sentence_before_a_session_is_opened(invoke, unopenable, tmp_path, name):
    content, said = BAD[name]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(invoke("evaluate", unopenable, "--data", path), said)


@pytest.mark.parametrize("name", ["empty.jsonl", "unknown.jsonl", "float.jsonl", "missing.csv"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_bad_data_before_a_session_is_opened(invoke, unopenable, command, name, here):
    content, said = BAD[name]
    (here / name).write_text(content, encoding="utf-8")
    done = invoke(command, unopenable, "--data", here / name, *COMMANDS[command])
    assert (done.exit_code, done.stdout) == (2, "")
    *before, error = done.stderr.splitlines()
    assert error.startswith("bertport: error: ")
    assert said in error
    assert all(line.endswith(" …") for line in before)  # what it was doing
    assert {path.name for path in here.iterdir()} == {name, "held-out.txt"}


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["directory", "FIFO"])
def test_data_that_is_no_file(invoke, unopenable, tmp_path, make):
    path = tmp_path / "data.jsonl"
    make(path)
    refused(invoke("evaluate", unopenable, "--data", path), "it is not a regular file, and data is read twice")


def refused(done, said):
    """It is one sentence that moves no cursor."""
    assert done.exit_code == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("bertport: error: ")
    assert said in line
    assert not set(line) & {"\x1b", "\0", "\r"}
    assert len(line) < 5000
