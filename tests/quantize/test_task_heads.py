"""Heads that are trained for a task, quantized: what is measured, what stays float32, and what a damaged one breaks."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bertport.measure.budget import Budget
from bertport.measure.quality.samples import TASK_KINDS, TEXTS
from bertport.quantize import render
from bertport.quantize.calibration.observe import read_calibration
from bertport.quantize.evaluation import evaluate
from bertport.quantize.graph.fusion import fuse, load_plain
from bertport.quantize.graph.rewrite import linears
from bertport.quantize.job import Options, measured_budget, prepare
from bertport.quantize.quantizer import quantize
from bertport.quantize.recipes.table import RECIPES
from bertport.quantize.texts import read_evaluation
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import UsageError
from bertport.runtime.heads import (
    EMBEDDING,
    MULTIPLE_CHOICE,
    QUESTION_ANSWERING,
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
    output_of,
)
from tests.heads import head_bundle
from tests.quantize.conftest import cosine, session
from tests.quantize.every_recipe import Source, near, to_its_end

HEADS = (SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION, QUESTION_ANSWERING, MULTIPLE_CHOICE, EMBEDDING)
FEW = {"positions": 60, "pairs": 48}


def of_head(request, head, family="bert"):
    """A bundle with a head, opened; not to be changed."""
    if head == EMBEDDING:
        return Bundle.open(request.getfixturevalue("sentence_bundle"))
    _, path = head_bundle(request.getfixturevalue("tmp_path_factory"), family, head)
    return Bundle.open(path)


def fp32(bundle):
    return bundle.file(bundle.manifest.variants["fp32"].file)


def damaged(bundle, head, place):
    """The fp32 graph of a bundle with the matrix of the head changed: the one that its output is last multiplied by."""
    model = onnx.load(fp32(bundle))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    waiting, matrix = [output_of(head)], None
    while matrix is None:
        node = makers[waiting.pop(0)]
        matrices = [name for name in node.input if name in constants and len(constants[name].dims) == 2]
        matrix = matrices[0] if matrices and node.op_type in {"MatMul", "Gemm"} else None
        waiting += [name for name in node.input if name in makers]
    values = numpy_helper.to_array(constants[matrix]).copy()
    values[::2] *= -6
    constants[matrix].CopyFrom(numpy_helper.from_array(values, matrix))
    path = place / "damaged.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("head", "bounds"),
    [
        (SEQUENCE_CLASSIFICATION, {"class"}),
        *(
            pytest.param(head, bounds, marks=pytest.mark.slow)
            for head, bounds in (
                (TOKEN_CLASSIFICATION, {"tag", "entity"}),
                (QUESTION_ANSWERING, {"span"}),
                (MULTIPLE_CHOICE, {"choice"}),
                (EMBEDDING, {"top1", "nsp", "embedding", "neighbours"}),  # the tiny BERT's heads are there too
            )
        ),
    ],
)
def test_a_damaged_head_breaks_the_budget_of_its_bundle(request, head, bounds, held_out, tmp_path):
    bundle = of_head(request, head)
    options = Options(text=held_out, **FEW)
    evaluator = prepare(bundle, options)
    budget = measured_budget(evaluator, options)
    assert set(budget.bounds) == bounds
    given = {"stability": 0, "progress": lambda *_: None}
    itself = evaluate(bundle, evaluator.reference, fp32(bundle), evaluator.evaluation, **given)
    assert budget.broken(itself) == ()
    assert itself.heads[head].distance == pytest.approx(0, abs=1e-9)
    accuracy = evaluate(bundle, evaluator.reference, damaged(bundle, head, tmp_path), evaluator.evaluation, **given)
    assert budget.broken(accuracy)
    assert set(budget.shares(accuracy)) == {head}  # no other head is blamed
    assert accuracy.heads["hidden"].cosine.value == pytest.approx(1)  # the head alone is damaged


def test_samples_are_those_of_the_bundles_heads(request, tiny, held_out):
    bundle = of_head(request, SEQUENCE_CLASSIFICATION)
    evaluation = read_evaluation(bundle, held_out, sample="evaluation", **FEW)
    assert {sample.kind for sample in evaluation.samples} == {TEXTS, "plain", "pairs"}
    assert evaluation.to_json()["plain"] == evaluation.count("plain") == 40  # each text as it stands
    few = read_evaluation(bundle, held_out, sample="calibration", sentences=7, **FEW)
    assert few.count("plain") == 7
    assert {sample.kind for sample in read_calibration(bundle, held_out, samples=12).samples} == {"plain"}
    known = read_evaluation(tiny, held_out, sample="evaluation", **FEW)
    assert not set(TASK_KINDS) & {sample.kind for sample in known.samples}
    assert not set(TASK_KINDS) & set(known.to_json())


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("head", HEADS)
def test_every_recipe_takes_every_head(request, head, recipe, held_out, tmp_path):
    bundle = of_head(request, head)
    source = Source(bundle, calibrates=False)
    # The answers that are compared are to random words, of which the calibration text has few.
    to_its_end(source, recipe, held_out, tmp_path, least=0.8 if "static" in recipe else None)
    output = source.outputs.index(output_of(head))
    [given] = session(tmp_path / "model.onnx").run([output_of(head)], source.feeds)
    wanted = source.expected[output]
    rows = source.feeds["attention_mask"] == 1 if wanted.ndim == 3 else np.ones(len(wanted), dtype=bool)
    assert cosine(wanted[rows].reshape(1, -1), given[rows].reshape(1, -1)) > near(recipe) - 0.2


@pytest.mark.parametrize(
    "head", [SEQUENCE_CLASSIFICATION, *(pytest.param(head, marks=pytest.mark.slow) for head in HEADS[1:4])]
)
def test_a_head_of_few_columns_stays_float32(request, head):
    bundle = of_head(request, head)
    layers = linears(fuse(load_plain(fp32(bundle)), bundle.manifest.architecture))
    assert layers
    assert not [layer.name for layer in layers if "classifier" in layer.name or "qa_outputs" in layer.name]


@pytest.mark.slow
def test_a_search_serves_a_head_that_is_trained_for_a_task(sentence_bundle, held_out, tmp_path):
    path = shutil.copytree(sentence_bundle, tmp_path / "bundle")
    options = Options(text=held_out, calibration=held_out, budget=Budget.parse("embedding=0.99995"), force=True, **FEW)
    [outcome] = quantize(path, options=options)
    record = outcome.variant.fidelity
    assert record["higher_precision"]
    assert record["accuracy"][EMBEDDING]["cosine"]["value"] >= 0.99995
    assert record["accuracy"][EMBEDDING]["neighbours"]["value"] is None  # of forty texts
    assert "| - |" in (path / "README.md").read_text(encoding="utf-8")
    assert "not measured" in render.figures("int8-dynamic", outcome.measured)
    assert record["search"]["combinations_on_held_out_text"] > 0


@pytest.mark.slow
def test_a_bound_on_what_the_text_does_not_give_is_refused(sentence_bundle, held_out, tmp_path):
    path = shutil.copytree(sentence_bundle, tmp_path / "bundle")
    options = Options(text=held_out, budget=Budget.parse("neighbours=0.5"), force=True, **FEW)
    with pytest.raises(
        UsageError, match=r"bounds common neighbours \(neighbours\), and .* gives none to measure it on"
    ):
        quantize(path, options=options)
    assert "int8-dynamic" not in Bundle.open(path).manifest.variants


@pytest.mark.slow
def test_what_is_said_of_a_classifier(request, held_out, tmp_path):
    bundle = of_head(request, SEQUENCE_CLASSIFICATION)
    path = shutil.copytree(bundle.path, tmp_path / "bundle")
    options = Options(text=held_out, budget=Budget.parse("none"), force=True, **FEW)
    [outcome] = quantize(path, options=options)
    record = outcome.variant.fidelity
    assert record["not_measured"] == ["pooler"]
    assert record["text"]["plain"] == 40
    figures = record["accuracy"][SEQUENCE_CLASSIFICATION]
    assert set(figures["by_label"]) <= {"negative", "neutral", "positive"}
    card = (path / "README.md").read_text(encoding="utf-8")
    assert "| class agreement |" in card
    assert "\nNot measured in int8-dynamic: pooler.\n" in card
    shown = render.figures("int8-dynamic", outcome.measured)
    assert "class agreement" in shown
    assert all(f"  of {label!r}" in shown for label in figures["by_label"])
    assert "\nnot measured: pooler\n" in shown
