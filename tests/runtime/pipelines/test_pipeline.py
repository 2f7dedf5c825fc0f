"""`pipeline` is called as transformers' and gives its answers in its shapes: the same calls are made on both."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest

import bertport.runtime
from bertport.runtime import load, pipeline
from bertport.runtime.errors import InputTextError, MissingHeadError, ProviderError, UnknownNameError, UsageError
from bertport.runtime.heads import QUESTION_ANSWERING, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION
from bertport.runtime.pipelines.table import PIPELINES, usual_row
from bertport.runtime.tasks.table import TASKS
from tests.families import MAX_LENGTH
from tests.heads import head_bundle

ATOL = 1e-5
"""Tolerance of scores that the project promises; both sides compute in float32 and differ in the order of sums."""
LABELS = ("contradiction", "neutral", "entailment")
TEXT, OTHER = "the king went home", "London is a city of books."
MASKED, TWICE = "the [MASK] went home", "the [MASK] of [MASK]"
LONG = "the kingdom of the sea " * 60
TOPICS = ["music", "the city", "games of a king"]
QUESTION, CONTEXT = "who went home?", "The king of Spain went home. The queen did not."


class DataSet:
    """A data set as PyTorch's are: with a length and items, and no error behind the last one."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index % len(self.items)]


def both_data_sets():
    """A data set that transformers takes too, which knows those of PyTorch alone."""
    from torch.utils.data import Dataset

    return type("TorchDataSet", (DataSet, Dataset), {})


@pytest.fixture(scope="module")
def sources(tmp_path_factory, tiny_checkpoint, tiny_bundle):
    """A function that gives the checkpoint and the bundle of a task."""
    tuned = {
        "text-classification": (SEQUENCE_CLASSIFICATION, {"labels": LABELS}),
        "zero-shot-classification": (SEQUENCE_CLASSIFICATION, {"labels": LABELS}),
        "token-classification": (TOKEN_CLASSIFICATION, {}),
        "question-answering": (QUESTION_ANSWERING, {}),
    }

    def both(task):
        if task not in tuned:
            return tiny_checkpoint, tiny_bundle
        head, settings = tuned[task]
        return head_bundle(tmp_path_factory, "bert", head, **settings)

    return both


@pytest.fixture(scope="module")
def made(sources):
    """A function that gives transformers' pipeline of a task and ours, each made once without parameters."""
    import torch
    import transformers

    torch.set_num_threads(1)
    pipes = {}

    def both(task, **parameters):
        checkpoint, bundle = sources(task)
        if parameters or task not in pipes:
            pipes[task] = (
                transformers.pipeline(task, model=str(checkpoint), device="cpu", **parameters),
                pipeline(task, model=str(bundle), device="cpu", threads=1, **parameters),
            )
        return pipes.pop(task) if parameters else pipes[task]

    return both


def assert_same(ours, theirs):
    """Check that answers have the same structure, texts and numbers, in Python's own types."""
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for name, value in theirs.items():
            assert_same(ours[name], value)
    elif isinstance(theirs, list):
        assert type(ours) is list
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert_same(mine, other)
    elif isinstance(theirs, str | int):
        assert type(ours) is type(theirs)
        assert ours == theirs
    else:
        assert type(ours) is float
        assert ours == pytest.approx(float(theirs), abs=ATOL)


