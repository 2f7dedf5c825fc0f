"""question-answering equals the pipeline of transformers 4, field for field, for each kind of tokenizer."""

from __future__ import annotations

import types
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertport.runtime.errors import InputTextError, UsageError
from bertport.runtime.heads import QUESTION_ANSWERING
from bertport.runtime.tasks.table import bind
from bertport.runtime.text.tokenizer import Tokens
from tests.heads import head_checkpoint
from tests.runtime.tasks.heads import stating
from tests.runtime.tasks.tokenizers import saved_tokenizer

KINDS = ("bert", "roberta", "xlm-roberta", "albert", "deberta-v2", "mpnet")
"""A family of each kind of tokenizer; of pairs, some have two tokens between the texts, and no segments."""
MAX_LENGTH = 64
ATOMS = [
    "the king",
    "of",
    " ",
    "spain",
    "kingdoms",
    "don't",
    "The",
    "\n",
    "\t",
    "\u3000",
    "a  b",
    "é",
    "e\u0301",
    "12.5",
]
CONTEXTS = st.lists(
    st.sampled_from([*ATOMS, "[SEP]", "</s>", "中文", "日本", "👍🏽", "ﬁ²", ".", "(", "unfathomable"]),
    min_size=1,
    max_size=60,
).map(lambda atoms: " ".join(atoms[:40]) + "".join(atoms[40:]))
QUESTIONS = st.sampled_from(["who is the king?", "?", "of spain", "who\nis the king of spain", "日本", "a"])


@pytest.fixture(scope="module")
def manifest(tiny_bundle):
    """A manifest with the head."""
    return stating(tiny_bundle, QUESTION_ANSWERING)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A function that gives a family's tokenizer as transformers has it, by the side of padding, and ours."""
    made = {}

    def of(family, side="right"):
        if (family, side) not in made:
            directory = tmp_path_factory.mktemp(family)
            theirs, source, stated = saved_tokenizer(directory, family, MAX_LENGTH, padding_side=side)
            made[family, side] = theirs, Tokens(source, stated, MAX_LENGTH)
        return made[family, side]

    return of


def logits_of(ids, scale=3.0):
    """Logits `[tokens, 2]` that depend on the ids of a window, and are as far apart as a trained model's."""
    seed = zlib.crc32(np.asarray(ids, dtype=np.int64).tobytes())
    return np.random.default_rng(seed).normal(scale=scale, size=(len(ids), 2)).astype(np.float32)


def ours(tokens, manifest, question, context, **parameters):
    call = bind("question-answering", parameters, tokens, manifest)
    [prepared] = call.prepare([{"question": question, "context": context}])
    if isinstance(prepared, InputTextError):
        return prepared
    return prepared.combine([work.finish(logits_of(work.ids)) for work in prepared.works])


