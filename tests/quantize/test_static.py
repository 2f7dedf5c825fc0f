"""Both forms of int8-static, from bundle to bundle, and the calibration texts that are refused."""

from __future__ import annotations

import pytest

from bertport.measure.budget import Budget
from bertport.quantize.calibration.ranges import Calibration
from bertport.quantize.job import Options
from bertport.quantize.quantizer import quantize
from bertport.runtime import load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.select import providers_for
from bertport.runtime.errors import PathError, UsageError
from tests.conftest import contents
from tests.quantize.test_cli import run

FEW = {"positions": 60, "pairs": 8, "budget": Budget(bounds={})}
BOTH = ["int8-static", "int8-static-cpu"]


@pytest.mark.slow
def test_both_forms_enter_the_bundle_with_their_calibration(bundle_copy, held_out):
    how = Calibration(samples=16, method="entropy")
    options = Options(text=held_out, calibration=held_out, calibrating=how, force=True, **FEW)
    outcomes = quantize(bundle_copy, BOTH, options=options)
    assert [outcome.name for outcome in outcomes] == BOTH
    bundle = Bundle.open(bundle_copy)
    assert not bundle.verify()
    for name in BOTH:
        variant = bundle.manifest.variants[name]
        assert variant.requires.operator_domains.keys() == {"ai.onnx"}  # standard operators only
        calibration = variant.fidelity["calibration"]
        assert calibration["text"]["name"] == "held-out.txt"
        assert (calibration["samples"], calibration["method"]) == (16, "entropy")
        assert len(calibration["text"]["sha256"]) == len(calibration["ranges_sha256"]) == 64
        assert variant.fidelity["accuracy"]["mlm"]["kl"]["value"] < 0.05
    forms = [bundle.manifest.variants[name].fidelity["calibration"]["ranges_sha256"] for name in BOTH]
    assert forms[0] != forms[1]
    assert providers_for(bundle.manifest.variants["int8-static"].requires) == ["tensorrt", "cuda", "tensorrt-rtx"]
    assert bundle.manifest.variants["int8-static"].requires.isa is None
    model = load(bundle_copy, variant="int8-static-cpu", provider="cpu")
    assert len(model.fill_mask("the [MASK] is small .", top_k=3)) == 3


@pytest.mark.slow
def test_a_budget_leaves_matrices_without_rounding(bundle_copy, held_out):
    plain = {"positions": 60, "pairs": 8, "force": True}
    how = Calibration(samples=16)
    [before] = quantize(
        bundle_copy,
        ["int8-static-cpu"],
        options=Options(text=held_out, calibration=held_out, calibrating=how, budget=Budget(bounds={}), **plain),
    )
    kl = before.measured.accuracy.heads["mlm"].kl.value
    budget = Budget(bounds={"kl": kl * 0.7})
    [after] = quantize(
        bundle_copy,
        ["int8-static-cpu"],
        options=Options(text=held_out, calibration=held_out, calibrating=how, budget=budget, overwrite=True, **plain),
    )
    assert after.measured.accuracy.heads["mlm"].kl.value <= kl * 0.7
    assert after.variant.fidelity["higher_precision"]
    assert after.variant.fidelity["higher_is"] in ("16-bit activations", "float32")
    bundle = Bundle.open(bundle_copy)
    assert "quantization/int8-static-cpu.json" in bundle.manifest.files
    assert not bundle.verify()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        (b"", "holds no text"),
        (b"one line\n", "too short"),
        (b"caf\xe9\n" * 20, "line 1: not UTF-8"),
        (b"word " * 40_000, "line 1: longer than"),
        (b"a\0b\n" * 20, "NUL character"),
    ],
    ids=["missing", "empty", "too short", "not UTF-8", "long line", "binary"],
)
def test_calibration_text_that_cannot_be_used_is_refused(bundle_copy, tmp_path, held_out, content, message):
    path = tmp_path / "calibration.txt"
    if content is not None:
        path.write_bytes(content)
    before = contents(bundle_copy)
    with pytest.raises((UsageError, PathError), match=message):
        quantize(bundle_copy, ["int8-static-cpu"], options=Options(text=held_out, calibration=path, **FEW))
    assert contents(bundle_copy) == before
    assert sorted(path.name for path in bundle_copy.parent.iterdir()) == sorted(
        [bundle_copy.name, *([path.name] if content is not None else [])]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calibration-samples", "9"], "a calibration samples was set, but none of the recipes asked for calibrates"),
        (["--recipe", "int8-weight-only", "--calibration-method", "entropy"], "ask for one that does (int8-static"),
        (["--recipe", "int8-static-cpu", "--smooth", "1.5"], "Invalid value for '--smooth'"),
        (["--recipe", "int8-static-cpu", "--calibration-method", "median"], "Invalid value for '--calibration-method'"),
        (["--recipe", "int8-static-cpu", "--calibration-samples", "0"], "Invalid value for '--calibration-samples'"),
        (["--recipe", "int8-static-cpu", "--calibration", "nowhere.txt"], "cannot read the text file nowhere.txt"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(bundle_copy, arguments, message):
    before = contents(bundle_copy)
    answer = run(bundle_copy, *arguments)
    assert answer.exit_code == 2
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr
    assert contents(bundle_copy) == before


def test_smoothquant_is_gone_and_its_option_says_so(bundle_copy):
    answer = run(bundle_copy, "--list", "--smooth", "0.5")
    assert answer.exit_code == 0
    assert "'smooth' is deprecated" in answer.stderr
    assert "outlier suppression" in answer.stderr


def test_a_recipe_for_tensorrt_says_that_there_is_none(bundle_copy):
    import onnxruntime

    if "TensorrtExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine's ONNX Runtime has TensorRT")
    before = contents(bundle_copy)
    answer = run(bundle_copy, "--recipe", "int8-static")
    assert answer.exit_code == 1
    assert "int8-static is for tensorrt, cuda and tensorrt-rtx, which this machine does not have" in answer.stderr
    assert contents(bundle_copy) == before
