"""Packing in portable form: an INT8 variant that other programs open, with the answers of the bundle it is from."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from bertport.measure.budget import NO_BUDGET, Budget
from bertport.quantize.job import Options
from bertport.quantize.quantizer import quantize
from bertport.runtime import load, portable
from bertport.runtime.bundle import portable_graph
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.golden import read_golden
from bertport.runtime.bundle.packing import pack
from bertport.runtime.bundle.writer import write_manifest
from bertport.runtime.cli import app
from bertport.runtime.errors import BundleError, PathError, UnknownNameError, UsageError, ValidationError
from bertport.runtime.golden_making import write_golden
from bertport.runtime.heads import QUESTION_ANSWERING, SEQUENCE_CLASSIFICATION
from bertport.runtime.portable import FILES, pack_portable
from tests.conftest import contents
from tests.heads import head_bundle
from tests.quantize.conftest import OUTPUTS, feeds, session

TEXT = "the [MASK] sat on the mat"
PAIR = ("the cat sat", "it was red")


@pytest.fixture(scope="module")
def packed(quantized, tmp_path_factory):
    """The tiny bundle's int8-dynamic in portable form; not to be changed."""
    return pack_portable(quantized[0].path, tmp_path_factory.mktemp("portable") / "packed", ["int8-dynamic"])


def added(bundle, path, *recipes):
    """A copy of a bundle with more variants, whatever they cost."""
    shutil.copytree(bundle, path)
    quantize(path, recipes, options=Options(budget=Budget.parse(NO_BUDGET), force=True, positions=40, pairs=10))
    return path


def test_one_file_has_all_that_other_programs_look_for(packed, quantized):
    [variant] = packed.manifest.variants.values()
    assert (variant.file, variant.kind, variant.external_data) == ("onnx/model_quantized.onnx", "portable", ())
    files = {path.relative_to(packed.path).as_posix() for path in packed.path.rglob("*") if path.is_file()}
    assert [name for name in files if name.startswith("onnx/")] == ["onnx/model_quantized.onnx"]
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "golden.json", "README.md"} <= files
    assert packed.verify() == ()
    before = quantized[0].manifest.variants["int8-dynamic"]
    assert variant.fidelity == {key: before.fidelity[key] for key in before.fidelity.keys() - portable.TIMED}
    assert variant.requires == before.requires
    assert packed.digest != quantized[0].digest


def test_the_graph_is_one_that_onnx_takes(packed):
    model = onnx.load(packed.path / "onnx" / "model_quantized.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["input_ids", "attention_mask", "token_type_ids"]
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.output
    }
    assert shapes["logits"][:2] == ["batch_size", "sequence_length"]
    assert len(shapes["logits"]) == 3


def test_every_output_is_bit_for_bit_that_of_the_serving_graph(packed, quantized):
    bundle = quantized[0]
    serving = session(bundle.file(bundle.manifest.variants["int8-dynamic"].file))
    form = session(packed.path / "onnx" / "model_quantized.onnx")
    given = feeds(rows=3, length=17, masked=range(51))
    expected = dict(zip(OUTPUTS, serving.run(OUTPUTS, given), strict=True))
    del given["masked_positions"]
    got = dict(zip(OUTPUTS, form.run(OUTPUTS, given), strict=True))
    assert got["logits"].shape[:2] == (3, 17)
    np.testing.assert_array_equal(got["logits"].reshape(51, -1), expected["logits"])
    for name in set(OUTPUTS) - {"logits"}:
        np.testing.assert_array_equal(got[name], expected[name])


def test_it_answers_like_the_bundle_that_it_is_from(packed, quantized):
    ours, theirs = load(packed.path), load(quantized[0].path, variant="int8-dynamic")
    assert ours.variant == "int8-dynamic"
    for mine, other in zip(ours.fill_mask(TEXT), theirs.fill_mask(TEXT), strict=True):
        assert mine["token"] == other["token"]
        assert mine["score"] == pytest.approx(other["score"], abs=1e-6)
    assert ours.next_sentence(*PAIR)["label"] == theirs.next_sentence(*PAIR)["label"]


@pytest.mark.optimum
@pytest.mark.filterwarnings("ignore")  # Optimum's own
def test_optimum_opens_it(packed, quantized):
    import torch
    from optimum.onnxruntime import ORTModelForMaskedLM
    from transformers import AutoTokenizer

    model = ORTModelForMaskedLM.from_pretrained(packed.path, subfolder="onnx", file_name="model_quantized.onnx")
    tokenizer = AutoTokenizer.from_pretrained(packed.path)
    encoded = tokenizer(TEXT, return_tensors="pt")
    [place] = (encoded["input_ids"][0] == tokenizer.mask_token_id).nonzero().flatten().tolist()
    scores = torch.softmax(model(**encoded).logits[0, place], dim=-1)
    for word in load(quantized[0].path, variant="int8-dynamic").fill_mask(TEXT):
        assert scores[word["token"]].item() == pytest.approx(word["score"], abs=1e-6)


