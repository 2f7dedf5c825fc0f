"""Adding a variant to a bundle: what is written, and that whatever goes wrong leaves the bundle as it was."""

from __future__ import annotations

import dataclasses
import os
import shutil
from types import SimpleNamespace

import pytest

from bertport.measure.budget import Budget
from bertport.quantize import quantizer
from bertport.quantize.calibration.observe import read_calibration
from bertport.quantize.deadline import Deadline
from bertport.quantize.evaluation import Speed
from bertport.quantize.job import Options, prepare
from bertport.quantize.quantizer import faster_default, quantize
from bertport.quantize.recipes.table import RECIPES
from bertport.quantize.texts import read_evaluation
from bertport.runtime import load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import BundleError, PathError, SlowerError, UnknownNameError, UsageError, ValidationError
from tests.conftest import contents
from tests.made_up_figures import fidelity
from tests.quantize.conftest import manifest_of
from tests.runtime.bundle.test_writer import replaced

TWICE = Speed(reference_ms=2.0, ms=1.0, speedup=2.0, low=1.9, high=2.1)
FEW = {"positions": 60, "pairs": 8, "budget": Budget(bounds={})}


def test_the_bundle_has_one_more_variant_that_answers(quantized):
    bundle, outcome = quantized
    assert outcome.name == "int8-dynamic"
    assert bundle.manifest.variants["int8-dynamic"] == outcome.variant
    assert not bundle.verify()
    model = load(bundle.path, variant="int8-dynamic", provider="cpu")
    answers = model.fill_mask("the [MASK] is small .", top_k=3)
    assert len(answers) == 3
    assert 0 < model.next_sentence("he went home .", "she bought milk .")["score"] <= 1


def test_the_manifest_tells_everything_that_was_measured(quantized):
    _, outcome = quantized
    fidelity = outcome.variant.fidelity
    accuracy = fidelity["accuracy"]
    for estimate in (accuracy["mlm"]["top1_agreement"], accuracy["nsp"]["flips"], accuracy["hidden"]["cosine"]):
        assert estimate["low"] <= estimate["value"] <= estimate["high"]
        assert estimate["count"] > 0
    assert accuracy["nsp"]["largest_change"] >= 0
    for movement in (accuracy["stability"]["batch_mates"], accuracy["stability"]["padding"]):
        assert movement["top1_agreement"]["value"] == 1  # a scale per token: neither mates nor padding matter
        assert movement["kl"]["value"] < 1e-6
    assert set(fidelity["speed"]) == {"1x16", "1x128"}
    assert fidelity["text"]["masked_positions"] >= 120
    assert fidelity["machine"]["instruction_set"]
    assert fidelity["budget"] == "top1=0.5"
    assert fidelity["verdicts"]["top1"]["verdict"] == "held"
    assert fidelity["verdicts"]["top1"]["value"] == accuracy["mlm"]["top1_agreement"]["value"]
    assert 0 < fidelity["size"]["of_reference"] < 1


@pytest.mark.parametrize(
    ("name", "float_fallback", "higher"),
    [
        ("int8-dynamic", False, "16-bit activations"),
        ("int8-dynamic", True, "float32"),
        ("int8-weight-only", True, "float32"),
        ("int4-weight-only", True, "8-bit weights"),
    ],
)
def test_the_manifest_says_what_layers_in_higher_precision_have(name, float_fallback, higher):
    source = SimpleNamespace(
        high_precision_layers={"a"}, float_fallback=float_fallback, weights=SimpleNamespace(calibrated_on=None)
    )
    solution = SimpleNamespace(source=source, accuracy=fidelity(), labelled=None, search=None)
    job = SimpleNamespace(evaluator=SimpleNamespace(provider="cpu"), budget=Budget(bounds={}), calibrator=None)
    measured = SimpleNamespace(to_json=dict)
    record = quantizer._fidelity(job, RECIPES[name], solution, measured)  # noqa: SLF001 — without a search
    assert (record["higher_precision"], record["higher_is"]) == (["a"], higher)


