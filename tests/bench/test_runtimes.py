"""What is said of every runtime: the page follows from the data, the data hold, and a wrong graph would be seen."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.runtimes.__main__ import main
from bench.runtimes.page import OURS, PAGE, VARIANTS, Result, cell, missing, results, section
from bench.runtimes.probe import alias_values, difference
from bench.runtimes.proving import holds, job_of, proven
from bertport.export.checkpoint.families import FAMILIES
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.errors import BundleError, UnknownNameError
from bertport.runtime.heads import HEADS

ROOT = Path(__file__).parents[2]
HOW = {"runtime": "r", "bundle": "b", "variant": "fp32", "head": "mlm"}


def test_the_page_is_what_the_data_say():
    main(["page", "--check"])


def test_no_runtime_differs():
    assert [
        each for each in results() if each.refused is None and not each.built and cell([each]) == "**differs**"
    ] == []


def test_no_answer_in_time_is_no_refusal():
    assert not [each for each in results() if each.refused and "no answer" in each.refused]
    late = [each for each in results() if each.no_answer is not None]
    written = section().replace("\n", " ")
    for each in late:
        assert f"`{each.variant}` of " in written
        assert f"{each.bundle} (in {each.no_answer / 60:.0f} minutes)" in written
    assert ("**No answer**" in written) is bool(late)


def test_bertports_own_words_are_marked():
    rows = [line for line in section().splitlines() if "| bertport |" in line]
    assert {line.split("|")[2].strip() for line in rows} == {"`int8-static`"}
    assert OURS.match("variant 'int8-static' is made for")
    assert OURS.match('variant "int8-static" is computed in')
    assert not OURS.match("[ONNXRuntimeError] : 1 : FAIL : variant 'x'")


KNOWN = {("onnx.reference", "tiny roberta"): "cannot reshape array of size 1 into shape (1,9)"}
"""Standard graphs that a runtime fails at by a fault of its own: ONNX's evaluator gathers one element where it is asked
for several of a matrix that is wider than NumPy's `choose` takes (onnx/reference/ops/op_gather_elements.py)."""


def test_portable_graphs_hold_in_every_runtime_that_golden_vectors_prove():
    data = json.loads((ROOT / "docs" / "data" / "runtimes.json").read_text(encoding="utf-8"))
    assert {"onnxruntime", "onnxruntime oldest", "openvino", "onnx.reference", "onnxruntime-node"} <= set(
        data["runtimes"]
    )
    for name, found in data["runtimes"].items():
        assert "default model" in found["bundles"], name
        for title, variants in found["bundles"].items():
            known = variants["portable"].get("refused") == KNOWN.get((name, title), "")
            assert known or holds({"variants": {"portable": variants["portable"]}}), (name, title)


def test_every_head_has_a_column_or_is_said_to_be_missing():
    written = section()
    columns = {
        name.strip() for line in written.splitlines() if line.startswith("| runtime |") for name in line.split("|")
    }
    [left] = re.findall(r"from these heads: ([^;.]*)", written.replace("\n", " ")) or [""]
    assert {*HEADS, "encoder"} <= {*columns, *re.findall(r"`([^`]+)`", left)}


def test_what_is_missing_is_what_no_runtime_has_answered_from():
    bare = missing([])
    assert bare == (list(HEADS), [family.title for name, family in FAMILIES.items() if name != "bert"])
    answered = {"tolerance": 1e-4, "difference": 0.0}
    listed = [
        Result(**{**HOW, **answered, "bundle": "tiny electra, replaced tokens", "head": "rtd"}),
        Result(**{**HOW, **answered, "bundle": "tiny albert"}),
        Result(**{**HOW, "bundle": "tiny mpnet", "refused": "no"}),
        Result(**{**HOW, "bundle": "tiny modernbert", "built": True}),
    ]
    heads, families = missing(listed)
    assert set(bare[0]) - set(heads) == {"mlm", "rtd"}
    assert set(bare[1]) - set(families) == {"ELECTRA", "ALBERT"}


def test_no_family_is_called_missing_by_hand():
    by_hand = PAGE.read_text(encoding="utf-8").partition("<!-- measured: begin -->")[0]
    for family in missing(results())[1]:
        assert family not in by_hand


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ([{"difference": 1e-6, "tolerance": 1e-4}], "equal"),
        ([{"difference": 1e-6, "tolerance": 1e-4}, {"difference": 0.03, "tolerance": 0.3}], "within 10%"),
        ([{"difference": 1e-6, "tolerance": 1e-4}, {"difference": 0.31, "tolerance": 0.3}], "**differs**"),
        ([{"difference": None, "tolerance": 0.3}], "**differs**"),
        ([{"refused": "no"}], "refused"),
        ([{"refused": "no"}, {"bundle": "c", "difference": 0.0, "tolerance": 0.3}], "equal; 1 of 2 refused"),
        ([{"no_answer": 900}], "no answer"),
        ([{"no_answer": 900}, {"bundle": "c", "difference": 0.0, "tolerance": 0.3}], "equal; 1 of 2 no answer"),
        ([{"no_answer": 900}, {"bundle": "c", "refused": "no"}], "1 of 2 refused; 1 of 2 no answer"),
        ([{"built": True}], "built"),
        ([], ""),
    ],
)
def test_a_cell_is_the_worst_of_its_results(listed, said):
    assert cell([Result(**{**HOW, **each}) for each in listed]) == said


