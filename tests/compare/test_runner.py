"""The whole comparison of a tiny bundle: real graphs, real processes, every file of the report."""

import csv
import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from bertport.compare import presets, runner
from bertport.compare.codec import encode
from bertport.compare.options import Options
from bertport.compare.report.assembly import assemble
from bertport.compare.report.schema import SCHEMA_FILE
from bertport.compare.resume import JOURNAL
from bertport.compare.runner import Comparison
from bertport.measure.budget import default_budget
from bertport.measure.machine import describe_machine
from bertport.runtime.batching import plan
from bertport.runtime.cli import app
from bertport.runtime.commands.progress import Progress
from bertport.runtime.errors import (
    InputTextError,
    MissingHeadError,
    PathError,
    ProviderError,
    UnknownNameError,
    UsageError,
)
from bertport.runtime.providers.table import PROVIDERS
from tests.compare.conftest import TINY_PRESET, Interrupting


def compare(options, progress=None):
    """Return the report of a comparison as JSON values, after they were checked by the schema."""
    report = encode(assemble(Comparison(options, progress).run()))
    validate(report)
    return report


def validate(document):
    import jsonschema

    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(document)


def row(document, name):
    [entry] = [row for row in document["rows"] if row["name"] == name]
    return entry


def computed(lengths):
    """Return the tokens of the batches in which the CPU answers texts, padding included."""
    cpu = PROVIDERS["cpu"]
    batches = plan(lengths, budget=cpu.batch_tokens, overhead=cpu.overhead_tokens, most_rows=cpu.batch_rows)
    return sum(len(batch) * lengths[batch[0]] for batch in batches)


def test_the_document_keeps_to_its_schema(document):
    validate(document)


def test_every_scenario_is_measured(document):
    for name in ("fp32", "noisy"):
        speed = row(document, name)["speed"]
        assert speed["start"]["cold_start"]["value"] > speed["start"]["load"]["value"] > 0
        assert speed["single_stream"]["runs"] == TINY_PRESET.rounds * TINY_PRESET.passes * TINY_PRESET.inputs
        assert set(speed["single_stream"]["stages"]) == {"tokenize", "run", "finish"}
        assert all(share > 0 for share in speed["single_stream"]["stages"].values())
        assert speed["single_stream"]["median"]["value"] <= speed["single_stream"]["p90"]["value"]
        assert speed["offline"]["real_tokens"] == sum(document["text"]["inputs"]["lengths"])
        assert speed["offline"]["padded_tokens"] == computed(document["text"]["inputs"]["lengths"])
        [server] = speed["server"]
        assert server["runs"] == TINY_PRESET.server_rounds * TINY_PRESET.requests
        assert server["warmup_runs"] == TINY_PRESET.inputs
        assert set(speed["shapes"]) == {"1x8", "2x16"}
        assert 0 < speed["shapes"]["1x8"]["share_of_peak"] < 1
    assert set(row(document, "noisy")["times_faster"]) == {"SingleStream", "Offline", "1x8", "2x16"}
    assert row(document, "fp32")["times_faster"] == {}


def test_quality_is_measured_against_fp32(document):
    reference, noisy = row(document, "fp32")["quality"], row(document, "noisy")["quality"]
    assert reference["mlm"]["top1_agreement"]["value"] == 1
    assert reference["mlm"]["kl"]["value"] == 0
    assert 0 < noisy["mlm"]["kl"]["value"] < 1
    assert noisy["nsp"]["flips"]["count"] == TINY_PRESET.pairs
    assert noisy["mlm"]["perplexity_reference"] == reference["mlm"]["perplexity_candidate"]
    sums = row(document, "noisy")["per_text"]["mlm"]
    assert sum(text["count"] for text in sums) == noisy["mlm"]["kl"]["count"]
    assert sum(text["top1"] for text in sums) / noisy["mlm"]["kl"]["count"] == pytest.approx(
        noisy["mlm"]["top1_agreement"]["value"]
    )


def test_a_variant_that_fails_has_a_row_that_says_why(document):
    broken = row(document, "broken")
    assert "is not an ONNX graph" in broken["failed"]
    assert broken["speed"]["single_stream"] is None
    assert any("broken: " in sentence for sentence in document["not_measured"])
    assert row(document, "noisy")["failed"] is None