def test_golden_rows_are_those_of_the_same_tokens(packed, quantized):
    before, after = read_golden(quantized[0]), read_golden(packed)
    assert after.batches == before.batches
    old, new = (golden.variants["int8-dynamic"].outputs for golden in (before, after))
    assert {name: new[name] for name in new if name != "logits"} == {
        name: old[name] for name in old if name != "logits"
    }
    for was, now in zip(old["logits"].rows, new["logits"].rows, strict=True):
        assert now.row == before.batches[was.batch].inputs.masked_positions[was.row]
        assert now.values == was.values
    for batch, shape in zip(after.batches, new["logits"].shapes, strict=True):
        assert shape[:2] == (len(batch.inputs.input_ids), len(batch.inputs.input_ids[0]))


@pytest.mark.parametrize(
    ("head", "names"),
    [
        (QUESTION_ANSWERING, {"start_logits", "end_logits"}),
        pytest.param(SEQUENCE_CLASSIFICATION, {"logits"}, marks=pytest.mark.slow),
    ],
)
def test_a_fine_tuned_head_has_the_names_that_others_look_for(tmp_path, tmp_path_factory, head, names):
    bundle = added(head_bundle(tmp_path_factory, "bert", head)[1], tmp_path / "bundle", "int8-dynamic")
    form = pack_portable(bundle, tmp_path / "out", ["int8-dynamic"])
    made = session(form.path / "onnx" / "model_quantized.onnx")
    outputs = [value.name for value in made.get_outputs()]
    assert names <= set(outputs)
    [own] = [entry.output for entry in form.manifest.heads.values() if entry.aliases]
    given = feeds(rows=2, length=9, entries=100)
    del given["masked_positions"]
    given = {value.name: given[value.name] for value in made.get_inputs()}
    values = dict(zip(outputs, made.run(outputs, given), strict=True))
    whole = values[own]
    further = [values[name] for name in form.manifest.heads[head].aliases]
    if len(further) == 1:
        np.testing.assert_array_equal(further[0], whole)
    else:
        np.testing.assert_array_equal(np.stack(further, axis=-1), whole)
    for value in made.get_outputs():
        assert len(value.shape) == values[value.name].ndim


@pytest.mark.slow
def test_every_recipe_has_a_form_under_its_name(tiny_bundle, tmp_path):
    recipes = ("int8-dynamic", "int8-static-cpu", "int8-weight-only", "int4-weight-only")
    bundle = added(tiny_bundle, tmp_path / "bundle", *recipes, "int8-static")
    with pytest.raises(UsageError, match="'int8-static' has no golden vectors"):  # nothing here runs it
        pack_portable(bundle, tmp_path / "out", ["int8-static"])
    form = pack_portable(bundle, tmp_path / "out", (*recipes, "portable"))
    files = {name: variant.file for name, variant in form.manifest.variants.items()}
    assert files == {
        "portable": "onnx/model.onnx",
        **{name: FILES.get(name, "onnx/model_int8_weight_only.onnx") for name in recipes},
    }
    assert set(files.values()) == {path for path in form.manifest.files if path.startswith("onnx/")}
    for file in files.values():
        onnx.checker.check_model(str(form.path / file))


def test_on_the_command_line(quantized, tmp_path):
    command = ["pack", str(quantized[0].path), str(tmp_path / "out"), "--variant", "int8-dynamic", "--portable"]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["variants"] == ["int8-dynamic"]
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2
    assert "pass --overwrite" in again.stderr
    assert CliRunner().invoke(app, [*command, "--overwrite"]).exit_code == 0


def test_what_has_no_form(quantized, old, tmp_path, monkeypatch):
    path = quantized[0].path
    before = contents(path)
    with pytest.raises(UnknownNameError, match="unknown variant 'int9'"):
        pack_portable(path, tmp_path / "out", ["int9"])
    with pytest.raises(UsageError, match="the portable form of 'fp32' is the variant 'portable'"):
        pack_portable(path, tmp_path / "out", ["fp32"])
    with pytest.raises(PathError, match="is inside the bundle that is packed"):
        pack_portable(path, path / "out", ["int8-dynamic"])
    with pytest.raises(BundleError, match="and sha256:0000"):
        pack_portable(path, tmp_path / "out", ["int8-dynamic"], digest="0" * 64)
    with pytest.raises(
        UsageError, match=r"'portable' has no golden vectors, by which .*: make them with bertport golden"
    ):
        pack_portable(old, tmp_path / "out", ["portable"])
    monkeypatch.setattr(portable_graph, "LARGEST", 1000)
    with pytest.raises(
        UsageError, match=r"cannot be written: it would have 0.0 GB, and an ONNX file can have 0.0; pack"
    ):
        pack_portable(path, tmp_path / "out", ["int8-dynamic"])
    assert [each.name for each in tmp_path.iterdir()] == ["old"]
    assert contents(path) == before


def edited(bundle, path, change):
    """A copy of a bundle with another manifest, as anybody may write one."""
    shutil.copytree(bundle, path)
    manifest = Bundle.open(path).manifest
    write_manifest(path, change(manifest))
    return path


