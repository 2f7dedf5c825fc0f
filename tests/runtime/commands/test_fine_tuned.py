"""The verbs for fine-tuned models: what people are shown, and one sentence where the bundle lacks the head."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from bertport.runtime import cli, load
from bertport.runtime.commands import render_fine_tuned
from bertport.runtime.errors import UsageError
from bertport.runtime.heads import MULTIPLE_CHOICE, QUESTION_ANSWERING, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION
from tests.heads import head_bundle

TEXTS = ["The king went home.", "red bread"]
ONE_LABEL = {"labels": ["LABEL_0"], "problem_type": "regression"}
"""A bundle that can rank, and whose own scores are no probabilities."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A function that gives the bundle of a tiny BERT with a head."""
    return lambda head, **settings: head_bundle(tmp_path_factory, "bert", head, **settings)[1]


def invoke(*arguments, stdin=None):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], input=stdin, catch_exceptions=False)


def printed(*arguments, stdin=None):
    """Return the JSON that a command prints."""
    done = invoke(*arguments, "--json", stdin=stdin)
    assert (done.exit_code, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_classify_prints_what_the_model_answers(bundle):
    place = bundle(SEQUENCE_CLASSIFICATION)
    model = load(place)
    assert printed("classify", *TEXTS, "-k", "2", "-m", place) == model.classify(TEXTS, top_k=2)
    best = printed("classify", TEXTS[0], "--pair", "b", "--function", "none", "-m", place)
    assert best == [model.classify(TEXTS[0], "b", top_k=5, function_to_apply="none")]
    assert model.classify(*TEXTS) == model.classify([TEXTS[0]], [TEXTS[1]])[0] == model.classify(*TEXTS, top_k=1)[0]
    pair, *lines = invoke("classify", TEXTS[0], "--pair", "b", "-m", place).stdout.splitlines()
    assert pair == "The king went home. | b"
    assert len(lines) == 3
    assert "#" in lines[0]
    assert "#" not in invoke("classify", "a", "--function", "none", "-m", place).stdout


def test_a_regression_is_no_probability(bundle):
    place = bundle(SEQUENCE_CLASSIFICATION, **ONE_LABEL)
    assert "%" not in invoke("classify", "a", "-m", place).stdout
    assert "%" in invoke("classify", "a", "--function", "sigmoid", "-m", place).stdout


def test_labels_of_the_callers_choice(bundle):
    place = bundle(SEQUENCE_CLASSIFICATION, labels=["contradiction", "neutral", "entailment"])
    model = load(place)
    options = ["-l", "music", "-l", "the sea", "--multi-label"]
    answers = printed("classify", *TEXTS, *options, "-m", place)
    assert answers == model.zero_shot(TEXTS, ["music", "the sea"], multi_label=True)
    assert model.zero_shot(TEXTS[0], "music, the sea", multi_label=True)["labels"] == answers[0]["labels"]
    shown = invoke("classify", TEXTS[0], *options, "-k", "1", "-m", place).stdout.splitlines()
    assert [line.split()[0] for line in shown[1:]] == [answers[0]["labels"][0].split()[0]]


def test_tag_prints_what_the_model_answers(bundle):
    place = bundle(TOKEN_CLASSIFICATION)
    model = load(place)
    assert printed("tag", *TEXTS, "-m", place) == model.tag(TEXTS, aggregation_strategy="simple")
    listed = printed("tag", TEXTS[0], "--aggregation", "none", "--ignore-label", "B-PER", "-m", place)
    assert listed == [model.tag(TEXTS[0], ignore_labels=["B-PER"])]
    assert any(tag["entity"] == "O" for tag in listed[0])
    long = " ".join(TEXTS * 12)
    assert invoke("tag", long, "-m", place).exit_code == 2
    assert printed("tag", long, "--stride", "8", "-m", place) == [
        model.tag(long, aggregation_strategy="simple", stride=8)
    ]
    assert "[" in invoke("tag", TEXTS[0], "-m", place).stdout.splitlines()[0]


def test_an_entity_whose_label_is_a_prefix_alone():
    entity = {"entity_group": "", "score": 0.5, "word": "paris", "start": 3, "end": 8}
    marked, line = render_fine_tuned.entities("In Paris.", [entity]).splitlines()
    assert marked == "In [Paris ]."
    assert line.split() == ["Paris", "50.0%", "3-8"]


def test_answer_prints_what_the_model_answers(bundle, tmp_path):
    place = bundle(QUESTION_ANSWERING)
    model = load(place)
    context = "The king, who was old,\nwent home to Paris in March, and the queen did not like that. " * 6  # windows
    questions = ["Where is the king?", "Who?"]
    expected = model.answer(questions, context, top_k=2, max_answer_len=3, doc_stride=9, handle_impossible_answer=True)
    path, spaced = tmp_path / "context.txt", tmp_path / "my own context.txt"
    for file in (path, spaced):
        file.write_text(context, encoding="utf-8")
    options = ["-k", "2", "--longest", "3", "--stride", "9", "--or-none", "-m", place]
    assert printed("answer", *questions, "-c", context, *options) == expected
    assert printed("answer", *questions, "-c", path, *options) == expected
    assert printed("answer", *questions, "-c", spaced, *options) == expected
    assert printed("answer", *questions, "-c", "-", *options, stdin=context) == expected
    best = model.answer(questions[0], context)
    assert printed("answer", questions[0], "-c", context, "-m", place) == [[best]]
    assert model.answer(questions, [context, context]) == model.answer(questions, context)
    with pytest.raises(UsageError, match="2 questions with 3 contexts were given: give as many"):
        model.answer(questions, [context] * 3)
    wrong = [(iter(questions), context), (questions, None), (None, context), ({"question": "Who?"}, context)]
    for asked, text in wrong:
        with pytest.raises(UsageError, match="answer takes a question or a list of questions, with a context or"):
            model.answer(asked, text)
    shown = invoke("answer", questions[0], "-c", context, "-m", place).stdout.splitlines()
    assert shown[0] == questions[0]
    assert f"[{' '.join(best['answer'].split())}]" in shown[1]


def test_an_answer_is_marked_in_what_stands_around_it():
    context = "x" * 40 + " the\nking went " + "y" * 40
    rows = [{"score": 0.5, "start": 41, "end": 49, "answer": context[41:49]}, {"score": 0.1, "answer": ""}]
    assert render_fine_tuned.answers("Who?", context, rows).splitlines() == [
        "Who?",
        "  the king   50.0%  ..." + "x" * 29 + " [the king] went " + "y" * 24 + "...",
        "  no answer  10.0%",
    ]


def test_rank_prints_what_the_model_answers(bundle, tmp_path):
    place = bundle(SEQUENCE_CLASSIFICATION, **ONE_LABEL)
    documents = [*TEXTS, "the sea"]
    ranked = load(place).rank("Where?", documents, return_documents=True)
    assert printed("rank", "Where?", *documents, "-m", place) == ranked
    (tmp_path / "documents.txt").write_text(" red bread\r\n\nthe sea\n", encoding="utf-8")
    given = ["rank", "Where?", documents[0], "-k", "2", "-m", place, "--documents"]
    assert printed(*given, tmp_path / "documents.txt") == ranked[:2]
    assert printed(*given, "-", stdin="\ufeffred bread\nthe sea") == ranked[:2]
    lines = invoke("rank", "Where?", *documents, "-m", place).stdout.splitlines()[1:]
    assert [line.split()[2] for line in lines] == [f"[{document['corpus_id']}]" for document in ranked]


def test_embed_prints_and_writes_what_the_model_answers(sentence_bundle, tmp_path):
    model = load(sentence_bundle)
    vectors = model.embed(TEXTS, prompt_name="query", truncate_dim=5, normalize=True)
    options = ["--prompt-name", "query", "--truncate-dim", "5", "--normalize", "-m", sentence_bundle]
    assert printed("embed", TEXTS[0], "--texts", "-", *options, stdin="red bread\n") == vectors.tolist()
    for name, read in (("x.npy", np.load), ("x.json", lambda path: json.loads(path.read_text()))):
        done = invoke("embed", *TEXTS, *options, "--output", tmp_path / name)
        assert (done.exit_code, done.stdout) == (0, "")
        assert done.stderr.endswith(f"{name}: 2 x 5 numbers, float32\n")
        assert np.array_equal(np.asarray(read(tmp_path / name), np.float32), vectors)
    assert "5 float32" in invoke("embed", "a", *options).stdout
    done = invoke("embed", "a", *options, "--output", tmp_path / "no" / "x.npy")
    assert done.exit_code == 2
    assert "(No such file or directory): name a file in a directory that can be written" in done.stderr
    done = invoke("embed", "--texts", tmp_path / "x.json", *options, "--output", tmp_path / "x.json")
    assert (done.exit_code, "(the command reads that file): name another output" in done.stderr) == (2, True)
    done = invoke("embed", "a", "--output", sentence_bundle / "config.json", "-m", sentence_bundle)
    assert (done.exit_code, f"(it is in the bundle {sentence_bundle}): name an" in done.stderr) == (2, True)


def test_choose_gives_the_likeliest_choice(tmp_path_factory):
    model = load(head_bundle(tmp_path_factory, "bert", MULTIPLE_CHOICE)[1])
    answer = model.choose(TEXTS[0], ["He was tired.", "bread"])
    assert answer == next(model.predict("multiple-choice", [{"text": TEXTS[0], "choices": ["He was tired.", "bread"]}]))
    assert answer["probabilities"][answer["label"]] == answer["score"] == max(answer["probabilities"])


def test_labels_stand_beside_bars_as_long_as_they_are_probable():
    rows = [{"label": "joy", "score": 0.75}, {"label": "anger", "score": 0.2499}, {"label": "爱", "score": 0.0001}]
    text, *lines = render_fine_tuned.labels("a\x1b[31m", rows, probable=True).splitlines()
    assert text == "a\\x1b[31m"
    assert lines == ["  joy    75.0%  " + 18 * "#", "  anger  25.0%  " + 6 * "#", "  爱     0.01%"]


def test_scores_that_are_no_probabilities_are_shown_as_they_are():
    shown = render_fine_tuned.labels("a", [{"label": "stars", "score": 0.5}], probable=False)
    assert shown == "a\n  stars  0.5000"


def test_entities_are_marked_in_their_text():
    text = "Ann and Bob\nsleep"
    entity = {"score": 0.5, "word": "x"}
    rows = [entity | {"entity_group": "PER", "start": start, "end": start + 3} for start in (0, 8)]
    shown = render_fine_tuned.entities(text, rows).splitlines()
    assert shown == ["[Ann PER] and [Bob PER]\\nsleep", "  PER  Ann  50.0%  0-3", "  PER  Bob  50.0%  8-11"]
    tokens = [entity | {"entity": "B-PER", "index": 1, "start": 0, "end": 3}]
    assert render_fine_tuned.entities(text, tokens).startswith("[Ann B-PER] and Bob")
    assert render_fine_tuned.entities(text, []) == "Ann and Bob\\nsleep\n  no entities"


def test_a_span_inside_another_is_not_marked_again():
    assert render_fine_tuned.marked("abcdef", [(0, 3, "X"), (2, 4, "Y"), (4, 5, "Z")]) == "[abc X]d[e Z]f"


def test_a_ranking_shows_the_beginning_of_each_document():
    rows = [
        {"corpus_id": 10, "score": 0.98765, "text": "one\n two\x1b"},
        {"corpus_id": 9, "score": -1.5, "text": "a" * 81},
    ]
    assert render_fine_tuned.ranking("why", rows).splitlines() == [
        "why",
        "  1.   0.9877  [10]  one two\\x1b",
        "  2.  -1.5000   [9]  " + "a" * 77 + "...",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rank", "why"], "rank takes a query and documents, and no document was given: give some"),
        (
            ["rank", "why", "--documents", "/nowhere"],
            "cannot read /nowhere (No such file or directory): name",
        ),
        (
            ["rank", "why", "--documents", "BINARY"],
            "is not UTF-8): name a file of text in UTF-8, or - for",
        ),
        (["answer", "Who?", "-c", "/nowhere"], "cannot read /nowhere (No such file or directory): name"),
        (["embed"], "embed takes texts, and none was given: give some, or --texts FILE"),
        (["embed", "a", "-o", "x.csv"], "cannot write vectors as x.csv: name a file that ends in .npy or .json"),
        (["classify", "a", "b", "--pair", "c"], "--pair makes a pair of one text, and 2 were given: give one"),
        (
            ["classify", "a", "-l", "b", "--pair", "c"],
            "--label takes labels of your own, without --pair and --function: leave",
        ),
        (["classify", "a", "--multi-label"], "--multi-label needs labels of your own: name them with --label"),
        (["classify", "a", "-l", "b", "-k", "0"], "top_k is a number from 1 up, not 0"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, arguments, said):
    (tmp_path / "BINARY").write_bytes(b"\xff")
    place = [str(tmp_path / argument) if argument == "BINARY" else argument for argument in arguments]
    done = invoke(*place)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "task"),
    [
        (["classify", "a"], "text-classification"),
        (["classify", "a", "-l", "b"], "zero-shot-classification"),
        (["tag", "a"], "token-classification"),
        (["answer", "a", "-c", "b c"], "question-answering"),
        (["rank", "a", "b"], "text-ranking"),
        (["embed", "a"], "embeddings"),
    ],
)
def test_a_bundle_without_the_head_says_what_it_answers(tiny_bundle, arguments, task):
    done = invoke(*arguments, "-m", tiny_bundle)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"bertport: error: {task} needs the head")
    assert done.stderr.endswith("this one answers fill-mask, next-sentence, features\n")
