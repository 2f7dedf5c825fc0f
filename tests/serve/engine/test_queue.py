"""The fair batch queue: batches of nearly one length, within the budget, and no request starves."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from bertport.serve.engine.queue import FairBatchQueue


@dataclass(eq=False)
class Thing:
    request: int
    tokens: int
    gone: bool = False

    alone: bool = False

    @property
    def length(self):
        return None if self.alone else self.tokens

    @property
    def cost(self):
        return self.tokens


def waiting(requests, **settings):
    queue = FairBatchQueue(lambda thing: thing.gone, **settings)
    for request in requests:
        queue.add(request)
    return queue


def drained(queue, budget):
    batches = []
    while batch := queue.take(budget):
        batches.append(batch)
    assert not queue
    return batches


lengths = st.lists(st.integers(1, 30), min_size=1, max_size=12)


@given(st.lists(lengths, max_size=12), st.integers(1, 100), st.integers(0, 30), st.integers(1, 9))
def test_every_item_runs_once_with_what_is_nearly_as_long_within_the_budget(requests, budget, overhead, rows):
    things = [[Thing(number, tokens) for tokens in request] for number, request in enumerate(requests)]
    batches = drained(waiting(things, overhead=overhead, most_rows=rows), budget)
    ran = [id(thing) for batch in batches for thing in batch]
    assert sorted(ran) == sorted(id(thing) for request in things for thing in request)
    for batch in batches:
        sizes = [thing.tokens for thing in batch]
        assert max(sizes) - min(sizes) <= overhead
        assert len(batch) == 1 or len(batch) * max(sizes) <= budget
        assert len(batch) <= rows


@given(st.lists(lengths, min_size=1, max_size=8), st.integers(1, 100), st.data())
def test_what_is_gone_does_not_run(requests, budget, data):
    things = [[Thing(number, tokens) for tokens in request] for number, request in enumerate(requests)]
    queue = waiting(things)
    every = [thing for request in things for thing in request]
    gone = data.draw(st.sets(st.sampled_from(range(len(every)))))
    for index in gone:
        every[index].gone = True
    ran = {id(thing) for batch in drained(queue, budget) for thing in batch}
    assert ran == {id(thing) for thing in every if not thing.gone}


def test_a_single_text_does_not_wait_for_a_request_with_many():
    queue = waiting([[Thing(0, 10) for _ in range(100)]])
    assert len(queue.take(50)) == 5
    queue.add([Thing(1, 7)])
    orders = [[thing.request for thing in queue.take(50)] for _ in range(3)]
    assert [1] in orders[:2]


def test_a_request_with_many_goes_on_however_many_single_texts_come():
    queue = waiting([[Thing(0, 10) for _ in range(20)]])
    ran = []
    queue.add([Thing(-1, 7)])
    for number in range(1, 200):  # one more for each that a batch takes
        queue.add([Thing(number, 7)])
        ran += [thing.request for thing in queue.take(7)]
    assert ran.count(0) > 10


def test_a_long_text_is_not_passed_over_for_ever():
    queue = waiting([[Thing(0, 30)]])
    queue.add([Thing(1, 5)])
    for number in range(2, 50):  # short ones keep coming
        queue.add([Thing(number, 5)])
        if any(thing.request == 0 for thing in queue.take(5)):
            break
    assert number == 2


def test_equal_lengths_of_several_requests_share_a_batch():
    queue = waiting([[Thing(number, 10)] for number in range(8)])
    assert [thing.request for thing in queue.take(45)] == [0, 1, 2, 3]
    assert [thing.request for thing in queue.take(1000)] == [4, 5, 6, 7]


def test_lengths_share_a_batch_as_long_as_the_padding_costs_less_than_a_run():
    things = [[Thing(number, tokens)] for number, tokens in enumerate((10, 12, 11, 30, 100, 9))]
    batches = drained(waiting(things, overhead=16), 1000)
    assert [[thing.tokens for thing in batch] for batch in batches] == [[10, 12, 11, 9], [30], [100]]
    # Many of one length are not padded for the sake of one.
    things = [[Thing(number, 10)] for number in range(40)] + [[Thing(40, 12)]]
    assert [len(batch) for batch in drained(waiting(things, overhead=16), 1000)] == [40, 1]


def test_what_runs_alone_runs_alone():
    things = [[Thing(number, 10, alone=number % 2 == 0)] for number in range(4)]
    batches = drained(waiting(things, overhead=16), 1000)
    assert [[thing.request for thing in batch] for batch in batches] == [[0], [1, 3], [2]]


@given(st.lists(lengths, min_size=2, max_size=12), st.integers(1, 40))
def test_the_lowest_tag_is_always_in_the_next_batch(requests, overhead):
    things = [[Thing(number, tokens) for tokens in request] for number, request in enumerate(requests)]
    firsts = {id(request[0]) for request in things}
    queue = waiting(things, overhead=overhead)
    assert id(queue.take(100)[0]) in firsts
