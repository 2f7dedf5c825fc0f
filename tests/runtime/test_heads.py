"""The table of heads: a head that is no row of it today is answered, described and checked by a row alone."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
import pytest

from bertport.runtime import load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.manifest import heads_of
from bertport.runtime.commands.render import manifest as rendered
from bertport.runtime.errors import BundleError, MissingHeadError
from bertport.runtime.heads import BATCH, HEADS, LABEL, MLM, SEQUENCE, VOCABULARY, Head, head_of
from bertport.runtime.providers.table import PROVIDERS
from bertport.runtime.session import open_graph
from bertport.runtime.tasks import fill_mask, pairs
from bertport.runtime.tasks.table import TASKS, Task
from bertport.runtime.top_k import top_k_head

TEXTS = ["the king", "the capital of france is [MASK] , and of italy [MASK]", "a [MASK]"]
LABELS = ("person", "place", "number")
INVENTED = {
    # Each head's row, and the nodes that compute its output in the tiny bundle's graphs.
    "entities": (
        Head(name="entities", title="entity", output="entity_logits", axes=(BATCH, SEQUENCE, LABEL), labels=LABELS),
        [("Slice", ["last_hidden_state", "from_0", "to_3", "axis_2"], "entity_logits")],
    ),
    "topic": (
        Head(name="topic", title="topic", output="topic_logits", axes=(BATCH, LABEL), labels=LABELS, label_count=3),
        [("Slice", ["pooler_output", "from_0", "to_3", "axis_1"], "topic_logits")],
    ),
    "unlikely": (
        Head(
            name="unlikely",
            title="unlikely",
            output="unlikely",
            axes=(BATCH, SEQUENCE, VOCABULARY),
            decoded=True,
            top_k=True,
        ),
        [("Neg", ["logits"], "unlikely")],
    ),
}


@pytest.fixture
def invented(monkeypatch):
    """A function that adds a head's row and its task's, whose answers are the raw numbers."""

    def add(name):
        head, _ = INVENTED[name]
        monkeypatch.setitem(HEADS, name, head)
        task = Task(
            name=f"ask-{name}",
            summary="raw numbers",
            options=pairs.Options,
            read=lambda *_: fill_mask.read,
            head=lambda _: name,
            decodes_masks=head.decoded,
            top_k=lambda _: 3 if head.top_k else None,
            finish=lambda *_: lambda values, _: np.stack(list(values)),
        )
        monkeypatch.setitem(TASKS, task.name, task)
        return task.name

    return add


@pytest.fixture
def with_head(edited, tiny_bundle):
    """A function that gives a copy of the tiny bundle whose graphs have an invented head."""

    def make(name, **stated):
        _, nodes = INVENTED[name]
        contents = {}
        for entry in Bundle.open(tiny_bundle).manifest.variants.values():
            model = onnx.load(tiny_bundle / entry.file)  # with the weights, which lie in the portable one
            for number, word in enumerate(("from_0", "axis_1", "axis_2", "to_3")):
                model.graph.initializer.append(onnx.helper.make_tensor(word, onnx.TensorProto.INT64, [1], [number]))
            for operator, inputs, output in nodes:
                model.graph.node.append(onnx.helper.make_node(operator, inputs, [output]))
                model.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
            contents[entry.file] = model.SerializeToString()

        def record(manifest):
            [entry] = heads_of([name]).values()
            manifest["heads"][name] = {
                "output": entry.output,
                "axes": entry.axes,
                "labels": entry.labels,
                "problem_type": None,
            } | stated
            for path, content in contents.items():
                manifest["files"][path] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for variant in manifest["variants"].values():
                variant["outputs"].append(entry.output)
                variant["external_data"] = []

        bundle = edited(record)
        for path, content in contents.items():
            (bundle / path).write_bytes(content)
        return bundle

    return make


@pytest.mark.parametrize("variant", ["fp32", "portable"])
def test_a_head_per_token_is_a_row(invented, with_head, variant):
    task = invented("entities")
    model = load(with_head("entities"), variant=variant)
    answers = list(model.predict(task, TEXTS))
    for answer, states in zip(answers, model.features(TEXTS), strict=True):
        np.testing.assert_allclose(answer, states[:, :3], atol=1e-6)


def test_a_head_per_text_is_a_row(invented, with_head):
    task = invented("topic")
    model = load(with_head("topic"))
    answers = list(model.predict(task, TEXTS))
    np.testing.assert_allclose(answers, model.features(TEXTS, pooling="pooler")[:, :3], atol=1e-6)
    assert task in model.describe()["tasks"]
    assert "topic" in model.describe()["heads"]


@pytest.mark.parametrize("variant", ["fp32", "portable"])
@pytest.mark.parametrize("most", [1024, 1])
def test_a_head_that_is_decoded_at_positions_is_a_row(invented, with_head, variant, most):
    task = invented("unlikely")
    model = load(with_head("unlikely"), variant=variant)
    model.positions = most
    works = model.bind(task).prepare(TEXTS[1:])
    plain = model.bind("fill-mask", top_k=1).prepare(TEXTS[1:])
    [two, one, best_of_two, best] = model.run([*works, *plain])  # both heads in one batch
    assert two.shape == (2, model.bundle.manifest.architecture.vocab_size)
    for logits, [answer] in zip([*two, *one], [*best_of_two, best], strict=True):
        assert logits.argmin() == answer["token"]


def test_one_head_is_cut_to_its_top_k_and_the_others_are_whole(invented, with_head):
    task = invented("unlikely")
    whole = load(with_head("unlikely"))
    entry = whole.bundle.manifest.variants["fp32"]
    path = whole.bundle.path / entry.file
    cut = whole.with_graph(open_graph(path, PROVIDERS["cpu"], appended=top_k_head(HEADS[MLM].output)))
    words = cut.bind("fill-mask", top_k=2).prepare(TEXTS[2:])
    [unlikely] = cut.run(cut.bind(task).prepare(TEXTS[2:]))
    assert unlikely.shape == (1, whole.bundle.manifest.architecture.vocab_size)
    [both] = cut.run([*words, *cut.bind(task).prepare(TEXTS[2:])])[:1]
    assert [answer["token"] for answer in both] == unlikely[0].argsort()[:2].tolist()


def test_a_bundle_without_the_head_refuses_its_task(invented, model):
    task = invented("topic")
    with pytest.raises(MissingHeadError, match="needs the head 'topic'"):
        model.bind(task)
    assert task not in model.describe()["tasks"]


def test_labels_are_those_that_the_row_demands(invented, with_head):
    invented("topic")
    assert Bundle.open(with_head("topic")).manifest.heads["topic"].labels == LABELS
    with pytest.raises(BundleError, match="gives 2 labels to the 3 columns of topic"):
        Bundle.open(with_head("topic", labels=LABELS[:2]))
    with pytest.raises(BundleError, match="calls column 3 positive"):
        Bundle.open(with_head("topic", positive=3))


def test_labels_are_shown(invented, with_head, tiny_bundle):
    assert "next-sentence labels  0: is_next, 1: not_next" in rendered(Bundle.open(tiny_bundle))
    assert "topic" not in rendered(Bundle.open(tiny_bundle))
    invented("topic")
    text = rendered(Bundle.open(with_head("topic")))
    assert "topic labels          0: person, 1: place, 2: number" in text


def test_a_head_of_a_later_version_is_shown_and_not_asked(with_head, monkeypatch):
    head, _ = INVENTED["topic"]
    monkeypatch.setitem(HEADS, "topic", head)
    bundle = with_head("topic")
    monkeypatch.delitem(HEADS, "topic")
    assert head_of(head.output) is None
    assert "topic labels" in rendered(Bundle.open(bundle))
    assert load(bundle).describe()["tasks"] == ["fill-mask", "next-sentence", "features"]
