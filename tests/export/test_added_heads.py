"""Heads of several checkpoints on one frozen encoder: one graph, and one sentence where they do not belong together."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from bertport.export import export, restore
from bertport.export.checkpoint.added import with_heads
from bertport.export.checkpoint.read import read_checkpoint
from bertport.export.checkpoint.source import locate
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import CheckpointError
from bertport.runtime.heads import MULTIPLE_CHOICE, QUESTION_ANSWERING, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION
from tests.conftest import contents
from tests.families import tiny
from tests.heads import LABELS, TUNED, combinations, frozen, head_checkpoint
from tests.invented import rewrite


def heads_on(factory, family, base, directory, heads, **options):
    """Checkpoints of a family with heads on the encoder of another one."""
    return [
        frozen(head_checkpoint(factory, family, head), base, directory / f"{family}-{head}", **options)
        for head in heads
    ]


def outputs_of(directory, inputs, run_graph):
    """Return the outputs of a bundle's portable graph, by head."""
    manifest = Bundle.open(directory).manifest
    outputs = run_graph(directory / "onnx" / "model.onnx", {name: inputs[name] for name in manifest.inputs})
    return {name: outputs[entry.output] for name, entry in manifest.heads.items()}


INPUTS = {
    "input_ids": torch.arange(40, 54).reshape(2, 7).numpy(),
    "attention_mask": torch.ones(2, 7, dtype=torch.int64).numpy(),
    "token_type_ids": torch.tensor([[0] * 3 + [1] * 4, [0] * 7]).numpy(),
}


def assert_each_as_alone(factory, family, directory, run_graph):
    """Export heads together and each by itself, and compare what the graphs compute."""
    base = tiny(family, directory / "base")
    heads = [head for other, head in combinations() if other == family]
    added = heads_on(factory, family, base, directory, heads)
    bundle = export(base, directory / "bundle", add_heads=added)
    together = outputs_of(bundle.path, INPUTS, run_graph)
    for head, checkpoint in zip(heads, added, strict=True):
        entry = bundle.manifest.heads[head]
        assert entry.labels == LABELS.get(head)
        assert entry.source.name == checkpoint.name
        assert entry.source.weights_sha256.keys() == {"model.safetensors"}
        alone = outputs_of(export(checkpoint, directory / f"{head}-alone").path, INPUTS, run_graph)[head]
        torch.testing.assert_close(torch.tensor(together[head]), torch.tensor(alone), rtol=0, atol=1e-6)
    return base, bundle


@pytest.mark.slow
def test_every_head_of_a_modernbert_in_one_graph(tmp_path_factory, tmp_path, run_graph):
    """They all have modules of one name, that of masked words too."""
    assert_each_as_alone(tmp_path_factory, "modernbert", tmp_path, run_graph)


@pytest.mark.slow
def test_a_checkpoint_is_restored_without_what_was_added(tmp_path_factory, tmp_path, run_graph):
    base, bundle = assert_each_as_alone(tmp_path_factory, "bert", tmp_path, run_graph)
    notes = []
    restored = restore(bundle, tmp_path / "restored", progress=lambda event: notes.append(event.text))
    assert contents(restored)["model.safetensors"] == contents(base)["model.safetensors"]
    assert [note for note in notes if note.startswith("left out")] == [
        f"left out: the {head} head, which was added from another checkpoint" for head in TUNED
    ]


def test_two_heads_in_one_graph(tmp_path_factory, tmp_path, run_graph):
    """A classifier and a tagger, whose modules have one name; the pooler comes with the classifier."""
    base = tiny("bert", tmp_path / "base", model_class="BertForTokenClassification")
    added = heads_on(tmp_path_factory, "bert", base, tmp_path, [SEQUENCE_CLASSIFICATION])
    (base / "README.md").write_text("---\nlicense: apache-2.0\ndatasets: [org/texts, no]\n---\n")
    (added[0] / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    bundle = export(base, tmp_path / "bundle", add_heads=added)
    assert list(bundle.manifest.heads) == [SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION, "pooler"]
    card = (bundle.path / "README.md").read_text(encoding="utf-8")
    of_head = f"Of the head `{SEQUENCE_CLASSIFICATION}`, from the checkpoint `{added[0].name}`: cc-by-4.0."
    assert f"## Licence\n\napache-2.0\n\n{of_head}\n" in card
    assert '\ndatasets:\n  - org/texts\n  - "no"\n' in card
    outputs = outputs_of(bundle.path, INPUTS, run_graph)
    assert outputs[SEQUENCE_CLASSIFICATION].shape == (2, 3)
    assert outputs[TOKEN_CLASSIFICATION].shape == (2, 7, 2)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny("bert", tmp_path_factory.mktemp("base") / "base")


@pytest.fixture
def classifier(base, tmp_path_factory, tmp_path):
    """A classifier on the encoder of the base."""
    return heads_on(tmp_path_factory, "bert", base, tmp_path, [SEQUENCE_CLASSIFICATION])[0]


def added(base, *others):
    """The checkpoint of a base with the heads of others."""
    return with_heads(read_checkpoint(locate(str(base))), "base", [locate(str(directory)) for directory in others])


def test_the_same_encoder_in_a_narrower_type(base, tmp_path_factory, tmp_path):
    for dtype in ("float16", "bfloat16", "float64"):
        [other] = heads_on(tmp_path_factory, "bert", base, tmp_path / dtype, [QUESTION_ANSWERING], dtype=dtype)
        assert QUESTION_ANSWERING in added(base, other).heads


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("bert.encoder.layer.1.attention.self.query.bias", "float32"),
        ("bert.embeddings.word_embeddings.weight", "float16"),
        ("bert.pooler.dense.weight", "float32"),
    ],
)
def test_another_encoder_is_told_by_its_first_tensor(name, dtype, base, tmp_path_factory, tmp_path):
    """One number that differs, by the least that its type has."""
    [other] = heads_on(tmp_path_factory, "bert", base, tmp_path, [SEQUENCE_CLASSIFICATION], dtype=dtype)

    def change(tensors):
        tensors[name].view(-1)[3] = torch.nextafter(
            tensors[name].view(-1)[3], torch.tensor(9.0, dtype=tensors[name].dtype)
        )
        return tensors

    moved = rewrite(other, tmp_path / "moved", change)
    with pytest.raises(CheckpointError, match=rf"^moved has another encoder than base: {name} differs in"):
        added(base, moved)