PAIR = {"text": TEXT, "text_pair": OTHER}
CASES = {
    "fill-mask": [
        lambda pipe: pipe(MASKED),
        lambda pipe: pipe(TWICE, top_k=2),
        lambda pipe: pipe([MASKED]),
        lambda pipe: pipe([TWICE]),
        lambda pipe: pipe([MASKED, TWICE], top_k=1),
        lambda pipe: pipe(MASKED, targets=["king", "queen"]),
        lambda pipe: pipe(MASKED, targets="king", top_k=None),
        lambda pipe: pipe(MASKED + LONG, tokenizer_kwargs={"truncation": True}),
        lambda pipe: pipe(MASKED + LONG, tokenizer_kwargs={"truncation": "only_first"}),
        lambda pipe: pipe(inputs=MASKED, batch_size=2, num_workers=0),
        lambda pipe: pipe(f"the {pipe.tokenizer.mask_token} of"),
        lambda pipe: list(pipe(text for text in [MASKED, TWICE])),
        lambda pipe: list(pipe(both_data_sets()([MASKED, TWICE]))),
        lambda pipe: pipe.predict(MASKED),
    ],
    "text-classification": [
        lambda pipe: pipe(TEXT),
        lambda pipe: pipe([TEXT]),
        lambda pipe: pipe([TEXT, OTHER]),
        lambda pipe: pipe(PAIR),
        lambda pipe: pipe([PAIR]),
        lambda pipe: pipe([TEXT, PAIR]),
        lambda pipe: pipe([[[TEXT, OTHER]]]),
        lambda pipe: pipe(TEXT, top_k=None),
        lambda pipe: pipe([TEXT, OTHER], top_k=None),
        lambda pipe: pipe(TEXT, top_k=1),
        lambda pipe: pipe(PAIR, top_k=2),
        lambda pipe: pipe(TEXT, function_to_apply="sigmoid"),
        lambda pipe: pipe(TEXT, function_to_apply="NONE", top_k=3),
        lambda pipe: pipe(LONG, truncation=True, padding=True),
        lambda pipe: pipe([LONG, TEXT], truncation="longest_first", max_length=MAX_LENGTH),
        lambda pipe: list(pipe(text for text in [TEXT, PAIR])),
        lambda pipe: list(pipe((text for text in [TEXT, OTHER]), top_k=2)),
        lambda pipe: list(pipe(both_data_sets()([TEXT, PAIR]))),
    ],
    "token-classification": [
        lambda pipe: pipe(OTHER),
        lambda pipe: pipe([OTHER]),
        lambda pipe: pipe([OTHER, TEXT], ignore_labels=[]),
        lambda pipe: pipe(LONG, ignore_labels=[]),
        *(
            partial(lambda pipe, strategy: pipe([OTHER, TEXT], aggregation_strategy=strategy), strategy=strategy)
            for strategy in ("simple", "first", "AVERAGE", "max")
        ),
        lambda pipe: pipe(LONG, aggregation_strategy="simple", stride=8, ignore_labels=["B-PER"]),
        lambda pipe: pipe(["London", "is", "unfathomable"], is_split_into_words=True, ignore_labels=[]),
        lambda pipe: pipe([["London", "is"], ["a", "city"]], is_split_into_words=True, ignore_labels=[]),
        lambda pipe: pipe([["a", "city"]], is_split_into_words=True, delimiter="-", ignore_labels=[]),
        lambda pipe: list(pipe(text for text in [TEXT, OTHER])),
    ],
    "zero-shot-classification": [
        lambda pipe: pipe(TEXT, candidate_labels=TOPICS),
        lambda pipe: pipe(TEXT, TOPICS),
        lambda pipe: pipe([TEXT], candidate_labels="music, the city"),
        lambda pipe: pipe([TEXT, OTHER], TOPICS, hypothesis_template="It is about {}.", multi_label=True),
        lambda pipe: pipe(sequences=TEXT, candidate_labels=["music"]),
        lambda pipe: pipe(LONG, candidate_labels=TOPICS),
    ],
    "feature-extraction": [
        lambda pipe: pipe(TEXT),
        lambda pipe: pipe([TEXT]),
        lambda pipe: pipe([TEXT, OTHER]),
        lambda pipe: pipe(LONG, truncation=True),
        lambda pipe: pipe(LONG, tokenize_kwargs={"truncation": True}),
        lambda pipe: pipe([TEXT, OTHER], tokenize_kwargs={"padding": True}),
        lambda pipe: list(pipe(text for text in [TEXT, OTHER])),
    ],
}
"""Calls by task, each made on both pipelines."""


@pytest.mark.parametrize("task", CASES)
def test_calls_answer_as_in_transformers(made, task):
    theirs, ours = made(task)
    for number, case in enumerate(CASES[task]):
        mine, other = case(ours), case(theirs)
        try:
            assert_same(mine, other)
        except AssertionError as error:
            raise AssertionError(f"call {number} of {task}: {mine!r:.300} is not {other!r:.300}") from error