def of_pipeline(tokenizer, question, context, *, max_seq_len=None, doc_stride=None, **parameters):
    """Return the pipeline's answer from the same logits, without the model."""
    import torch
    from transformers.pipelines.question_answering import QuestionAnsweringPipeline, SquadExample

    stand_in = types.SimpleNamespace(tokenizer=tokenizer, framework="pt")
    for name in ("get_answer", "get_indices"):
        method = getattr(QuestionAnsweringPipeline, name)
        setattr(stand_in, name, types.MethodType(method, stand_in))
    given = SquadExample(None, question, context, None, None, None)
    outputs = []
    for features in QuestionAnsweringPipeline.preprocess(
        stand_in, given, max_seq_len=max_seq_len, doc_stride=doc_stride
    ):
        if tokenizer.padding_side == "left":
            # Of that side it lets any token answer, those of the question too, by an oversight of precedence.
            sequences = features["encoding"].sequence_ids
            first = [sequence is None and place == 0 for place, sequence in enumerate(sequences)]
            masked = [sequence != 0 and not cls for sequence, cls in zip(sequences, first, strict=True)]
            features["p_mask"] = torch.tensor([masked]).long()
        values = torch.from_numpy(logits_of(features["input_ids"][0].numpy()))
        outputs.append({**features, "start": values[None, :, 0], "end": values[None, :, 1]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of numpy, for a tensor of an older torch
        return QuestionAnsweringPipeline.postprocess(stand_in, outputs, **parameters)


def rows(answers):
    """Answers as a list; those of probability 0 left out, with which the pipeline fills up its candidates."""
    return [answer for answer in ([answers] if isinstance(answers, dict) else answers) if answer["score"] > 0]


@pytest.mark.optimum
@pytest.mark.parametrize("side", ["right", "left"])
@settings(max_examples=150)
@given(
    data=st.data(),
    question=QUESTIONS,
    context=CONTEXTS,
    top_k=st.sampled_from([1, 1, 2, 5, 40]),
    longest=st.sampled_from([1, 3, 15, 100]),
    windows=st.sampled_from([(None, None), (None, None), (24, 4), (32, 16), (40, 0)]),
    impossible=st.booleans(),
    aligned=st.booleans(),
)
def test_answers_are_those_of_the_pipeline(  # noqa: PLR0913, PLR0917 — drawn
    case, manifest, side, data, question, context, top_k, longest, windows, impossible, aligned
):
    theirs, tokens = case(data.draw(st.sampled_from(KINDS)), side)
    length, stride = windows
    answered = ours(
        tokens,
        manifest,
        question,
        context,
        top_k=top_k,
        max_answer_len=longest,
        max_seq_len=length,
        doc_stride=stride,
        handle_impossible_answer=impossible,
        align_to_words=aligned,
    )
    if isinstance(answered, InputTextError):
        assert not theirs(context, add_special_tokens=False)["input_ids"]
        return
    wanted = of_pipeline(
        theirs,
        question,
        context,
        max_seq_len=length,
        doc_stride=stride,
        top_k=top_k,
        max_answer_len=longest,
        handle_impossible_answer=impossible,
        align_to_words=aligned,
    )
    assert rows(answered) == rows(wanted)
    assert isinstance(answered, dict) is isinstance(wanted, dict) or len(rows(wanted)) == 1


def answer(tokens, manifest, logits, question="who?", context="the king of spain", **parameters):
    """Return the answer where the tokens of the context, in one window, have these logits."""
    call = bind("question-answering", parameters, tokens, manifest)
    [prepared] = call.prepare([{"question": question, "context": context}])
    [work] = prepared.works
    values = np.zeros((len(work.ids), 2), dtype=np.float32)
    values[-1 - len(logits) : -1] = logits
    return prepared.combine([work.finish(values)])


KING = [(0, 0), (9, 0), (0, 0), (0, 9)]
"""Logits of four words, of which the second to the fourth are the answer."""


def test_an_answer_is_a_part_of_the_context(case, manifest):
    _, tokens = case("bert")
    answered = answer(tokens, manifest, KING)
    assert answered == {"score": answered["score"], "start": 4, "end": 17, "answer": "king of spain"}
    assert answered["score"] == pytest.approx(
        np.exp(9) ** 2 / (np.exp(9) + 4) ** 2, rel=1e-5
    )  # [CLS] is one of four others
    short = answer(tokens, manifest, KING, max_answer_len=2)
    assert short["answer"] in {"king", "of spain", "king of", "spain"}
    assert short["score"] < answered["score"] / 100


def test_several_answers_are_a_list_best_first(case, manifest):
    _, tokens = case("bert")
    answered = answer(tokens, manifest, KING, top_k=3)
    assert [type(answered), len(answered), answered[0]["answer"]] == [list, 3, "king of spain"]
    assert answered == sorted(answered, key=lambda one: -one["score"])
    assert len(answer(tokens, manifest, KING, top_k=100)) == 10  # spans of four words


def test_answers_of_the_same_words_are_one(case, manifest):
    _, tokens = case("bert")
    twice = [(9, 9), (0, 0), (9, 9)]
    answered = answer(tokens, manifest, twice, context="King of king", top_k=4)
    assert answered[0] == {"score": answered[0]["score"], "start": 0, "end": 4, "answer": "King"}
    assert answered[0]["score"] == pytest.approx(0.5, abs=1e-3)


def test_part_of_a_word_is_the_whole_word_where_that_is_asked_for(case, manifest):
    _, tokens = case("bert")
    kings = [(0, 0), (9, 9), (0, 0)]
    assert len(tokens.encode(["kingless"])[0].ids) == 4
    assert answer(tokens, manifest, kings[1:], context="kingless")["answer"] == "kingless"
    assert answer(tokens, manifest, kings[1:], context="kingless", align_to_words=False)["answer"] == "king"


def test_the_empty_answer_competes_where_it_may(case, manifest):
    _, tokens = case("bert")
    call = bind("question-answering", {"handle_impossible_answer": True}, tokens, manifest)
    [prepared] = call.prepare([{"question": "who?", "context": "the king"}])
    values = np.zeros((len(prepared.works[0].ids), 2), dtype=np.float32)
    values[0] = 9
    empty = prepared.combine([prepared.works[0].finish(values)])
    assert (empty["start"], empty["end"], empty["answer"]) == (0, 0, "")
    assert empty["score"] > 0.99
    assert answer(tokens, manifest, KING, handle_impossible_answer=True)["answer"] == "king of spain"


def test_a_long_context_is_read_to_its_end_unless_it_is_cut(case, manifest):
    """The answer stands in the last window; truncation reads the first alone, and says so by its name."""
    _, tokens = case("bert")
    context = "the " * 300 + "king"
    for parameters, windows in (({}, 10), ({"truncation": True}, 1), ({"max_seq_len": 32, "doc_stride": 20}, 41)):
        call = bind("question-answering", parameters, tokens, manifest)
        [prepared] = call.prepare([{"question": "who?", "context": context}])
        assert len(prepared.works) == windows
        ends = []
        for work in prepared.works:
            values = np.zeros((len(work.ids), 2), dtype=np.float32)
            values[np.flatnonzero(work.ids == tokens.token_id("king"))] = 20
            ends.append(work.finish(values))
        answered = prepared.combine(ends)
        assert (answered["answer"] == "king") is (windows > 1)
        assert windows == 1 or (answered["start"], answered["end"]) == (1200, 1204)


def test_the_first_window_alone_needs_no_room_for_what_neighbours_share(case, manifest):
    """A long question leaves some room for the context, if less than two windows would have in common."""
    _, tokens = case("bert")
    value = {"question": "who? " * 20, "context": "the king " * 40}
    [error] = bind("question-answering", {}, tokens, manifest).prepare([value])
    assert str(error).startswith("a window of 64 tokens has 43 beside the context and 32 in common with the next")
    call = bind("question-answering", {"truncation": True}, tokens, manifest)
    [prepared, error] = call.prepare([value, value | {"question": "who? " * 31}])
    [work] = prepared.works
    assert len(work.ids) == MAX_LENGTH
    assert str(error).startswith("the input may have 64 tokens, and the 65 beside the text that is cut leave no room")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("who?", 'question-answering takes {"question": "Q", "context": "C"}, not \'who?\''),
        ({"question": "who?"}, "question-answering takes"),
        ({"question": "who?", "context": 3}, "question-answering takes"),
        ({"question": "who?", "context": "a", "top_k": 3}, "question-answering takes"),
        ({"question": "", "context": "a"}, "the question is empty: give one with words in it: {'question': '', "),
        ({"question": "who?", "context": ""}, "the context is empty: give one"),
        ({"question": "who?", "context": " \u200b\n"}, "the context has no tokens: give one with words in it: ('who?'"),
        (
            {"question": "who? " * 40, "context": "a"},
            "a window of 64 tokens has 83 beside the context and 32 in common with the next",
        ),
    ],
)
def test_inputs_that_cannot_be_answered(case, manifest, value, message):
    call = bind("question-answering", {}, case("bert")[1], manifest)
    [error] = call.prepare([value])
    assert isinstance(error, InputTextError)
    assert str(error).startswith(message)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"top_k": 0}, "top_k is a number from 1 to 100, not 0"),
        ({"top_k": 101}, "top_k is a number from 1 to 100, not 101"),
        ({"top_k": True}, "top_k is a number"),
        ({"max_answer_len": 0}, "max_answer_len is a number from 1 up, not 0"),
        ({"max_answer_len": "many"}, "max_answer_len is a number"),
        ({"max_seq_len": 0}, "max_seq_len is a number from 1 up"),
        ({"max_seq_len": 65}, "a window would have 65 tokens and the model takes 1 to 64"),
        ({"doc_stride": -1}, "doc_stride is a number from 0 up"),
        ({"doc_stride": 62}, "windows of 64 tokens, 2 of them special, would have 62 in common: choose a stride from"),
        ({"align_to_words": 1}, "align_to_words is True or False, not 1"),
        ({"handle_impossible_answer": "no"}, "handle_impossible_answer is True or False"),
    ],
)
def test_parameters_out_of_range(case, manifest, parameters, message):
    with pytest.raises(UsageError, match=message):
        bind("question-answering", parameters, case("bert")[1], manifest)