def test_a_slower_variant_is_marked_and_never_the_default(quantized):
    bundle, outcome = quantized
    if not outcome.measured.slower:
        pytest.skip("8 bits are faster than fp32 here, even on two layers of width 32")
    assert outcome.variant.fidelity["slower_than_reference"] is True
    assert bundle.manifest.default_variant == "fp32"


def test_a_slower_variant_is_refused_without_force(bundle_copy, held_out, monkeypatch):
    slow = dataclasses.replace(TWICE, speedup=0.5)
    monkeypatch.setattr(quantizer, "time_against", lambda *_, **__: {"1x16": slow})
    before = contents(bundle_copy)
    with pytest.raises(SlowerError, match=r"slower than fp32 on this machine \(0\.50x at 1x16\): pass --force"):
        quantize(bundle_copy, options=Options(text=held_out, **FEW))
    assert contents(bundle_copy) == before


def test_a_faster_variant_within_its_budget_becomes_the_default(bundle_copy, held_out, monkeypatch):
    monkeypatch.setattr(quantizer, "time_against", lambda *_, **__: {"1x16": TWICE})
    few = FEW | {"budget": Budget.parse("top1=0.1")}
    [outcome] = quantize(bundle_copy, options=Options(text=held_out, **few))
    assert outcome.default
    assert load(bundle_copy).variant == "int8-dynamic"


def test_the_time_limit_ends_the_calibration_of_a_second_recipe(bundle_copy, held_out, monkeypatch):
    deadlines, stages = [], []

    def deadline(limit, started):
        deadlines.append(Deadline(limit, started))
        return deadlines[-1]

    def pass_the_limit(_):
        monkeypatch.setattr(deadlines[0], "_end", 0.0)
        stages.clear()

    monkeypatch.setattr(quantizer, "time_against", lambda *_, **__: {"1x16": TWICE})
    monkeypatch.setattr(quantizer, "Deadline", deadline)
    options = Options(
        text=held_out,
        calibration=held_out,
        time_limit=600,
        told=pass_the_limit,
        progress=lambda stage, *_: stages.append(stage),
        **FEW,
    )
    with pytest.raises(ValidationError, match=r"before int8-static-cpu was measured.*with int8-weight-only added"):
        quantize(bundle_copy, ["int8-weight-only", "int8-static-cpu"], options=options)
    assert stages == ["running the calibration text"]


def test_a_bundle_that_is_replaced_while_its_weights_are_calibrated_gets_no_variant(bundle_copy, held_out, monkeypatch):
    def start_and_replace(*arguments, **settings):
        job = start(*arguments, **settings)
        replaced(bundle_copy, (bundle_copy / "tokenizer.json").read_text(encoding="utf-8") + "\n")
        return job

    start = quantizer.start_job
    monkeypatch.setattr(quantizer, "start_job", start_and_replace)
    monkeypatch.setattr(quantizer, "time_against", lambda *_, **__: {"1x16": TWICE})
    with pytest.raises(BundleError, match=r"another process has put another model at .* meanwhile: start again"):
        quantize(bundle_copy, ["int8-weight-only"], options=Options(text=held_out, **FEW))
    assert set(manifest_of(bundle_copy)["variants"]) == {"portable", "fp32"}


def test_more_samples_are_taken_for_the_heads_that_ask_for_them(tiny, held_out):
    evaluator = prepare(tiny, Options(text=held_out, **FEW))
    before = evaluator.evaluation
    texts, pairs, both = (
        evaluator.enlarged(times).evaluation for times in ({"mlm": 2.0}, {"nsp": 1.5}, {"hidden": 2.5})
    )
    assert 2 * before.positions <= texts.positions < 2.5 * before.positions
    assert (texts.pairs, pairs.positions, pairs.pairs) == (8, before.positions, 12)
    assert both.positions >= 2.5 * before.positions
    assert both.pairs == 20
    assert evaluator.enlarged({}).evaluation.to_json() == before.to_json()


