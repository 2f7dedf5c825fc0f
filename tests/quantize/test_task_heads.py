"""Heads that are trained for a task, quantized: what is measured, what stays float32, and what a damaged one breaks."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bertport.export import export
from bertport.measure.budget import Budget
from bertport.measure.quality.heads import measured_rows
from bertport.measure.quality.samples import GIVEN_PAIRS, TASK_KINDS, TEXTS
from bertport.quantize import render
from bertport.quantize.calibration.observe import read_calibration
from bertport.quantize.calibration.ranges import Calibration
from bertport.quantize.calibrator import Calibrator
from bertport.quantize.deadline import Deadline
from bertport.quantize.evaluation import evaluate
from bertport.quantize.graph.fusion import fuse, load_plain
from bertport.quantize.graph.rewrite import linears
from bertport.quantize.job import Options, measured_budget, prepare, read_source, start_job
from bertport.quantize.quantizer import quantize
from bertport.quantize.recipes.table import RECIPES
from bertport.quantize.remeasure import remeasure
from bertport.quantize.texts import read_evaluation
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.manifest import HeadEntry
from bertport.runtime.errors import UsageError
from bertport.runtime.heads import (
    EMBEDDING,
    MULTIPLE_CHOICE,
    QUESTION_ANSWERING,
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
    output_of,
)
from bertport.runtime.text.tokenizer import Tokens
from tests.conftest import contents
from tests.family_bundles import family_bundle
from tests.heads import head_bundle
from tests.quantize.conftest import cosine, session
from tests.quantize.every_recipe import GRAPHS, Source, near, to_its_end
from tests.sentence_models import sentence_model

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


def pairs_of(held_out, path, names=("text", "text_pair")):
    """A file of pairs: the first sentence of each held-out text, and the rest of it."""
    texts = (line.partition(". ") for line in held_out.read_text(encoding="utf-8").splitlines())
    path.write_text("".join(json.dumps(dict(zip(names, (one, two), strict=True))) + "\n" for one, _, two in texts))
    return path


def test_a_classifier_of_pairs_is_measured_and_calibrated_on_those_of_the_file(request, held_out, tmp_path):
    bundle = of_head(request, SEQUENCE_CLASSIFICATION)
    pairs = pairs_of(held_out, tmp_path / "pairs.jsonl")
    evaluation = read_evaluation(bundle, pairs, sample="evaluation", **FEW)
    assert {sample.kind for sample in evaluation.samples} == {TEXTS, GIVEN_PAIRS}
    assert evaluation.to_json()[GIVEN_PAIRS] == 40
    assert {sample.kind for sample in read_calibration(bundle, pairs, samples=12).samples} == {GIVEN_PAIRS}
    [first] = [sample for sample in evaluation.samples if sample.kind == GIVEN_PAIRS and sample.text == 0]
    tokens = Tokens.read(bundle)
    [read] = tokens.encode([tuple(json.loads(pairs.read_text().splitlines()[0]).values())])
    assert first.input_ids.tolist() == list(read.ids)


def test_weights_are_calibrated_on_what_the_bundle_reads(request, tiny, held_out):
    few = {"positions": 60, "pairs": 8, "sentences": 9}

    def kinds(bundle, **how):
        read = read_evaluation(bundle, held_out, sample="calibration", **few, **how)
        return {sample.kind: read.count(sample.kind) for sample in read.samples}

    classifier = of_head(request, SEQUENCE_CLASSIFICATION)
    assert TEXTS in kinds(classifier)  # hidden states are measured on masked texts
    assert kinds(classifier, as_read=True) == {"plain": 18, "pairs": 8}
    assert kinds(tiny, as_read=True) == kinds(tiny)  # it fills masks
    bare = dataclasses.replace(tiny, manifest=dataclasses.replace(tiny.manifest, heads={}))
    assert kinds(bare, as_read=True) == {"plain": 18}
    assert {sample.kind for sample in read_calibration(bare, held_out, samples=12).samples} == {"plain"}
    source = read_source([RECIPES["int8-dynamic"]], classifier, None, Options(calibration=held_out))
    assert source.weights.calibrated_on["masked_positions"] == 0
    assert source.weights.calibrated_on["plain"] == 40
    calibrator = Calibrator(classifier, source.plain, Calibration(samples=12), text=held_out, progress=lambda *_: None)
    assert calibrator.fitting.positions == 0


def test_weights_are_calibrated_on_sentences_where_the_text_gives_no_choices(tiny, tmp_path):
    heads = {MULTIPLE_CHOICE: HeadEntry(output=output_of(MULTIPLE_CHOICE), axes=("batch",))}
    chooser = dataclasses.replace(tiny, manifest=dataclasses.replace(tiny.manifest, heads=heads))
    text = tmp_path / "lines.txt"
    text.write_text("The old house had a small school by the water.\n" * 20, encoding="utf-8")
    read = read_evaluation(chooser, text, sample="calibration", positions=60, pairs=8, as_read=True)
    assert [sample.kind for sample in read.samples] == ["plain"] * 20
    assert [sample.kind for sample in read_calibration(chooser, text, samples=12).samples] == ["plain"] * 12


@pytest.mark.slow
@pytest.mark.parametrize("head", [SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION, QUESTION_ANSWERING, EMBEDDING])
@pytest.mark.parametrize("family", ["roberta", "distilbert", "deberta-v2"])
def test_heads_of_other_families_are_measured_by_every_int8_recipe(request, family, head, held_out, tmp_path):
    bundle = of_head(request, head, family) if head != EMBEDDING else sentences_of_family(request, family, tmp_path)
    recipes = [RECIPES["int8-dynamic"], RECIPES["int8-static"]]
    options = Options(text=held_out, calibration=held_out, calibrating=Calibration(samples=12), **FEW)
    job = start_job(recipes, bundle, options, isa=None, deadline=Deadline())
    [row] = [name for name in measured_rows(bundle.manifest.heads) if name == head]
    for recipe in recipes:
        graph = job.evaluator.make(recipe, job.calibrator.apply(job.source, recipe))
        figures = job.evaluator.accuracy(recipe, graph, job.evaluator.evaluation, stability=4).heads[row]
        assert 0 < figures.distance < 0.05, recipe.name
        if head != EMBEDDING:
            assert figures.agreement.value > 0.7, recipe.name


def sentences_of_family(request, family, place):
    """A bundle of sentence embeddings on the tiny encoder of a family."""
    factory = request.getfixturevalue("tmp_path_factory")
    checkpoint, _ = family_bundle(factory, family)
    export(sentence_model(place / "model", checkpoint), place / "bundle")
    return Bundle.open(place / "bundle")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", GRAPHS)
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
    quantize(path, options=dataclasses.replace(options, budget=Budget.parse("none")))
    before = contents(path)
    with pytest.raises(UsageError, match=r"bounds common neighbours .* gives none to measure it on"):
        remeasure(path, options=options)
    assert contents(path) == before


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
