"""zero-shot-classification equals transformers' pipeline, field for field."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from bertport.runtime.errors import InputTextError, MissingHeadError, UsageError
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION
from bertport.runtime.tasks.inputs import MOST_ROWS
from bertport.runtime.tasks.table import TASKS, obstacle
from bertport.runtime.tasks.zero_shot_classification import LONGEST_TEMPLATE, Options, read
from bertport.runtime.text.steps import drained
from bertport.runtime.text.tokenizer import Tokens
from tests.runtime.tasks.heads import stating

NAMES = (
    ("contradiction", "neutral", "entailment"),
    ("ENTAILMENT", "neutral", "contradiction"),
    ("no", "Entailed", "entailment"),
    ("entail",),
)
LABEL = st.text("abc é中{}:!.", min_size=1, max_size=6).filter(lambda name: name == name.strip())
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
TEMPLATES = ["This example is {}.", "{}", "about {0}, {{so}} to say"]


@pytest.fixture(scope="module")
def manifest(tiny_bundle):
    """A function that gives a manifest with a classifier of such labels."""
    return lambda labels: stating(tiny_bundle, SEQUENCE_CLASSIFICATION, labels=labels)


@pytest.fixture(scope="module")
def pipe(tiny_checkpoint):
    """transformers' pipeline, whose handling of arguments and post-processing are asked."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, pipeline

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = BertConfig(
        vocab_size=8, max_position_embeddings=8, id2label={0: "entailment"}, label2id={"entailment": 0}, **sizes
    )
    model = BertForSequenceClassification(config)
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    return pipeline("zero-shot-classification", model=model, tokenizer=tokenizer, device="cpu")


@settings(max_examples=50)
@given(
    st.sampled_from(NAMES),
    TEXT,
    st.lists(LABEL, min_size=1, max_size=20),
    st.sampled_from(TEMPLATES),
    st.tuples(st.booleans(), st.sampled_from([0.0, 1.0, 20.0]), st.integers(0, 99)),
)
@example(NAMES[0], "a", ["same", "same", "same"], "{}", (False, 0.0, 0))
@example(NAMES[1], "a", ["b", "c"], "{}", (True, 1.0, 0))
def test_rows_and_answers_equal_the_pipeline(pipe, manifest, names, text, labels, template, numbers):  # noqa: PLR0913, PLR0917 — drawn
    import torch

    several, spread, seed = numbers
    assume(all(template.format(label) != template for label in labels))  # theirs takes it for one without a place
    rng = np.random.default_rng(seed)
    logits = [(spread * rng.normal(size=len(names))).astype(np.float32) for _ in labels]
    parts = read(
        Options(candidate_labels=labels, hypothesis_template=template, multi_label=several), None, manifest(names)
    )(text)
    pairs, _ = pipe._args_parser(text, labels, template)  # noqa: SLF001 — what it makes rows of
    assert list(map(list, parts.texts)) == pairs
    pipe.model.config.label2id = {name: column for column, name in enumerate(names)}
    outputs = [
        {"candidate_label": label, "sequence": text, "logits": torch.from_numpy(columns)[None]}
        for label, columns in zip(labels, logits, strict=True)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        theirs = pipe.postprocess(outputs, multi_label=several)
    ours = parts.combine(logits)
    assert list(ours) == list(theirs)
    assert ours["sequence"] == theirs["sequence"] == text
    assert sorted(ours["labels"]) == sorted(theirs["labels"])
    # Logits of up to a hundred are rounded to 4e-6, once more here, where the largest is subtracted from all.
    np.testing.assert_allclose(ours["scores"], theirs["scores"], rtol=1e-5)
    scores = np.array(theirs["scores"])
    if spread and (scores[:-1] > 1.001 * scores[1:]).all():
        assert ours["labels"] == theirs["labels"]


def test_among_equals_the_last_comes_first(manifest):
    """That is what reversing an ascending order gives, in the pipeline too."""
    answer = read(Options(candidate_labels=["a", "b", "c"]), None, manifest(NAMES[0]))("x").combine([np.zeros(3)] * 3)
    assert answer["labels"] == ["c", "b", "a"]


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from(["the king", "é中", "unfathomable", "[SEP]", "."]), max_size=30).map(" ".join),
    st.lists(st.sampled_from(["music", "the sea"]), min_size=1, max_size=20).map(" ".join),
    st.integers(8, 40),
)
def test_a_long_text_is_cut_and_its_hypothesis_is_not(pipe, tiny_bundle, text, hypothesis, longest):
    content = (tiny_bundle / "tokenizer.json").read_text(encoding="utf-8")
    tokens = Tokens(content, {}, longest)
    pipe.tokenizer.model_max_length = longest
    windowing = TASKS["zero-shot-classification"].windows(Options(truncation=True), tokens)
    [rows] = drained(tokens.windows([(text, hypothesis)], windowing.windows))
    theirs = pipe._parse_and_tokenize([[text, hypothesis]])["input_ids"][0].tolist()  # noqa: SLF001 — its truncation
    if len(theirs) > longest:  # it gives up where the hypothesis leaves no room
        assert rows.message.startswith(f"the input may have {longest} tokens, and the ")
    else:
        [logits] = rows
        assert logits.ids.tolist() == theirs
    assert TASKS["zero-shot-classification"].windows(Options(), tokens) is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [("a, b,,c ", ("a", "b", "c")), (["a", " b", ""], ("a", " b", "")), (("a",), ("a",)), ("a", ("a",))],
)
def test_labels_of_the_caller(pipe, manifest, given, expected):
    """A text is cut at commas, a list is taken as it is; and an input may have labels of its own."""
    if isinstance(given, str):
        assert tuple(pipe._args_parser._parse_labels(given)) == expected  # noqa: SLF001 — what it makes of labels
    options = Options(candidate_labels=given, hypothesis_template="is {}")
    assert read(options, None, manifest(NAMES[0]))("x").texts == tuple(("x", f"is {label}") for label in expected)
    own = read(Options(hypothesis_template="is {}"), None, manifest(NAMES[0]))
    assert own({"text": "x", "candidate_labels": given}).texts == tuple(("x", f"is {label}") for label in expected)
    assert read(options, None, manifest(NAMES[0]))({"text": "x"}).texts == tuple(("x", f"is {one}") for one in expected)