def test_weights_that_know_nothing_are_seen_and_nothing_is_recommended(document):
    [bundle] = document["bundles"]
    assert bundle["weights"] == "no better than chance"
    assert all(recommendation["choice"] is None for recommendation in document["recommendations"])
    assert not any("accuracy" in finding["figure"] for finding in document["findings"])


def test_the_portable_graph_is_left_out_and_said_to_be(document):
    assert any("portable" in sentence and "--variant portable" in sentence for sentence in document["not_measured"])


@pytest.mark.slow
def test_an_interrupted_run_keeps_what_it_has_and_goes_on(make_options, tmp_path):
    apart = dataclasses.replace(TINY_PRESET, together=False)
    options = make_options(tmp_path / "out", variants=("fp32",), effort=apart)
    partial = compare(options, Interrupting("time/SingleStream"))
    assert not partial["complete"]
    assert partial["rows"][0]["quality"]["mlm"]
    assert partial["rows"][0]["speed"]["start"]
    assert partial["rows"][0]["speed"]["single_stream"] is None
    second = Interrupting("none")
    whole = compare(dataclasses.replace(options, resume=True), second)
    assert whole["complete"]
    assert second.begun[0] == "time/SingleStream"
    assert whole["rows"][0]["quality"] == partial["rows"][0]["quality"]
    assert whole["rows"][0]["speed"]["single_stream"]
    with pytest.raises(UsageError, match="begun with another seed"):
        Comparison(dataclasses.replace(options, resume=True, seed=9))


def test_nothing_to_resume_is_said(make_options, tmp_path):
    with pytest.raises(UsageError, match="no unfinished comparison"):
        Comparison(make_options(tmp_path / "out", resume=True))


def test_what_was_begun_with_other_packages_is_not_gone_on_with(make_options, tmp_path, monkeypatch):
    options = make_options(tmp_path / "out", variants=("fp32",))
    Comparison(options)
    resumed = dataclasses.replace(options, resume=True)
    assert Comparison(resumed).journal.resumed == 0
    with pytest.raises(UsageError, match="was begun with another --random-weights: repeat its command"):
        Comparison(dataclasses.replace(resumed, random_weights=True))
    upgraded = dataclasses.replace(describe_machine(), versions={"onnxruntime": "99.0"})
    monkeypatch.setattr(runner, "describe_machine", lambda: upgraded)
    with pytest.raises(UsageError, match="was begun with another version of a package: repeat its command"):
        Comparison(resumed)


def test_what_was_begun_on_another_provider_is_not_gone_on_with(make_options, tmp_path, monkeypatch):
    """A row is named after its provider only where there are several."""
    monkeypatch.setitem(PROVIDERS, "another", dataclasses.replace(PROVIDERS["cpu"], name="another"))
    options = make_options(tmp_path / "out", variants=("fp32",), providers=("cpu",))
    Comparison(options)
    with pytest.raises(UsageError, match="was begun with another variants and providers: repeat its command"):
        Comparison(dataclasses.replace(options, providers=("another",), resume=True))


def test_a_provider_that_auto_holds_is_measured_once(make_options, tmp_path):
    entries = Comparison(make_options(tmp_path / "out", variants=("fp32",), providers=("auto", "cpu"))).entries
    assert [entry.provider for entry in entries].count("cpu") == 1


def test_a_comparison_that_is_begun_anew_says_what_it_drops(make_options, tmp_path):
    said = io.StringIO()
    for _ in range(2):
        Comparison(make_options(tmp_path / "out", variants=("fp32",)), Progress(said))
    assert said.getvalue() == (
        f"the unfinished comparison in {tmp_path / 'out'} is dropped, because --resume was not given\n"
    )


