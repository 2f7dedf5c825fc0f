"""Slots of a device: how many at once, in which order, and all of them for one."""

from __future__ import annotations

import threading
import time

import pytest

from bertport.serve.engine.slots import DeviceSlots

PATIENCE = 30


def waits(slots, name, done, release):
    """Start a thread that acquires a slot, appends its name, and holds the slot until it is released."""

    def take():
        with slots:
            done.append(name)
            release.wait(PATIENCE)

    thread = threading.Thread(target=take)
    thread.start()
    return thread


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_as_many_as_there_are_slots_and_then_in_the_order_of_asking():
    slots, done, release = DeviceSlots(2), [], threading.Event()
    with slots, slots:
        threads = []
        for name in range(4):
            threads.append(waits(slots, name, done, release))
            until(lambda: slots.waiting == len(threads))
        assert not done
    until(lambda: len(done) == 2)
    assert sorted(done) == [0, 1]
    release.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(done[2:]) == [2, 3]


def test_each_slot_goes_to_the_first_that_asked():
    slots, done, release = DeviceSlots(2), [], threading.Event()
    slots.__enter__()
    with slots:
        threads = []
        for name in range(3):
            threads.append(waits(slots, name, done, release))
            until(lambda: slots.waiting == len(threads))
    until(lambda: done)
    time.sleep(0.01)
    assert done == [0]
    assert slots.taken == 2
    slots.__exit__()
    until(lambda: len(done) == 2)
    assert done == [0, 1]
    release.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert done == [0, 1, 2]
    assert slots.taken == 0


def test_waiting_for_all_slots():
    slots, done, release = DeviceSlots(2), [], threading.Event()
    first = waits(slots, "one", done, release)
    until(lambda: done)

    def everything():
        with slots.all():
            done.append("all")
            assert slots.taken == 2

    gathering = [threading.Thread(target=everything) for _ in range(2)]  # neither may keep a part from the other
    for thread in gathering:
        thread.start()
    until(lambda: slots.waiting)
    assert done == ["one"]
    release.set()
    for thread in (first, *gathering):
        thread.join(PATIENCE)
    assert done == ["one", "all", "all"]
    with slots, slots:
        pass


def test_slots_come_back_after_an_error():
    slots = DeviceSlots(2)
    with pytest.raises(ValueError, match="no"), slots, slots.alone():
        raise ValueError("no")
    assert slots.taken == 0


def test_all_slots_only_when_no_other_thread_has_one():
    slots = DeviceSlots(3)
    with slots, slots.alone() as alone:
        assert alone
        done, release = [], threading.Event()
        thread = waits(slots, "later", done, release)
        until(lambda: slots.waiting)
        assert not done
    until(lambda: done)
    with slots:  # beside the other
        with slots.alone() as alone:
            assert not alone
        with slots:  # and the third slot is still there
            pass
    release.set()
    thread.join(PATIENCE)
    with slots, slots, slots:
        pass


def test_one_slot_is_a_lock():
    slots = DeviceSlots()
    with slots, slots.alone() as alone:
        assert alone


def test_slots_are_given_in_the_order_in_which_they_were_asked_for():
    slots = DeviceSlots()
    order, inside = [], []

    def take(number):
        with slots:
            inside.append(number)
            assert inside == [number]
            order.append(number)
            inside.remove(number)

    threads = []
    with slots:
        for number in range(8):
            thread = threading.Thread(target=take, args=(number,))
            thread.start()
            threads.append(thread)
            while slots.waiting <= number:
                time.sleep(0.001)
    for thread in threads:
        thread.join(10)
    assert order == list(range(8))
    with slots:
        pass