@pytest.mark.parametrize(
    ("task", "parameters", "case"),
    [
        ("text-classification", {"top_k": 2}, lambda pipe: [pipe(TEXT), pipe([TEXT]), pipe(TEXT, top_k=1)]),
        ("text-classification", {"top_k": None, "truncation": True}, lambda pipe: [pipe(LONG), pipe(PAIR)]),
        ("token-classification", {"aggregation_strategy": "simple"}, lambda pipe: [pipe(OTHER), pipe([OTHER])]),
        ("zero-shot-classification", {"candidate_labels": TOPICS}, lambda pipe: [pipe(TEXT), pipe([TEXT])]),
        ("fill-mask", {"top_k": 2, "targets": ["king", "queen"]}, lambda pipe: [pipe(MASKED), pipe(TWICE, top_k=1)]),
        ("fill-mask", {"batch_size": 4}, lambda pipe: [pipe([MASKED] * 3), list(pipe(iter_of([MASKED] * 6)))]),
    ],
)  # fmt: skip
def test_parameters_may_be_given_when_it_is_made(made, task, parameters, case):
    theirs, ours = made(task, **parameters)
    assert_same(case(ours), case(theirs))


def iter_of(values):
    yield from values


QUESTIONS = [
    lambda pipe: pipe(question=QUESTION, context=CONTEXT),
    lambda pipe: pipe(question=[QUESTION, "where?"], context=CONTEXT),
    lambda pipe: pipe(question=[QUESTION], context=[CONTEXT]),
    lambda pipe: pipe(question=QUESTION, context=CONTEXT, top_k=3),
    lambda pipe: pipe(question=QUESTION, context=CONTEXT, handle_impossible_answer=True, max_answer_len=3),
    lambda pipe: pipe(question=QUESTION, context=LONG, max_seq_len=40, doc_stride=8),
    lambda pipe: pipe({"question": QUESTION, "context": CONTEXT}),
    lambda pipe: pipe([{"question": QUESTION, "context": CONTEXT}] * 2),
    lambda pipe: pipe([{"question": QUESTION, "context": CONTEXT}]),
    lambda pipe: pipe(QUESTION, CONTEXT),
    lambda pipe: list(pipe(iter_of([{"question": QUESTION, "context": CONTEXT}] * 2))),
]


@pytest.mark.optimum
@pytest.mark.filterwarnings("ignore")  # it warns of what transformers 5 has no more, and of calls of before
def test_questions_are_answered_as_in_transformers_4(made):
    theirs, ours = made("question-answering")
    for case in QUESTIONS:
        assert_same(case(ours), case(theirs))


def test_the_shapes_of_answers_to_questions(sources):
    """The same calls where transformers 5 has no such pipeline: the method's answers, nested as 4 nests them."""
    ours = pipeline("question-answering", sources("question-answering")[1], threads=1)
    one = ours.model.answer(QUESTION, CONTEXT)
    shapes = [case(ours) for case in QUESTIONS]
    for number in (0, 2, 6, 8, 9):
        assert_same(shapes[number], one)
    assert_same(shapes[7], [one, one])
    assert_same(shapes[10], [one, one])
    assert_same(shapes[1][0], one)
    assert_same(shapes[3], ours.model.answer(QUESTION, CONTEXT, top_k=3))
    assert_same(ours(question=QUESTION, context=CONTEXT, topk=3), shapes[3])
    several = pipeline("question-answering", ours.model, top_k=3)
    assert_same(several(question=QUESTION, context=CONTEXT, topk=1, max_question_len=8), one)
    for wrong in (
        {"question": QUESTION},
        {"question": [QUESTION], "context": [CONTEXT] * 2},
        {"question": 1, "context": 2},
    ):
        with pytest.raises(UsageError, match="question"):
            ours(**wrong)


@pytest.mark.optimum
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("everything", [True, False])
def test_all_scores_are_in_the_order_of_labels_as_in_transformers_4(made, everything):
    theirs, ours = made("text-classification")
    for value in (TEXT, [TEXT, OTHER]):
        assert_same(ours(value, return_all_scores=everything), theirs(value, return_all_scores=everything))