def test_the_command_writes_every_file(compared_bundle, held_out, tmp_path, monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "quick", TINY_PRESET)
    out = tmp_path / "out"
    command = ["compare", str(compared_bundle), "--quick", "--output", str(out), "--text", str(held_out)]
    done = CliRunner().invoke(app, [*command, "--threads", "1", "--variant", "fp32", "--random-weights"])
    assert done.exit_code == 0, done.output
    assert {file.name for file in out.iterdir()} == {"report.html", "report.md", "report.json", "report.csv"}
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    validate(report)
    assert report["bundles"][0]["weights"] == "random"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page
    assert page.count("<svg") == 3
    with (out / "report.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    [p90] = [line for line in lines if line["figure"] == "speed.single_stream.p90"]
    assert float(p90["value"]) == report["rows"][0]["speed"]["single_stream"]["p90"]["value"]
    assert "No recommendation" in (out / "report.md").read_text(encoding="utf-8")
    # The same pages again, without measuring; and nothing changed against itself.
    again = ["compare", "--from", str(out / "report.json"), "--against", str(out / "report.json")]
    done = CliRunner().invoke(app, [*again, "--output", str(tmp_path / "again")])
    assert done.exit_code == 0, done.output
    assert "nothing changed beyond noise" in done.stdout


BAD = {
    "empty text": ({"text": ""}, InputTextError, "holds no text"),
    "short text": ({"text": "one line\n"}, InputTextError, "too short"),
    "not UTF-8": ({"text": b"caf\xe9\n" * 20}, InputTextError, "not UTF-8"),
    "no such variant": ({"variants": ("int3",)}, UnknownNameError, "unknown variant 'int3'"),
    "no such provider": ({"providers": ("abacus",)}, UnknownNameError, "unknown provider 'abacus'"),
    "absent provider": ({"providers": ("cuda",)}, ProviderError, "not available here"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_before_anything_is_measured(make_options, tmp_path, case):
    changes, error, message = BAD[case]
    if "text" in changes:
        content = changes["text"]
        path = tmp_path / "text.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        changes = {"text": str(path)}
    with pytest.raises(error, match=message):
        Comparison(make_options(tmp_path / "out", **changes))
    assert not (tmp_path / "out" / JOURNAL).exists()


def test_what_has_a_default_need_not_be_said(tmp_path):
    comparison = Comparison(Options(output=tmp_path, effort="quick"))
    assert comparison.options.budget == default_budget()
    assert [bundle.label for bundle in comparison.bundles] == ["bertport-default"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"budget": "top1=98"}, UsageError, "write 98% as top1=0.98"),
        ({"budget": ""}, UsageError, "'' is not a limit"),
        ({"budget": None}, UsageError, "a budget is a text such as .*, not None"),
        ({"budget": "top2=0.9"}, UnknownNameError, "unknown limit 'top2'"),
        ({"bundles": "bundle"}, UsageError, r"bundles is a tuple of directories, not 'bundle': write \('bundle',\)"),
        ({"bundles": (3,)}, UsageError, r"bundles is a tuple of directories, not \(3,\)"),
        ({"output": None}, UsageError, "output is a path, not None"),
        ({"output": ""}, UsageError, "output is a path, not ''"),
        ({"effort": "thorough"}, UnknownNameError, r"unknown effort 'thorough' \(available: quick, medium, full\)"),
        ({"effort": 3}, UsageError, "effort is a row .* not 3"),
        ({"text": b"text.txt"}, UsageError, "text is a path, not b'text.txt'"),
        ({"templates": 1}, UsageError, "templates is a path, not 1"),
        ({"baselines": ("tensorflow",)}, UnknownNameError, "unknown baseline 'tensorflow'"),
        ({"variants": "fp32"}, UsageError, "variants is a tuple of names, not 'fp32'"),
        ({"providers": {"cpu"}}, UsageError, "providers is a tuple of names"),
        ({"threads": 0}, UsageError, "threads is a whole number from 1 up, not 0"),
        ({"threads": True}, UsageError, "threads is a whole number from 1 up, not True"),
        ({"seed": -1}, UsageError, "seed is a whole number from 0 up, not -1"),
        ({"seed": 0.5}, UsageError, "seed is a whole number from 0 up, not 0.5"),
        ({"resume": "no"}, UsageError, "resume is True or False, not 'no'"),
        ({"random_weights": None}, UsageError, "random_weights is True or False, not None"),
        ({"command": 1}, UsageError, "command is the text of a command line, not 1"),
    ],
)
def test_a_wrong_option_is_one_sentence_when_it_is_said(make_options, tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        make_options(**{"output": tmp_path / "out", **change})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": 0}, "the effort's positions is a whole number from 1 up, not 0"),
        ({"pairs": 1.5}, "the effort's pairs is a whole number from 0 up, not 1.5"),
        ({"server_shares": (0,)}, "server_shares are shares above 0"),
        ({"shapes": ((1,),)}, "shapes are pairs of rows and tokens"),
    ],
)
def test_an_effort_of_which_nothing_can_be_measured_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(TINY_PRESET, **change)


