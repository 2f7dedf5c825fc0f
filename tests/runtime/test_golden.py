"""Golden vectors: made for every head and variant, passed by the right graphs, and failed by every wrong one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from bertport.runtime import load
from bertport.runtime.bundle.changes import add_variant, replace_golden
from bertport.runtime.bundle.digest import sealed
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.golden import FILE, LARGEST, Golden, read_golden
from bertport.runtime.bundle.packing import pack
from bertport.runtime.bundle.workspace import Workspace
from bertport.runtime.bundle.writer import write_manifest
from bertport.runtime.cli import app
from bertport.runtime.errors import BundleError, ProviderError, UnknownNameError
from bertport.runtime.golden import verify_golden
from bertport.runtime.golden_making import write_golden
from bertport.runtime.heads import EMBEDDING, MULTIPLE_CHOICE, QUESTION_ANSWERING, TOKEN_CLASSIFICATION
from tests.broken import copied
from tests.heads import head_bundle

SERVING = "onnx/model_serving.onnx"


def rewritten(bundle, change):
    """Change the values in a bundle's golden.json in place, so that the manifest still vouches for it."""
    value = json.loads((bundle / FILE).read_text(encoding="ascii"))
    change(value)
    content = json.dumps(value).encode()
    (bundle / FILE).write_bytes(content)
    relist(bundle, FILE, content)
    return bundle


def relist(bundle, name, content):
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (bundle / "manifest.json").write_bytes(sealed(manifest))


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    """A copy of the tiny bundle that a test may change."""
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def test_an_export_has_them_and_passes(tiny_bundle):
    opened = Bundle.open(tiny_bundle)
    report = verify_golden(tiny_bundle)
    assert report.failures == ()
    assert [variant.name for variant in report.variants] == list(opened.manifest.variants)
    assert {name for variant in report.variants for name in variant.outputs} == {
        "logits",
        "seq_relationship_logits",
        "last_hidden_state",
        "pooler_output",
    }
    content = (tiny_bundle / FILE).read_bytes()
    assert content.isascii()
    assert len(content) < 20_000
    assert opened.verify() == ()


def test_the_texts_are_of_every_kind(tiny_bundle):
    golden = read_golden(Bundle.open(tiny_bundle))
    tokens = load(tiny_bundle).tokens
    texts = [text.text for text in golden.texts]
    assert [text.count(tokens.mask_token) for text in texts[:2]] == [1, 2]
    assert any(not text.isascii() for text in texts)
    assert any(tokens.unknown_id in text.ids for text in golden.texts)
    [pair] = [text for text in golden.texts if text.pair]
    assert set(pair.type_ids) == {0, 1}
    single, padded = (batch.inputs for batch in golden.batches)
    assert len(single.input_ids) == 1
    assert len(padded.input_ids) > 2
    assert {0, 1} == {item for row in padded.attention_mask for item in row}
    assert len(padded.masked_positions) == 2


def test_values_are_those_of_pytorch(tiny_bundle, tiny_checkpoint):
    import torch
    from transformers import BertForPreTraining

    golden = read_golden(Bundle.open(tiny_bundle))
    model = BertForPreTraining.from_pretrained(tiny_checkpoint).eval()
    for number, feeds in enumerate(golden.feeds()):
        with torch.no_grad():
            right = model(
                **{name: torch.from_numpy(value) for name, value in feeds.items() if name != "masked_positions"}
            ).prediction_logits.numpy()
        rows = right.reshape(-1, right.shape[-1])
        for variant, places in (("portable", None), ("fp32", feeds["masked_positions"])):
            listed = [row for row in golden.variants[variant].outputs["logits"].rows if row.batch == number]
            assert listed
            for row in listed:
                expected = rows[row.row if places is None else places[row.row]]
                np.testing.assert_allclose(row.values, expected[list(row.columns)], atol=1e-4)
                assert sorted(row.values[: row.largest]) == pytest.approx(sorted(expected)[-row.largest :], abs=1e-4)
                assert row.rms == pytest.approx(np.sqrt(np.mean(expected**2)), abs=1e-4)


SLOW = pytest.mark.slow  # each an export of seconds


@pytest.mark.parametrize(
    "head",
    [TOKEN_CLASSIFICATION, pytest.param(QUESTION_ANSWERING, marks=SLOW), pytest.param(MULTIPLE_CHOICE, marks=SLOW)],
)
def test_every_family_and_head(head, tmp_path_factory):
    _, bundle = head_bundle(tmp_path_factory, "distilbert" if head == TOKEN_CLASSIFICATION else "roberta", head)
    report = verify_golden(bundle)
    assert report.failures == ()
    assert all(len(variant.outputs) >= 2 for variant in report.variants)


