"""predict: any iterable, lazily, in order, in bounded memory; and how batches are made."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertport.runtime import batching, load
from bertport.runtime.errors import InputTextError, UnknownNameError, UsageError
from bertport.runtime.model import Model
from bertport.runtime.tasks.table import TASKS

TEXTS = ["a [MASK]", "the king of [MASK] is old", "[MASK]", "x y z [MASK] w v", "b [MASK]", "[MASK] [MASK]"]


@given(st.lists(st.integers(1, 40), max_size=50), st.integers(1, 100))
def test_plan_batches_each_input_once_without_padding_within_the_budget(lengths, budget):
    batches = batching.plan(lengths, budget=budget)
    assert sorted(itertools.chain.from_iterable(batches)) == list(range(len(lengths)))
    for batch in batches:
        [length] = {lengths[index] for index in batch}
        assert len(batch) == 1 or len(batch) * length <= budget
    # No two batches of one length could have been one.
    sizes = Counter()
    for batch in batches:
        sizes[lengths[batch[0]]] += 1
    for length, count in sizes.items():
        assert count == -(-lengths.count(length) // max(1, budget // length))


@given(
    st.lists(st.integers(1, 40), max_size=60),
    st.integers(1, 200),
    st.sampled_from([1, 16, 1024]),
    st.integers(1, 20),
)
def test_plan_keeps_to_its_limits_and_costs_no_more_than_exact_lengths(lengths, budget, overhead, rows):
    batches = batching.plan(lengths, budget=budget, overhead=overhead, most_rows=rows)
    assert sorted(itertools.chain.from_iterable(batches)) == list(range(len(lengths)))
    widths = []
    for batch in batches:
        width = max(lengths[index] for index in batch)
        assert width == lengths[batch[0]]
        assert len(batch) <= rows
        assert len(batch) == 1 or len(batch) * width <= budget
        widths.append(width)
    assert widths == sorted(widths, reverse=True)
    assert cost(lengths, batches, overhead) <= cost(
        lengths, batching.plan(lengths, budget=budget, most_rows=rows), overhead
    )


def cost(lengths, batches, overhead):
    return sum(overhead + len(batch) * max(lengths[index] for index in batch) for batch in batches)


def partitions(items):
    """Return every way of dividing a list into groups."""
    if not items:
        yield []
        return
    first, *rest = items
    for groups in partitions(rest):
        yield [[first], *groups]
        for number in range(len(groups)):
            yield [*groups[:number], [first, *groups[number]], *groups[number + 1 :]]


@given(st.lists(st.integers(1, 60), max_size=6), st.integers(1, 200), st.integers(0, 40), st.integers(1, 6))
def test_plan_costs_least_of_all_ways_to_group(lengths, budget, overhead, rows):
    least = min(
        cost(lengths, groups, overhead)
        for groups in partitions(list(range(len(lengths))))
        if all(
            len(group) == 1 or (len(group) <= rows and len(group) * max(lengths[index] for index in group) <= budget)
            for group in groups
        )
    )
    planned = batching.plan(lengths, budget=budget, overhead=overhead, most_rows=rows)
    assert cost(lengths, planned, overhead) == least


def test_near_lengths_share_a_run_while_that_is_cheaper():
    assert batching.plan([40, 39, 39, 38, 20], budget=1024, overhead=16) == [[0, 1, 2, 3], [4]]
    assert batching.plan([40, 39, 39, 38, 20], budget=1024, overhead=21) == [[0, 1, 2, 3, 4]]
    assert batching.plan([40, 39, 39, 38, 20], budget=1024) == [[0], [1, 2], [3], [4]]
    assert batching.plan([40, 39, 39, 38, 20], budget=120, overhead=16) == [[0], [1, 2, 3], [4]]
    assert batching.plan([], budget=1024, overhead=16) == []


def test_what_padding_is_worth_does_not_depend_on_how_many_share_it():
    """A share of the tokens would let sixteen of 20 tokens be padded to 24, which costs more than a run."""
    assert batching.plan([24] + [20] * 4, budget=1024, overhead=17) == [[0, 1, 2, 3, 4]]
    assert batching.plan([24] + [20] * 16, budget=1024, overhead=17) == [[0], [*range(1, 17)]]


@given(st.lists(st.text(max_size=5), max_size=100))
def test_windows_keep_every_item_in_order(items):
    assert list(itertools.chain.from_iterable(batching.windows(items, weight=len))) == items
    assert list(itertools.chain.from_iterable(batching.windows(iter(items), weight=len))) == items


def test_windows_start_small_for_a_stream_and_are_bounded():
    sizes = [len(window) for window in batching.windows(iter("x" * 5000), weight=len)]
    assert sizes == [1, 4, 16, 64, 256, 1024, 1024, 1024, 1024, 563]
    assert [len(window) for window in batching.windows("x" * 1500, weight=len)] == [1024, 476]
    heavy = ["y" * 60_000] * 5
    assert [len(window) for window in batching.windows(heavy, weight=len)] == [2, 2, 1]


def test_a_flush_ends_a_window_and_is_no_item():
    stream = [batching.FLUSH, "a", batching.FLUSH, batching.FLUSH, "b", "c", batching.FLUSH, *"defgh", batching.FLUSH]
    assert list(batching.windows(iter(stream), weight=len)) == [["a"], ["b", "c"], ["d", "e", "f", "g"], ["h"]]
    assert list(batching.windows(stream, weight=len)) == [["a"], ["b", "c"], [*"defgh"]]


def test_predict_reads_no_further_than_it_must(model):
    read = Counter()

    def endless():
        for number in itertools.count():
            read["items"] = number + 1
            yield f"{'a ' * (number % 7)}[MASK]"

    answers = model.predict("fill-mask", endless(), top_k=1)
    assert read["items"] == 0
    next(answers)
    assert read["items"] == 1
    for _ in range(4):
        next(answers)
    assert read["items"] == 5
    answers.close()


def test_order_and_batching_do_not_change_answers(model):
    many = TEXTS * 40
    together = list(model.predict("fill-mask", iter(many)))
    alone = [model.fill_mask(text) for text in TEXTS]
    for index, answer in enumerate(together):
        expected = alone[index % len(TEXTS)]
        flat, wanted = (np.ravel(answers) for answers in (answer, expected))
        assert [answer["token"] for answer in flat] == [answer["token"] for answer in wanted]
        assert [answer["score"] for answer in flat] == pytest.approx([answer["score"] for answer in wanted], abs=1e-6)


def test_streams_run_batches_at_once_and_change_no_answer(model, tiny_bundle, monkeypatch):
    streams = load(tiny_bundle, variant="fp32", threads=2, streams=2)
    meeting = threading.Barrier(2, timeout=30)
    run, ran = streams.concurrent_replica.run, []

    def both(works):
        ran.append(len(works))
        if len(ran) <= 2:
            meeting.wait()  # until another batch runs as well
        return run(works)

    monkeypatch.setattr(streams.concurrent_replica, "run", both)
    many = TEXTS * 3
    answers = list(streams.predict("fill-mask", many))
    assert sum(ran) == len(many)
    for text, answer in zip(many, answers, strict=True):
        flat, wanted = (np.ravel(answers) for answers in (answer, model.fill_mask(text)))
        assert [answer["token"] for answer in flat] == [answer["token"] for answer in wanted]
        assert [answer["score"] for answer in flat] == pytest.approx([answer["score"] for answer in wanted], abs=1e-6)
    # A text that is alone has every thread.
    monkeypatch.setattr(streams.concurrent_replica, "run", None)
    assert streams.fill_mask("a [MASK]")[0]["token"] == model.fill_mask("a [MASK]")[0]["token"]


def test_an_error_comes_at_its_place_and_names_it(model):
    answers = model.predict("fill-mask", ["a [MASK]", "none", "b [MASK]"])
    assert len(next(answers)) == 5
    with pytest.raises(InputTextError, match="input 2: No mask_token"):
        next(answers)


def test_outcomes_go_on_after_an_error(model):
    call = model.bind("fill-mask", top_k=1)
    before = InputTextError("from before")
    outcomes = list(model.outcomes(call, ["a [MASK]", "none", before, "b [MASK]"]))
    assert [type(outcome) for outcome in outcomes] == [list, InputTextError, InputTextError, list]
    assert outcomes[2] is before


def test_work_of_different_tasks_runs_in_one_batch(model):
    [fill] = model.bind("fill-mask").prepare(["a b [MASK] [MASK]"])
    [pair] = model.bind("next-sentence").prepare([["a b", "c"]])
    [vectors] = model.bind("features").prepare(["a b c d"])
    [pooled] = model.bind("features", pooling="pooler").prepare(["a b c d"])
    assert len(fill.ids) == len(pair.ids) == len(vectors.ids) == len(pooled.ids)
    mixed = model.run([vectors, fill, pair, pooled, fill])
    np.testing.assert_allclose(mixed[0], model.features("a b c d"), atol=1e-5)
    np.testing.assert_allclose(mixed[3], model.features("a b c d", pooling="pooler"), atol=1e-5)
    assert mixed[2]["probabilities"] == pytest.approx(model.next_sentence("a b", "c")["probabilities"], abs=1e-6)
    for answer in (mixed[1], mixed[4]):
        for ours, theirs in zip(answer, model.fill_mask("a b [MASK] [MASK]"), strict=True):
            assert [answer["sequence"] for answer in ours] == [answer["sequence"] for answer in theirs]


def test_padding_behind_the_mask_changes_no_answer(model):
    """fp32 sums in another order in another shape; nothing of the padding may come through."""
    texts = ["a b c [MASK] d", "[MASK]", "the king of [MASK] is [MASK] and " + "old " * 20, "a [MASK]"]
    works = model.bind("fill-mask").prepare(texts) + model.bind("features").prepare(["a b", "a b c d e f g h"])
    works += model.bind("next-sentence").prepare([("a", "b c d"), ("x y z " * 9, "a")])
    works += model.bind("features", pooling="mean").prepare(["a b"])
    assert len({len(work.ids) for work in works}) > 3
    for order in (works, works[::-1]):
        for work, answer in zip(order, model.run(order), strict=True):
            [alone] = model.run([work])
            if isinstance(alone, np.ndarray):
                assert alone.shape == answer.shape
                np.testing.assert_allclose(answer, alone, atol=1e-5)
            elif isinstance(alone, dict):
                assert answer["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-6)
            else:
                for ours, theirs in zip(np.ravel(answer), np.ravel(alone), strict=True):
                    assert (ours["token"], ours["sequence"]) == (theirs["token"], theirs["sequence"])
                    assert ours["score"] == pytest.approx(theirs["score"], abs=1e-6)


def test_the_next_window_is_made_ready_while_the_graph_runs(model, monkeypatch):
    """Where the provider leaves the CPU idle: order is kept, and each window is prepared once."""
    monkeypatch.setattr("bertport.runtime.batching.MAX_WINDOW", 8)
    monkeypatch.setattr("bertport.runtime.model.MAX_WINDOW", 8)
    provider = dataclasses.replace(model.graph.provider, overlap=True)
    other = Model(model.bundle, model.variant, dataclasses.replace(model.graph, provider=provider), model.tokens)
    call = other.bind("features", pooling="mean")
    texts = [f"{'a ' * (number % 5)}{number}" for number in range(50)]
    threads = []

    class Noting:
        reading = staticmethod(call.reading)

        def tokenized(self, read):
            threads.append(threading.current_thread())
            return call.tokenized(read)

    outcomes = list(other.outcomes(Noting(), texts))
    np.testing.assert_allclose(outcomes, model.features(texts, pooling="mean"), atol=1e-5)
    assert len(threads) == 7
    assert threading.main_thread() not in threads
    # An iterator is not read ahead.
    threads.clear()
    assert len(list(other.outcomes(Noting(), iter(texts)))) == 50
    assert set(threads) == {threading.main_thread()}

    class Promising:
        """As a bar of progress is with a total, over a generator."""

        def __len__(self):
            return 50

        def __iter__(self):
            return iter(())

    assert list(other.predict("features", Promising(), pooling="mean")) == []


@pytest.mark.slow
def test_an_endless_stream_is_answered_in_bounded_memory(tiny_bundle):
    """In a process of its own: what was read and answered must not stay."""
    program = (
        "import itertools, sys, tracemalloc\n"
        "from bertport.runtime import load\n"
        "model = load(sys.argv[1], threads=1)\n"
        "texts = (f'the {number} [MASK]' for number in itertools.count())\n"
        "answers = model.predict('fill-mask', texts, top_k=1)\n"
        "held = []\n"
        "for upto in (3000, 3000):\n"  # the windows are of full size after the first 1,365
        "    for _ in range(upto): next(answers)\n"
        "    if not held: tracemalloc.start(); [next(answers) for _ in range(2048)]\n"
        "    held.append(tracemalloc.get_traced_memory()[0])\n"
        "print(*held)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tiny_bundle)], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < before + 1_000_000


def test_several_threads_may_ask_at_once(model):
    """Different tasks, lengths and parameters, through one model."""
    jobs = [("fill-mask", TEXTS, {"top_k": 3}), ("features", ["a b", "c"], {"pooling": "mean"})]
    jobs += [("next-sentence", [("a", "b"), ("x y", "z")], {}), ("fill-mask", ["a [MASK]"], {"targets": ["king"]})]
    jobs += [("fill-mask", ["x " * 300 + "[MASK]", "[MASK] " + "x " * 300], {"truncation": True})]
    wanted = [str(list(model.outcomes(model.bind(task, **given), texts))) for task, texts, given in jobs]
    with ThreadPoolExecutor(8) as pool:
        futures = [
            pool.submit(lambda job=job: str(list(model.outcomes(model.bind(job[0], **job[2]), job[1]))))
            for job in jobs * 12
        ]
    for number, future in enumerate(futures):
        assert future.result() == wanted[number % len(jobs)]


def test_mistakes_are_told_at_once(model):
    with pytest.raises(UnknownNameError, match=rf"unknown task 'fill' \(available: {', '.join(TASKS)}\)"):
        model.predict("fill", [])
    with pytest.raises(UnknownNameError, match="unknown parameter of fill-mask 'topk'"):
        model.predict("fill-mask", [], topk=3)
    with pytest.raises(UsageError, match="the inputs are 3, not a collection of them: give a list"):
        model.predict("fill-mask", 3)
    with pytest.raises(UsageError, match="not a collection of them: give a list"):
        model.predict("fill-mask", np.array("a [MASK]"))
    with pytest.raises(UsageError, match="not one text: put the text in a list"):
        model.predict("fill-mask", "a [MASK]")
    with pytest.raises(UsageError, match="truncation is True or False"):
        model.predict("fill-mask", [], truncation="yes")


def test_neither_an_object_nor_a_table_is_a_collection_of_inputs(model):
    """The names of its fields, or of its columns, would be answered in place of its texts."""
    pandas = pytest.importorskip("pandas")
    for ask in (lambda inputs: model.predict("features", inputs), model.features):
        with pytest.raises(UsageError, match=r"the inputs are \{'text': 'a'\}, not a collection of them: give a list"):
            ask({"text": "a"})
        with pytest.raises(UsageError, match=r"inputs is a table \(a DataFrame\).*give the texts of one"):
            ask(pandas.DataFrame({"text": ["a", "b"]}))


def test_several_threads_may_load(tiny_bundle):
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda _: load(tiny_bundle), range(8)))
    answers = [model.fill_mask("a [MASK]") for model in models]
    assert answers == [answers[0]] * 8


def test_several_threads_may_use_one_model(model):
    alone = [model.fill_mask(text) for text in TEXTS]
    long = "a " * 200

    def ask(number):
        text = TEXTS[number % len(TEXTS)]
        if number % 5 == 0:
            assert model.features(long, truncation=True).shape[0] == 160
        return model.fill_mask(text)

    with ThreadPoolExecutor(8) as pool:
        for number, answer in enumerate(pool.map(ask, range(120))):
            flat, wanted = np.ravel(answer), np.ravel(alone[number % len(TEXTS)])
            assert [answer["token"] for answer in flat] == [answer["token"] for answer in wanted]


def test_inputs_that_only_have_an_order_are_taken_and_an_iterable_is_begun_once(model):
    class Ordered:
        """As map-style data sets of torch are."""

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return ["a [MASK]", "the [MASK]"][index]

    class Loader:
        """As loaders are that start workers."""

        begun = 0

        def __iter__(self):
            self.begun += 1
            return iter(["a [MASK]"])

    loader = Loader()
    assert len(list(model.predict("fill-mask", Ordered()))) == 2
    assert len(list(model.predict("fill-mask", loader))) == 1
    assert loader.begun == 1


@pytest.mark.parametrize(
    "said",
    [
        "Failed to allocate memory for requested buffer of size 4096",
        "Available memory of 1024 is smaller than requested bytes of 4096",  # where the arena has a limit
        "std::bad_alloc",
    ],
)
def test_memory_that_onnx_runtime_does_not_get_is_no_unexpected_error(model, said):
    class Full:
        def run(self, *_):
            raise RuntimeError(f"[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : while running MatMul node: {said}")

    full = model.with_graph(dataclasses.replace(model.graph, session=Full()))
    with pytest.raises(MemoryError, match="ONNX Runtime does not get the memory for a batch"):
        full.features("a")