@pytest.mark.parametrize("labels", [[], "", " , ", (), 3, {"a": 1}, [1], ["a", None], ["a"] * (MOST_ROWS + 1)])
def test_labels_that_are_none(manifest, labels):
    with pytest.raises(UsageError, match="candidate_labels is a list of"):
        read(Options(candidate_labels=labels), None, manifest(NAMES[0]))
    with pytest.raises(InputTextError, match="candidate_labels is a list of"):
        read(Options(), None, manifest(NAMES[0]))({"text": "a", "candidate_labels": labels})


def test_a_million_commas_are_not_all_cut(manifest):
    with pytest.raises(UsageError, match="candidate_labels is a list of 1 to 16,384 texts, not of 16,385"):
        read(Options(candidate_labels="a," * 1_000_000), None, manifest(NAMES[0]))


@pytest.mark.parametrize(
    "value", [1, None, ["a"], {"text": 1}, {"text": "a", "labels": ["b"]}, {"candidate_labels": "a"}]
)
def test_what_is_no_text(manifest, value):
    with pytest.raises(InputTextError, match="zero-shot-classification takes a text"):
        read(Options(candidate_labels="a"), None, manifest(NAMES[0]))(value)


def test_no_labels_at_all(manifest):
    with pytest.raises(InputTextError, match="needs labels to choose from, and there are none: pass candidate_labels"):
        read(Options(), None, manifest(NAMES[0]))("a")


@pytest.mark.parametrize(
    "template", ["", "no place", "{} {}", "{label}", "{0.__class__}", "{!r}", "{:>9}", "{1}", "{", "}", "{0", "{{}}"]
)
def test_a_template_without_a_place(manifest, template):
    with pytest.raises(UsageError, match=r"hypothesis_template is .* and must have {} once, in place of the label"):
        read(Options(candidate_labels="a", hypothesis_template=template), None, manifest(NAMES[0]))


@pytest.mark.parametrize("template", [None, 3, ["{}"], "{}" + "a" * LONGEST_TEMPLATE])
def test_a_template_that_is_no_short_text(manifest, template):
    with pytest.raises(UsageError, match="hypothesis_template is a text of 1,024 characters at most, not"):
        read(Options(candidate_labels="a", hypothesis_template=template), None, manifest(NAMES[0]))


@pytest.mark.parametrize("several", [None, 1, "yes"])
def test_several_or_not(manifest, several):
    with pytest.raises(UsageError, match="multi_label is True or False, not"):
        read(Options(candidate_labels="a", multi_label=several), None, manifest(NAMES[0]))


def test_a_classifier_of_something_else(manifest):
    task = TASKS["zero-shot-classification"]
    assert obstacle(task, Options(), None, manifest(NAMES[1])) is None
    error = obstacle(task, Options(), None, manifest(("bad", "good")))
    assert isinstance(error, MissingHeadError)
    assert error.message == (
        "zero-shot-classification needs a classifier that was trained on entailment, with a label that begins with "
        "'entail', and that of tiny-bert has ['bad', 'good']: use a bundle that has one"
    )