def test_all_scores_are_in_the_order_of_labels(made):
    _, ours = made("text-classification")
    [answer] = ours(TEXT, return_all_scores=True)
    assert [scored["label"] for scored in answer] == list(LABELS)
    assert sorted(answer, key=lambda scored: -scored["score"]) == ours(TEXT, top_k=None)
    assert ours(TEXT, return_all_scores=False) == ours(TEXT)


@pytest.mark.optimum
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("given", [{"grouped_entities": True}, {"grouped_entities": True, "ignore_subwords": True}])
def test_entities_are_grouped_as_in_transformers_4(made, given):
    theirs, ours = made("token-classification")
    for value in (OTHER, [OTHER, TEXT]):
        assert_same(ours(value, **given), theirs(value, **given))


@pytest.mark.parametrize(
    ("given", "strategy"),
    [
        ({"grouped_entities": True}, "simple"),
        ({"grouped_entities": True, "ignore_subwords": True}, "first"),
        ({"grouped_entities": False}, "none"),
        ({"ignore_subwords": True}, "none"),
        ({"grouped_entities": True, "aggregation_strategy": "max"}, "max"),
    ],
    ids=str,
)
def test_grouped_entities_are_an_aggregation_strategy(made, given, strategy):
    _, ours = made("token-classification")
    assert ours(OTHER, ignore_labels=[], **given) == ours(OTHER, ignore_labels=[], aggregation_strategy=strategy)


ALL = {"ignore_labels": []}
"""Of tokens or entities, also those outside of any."""


@pytest.mark.parametrize(
    ("task", "given", "asked", "today"),
    [
        ("text-classification", {"top_k": 1}, {"return_all_scores": True}, {"return_all_scores": True}),
        ("text-classification", {"return_all_scores": True}, {"top_k": 1}, {"top_k": 1}),
        ("text-classification", {"top_k": 2}, {"top_k": ""}, {"top_k": 2}),
        ("token-classification", {"aggregation_strategy": "max", **ALL}, {"grouped_entities": False}, ALL),
        ("token-classification", {"grouped_entities": True, **ALL}, {"aggregation_strategy": "none"}, ALL),
    ],
    ids=str,
)  # fmt: skip
def test_a_call_goes_before_the_pipeline_by_names_of_before_too(sources, task, given, asked, today):
    plain = pipeline(task, sources(task)[1], threads=1)
    assert_same(pipeline(task, plain.model, **given)(OTHER, **asked), plain(OTHER, **today))


def test_a_generator_is_read_as_far_as_it_is_answered(made):
    """A server's queue behind a generator gets its answer before the next text comes, as in transformers of today.

    That of 5.10 reads all of it first.
    """
    _, ours = made("fill-mask")
    read = []
    answers = iter(ours(read.append(text) or text for text in [MASKED] * 20))
    assert isinstance(answers, Iterator)
    for count in (1, 2, 3):
        next(answers)
        assert len(read) == count
    read = []
    answers = ours((read.append(text) or text for text in [MASKED] * 20), batch_size=3)
    for _ in range(3):
        next(answers)
        assert len(read) <= 3
    assert len(list(answers)) == 17


def test_a_data_set_has_as_many_answers_as_items(made):
    _, ours = made("text-classification")
    answers = ours(DataSet([TEXT, PAIR, OTHER]))
    assert len(answers) == 3
    assert list(answers) == ours([TEXT, PAIR, OTHER])
    begun = iter(answers)
    assert next(begun) == ours([TEXT])[0]
    assert list(answers) == ours([TEXT, PAIR, OTHER])  # again, as in transformers
    assert list(begun) == ours([PAIR, OTHER])
    with pytest.raises(TypeError):
        len(ours(iter([TEXT])))
    assert list(ours({TEXT: 1, OTHER: 2}.keys())) == ours([TEXT, OTHER])


def test_a_table_is_no_input(made):
    """Its items are the columns' names: they would be answered in place of the texts."""
    pandas, arrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    _, ours = made("text-classification")
    columns = {"text": [TEXT, OTHER], "label": [0, 1]}
    for table in (pandas.DataFrame(columns), arrow.table(columns)):
        with pytest.raises(UsageError, match=r"inputs is a table \(a (DataFrame|Table)\).*give the texts of one"):
            ours(table)
    assert list(ours(pandas.Series(columns["text"]))) == ours([TEXT, OTHER])


