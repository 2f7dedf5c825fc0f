"""The bias probe of classifiers: its templates, and the scores that a bundle gives for the two sentences of a pair."""

import json

import numpy as np
import pytest

from bertport.measure.quality.bias import Probe, read_label_probe, read_probe
from bertport.measure.quality.label_bias import LabelScores, probe_labels, scores_are
from bertport.measure.quality.model import graph_of, read_sample_tokenizer
from bertport.runtime import load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import InputTextError
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION
from tests.heads import head_bundle

CASES = {
    "softmax": ("roberta", {}),
    "sigmoid": ("bert", {"problem_type": "multi_label_classification"}),
    "none": ("bert", {"labels": ("LABEL_0",), "problem_type": "regression"}),
}


def probe_of(*templates, groups=(("man", "woman"), ("king", "queen"))):
    return Probe(name="ours", description="", templates=templates, groups=groups)


@pytest.mark.parametrize("scores", CASES)
def test_the_scores_are_those_that_the_task_answers(tmp_path_factory, scores):
    family, settings = CASES[scores]
    _, path = head_bundle(tmp_path_factory, family, SEQUENCE_CLASSIFICATION, **settings)
    bundle, model = Bundle.open(path), load(path, threads=1)
    assert scores_are(bundle.manifest) == scores
    probe = probe_of("the {} went home", "my {} is good")
    pairs = probe_labels(graph_of(model), read_sample_tokenizer(bundle), probe, bundle.manifest)
    assert [(pair.template, pair.a, pair.b) for pair in pairs] == probe.pairs()
    for pair in pairs:
        for text, own in ((pair.a, pair.scores_a), (pair.b, pair.scores_b)):
            [answer] = model.predict("text-classification", [text], top_k=None)
            by_label = {row["label"]: row["score"] for row in answer}
            labels = bundle.manifest.heads[SEQUENCE_CLASSIFICATION].labels
            # the graph runs the same tokens either way
            assert own == pytest.approx([by_label[label] for label in labels], abs=1e-6)
        assert any(change != 0 for change in pair.changes)


def test_a_word_twice_changes_nothing_and_changes_have_their_sign(tmp_path_factory):
    _, path = head_bundle(tmp_path_factory, "roberta", SEQUENCE_CLASSIFICATION)
    bundle, model = Bundle.open(path), load(path, threads=1)
    probe = probe_of("the {} went home", groups=(("man", "man"), ("man", "woman"), ("woman", "man")))
    same, there, back = probe_labels(graph_of(model), read_sample_tokenizer(bundle), probe, bundle.manifest)
    assert same.changes == (0.0, 0.0, 0.0)
    assert there.changes == tuple(-change for change in back.changes)
    pair = LabelScores(template=0, a="", b="", scores_a=(0.2, 0.8), scores_b=(0.5, 0.5))
    assert np.allclose(pair.changes, (0.3, -0.3))


def test_a_sentence_that_is_too_long_is_said(tmp_path_factory):
    _, path = head_bundle(tmp_path_factory, "roberta", SEQUENCE_CLASSIFICATION)
    bundle = Bundle.open(path)
    probe = probe_of(f"the {{}} {'went ' * bundle.manifest.max_length}home")
    with pytest.raises(InputTextError, match=r"^a sentence of the bias probe has \d+ tokens and the model takes \d+: "):
        probe_labels(graph_of(load(path, threads=1)), read_sample_tokenizer(bundle), probe, bundle.manifest)


def test_the_templates_that_ship_have_no_mask_and_no_pair_twice():
    probe = read_label_probe()
    assert len(set(probe.pairs())) == len(probe.pairs()) == len(probe.templates) * len(probe.groups)
    assert not any("[MASK]" in template for template in probe.templates)


def test_a_file_of_both_kinds_is_taken_apart_where_both_are_asked(tmp_path):
    path = tmp_path / "templates.json"
    path.write_text(json.dumps({"templates": ["The {} is [MASK].", "The {} is."], "groups": [["man", "woman"]]}))
    assert read_probe(path, mixed=True).templates == ("The {} is [MASK].",)
    assert read_label_probe(path, mixed=True).templates == ("The {} is.",)
    with pytest.raises(InputTextError, match=r"'The {} is \[MASK\].' does not have one {} and no \[MASK\]: expected"):
        read_label_probe(path)
    with pytest.raises(InputTextError, match=r"'The {} is.' does not have one {} and one \[MASK\]: expected"):
        read_probe(path)
    path.write_text(json.dumps({"templates": ["[MASK] {} [MASK]"], "groups": [["man", "woman"]]}))
    for read in (read_probe, read_label_probe):
        with pytest.raises(InputTextError, match="does not have one"):
            read(path, mixed=True)