def test_an_output_that_cannot_be_written_is_said_first(make_options, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(PathError, match=r"cannot write into .*choose another directory"):
        Comparison(make_options(tmp_path / "file" / "out"))


def test_few_texts_are_said_to_say_little(make_options, held_out, tmp_path):
    text = tmp_path / "few.txt"
    text.write_text("\n".join(held_out.read_text(encoding="utf-8").splitlines()[:10]), encoding="utf-8")
    report = compare(make_options(tmp_path / "out", text=str(text)), Interrupting("quality/fp32"))
    assert any("10 texts are too few" in sentence for sentence in report["not_measured"])


def test_a_path_that_is_no_utf_8_costs_no_report(make_options, held_out, tmp_path):
    text = tmp_path / os.fsdecode(b"few\xff.txt")
    text.write_bytes(held_out.read_bytes())
    options = make_options(tmp_path / "out", text=str(text), command="bertport compare --text few\udcff.txt")
    report = compare(options, Interrupting("quality/fp32"))
    assert report["command"] == "bertport compare --text few\\udcff.txt"
    assert report["text"]["name"] == "few\\udcff.txt"


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_leaves_a_report_and_resume_finishes_it(compared_bundle, held_out, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "bertport.runtime", "compare", str(compared_bundle), "--quick"]
    command += ["--output", str(out), "--text", str(held_out), "--threads", "1", "--variant", "fp32"]
    command += ["--variant", "noisy"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 200
    while "time/cold start" not in (out / JOURNAL).read_text() if (out / JOURNAL).exists() else True:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume goes on" in said
    assert "Traceback" not in said
    partial = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert not partial["complete"]
    assert "interrupted" in (out / "report.html").read_text(encoding="utf-8")
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    whole = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert whole["complete"]
    assert whole["steps_resumed"] > 0
    assert row(whole, "noisy")["quality"] == row(partial, "noisy")["quality"]
    assert not (out / JOURNAL).exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "baselines", [("transformers",), pytest.param(("transformers", "optimum"), marks=pytest.mark.optimum)]
)
def test_baselines_run_the_same_weights_in_the_same_run(make_options, tmp_path, baselines):
    report = compare(make_options(tmp_path / "out", variants=("fp32",), baselines=baselines, random_weights=True))
    for name in baselines:
        baseline = row(report, name)
        assert baseline["failed"] is None
        assert baseline["same_answers"]["value"] == 1
        assert baseline["quality"] is None
        assert baseline["size_bytes"] > 0
        assert baseline["speed"]["offline"]["padded_tokens"] >= baseline["speed"]["offline"]["real_tokens"]
        assert set(baseline["times_faster"]) == {"SingleStream", "Offline", "1x8", "2x16"}


def test_the_reference_comes_with_a_variant_that_is_asked_for(make_options, tmp_path):
    comparison = Comparison(make_options(tmp_path / "out", variants=("noisy",)))
    assert [entry.name for entry in comparison.entries] == ["fp32", "noisy"]


def test_a_broken_reference_takes_no_other_variant_along(compared_bundle, make_options, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(compared_bundle, bundle)
    damaged = bundle / "onnx" / "model_serving.onnx"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    effort = dataclasses.replace(TINY_PRESET, shapes=((1, 8),), server_shares=())
    report = compare(make_options(tmp_path / "out", bundles=(str(bundle),), variants=("noisy",), effort=effort))
    assert "SHA-256" in row(report, "fp32")["failed"]
    assert row(report, "noisy")["failed"] is None
    assert row(report, "noisy")["speed"]["offline"]
    assert any("its reference variant failed" in sentence for sentence in report["not_measured"])


def test_a_bound_on_a_head_that_nothing_has_is_refused_if_it_was_asked_for(make_options, tmp_path, monkeypatch):
    opened = runner.open_bundles
    monkeypatch.setattr(runner, "open_bundles", lambda paths: [beheaded(bundle) for bundle in opened(paths)])
    with pytest.raises(MissingHeadError, match=r"bounds MLM top-1 agreement \(top1\), and there is no head 'mlm'"):
        Comparison(make_options(tmp_path / "out"))
    assert Comparison(make_options(tmp_path / "out", budget=default_budget())).bounds
    assert Comparison(make_options(tmp_path / "out", budget="cosine=0.9")).bounds


def beheaded(compared):
    manifest = compared.bundle.manifest
    bare = dataclasses.replace(manifest, heads=type(manifest.heads)())
    return dataclasses.replace(compared, bundle=dataclasses.replace(compared.bundle, manifest=bare))