def test_a_pooler_that_no_head_reads_may_be_another(base, tmp_path_factory, tmp_path):
    """The tagger's checkpoint has one; a classifier's is read, and comes with it where the base has none."""
    [tagger] = heads_on(tmp_path_factory, "bert", base, tmp_path, [TOKEN_CLASSIFICATION])
    pooler = {"bert.pooler.dense.weight": torch.ones(32, 32), "bert.pooler.dense.bias": torch.ones(32)}
    other = rewrite(tagger, tmp_path / "other", lambda tensors: tensors | pooler)
    assert added(base, other).heads == ("mlm", "nsp", TOKEN_CLASSIFICATION, "pooler")
    bare = rewrite(base, tmp_path / "bare", lambda tensors: {n: t for n, t in tensors.items() if ".pooler." not in n})
    assert added(bare, other).heads == ("mlm", TOKEN_CLASSIFICATION)
    others = heads_on(tmp_path_factory, "bert", base, tmp_path / "two", [SEQUENCE_CLASSIFICATION, MULTIPLE_CHOICE])
    assert added(bare, *others).heads == ("mlm", SEQUENCE_CLASSIFICATION, MULTIPLE_CHOICE, "pooler")
    third = rewrite(others[1], tmp_path / "third", lambda tensors: tensors | pooler)
    with pytest.raises(CheckpointError, match=r"^third has another encoder than base: bert\.pooler\.dense\.weight"):
        added(bare, others[0], third)


def test_notes_on_what_an_added_checkpoint_holds_besides(base, tmp_path_factory, tmp_path):
    """That it lacks the pooler is no news where the base has one."""
    [tagger] = heads_on(tmp_path_factory, "bert", base, tmp_path, [TOKEN_CLASSIFICATION])
    loss = {"loss.weight": torch.ones(2)}
    other = rewrite(tagger, tmp_path / "other", lambda tensors: tensors | loss)
    assert read_checkpoint(locate(str(other))).notes[0].startswith("the weights hold no pooler: ")
    assert added(base, other).notes == ("other: left out, as part of neither the encoder nor a head: loss.weight",)
    assert added(base, tagger).notes == ()


def test_what_cannot_be_added(base, classifier, tmp_path):
    with pytest.raises(CheckpointError, match="holds a sequence-classification head, and there is one already"):
        added(classifier, classifier)
    with pytest.raises(CheckpointError, match="holds a mlm head, and there is one already"):
        added(base, base)
    bare = rewrite(classifier, tmp_path / "bare", lambda tensors: {n: t for n, t in tensors.items() if "bert." in n})
    with pytest.raises(CheckpointError, match=r"^bare was given for its head and holds none \(config.json says"):
        added(base, bare)
    other = tiny("roberta", tmp_path / "other", model_class="RobertaForSequenceClassification")
    with pytest.raises(CheckpointError, match=r"^other is a RoBERTa and base is a BERT: only heads that"):
        added(base, other)
    eps = rewrite(classifier, tmp_path / "eps", dict, layer_norm_eps=1e-5)
    with pytest.raises(
        CheckpointError, match=r"^eps has another encoder than base: layer_norm_eps is 1e-05 and not 1e-12"
    ):
        added(base, eps)


def test_an_adapter_beside_an_added_head_is_refused(base, classifier):
    (classifier / "adapter_config.json").write_text("{}")
    said = rf"^{classifier.name} holds a PEFT adapter \(adapter_config.json\) beside a whole model: add what PeftModel"
    with pytest.raises(CheckpointError, match=said):
        added(base, classifier)


def test_another_tokenizer_is_told(base, classifier, tmp_path):
    for path in classifier.glob("*token*"):
        path.unlink()
    settings = json.loads((base / "tokenizer_config.json").read_text())
    shutil.copy(base / "vocab.txt", classifier)
    (classifier / "tokenizer_config.json").write_text(json.dumps(settings | {"do_lower_case": False}))
    with pytest.raises(CheckpointError, match=r"has another tokenizer than base: it reads .* differently \(token "):
        export(base, tmp_path / "out", add_heads=[classifier])
    assert not (tmp_path / "out").exists()