def test_a_share_of_a_tolerance_is_rounded_as_the_page_says():
    shown = cell([Result(**{**HOW, "difference": 0.0494, "tolerance": 0.3})])
    assert shown == "within 16%"  # of 16.5: it is not "at most" 16
    assert "share of the tolerance, rounded to a whole per cent" in PAGE.read_text(encoding="utf-8").replace("\n", " ")


def test_a_difference_is_seen_wherever_it_is():
    values = np.array([[3.0, 2.0, 1.0, 0.0, -1.0]], dtype=np.float32)
    rms = float(np.sqrt(np.mean(values**2)))
    row = {"batch": 0, "row": 0, "columns": [0, 1, 4], "values": [3.0, 2.0, -1.0], "largest": 2, "rms": rms}
    expected = {"shapes": [[1, 5]], "rows": [row], "tolerance": 1e-4}
    assert difference(expected, [values]) < 1e-6
    for column, wrong, far in ((1, 2.5, 0.5), (3, 2.5, 0.5), (2, -1.0, 0.0)):  # the last keeps even the mean square
        changed = values.copy()
        changed[0, column] = wrong
        assert difference(expected, [changed]) == pytest.approx(far, abs=1e-6)
    assert difference(expected, [values[:, :4]]) is None
    assert difference(expected, [np.full_like(values, np.nan)]) is None


def test_a_variant_of_which_nothing_was_compared_does_not_hold():
    assert not holds({"variants": {"fp32": {"outputs": {}}}})


def test_further_names_stand_for_an_output_or_its_columns():
    output = np.arange(12).reshape(2, 3, 2)
    assert alias_values(output, ["logits"]) == [output]
    start, end = alias_values(output, ["start_logits", "end_logits"])
    assert (start == output[..., 0]).all()
    assert (end == output[..., 1]).all()


def test_what_cannot_be_asked_is_refused(tiny_bundle, tmp_path, capsys):
    with pytest.raises(UnknownNameError, match="unknown runtime 'caffe'"):
        proven("caffe", {})
    with pytest.raises(UnknownNameError, match="unknown variant with golden vectors 'int9'"):
        job_of(tiny_bundle, ["int9"])
    with pytest.raises(SystemExit, match="no bundle at"):
        main(["prove", str(tmp_path / "none"), "onnxruntime"])
    with pytest.raises(SystemExit, match="unknown runtime 'caffe'"):
        main(["run", "caffe"])
    with pytest.raises(SystemExit, match="unknown bundle 'tiny'"):
        main(["run", "--bundle", "tiny", "onnx.reference"])
    assert capsys.readouterr().out == ""


def test_a_changed_byte_and_a_bundle_without_golden_vectors_are_refused(tiny_bundle, tmp_path):
    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.bundle.writer import write_manifest

    changed = tmp_path / "changed"
    shutil.copytree(tiny_bundle, changed)
    with (changed / "onnx" / "model.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(b"\x01\x02\x03")
    with pytest.raises(BundleError, match="changed"):
        job_of(changed)
    bare = tmp_path / "bare"
    shutil.copytree(tiny_bundle, bare)
    bundle = Bundle.open(bare)
    name = bundle.manifest.golden_vectors.file
    files = {path: entry for path, entry in bundle.manifest.files.items() if path != name}
    write_manifest(bare, dataclasses.replace(bundle.manifest, golden_vectors=None, files=files))
    with pytest.raises(BundleError, match="has no golden vectors to prove a runtime by: add them with bertport golden"):
        job_of(bare)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "onnx.reference"])
def test_a_bundle_is_proven_and_a_wrong_value_is_not(runtime, tiny_bundle, tmp_path):
    """In the runtimes that need no download, the golden values as they are, and with one of them changed."""
    found = proven(runtime, job_of(tiny_bundle, ["portable", "fp32"]))
    assert found["version"]
    assert holds(found)
    assert {name for name, row in found["variants"]["portable"]["outputs"].items()} >= {"logits", "last_hidden_state"}
    wrong = tmp_path / "wrong"
    shutil.copytree(tiny_bundle, wrong)
    [path] = wrong.glob("golden*.json")
    golden = json.loads(path.read_text())
    golden["variants"]["portable"]["outputs"]["logits"]["rows"][0]["values"][0] += 0.01
    path.write_text(json.dumps(golden))
    job = {"bundle": str(wrong), "variants": ["portable"]}
    row = proven(runtime, job)["variants"]["portable"]["outputs"]["logits"]
    assert row["difference"] == pytest.approx(0.01, abs=1e-4)
    assert not holds(proven(runtime, job))