def test_a_top_k_of_none_is_the_default(case, manifest):
    """As of the other numbers: one answer, by itself, not all that were looked at."""
    _, tokens = case("bert")
    question, context = "who?", "the king of spain " * 4
    assert ours(tokens, manifest, question, context, top_k=None) == ours(tokens, manifest, question, context)


def test_a_longest_answer_of_none_is_the_default(case, manifest):
    """As in transformers, and not one token."""
    _, tokens = case("bert")
    assert answer(tokens, manifest, KING, max_answer_len=None)["answer"] == "king of spain"


PROSE = (
    "The king of Spain went home. “No more tea!”, he said to the queen;\nshe bought bread and coffee (two or three) in "
    "Madrid.\tKingdoms of the old world…  are made of water, fish and salt. 東京は日本の首都。 The end of it was good, "
)
ASKED = [
    ("who went home?", PROSE),
    ("what did she buy", PROSE * 3),
    ("where?", "The\nking " * 40 + PROSE * 8),
    ("who", "king"),
    ("日本 の 首都", "東京は日本の首都。" * 30),
]


@pytest.mark.optimum
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_exported_models_answer_as_the_pipeline(tmp_path, tmp_path_factory, family):
    """With the head's weights scaled, so that one answer is far likelier than another, as trained ones are."""
    import shutil

    from safetensors.torch import load_file, save_file
    from transformers import pipeline

    from bertport.export import export
    from bertport.runtime import load

    checkpoint = tmp_path / family
    shutil.copytree(head_checkpoint(tmp_path_factory, family, QUESTION_ANSWERING), checkpoint)
    tensors = load_file(checkpoint / "model.safetensors")
    for name in ("qa_outputs.weight", "qa_outputs.bias"):
        tensors[name] *= 6
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    theirs = pipeline("question-answering", model=str(checkpoint), device="cpu")
    export(checkpoint, tmp_path / "bundle")
    model = load(tmp_path / "bundle")
    inputs = [{"question": question, "context": context} for question, context in ASKED]
    for parameters in ({}, {"top_k": 4}, {"handle_impossible_answer": True, "align_to_words": False, "top_k": 3}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # as above
            wanted = [theirs(**value, **parameters) for value in inputs]
        for answered, answers in zip(model.predict("question-answering", inputs, **parameters), wanted, strict=True):
            assert [{**answer, "score": None} for answer in rows(answered)] == [
                {**answer, "score": None} for answer in rows(answers)
            ]
            for ours, other in zip(rows(answered), rows(answers), strict=True):
                assert ours["score"] == pytest.approx(other["score"], rel=1e-3, abs=1e-7)