def test_without_a_budget_the_default_stays(bundle_copy, held_out, monkeypatch):
    monkeypatch.setattr(quantizer, "time_against", lambda *_, **__: {"1x16": TWICE})
    quantize(bundle_copy, options=Options(text=held_out, **FEW))
    assert Bundle.open(bundle_copy).manifest.default_variant == "fp32"


@pytest.mark.slow
def test_a_default_that_is_made_again_without_a_budget_is_the_default_no_longer(bundle_copy, held_out, monkeypatch):
    monkeypatch.setattr(quantizer, "time_against", lambda *_, **__: {"1x16": TWICE})
    within = FEW | {"budget": Budget.parse("top1=0.1")}
    [first] = quantize(bundle_copy, ["int8-weight-only"], options=Options(text=held_out, **within))
    [again] = quantize(bundle_copy, ["int8-weight-only"], options=Options(text=held_out, overwrite=True, **FEW))
    assert (first.default, again.default) == (True, False)
    assert Bundle.open(bundle_copy).manifest.default_variant == "fp32"


@pytest.mark.parametrize("speed", [None, {}, [2], {"1x16": 2}, {"1x16": {"speedup": "twice"}}])
def test_what_another_program_recorded_makes_no_default(tiny, speed):
    fp32 = tiny.manifest.variants["fp32"]
    other = dataclasses.replace(fp32, fidelity={"budget": "top1=0.98", "speed": speed})
    manifest = dataclasses.replace(tiny.manifest, variants={**tiny.manifest.variants, "other": other})
    assert faster_default(dataclasses.replace(tiny, manifest=manifest), "fp32", fp32) is None


@pytest.mark.slow
def test_a_broken_budget_is_searched_for_and_refused_with_the_numbers(bundle_copy, held_out):
    before = contents(bundle_copy)
    few = FEW | {"budget": Budget.parse("kl=0.0000001")}
    with pytest.raises(ValidationError, match=r"KL divergence is 0\.\d+, at most 0\.00000 .*it was not added$"):
        quantize(bundle_copy, options=Options(text=held_out, calibration=held_out, **few))
    assert contents(bundle_copy) == before
    assert [path.name for path in bundle_copy.parent.iterdir()] == [bundle_copy.name]


@pytest.mark.slow
def test_a_search_leaves_layers_in_higher_precision_and_saves_its_table(bundle_copy, held_out, quantized):
    plain = quantized[1].measured.accuracy.heads["mlm"].kl.value
    few = FEW | {"budget": Budget(bounds={"kl": plain * 0.7}), "force": True}
    [outcome] = quantize(bundle_copy, options=Options(text=held_out, calibration=held_out, **few))
    assert outcome.measured.accuracy.heads["mlm"].kl.value <= plain * 0.7
    higher = outcome.variant.fidelity["higher_precision"]
    assert 0 < len(higher) <= 11
    bundle = Bundle.open(bundle_copy)
    assert {"quantization/int8-dynamic.json", "quantization/int8-dynamic.svg"} <= set(bundle.manifest.files)
    assert not bundle.verify()


def test_a_variant_that_is_there_is_not_made_again(quantized, held_out):
    with pytest.raises(UsageError, match=r"has the variant 'int8-dynamic' already: pass --overwrite"):
        quantize(quantized[0].path, options=Options(text=held_out, **FEW))


@pytest.mark.slow
def test_overwriting_leaves_one_copy(bundle_copy, held_out):
    for overwrite in (False, True, True):
        quantize(bundle_copy, options=Options(text=held_out, overwrite=overwrite, force=True, **FEW))
    bundle = Bundle.open(bundle_copy)
    assert not bundle.verify()
    variant = bundle.manifest.variants["int8-dynamic"]
    assert {path for path in bundle.manifest.files if "int8_dynamic" in path} == {variant.file, *variant.external_data}
    assert variant.external_data