def test_a_sentence_encoder(sentence_bundle):
    report = verify_golden(sentence_bundle)
    assert report.failures == ()
    assert EMBEDDING in Bundle.open(sentence_bundle).manifest.heads
    assert all("sentence_embedding" in variant.outputs for variant in report.variants)


def test_a_bundle_without_them_is_given_them(old):
    load(old).features("the cat")  # format 1 is read as before
    with pytest.raises(BundleError, match="has no golden vectors: add them with bertport golden"):
        verify_golden(old)
    before = Bundle.open(old).manifest.files
    bundle, left_out = write_golden(old)
    assert left_out == {}
    assert {name: entry for name, entry in bundle.manifest.files.items() if name != FILE} == before
    assert verify_golden(old).failures == ()
    again, _ = write_golden(old)
    assert again.digest == bundle.digest
    anew, _ = write_golden(old, overwrite=True)
    assert anew.manifest.golden_vectors.file == "golden-2.json"
    assert not (old / FILE).exists()
    assert anew.verify() == ()


def test_a_bundle_without_fp32_is_given_those_of_its_portable_graph(old, tmp_path):
    small = tmp_path / "small"
    assert pack(old, small, ["portable", "int8-dynamic"]).manifest.golden_vectors is None
    bundle, left_out = write_golden(small)
    assert left_out == {"int8-dynamic": "the bundle has no variant 'fp32' to say how far its values may be from others"}
    golden = read_golden(bundle)
    assert golden is not None
    assert list(golden.variants) == ["portable"]
    assert {output.tolerance for output in golden.variants["portable"].outputs.values()} == {1e-4}
    assert verify_golden(small).failures == ()


def test_vectors_that_cannot_be_made_anew_stay(tiny_bundle, tmp_path):
    """Such as those of INT8 in a bundle that was packed without fp32, which says how far its values may be."""
    small = pack(tiny_bundle, tmp_path / "small", ["portable"])
    portable = small.manifest.variants["portable"]
    requires = dataclasses.replace(portable.requires, precision="int8-dynamic")
    variants = {"portable": dataclasses.replace(portable, requires=requires)}
    write_manifest(small.path, dataclasses.replace(small.manifest, variants=variants))
    other = shutil.copytree(small.path, tmp_path / "other")
    before = read_golden(Bundle.open(small.path))
    assert list(before.variants) == ["portable"]
    reason = "the bundle has no variant 'fp32' to say how far its values may be from others"
    after, left_out = write_golden(small.path, overwrite=True)
    assert left_out == {"portable": f"{reason}; its old ones stay"}
    assert read_golden(after) == before
    assert after.verify() == ()
    # Of other batches, they are of no use.
    after, left_out = write_golden(rewritten(other, lambda value: value["texts"].pop()), overwrite=True)
    assert left_out == {"portable": reason}
    assert read_golden(after) == before.of(())


def changed(content, by):
    """Return a portable graph with one weight of a feed-forward layer changed."""
    model = onnx.load_from_string(content)
    [weights] = [tensor for tensor in model.graph.initializer if "layer.1.output.dense.weight" in tensor.name]
    values = numpy_helper.to_array(weights).copy()
    values[3, 5] += by
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    return model.SerializeToString()


def test_one_weight_that_differs_is_seen(tiny_bundle, tmp_path):
    wrong = copied(tiny_bundle, tmp_path / "wrong", onnx_model_onnx=lambda content: changed(content, 0.5))
    report = verify_golden(wrong, variants=["portable"])
    assert report.failures
    assert all("'portable' on cpu: " in sentence and " is up to " in sentence for sentence in report.failures)
    assert any("0.0001 is allowed" in sentence for sentence in report.failures)


def test_a_changed_byte_is_seen(bundle):
    content = (bundle / FILE).read_bytes()
    (bundle / FILE).write_bytes(content.replace(b"France", b"Franca"))
    with pytest.raises(BundleError, match=r"golden\.json is not the file that was exported"):
        verify_golden(bundle)


def swapped(content):
    value = json.loads(content)
    words = value["model"]["vocab"]
    words["the"], words["cat"] = words["cat"], words["the"]
    return json.dumps(value).encode()


def test_another_vocabulary_is_seen(tiny_bundle, tmp_path):
    report = verify_golden(copied(tiny_bundle, tmp_path / "wrong", tokenizer_json=swapped))
    assert len(report.failures) >= 2
    assert all(sentence.startswith("the tokenizer makes other ids of ") for sentence in report.failures)