def test_other_tasks_are_called_the_same_way(tiny_bundle):
    model = load(tiny_bundle, threads=1)
    judge = pipeline("next-sentence", model)
    assert judge({"text": TEXT, "text_pair": OTHER}) == model.next_sentence(TEXT, OTHER)
    assert judge([(TEXT, OTHER)]) == [model.next_sentence(TEXT, OTHER)]
    vectors = pipeline("feature-extraction", model)
    assert vectors(TEXT, pooling="mean") == pytest.approx(model.features(TEXT, pooling="mean").tolist())
    assert vectors(TEXT, return_tensors="np").shape == (1, *model.features(TEXT).shape)


def test_vectors_of_sentences_are_lists(sentence_bundle):
    pipe = pipeline(model=sentence_bundle)
    assert pipe.task == "embeddings"
    [vector] = pipe([TEXT])
    assert type(vector[0]) is float
    alike = pipeline("sentence-similarity", sentence_bundle)({"source_sentence": TEXT, "sentences": [TEXT, OTHER]})
    assert [type(score) for score in alike] == [float, float]


def test_what_a_bundle_was_made_for_is_its_task(sources):
    for task in ("text-classification", "token-classification", "question-answering", "fill-mask"):
        assert pipeline(model=sources(task)[1], threads=1).task == task
    assert usual_row(["features"]).name == "feature-extraction"
    assert usual_row(["text-classification", "text-ranking", "features"]).name == "text-classification"
    assert {row.task for row in PIPELINES.values()} == TASKS.keys()
    assert pipeline("sentiment-analysis", sources("text-classification")[1]).task == "text-classification"
    assert pipeline("ner", sources("token-classification")[1]).task == "token-classification"