@pytest.mark.parametrize(
    ("outputs", "differences", "told"),
    [
        (("logits",), ["the tokenizer refuses x: no"], "the tokenizer refuses x: no"),
        (("logits",), ["the graph fails in batch 1: no"], "the graph fails in batch 1: no"),
        ((), ["the ids of x are y", "the graph fails in batch 0: no"], "the graph fails in batch 0: no"),
    ],
)
def test_what_the_package_for_javascript_says_of_no_output(  # noqa: PLR0913, PLR0917 — a row
    tiny_bundle, tmp_path, monkeypatch, outputs, differences, told
):
    proof = {"outputs": {name: {"worst": 0.0, "tolerance": 1.0} for name in outputs}, "differences": differences}
    runtime = tmp_path / "node_modules" / "onnxruntime-node"
    runtime.mkdir(parents=True)
    (runtime / "package.json").write_text('{"version": "1"}')
    monkeypatch.setattr("bench.runtimes.proving._package", lambda: tmp_path)
    monkeypatch.setattr("bench.runtimes.proving.packages.missing", lambda: None)
    monkeypatch.setattr("bench.runtimes.proving.packages.run", lambda *_, **__: json.dumps({"proofs": {"fp32": proof}}))
    found = proven("onnxruntime-node", {"bundle": str(tiny_bundle), "variants": ["fp32"]})
    assert not holds(found)
    variant = found["variants"]["fp32"]
    assert [row["said"] for row in variant.get("outputs", {}).values()] == [told] * len(outputs)
    assert variant.get("refused", told) == told


@pytest.mark.slow
@pytest.mark.parametrize(("end", "code"), [("os.abort()", "-6"), ("os._exit(0)", "0")])
def test_a_runtime_that_ends_its_process_is_told_of_and_the_next_variant_is_asked(end, code, tmp_path, monkeypatch):
    """A probe in the place of the program, which ends at its first variant."""
    (tmp_path / "probe.py").write_text(
        "import json, os, sys\n"
        "job = json.load(sys.stdin)\n"
        "print(json.dumps({'version': '1'}), flush=True)\n"
        "for name in job['variants']:\n"
        f"    if name == 'portable': {end}\n"
        "    print(json.dumps({'variant': name, 'refused': 'no'}), flush=True)\n"
    )
    monkeypatch.setattr("bench.runtimes.proving.HERE", tmp_path)
    found = proven("onnxruntime", {"bundle": str(default_bundle()), "variants": ["portable", "fp32"]})
    assert found["variants"]["portable"]["refused"].startswith(f"the process ended with {code}:")
    assert found["variants"]["fp32"] == {"refused": "no"}


@pytest.mark.slow
def test_a_variant_without_an_answer_is_told_of_once_it_had_the_whole_time(tmp_path, monkeypatch):
    """A probe in the place of the program, which is silent on one variant: it is asked again, alone."""
    (tmp_path / "probe.py").write_text(
        "import json, sys, time\n"
        "job = json.load(sys.stdin)\n"
        "print(json.dumps({'version': '1'}), flush=True)\n"
        "for name in job['variants']:\n"
        "    open('asked', 'a').write(name + '\\n')\n"
        "    if name == 'portable': time.sleep(60)\n"
        "    print(json.dumps({'variant': name, 'refused': 'no'}), flush=True)\n"
    )
    monkeypatch.setattr("bench.runtimes.proving.HERE", tmp_path)
    monkeypatch.setattr("bench.runtimes.proving.LIMIT", 1.5)
    monkeypatch.chdir(tmp_path)
    job = {"bundle": str(default_bundle()), "variants": ["fp32", "portable", "int8-dynamic"]}
    found = proven("onnxruntime", job)
    assert found["variants"] == {
        "fp32": {"refused": "no"},
        "portable": {"no_answer_seconds": 1.5},
        "int8-dynamic": {"refused": "no"},
    }
    assert (tmp_path / "asked").read_text().split() == ["fp32", "portable", "portable", "int8-dynamic"]
    assert not holds(found)


@pytest.mark.slow
def test_the_command_proves_a_bundle(tiny_bundle):
    command = [sys.executable, "-m", "bench.runtimes", "prove", str(tiny_bundle), "onnxruntime", "--variant", "fp32"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["variants"]) == ["fp32"]


def test_every_variant_has_a_place():
    assert {each.variant for each in results()} - {"fp16"} == set(VARIANTS)