def nan(value):
    value["variants"]["fp32"]["outputs"]["logits"]["rows"][0]["rms"] = float("nan")


def later(value):
    value["golden_version"] = 2


def unversioned(value):
    del value["golden_version"]


def huge_batch(value):
    value["batches"][0]["inputs"]["input_ids"] = [[1] * 10_000]


def beyond_vocabulary(value):
    value["batches"][0]["inputs"]["input_ids"][0][1] = 10**12


def far_position(value):
    value["batches"][0]["inputs"]["masked_positions"] = [10**9]


def far_row(value):
    value["variants"]["fp32"]["outputs"]["logits"]["rows"][0]["row"] = 10**30


def endless_shape(value):
    logits = value["variants"]["fp32"]["outputs"]["logits"]
    logits["shapes"][0] = [10**30, 10**30]
    logits["rows"][0].pop("columns")


def no_position(value):
    logits = value["variants"]["fp32"]["outputs"]["logits"]
    logits["shapes"][0][0] = 50
    logits["rows"][0]["row"] = 49


def far_batch(value):
    row = value["variants"]["fp32"]["outputs"]["logits"]["rows"][0]
    row.update(batch=99, row=0, columns=None, values=[], largest=0)


def no_axes(value):
    logits = value["variants"]["fp32"]["outputs"]["logits"]
    logits["shapes"] = [[], []]
    for row in logits["rows"]:
        row.update(row=0, columns=None, values=[], largest=0)


def many_texts(value):
    value["texts"] *= 100


def no_number(value):
    value["variants"]["fp32"]["outputs"]["logits"]["tolerance"] = "large"


def negative(value):
    value["variants"]["fp32"]["outputs"]["logits"]["tolerance"] = -1


def no_rows(value):
    value["variants"]["fp32"]["outputs"]["logits"]["rows"] = []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (nan, "NaN is not a JSON number"),
        (later, "has format 2 and this version of bertport reads up to 1"),
        (unversioned, "has no golden_version"),
        (huge_batch, "has a batch of 1 rows of 10,000 tokens"),
        (beyond_vocabulary, "has inputs that are not 1 rows of"),
        (far_position, "decodes 1 positions of a batch"),
        (far_row, "values of a row that is not there"),
        (endless_shape, "values of a row that is not there"),
        (no_position, "lists a row of 'logits' for which no position is decoded"),
        (far_batch, "lists 0 values of a row that is not there"),
        (no_axes, "lists 0 values of a row that is not there"),
        (many_texts, "texts and 2 batches"),
        (no_number, "expected float, found 'large'"),
        (negative, "has 2 shapes of 'logits' of 'fp32'"),
        (no_rows, "lists no row of 'logits' of 'fp32', which is not valid"),
    ],
)
def test_what_no_golden_vectors_say_is_refused(bundle, change, said):
    with pytest.raises(BundleError) as caught:
        verify_golden(rewritten(bundle, change))
    assert said in caught.value.message
    assert caught.value.message.startswith("golden.json")


def test_a_huge_file_is_not_read(bundle):
    content = b" " * (LARGEST + 1)
    (bundle / FILE).write_bytes(content)
    relist(bundle, FILE, content)
    with pytest.raises(BundleError, match=r"golden\.json has 1,048,577 bytes"):
        verify_golden(bundle)


def test_keys_of_a_later_version_are_ignored(bundle):
    assert verify_golden(rewritten(bundle, lambda value: value["texts"][0].update(language="en"))).failures == ()


def first_row(value):
    return value["variants"]["fp32"]["outputs"]["logits"]["rows"][0]


def wrong_value(value):
    first_row(value)["values"][7] += 0.001


def wrong_best(value):
    """Another column for the best, with a value that the row has: what only the largest of the row tells."""
    row = first_row(value)
    row["columns"], row["values"] = row["columns"][1:], row["values"][1:]


def wrong_mean(value):
    first_row(value)["rms"] += 0.001


def wrong_shape(value):
    value["variants"]["fp32"]["outputs"]["logits"]["shapes"][0][0] += 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (wrong_value, "column "),
        (wrong_best, "the largest of the other columns of batch 0, row 0"),
        (wrong_mean, "the root mean square of batch 0, row 0"),
        (wrong_shape, "logits has the shape [1, "),
    ],
)
def test_each_thing_that_differs_is_told(bundle, change, said):
    [sentence] = verify_golden(rewritten(bundle, change), variants=["fp32"]).failures
    assert said in sentence