def test_the_signature_is_that_of_transformers_5():
    import transformers

    theirs = list(inspect.signature(transformers.pipeline).parameters)
    if "video_processor" not in theirs:
        pytest.skip("transformers 4 and early releases of 5 have another one")
    assert list(inspect.signature(bertport.runtime.pipeline).parameters)[: len(theirs) - 1] == theirs[:-1]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({}, UsageError, "needs a task or a model"),
        ({"task": "summarization"}, UnknownNameError, "unknown task 'summarization' .*use transformers"),
        ({"task": ["ner"]}, UnknownNameError, "unknown task"),
        ({"task": "ner"}, MissingHeadError, "token-classification needs the head .* this one answers fill-mask"),
        ({"tokenizer": "bert-base-uncased"}, UsageError, "tokenizer is 'bert-base-uncased'.*leave tokenizer out"),
        ({"model_kwargs": {"load_in_8bit": True}}, UsageError, "model_kwargs is .*leave model_kwargs out"),
        ({"use_fast": False}, UsageError, "use_fast=False is not offered"),
        ({"device": "mps"}, UnknownNameError, "unknown device 'mps'.*cpu.*-1 for the CPU"),
        ({"device": "cuda:x"}, UnknownNameError, "unknown device"),
        ({"device": 0}, ProviderError, "cuda"),
        ({"device": "cuda:1"}, ProviderError, "cuda"),
        ({"device_map": "balanced"}, UsageError, "device_map is 'balanced'"),
        ({"device_map": "auto", "device": "cpu"}, UsageError, "leave device_map out"),
        ({"dtype": "float64"}, UsageError, "dtype is 'float64'.*name a variant"),
        ({"dtype": "bfloat16"}, UnknownNameError, "unknown variant 'bf16'"),
        ({"torch_dtype": "float16"}, UnknownNameError, "unknown variant 'fp16'"),
        ({"torch_dtype": "float32", "dtype": "float16"}, UnknownNameError, "unknown variant 'fp16'"),
        ({"token": 7}, UsageError, "token is a text"),
        ({"revision": 7}, UsageError, "revision is a branch"),
        ({"batch_size": 0}, UsageError, "batch_size is a number from 1 up"),
        ({"top_p": 1}, UnknownNameError, "unknown parameter of fill-mask 'top_p'"),
        ({"model": 7.5}, UsageError, "model is a bundle's directory.*make a bundle of it with bertport export"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_not_offered_is_refused_in_a_sentence(tiny_bundle, arguments, kind, message):
    given = arguments and {"task": "fill-mask", "model": tiny_bundle, "threads": 1} | arguments
    with pytest.raises(kind, match=message):
        pipeline(**given)


@pytest.mark.parametrize(
    ("args", "parameters", "message"),
    [
        ((), {}, "takes its inputs as one argument, and 0 were given"),
        ((MASKED, MASKED), {}, "and 2 were given"),
        ((MASKED,), {"truncation": "only_second"}, "truncation is 'only_second' and may be .*: the first text is cut"),
        ((MASKED,), {"max_length": 8, "truncation": True}, "max_length is 8 and the bundle takes 160 tokens"),
        ((MASKED,), {"max_length": [160]}, r"max_length is \[160\]"),
        ((MASKED,), {"tokenizer_kwargs": 3}, "tokenizer_kwargs is a dictionary"),
        ((np.array(MASKED),), {}, "fill-mask takes a text"),
        ((MASKED,), {"add_special_tokens": False}, "add_special_tokens=False is not offered"),
        ((MASKED,), {"truncation": True, "tokenizer_kwargs": {"truncation": True}}, "truncation was given twice"),
        ((MASKED,), {"offset_mapping": []}, "unknown parameter of fill-mask 'offset_mapping'"),
        ((7,), {}, "fill-mask takes a text"),
        (([MASKED, None],), {}, "input 2: fill-mask takes a text"),
        ((LONG,), {}, "truncation=True"),
    ],
)  # fmt: skip
def test_a_call_that_cannot_be_is_refused(model, args, parameters, message):
    with pytest.raises(UsageError, match=message):
        pipeline("fill-mask", model)(*args, **parameters)


def test_pairs_and_tensors_that_cannot_be(made):
    with pytest.raises(UsageError, match=r'takes a pair as {"text": "A", "text_pair": "B"}'):
        made("text-classification")[1]([[TEXT, OTHER]])
    for kind in (True, "pt", np.ones(2)):
        with pytest.raises(UsageError, match="no PyTorch to make its tensors of"):
            made("feature-extraction")[1](TEXT, return_tensors=kind)
    with pytest.raises(UsageError, match='padding="max_length" is not offered, since answers have a vector for each'):
        made("feature-extraction")[1](TEXT, tokenize_kwargs={"padding": "max_length"})
    with pytest.raises(InputTextError, match="needs labels to choose from"):
        made("zero-shot-classification")[1](TEXT)


def test_only_the_first_text_is_cut_where_it_is_that_which_is_cut(made):
    _, ours = made("zero-shot-classification")
    assert_same(ours(LONG, TOPICS, truncation="only_first"), ours(LONG, TOPICS))
    with pytest.raises(UsageError, match=r"truncation is 'only_first' and may be .*: of a pair the longer text is cut"):
        made("text-classification")[1](PAIR, truncation="only_first")


def test_an_item_that_is_no_input_costs_no_answer_before_it(made):
    _, ours = made("text-classification")
    answers = iter(ours(DataSet([TEXT, OTHER, TEXT, [TEXT, OTHER]])))
    assert_same([next(answers) for _ in range(3)], ours([TEXT, OTHER, TEXT]))
    with pytest.raises(InputTextError, match="input 4: text-classification takes a pair as"):
        next(answers)


def test_a_loaded_model_is_taken_as_it_is(model):
    assert pipeline("fill-mask", model).model is model
    assert "task='fill-mask'" in repr(pipeline("fill-mask", model=model))
    with pytest.raises(UsageError, match="the model is loaded already, and provider was given beside it"):
        pipeline("fill-mask", model, device="cpu")
    with pytest.raises(UsageError, match="provider, provider_options was given"):
        pipeline("fill-mask", model, device=1)


def test_a_variant_is_named_or_follows_from_the_type(tiny_bundle):
    assert pipeline("fill-mask", tiny_bundle, variant="portable", threads=1).model.variant == "portable"
    assert pipeline(None, tiny_bundle, tokenizer=tiny_bundle, dtype="float32", threads=1).model.variant == "fp32"
    assert pipeline("fill-mask", tiny_bundle, trust_remote_code=True, device_map="auto", token=True, threads=1)