@pytest.mark.parametrize(
    ("where", "error"),
    [
        pytest.param("time_against", MemoryError(), marks=pytest.mark.slow),
        ("meet_budget", KeyboardInterrupt()),
        ("write_graph", OSError(28, "No space left on device")),
    ],
)
def test_an_interruption_leaves_the_bundle_as_it_was(bundle_copy, held_out, monkeypatch, where, error):
    def stop(*_, **__):
        raise error

    monkeypatch.setattr(quantizer, where, stop)
    before = contents(bundle_copy)
    with pytest.raises(type(error)):
        quantize(bundle_copy, options=Options(text=held_out, **FEW))
    assert contents(bundle_copy) == before
    assert [path.name for path in bundle_copy.parent.iterdir()] == [bundle_copy.name]


@pytest.mark.slow
def test_a_failure_while_committing_leaves_the_bundle_as_it_was(bundle_copy, held_out, monkeypatch):
    from bertport.runtime.bundle import changes

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(changes, "write_manifest", full)
    before = contents(bundle_copy)
    with pytest.raises(PathError, match="No space left"):
        quantize(bundle_copy, options=Options(text=held_out, force=True, **FEW))
    assert contents(bundle_copy) == before


def test_a_bundle_that_cannot_be_written_is_named_with_what_to_do(bundle_copy):
    from bertport.runtime.bundle.changes import add_files

    def write(directory):
        (directory / "layers.json").write_text("{}")
        return {"README.md/layers.json": directory / "layers.json"}  # below a file, where even root may not write

    before = contents(bundle_copy)
    with pytest.raises(PathError, match=r"cannot write .*: work on a copy of the bundle .*; nothing was changed"):
        add_files(Bundle.open(bundle_copy), write)
    assert contents(bundle_copy) == before


def test_a_damaged_fp32_graph_is_not_quantized(bundle_copy, held_out):
    path = bundle_copy / "onnx" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match="is not the file that was exported"):
        quantize(bundle_copy, options=Options(text=held_out, **FEW))


def test_what_is_not_there_is_refused(tmp_path, bundle_copy, held_out):
    with pytest.raises(PathError, match="no bundle at"):
        quantize(tmp_path / "nowhere")
    with pytest.raises(UnknownNameError, match=r"unknown recipe 'int3'.*available: int8-dynamic"):
        quantize(bundle_copy, ["int3"])
    with pytest.raises(UnknownNameError, match="unknown instruction set 'mmx'"):
        quantize(bundle_copy, options=Options(isa="mmx", text=held_out))
    manifest = manifest_of(bundle_copy)
    assert set(manifest["variants"]) == {"portable", "fp32"}


def test_a_name_that_is_no_unicode_is_kept_with_escapes(tiny, held_out, tmp_path):
    path = shutil.copy(held_out, tmp_path / os.fsdecode(b"no\xff.txt"))
    assert read_evaluation(tiny, path, sample="evaluation", positions=60, pairs=8).name == "no\\udcff.txt"
    assert read_calibration(tiny, path, samples=12).name == "no\\udcff.txt"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        (b"", "holds no text"),
        (b"one line\n", "too short"),
        (b"\n".join([b"a b c"] * 20), "too short: it gives"),
        (b"caf\xe9\n" * 20, "line 1: not UTF-8"),
        (b"word " * 40_000, "line 1: longer than"),
    ],
)
def test_text_that_cannot_be_used_is_refused(bundle_copy, tmp_path, content, message):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    before = contents(bundle_copy)
    with pytest.raises((UsageError, PathError), match=message):
        quantize(bundle_copy, options=Options(text=path, positions=2000))
    assert contents(bundle_copy) == before