def other_output(value):
    outputs = value["variants"]["fp32"]["outputs"]
    value["variants"]["fp32"]["outputs"] = {"other": outputs["logits"]}


def no_output(value):
    value["variants"]["fp32"]["outputs"] = {}


@pytest.mark.parametrize(
    ("change", "said"),
    [(other_output, "has no output 'other'"), (no_output, "has golden vectors of no output")],
)
def test_a_variant_of_which_nothing_can_be_compared_fails(bundle, change, said):
    report = verify_golden(rewritten(bundle, change), variants=["fp32"])
    assert [(variant.provider, variant.outputs, variant.not_run) for variant in report.variants] == [("cpu", {}, None)]
    [sentence] = report.failures
    assert said in sentence
    done = CliRunner().invoke(app, ["verify", str(bundle), "--golden", "--variant", "fp32"])
    assert done.exit_code == 1
    assert "\n  fp32 on cpu: nothing could be compared\n" in done.output


def test_what_gives_no_numbers_is_told(tiny_bundle, tmp_path):
    def broken(content):
        return changed(content, float("nan"))

    report = verify_golden(copied(tiny_bundle, tmp_path / "wrong", onnx_model_onnx=broken), variants=["portable"])
    assert any("up to inf from" in sentence for sentence in report.failures)


def test_what_cannot_be_run_is_said(bundle):
    with pytest.raises(UnknownNameError, match="unknown variant 'int8'"):
        verify_golden(bundle, variants=["int8"])
    with pytest.raises(UnknownNameError, match="unknown provider 'gpu'"):
        verify_golden(bundle, provider="gpu")
    with pytest.raises(ProviderError, match=r"^no variant of .* was checked: provider 'cuda' is not available here"):
        verify_golden(bundle, provider="cuda")
    with pytest.raises(ProviderError, match=r"^provider 'cuda' is not available here"):
        verify_golden(bundle, variants=["fp32"], provider="cuda")
    rewritten(bundle, lambda value: value["variants"].pop("portable"))
    portable, _ = verify_golden(bundle).variants
    assert portable.not_run.startswith("it has no golden vectors: add them with bertport golden")
    with pytest.raises(BundleError, match=r"variant 'portable' of .* cannot be checked: it has no golden vectors"):
        verify_golden(bundle, variants=["portable"])
    write_golden(bundle)
    assert all(variant.outputs for variant in verify_golden(bundle).variants)


def test_a_tokenizer_that_differs_is_told_though_no_variant_runs(tiny_bundle, tmp_path):
    wrong = copied(tiny_bundle, tmp_path / "wrong", tokenizer_json=swapped)
    for variants in ((), ("fp32",)):
        report = verify_golden(wrong, variants=variants, provider="cuda")
        assert report.failures
        assert all(sentence.startswith("the tokenizer makes other ids of ") for sentence in report.failures)
        assert all("provider 'cuda' is not available here" in variant.not_run for variant in report.variants)
    done = CliRunner().invoke(app, ["verify", str(wrong), "--golden", "--provider", "cuda"])
    assert done.exit_code == 1
    assert "bertport: error: the tokenizer makes other ids of " in done.stderr
    rewritten(wrong, lambda value: value["variants"].pop("portable"))
    [portable] = verify_golden(wrong, variants=["portable"]).variants
    assert portable.not_run.startswith("it has no golden vectors")


@pytest.mark.parametrize(
    ("operator", "constant", "reason"),
    [
        ("Gather", np.full(2, 9, dtype=np.int64), "onnx/model_serving.onnx fails on cpu ("),
        ("Add", np.float32("nan"), "the output seq_relationship_logits of onnx/model_serving.onnx has NaN or "),
    ],
)
def test_a_graph_that_fails_gets_none_and_the_others_get_theirs(old, tmp_path, operator, constant, reason):
    """The last node of a head takes columns that are not there, or adds what is no number."""

    def failing(content):
        model, output = onnx.load_from_string(content), "seq_relationship_logits"
        [node] = [each for each in model.graph.node if output in each.output]
        node.output[0] = "before"
        model.graph.initializer.append(numpy_helper.from_array(constant, "constant"))
        further = {"axis": 1} if operator == "Gather" else {}
        model.graph.node.append(onnx.helper.make_node(operator, ["before", "constant"], [output], **further))
        return model.SerializeToString()

    bundle = copied(old, tmp_path / "wrong", onnx_model_serving_onnx=failing)
    done = CliRunner().invoke(app, ["golden", str(bundle)])
    assert done.exit_code == 0, done.output
    warned = "bertport: warning: golden vectors of variant"
    assert f"{warned} 'fp32' were not made: {reason}" in done.stderr
    assert f"{warned} 'int8-dynamic' were not made: the bundle has no outputs of 'fp32' to say how" in done.stderr
    assert list(read_golden(Bundle.open(bundle)).variants) == ["portable"]


