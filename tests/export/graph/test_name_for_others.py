"""Outputs under the names by which other runtimes look for them: a pass on small graphs, and bundles of each head."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from bertport.export import export
from bertport.export.checkpoint.heads import with_aliases
from bertport.export.graph.passes.name_for_others import drop_names, name_for_others
from bertport.export.validation.cases import Case
from bertport.export.validation.check import check_aliases
from bertport.runtime import load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.manifest import Source, heads_of
from bertport.runtime.errors import ValidationError
from bertport.runtime.heads import MLM, NSP, QUESTION_ANSWERING, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION
from bertport.serve.api.raw import inputs_of, outputs_of
from tests.export.passes import apply, unchanged

GRAPH = """<ir_version: 8, opset_import: ["" : 17]>
bert (int64[batch, sequence] input_ids) => (
    float[batch, sequence, 2] span_logits, float[batch, sequence, 2] token_logits)
{
    span_logits = Gather(table, input_ids)
    token_logits = Neg(span_logits)
}
"""
TABLE = np.arange(10, dtype=np.float32).reshape(5, 2)
IDS = np.array([[0, 4, 2], [1, 1, 3]])
NAMES = {"span_logits": ("start_logits", "end_logits"), "token_logits": ("logits",)}
OTHER = Source(name="another", revision=None, weights_sha256={})


@pytest.fixture
def graph():
    model = parser.parse_model(GRAPH)
    model.graph.initializer.append(numpy_helper.from_array(TABLE, "table"))
    return model


def test_an_output_is_given_whole_and_by_columns(graph):
    model, modified = apply(name_for_others, graph, NAMES)
    assert modified
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    assert names == ["span_logits", "token_logits", "start_logits", "end_logits", "logits"]
    assert session.get_outputs()[2].shape == ["batch", "sequence"]
    values = dict(zip(names, session.run(None, {"input_ids": IDS}), strict=True))
    np.testing.assert_array_equal(values["start_logits"], TABLE[IDS][..., 0])
    np.testing.assert_array_equal(values["end_logits"], TABLE[IDS][..., 1])
    np.testing.assert_array_equal(values["logits"], -TABLE[IDS])


def test_the_names_can_be_taken_out_again(graph):
    before = unchanged(graph)

    def both(model):
        model, _ = name_for_others(model, NAMES)
        return drop_names(model, NAMES)

    model, _ = apply(both, graph)
    assert model.SerializeToString() == before.SerializeToString()


def test_a_name_that_stands_for_something_else_is_refused(graph, tmp_path):
    model, _ = apply(name_for_others, graph, NAMES)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    case = Case(name="a case", seed=0, inputs={"input_ids": IDS}, positions=())
    check_aliases(path, NAMES, case)
    for wrong in ({"span_logits": ("end_logits", "start_logits")}, {"span_logits": ("logits",)}):
        with pytest.raises(ValidationError, match="is not that of span_logits: nothing was written"):
            check_aliases(path, wrong, case)


def aliases(*heads, added=()):
    entries = {
        name: dataclasses.replace(entry, source=OTHER if name in added else None)
        for name, entry in heads_of(heads).items()
    }
    return {name: entry.aliases for name, entry in with_aliases(entries).items() if entry.aliases}


def test_a_name_has_one_meaning():
    assert aliases(MLM, NSP) == {}
    assert aliases(SEQUENCE_CLASSIFICATION) == {SEQUENCE_CLASSIFICATION: ("logits",)}
    assert aliases(MLM, SEQUENCE_CLASSIFICATION, QUESTION_ANSWERING) == {
        QUESTION_ANSWERING: ("start_logits", "end_logits")
    }
    both = SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION
    assert aliases(*both) == {SEQUENCE_CLASSIFICATION: ("logits",)}
    assert aliases(*both, added=[SEQUENCE_CLASSIFICATION]) == {TOKEN_CLASSIFICATION: ("logits",)}


@pytest.mark.parametrize(
    ("model_class", "head"),
    [
        ("BertForSequenceClassification", SEQUENCE_CLASSIFICATION),
        ("BertForQuestionAnswering", QUESTION_ANSWERING),
    ],
)
def test_a_bundle_gives_them_in_its_portable_graph_alone(model_class, head, make_checkpoint, tmp_path):
    export(make_checkpoint(tmp_path / "checkpoint", model_class), tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    entry = bundle.manifest.heads[head]
    assert entry.aliases
    given = {}
    for variant in ("portable", "fp32"):
        path = bundle.file(bundle.manifest.variants[variant].file)
        given[variant] = {output.name for output in onnxruntime.InferenceSession(path).get_outputs()}
        further = given[variant].difference(bundle.manifest.variants[variant].outputs)
        assert further == (set(entry.aliases) if variant == "portable" else set())
        model = load(bundle.path, variant=variant)
        # Here `logits` is what fills in words: a graph that gives a classifier's under that name decodes nothing.
        assert given[variant] - set(entry.aliases) == model.graph.outputs
        assert "masked_positions" not in inputs_of(model)
        assert not {"logits", *entry.aliases} & outputs_of(model).keys()