def test_a_recipe_names_no_file_outside_the_bundle(quantized, tmp_path):
    """A manifest states any recipe, and the file of a form is named after it."""

    def elsewhere(manifest):
        variant = dataclasses.replace(manifest.variants["int8-dynamic"], recipe="/../../../../x")
        return dataclasses.replace(manifest, variants={**manifest.variants, "int8-dynamic": variant})

    path = edited(quantized[0].path, tmp_path / "bundle", elsewhere)
    with pytest.raises(
        UsageError, match=r"would be named after its recipe, '/../../../../x', which is no name of a recip"
    ):
        pack_portable(path, tmp_path / "out", ["int8-dynamic"])
    assert [each.name for each in tmp_path.iterdir()] == ["bundle"]


def test_two_variants_of_one_recipe_do_not_take_one_file(quantized, tmp_path):
    def twice(manifest):
        return dataclasses.replace(manifest, variants={**manifest.variants, "other": manifest.variants["int8-dynamic"]})

    path = edited(quantized[0].path, tmp_path / "bundle", twice)
    write_golden(path)
    with pytest.raises(UsageError, match=r"two variants would be onnx/model_quantized.onnx in portable form"):
        pack_portable(path, tmp_path / "out", ["int8-dynamic", "other"])
    assert [each.name for each in tmp_path.iterdir()] == ["bundle"]


def test_a_variant_that_cannot_run_here_is_said_to_be_unproven(quantized, tmp_path, monkeypatch):
    report = portable.verify_golden(quantized[0].path)
    int8 = [each for each in report.variants if each.name == "int8-dynamic"]
    not_run = [dataclasses.replace(each, not_run="no such device") for each in int8]
    monkeypatch.setattr(
        portable, "verify_golden", lambda _: dataclasses.replace(report, variants=tuple(not_run), failures=())
    )
    with pytest.warns(
        UserWarning, match=r"form of 'int8-dynamic' was not proven, as it cannot run here: no such device"
    ):
        pack_portable(quantized[0].path, tmp_path / "out", ["int8-dynamic"])


def test_fp32_alone_has_a_form_of_its_own(tiny_bundle, tmp_path):
    packed = pack(tiny_bundle, tmp_path / "packed", ["fp32"]).path
    form = pack_portable(packed, tmp_path / "out")
    assert [variant.file for variant in form.manifest.variants.values()] == ["onnx/model.onnx"]
    onnx.checker.check_model(str(form.path / "onnx" / "model.onnx"))


def test_forms_are_compared_and_served_as_what_they_are(packed, tiny_bundle):
    assert not packed.manifest.repeats("int8-dynamic")
    manifest = Bundle.open(tiny_bundle).manifest
    assert {name for name in manifest.variants if manifest.repeats(name)} == {"portable"}


def test_a_graph_without_the_outputs_that_are_stated_is_refused(quantized, tmp_path):
    def other(manifest):
        variant = manifest.variants["int8-dynamic"]
        heads = {name: dataclasses.replace(head, aliases=("more",)) for name, head in manifest.heads.items()}
        stated = dataclasses.replace(variant, outputs=(*variant.outputs, "sentence_embedding"))
        [first, *_] = heads
        heads[first] = dataclasses.replace(heads[first], output="sentence_embedding")
        return dataclasses.replace(manifest, heads=heads, variants={**manifest.variants, "int8-dynamic": stated})

    path = edited(quantized[0].path, tmp_path / "bundle", other)
    with pytest.raises(BundleError, match="does not have the inputs and outputs that its manifest states"):
        pack_portable(path, tmp_path / "out", ["int8-dynamic"])


def test_a_form_that_gives_other_numbers_is_not_kept(quantized, tmp_path, monkeypatch):
    def other_rows(golden, vectors):
        output = vectors.outputs["logits"]
        rows = tuple(dataclasses.replace(row, values=tuple(value + 9 for value in row.values)) for row in output.rows)
        moved = dataclasses.replace(output, rows=rows)
        return portable_graph.portable_golden(
            golden, dataclasses.replace(vectors, outputs={**vectors.outputs, "logits": moved})
        )

    monkeypatch.setattr(portable, "portable_golden", other_rows)
    with pytest.raises(ValidationError, match=r"the portable form at .* differs from its golden vectors: "):
        pack_portable(quantized[0].path, tmp_path / "out", ["int8-dynamic"])
    assert list(tmp_path.iterdir()) == []


def test_a_changed_byte_leaves_nothing(quantized, tmp_path):
    path = shutil.copytree(quantized[0].path, tmp_path / "bundle")
    graph = path / quantized[0].manifest.variants["int8-dynamic"].external_data[0]
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    with pytest.raises(BundleError, match="is not the file that was exported"):
        pack_portable(path, tmp_path / "out", ["int8-dynamic"])
    assert [each.name for each in tmp_path.iterdir()] == ["bundle"]
    assert Bundle.open(quantized[0].path).verify() == ()