def test_a_variant_takes_its_vectors_along(bundle):
    """Vectors of a variant that is made again go with the old graph; those of others stay as they are."""
    opened = Bundle.open(bundle)
    before = read_golden(opened)
    entry = dataclasses.replace(opened.manifest.variants["fp32"], file="onnx/again.onnx")

    def add(golden, *, overwrite):
        with Workspace.beside(Bundle.open(bundle)) as work:
            file = work.directory / "again.onnx"
            shutil.copy(bundle / SERVING, file)
            return add_variant(work, "again", entry, {entry.file: file}, overwrite=overwrite, golden=golden)

    added = read_golden(add(before.variants["fp32"], overwrite=False))
    assert added == dataclasses.replace(before, variants=before.variants | {"again": before.variants["fp32"]})
    assert verify_golden(bundle, variants=["again"]).failures == ()
    left = add(None, overwrite=True)
    assert read_golden(left) == before
    assert left.verify() == ()


def test_two_writers_at_once_lose_nothing(bundle):
    """Golden vectors that another process has changed meanwhile are no other model."""
    opened = Bundle.open(bundle)
    golden = read_golden(opened).variants["fp32"]
    with Workspace.beside(opened) as first:
        for name in ("second", "first"):
            entry = dataclasses.replace(opened.manifest.variants["fp32"], file=f"onnx/{name}.onnx")
            with Workspace.beside(Bundle.open(bundle)) as second:
                work = first if name == "first" else second
                file = work.directory / f"{name}.onnx"
                shutil.copy(bundle / SERVING, file)
                after = add_variant(work, name, entry, {entry.file: file}, golden=golden)
    assert read_golden(after).variants.keys() == {"portable", "fp32", "second", "first"}
    assert after.verify() == ()
    assert verify_golden(bundle).failures == ()


def test_vectors_of_a_variant_that_is_added_while_others_are_made_stay(bundle):
    opened = Bundle.open(bundle)
    golden = read_golden(opened)
    entry = dataclasses.replace(opened.manifest.variants["fp32"], file="onnx/second.onnx")
    with Workspace.beside(opened) as work:
        file = work.directory / "second.onnx"
        shutil.copy(bundle / SERVING, file)
        add_variant(work, "second", entry, {entry.file: file}, golden=golden.variants["fp32"])
    after = replace_golden(opened, golden)
    assert read_golden(after).variants == golden.variants | {"second": golden.variants["fp32"]}
    assert after.verify() == ()


def test_the_commands(bundle, monkeypatch):
    monkeypatch.chdir(bundle.parent)
    run = CliRunner().invoke
    done = run(app, ["verify", "bundle", "--golden"])
    assert done.exit_code == 0
    assert "golden vectors: ids of 6 texts\n  portable on cpu: largest differences logits " in done.output
    done = run(app, ["verify", "bundle", "--golden", "--variant", "fp32", "--provider", "cpu", "--json"])
    [variant] = json.loads(done.output)["golden"]["variants"]
    assert variant["outputs"]["logits"]["tolerance"] == 1e-4
    assert "golden" not in json.loads(run(app, ["verify", "bundle", "--json"]).output)
    for option in (["--variant", "fp32"], ["--provider", "cpu"]):
        done = run(app, ["verify", "bundle", *option])
        assert done.exit_code == 2
        assert "apply only with --golden: add --golden" in done.output
    rewritten(bundle, wrong_value)
    done = run(app, ["verify", "bundle", "--golden"])
    assert done.exit_code == 1
    assert done.stderr.count("bertport: error: variant 'fp32' on cpu: logits is up to ") == 1
    done = run(app, ["golden", "bundle", "--overwrite", "--json"])
    assert json.loads(done.output)["left_out"] == {}
    assert run(app, ["verify", "bundle", "--golden"]).exit_code == 0


def test_the_format_is_read_as_it_is_written(tiny_bundle, bundle):
    golden = read_golden(Bundle.open(tiny_bundle))
    (bundle / FILE).write_bytes(golden.to_bytes())
    assert isinstance(golden, Golden)
    assert (bundle / FILE).read_bytes() == (tiny_bundle / FILE).read_bytes()
