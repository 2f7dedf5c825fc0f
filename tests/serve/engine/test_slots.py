"""Places on a device: how many at once, in which order, and all of them for one."""

from __future__ import annotations

import threading
import time

import pytest

from bertport.serve.engine.slots import DeviceSlots

PATIENCE = 30


def waits(slots, name, done, release):
    """Start a thread that takes its turn, notes its name, and holds the place until it may go."""

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


def test_as_many_as_there_are_places_and_then_in_the_order_of_asking():
    slots, done, release = DeviceSlots(2), [], threading.Event()
    with slots, slots:
        threads = []
        for name in range(4):
            threads.append(waits(slots, name, done, release))
            until(lambda: len(slots._waiting) == len(threads))
        assert not done
    until(lambda: len(done) == 2)
    assert sorted(done) == [0, 1]
    release.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(done[2:]) == [2, 3]


def test_each_place_goes_to_who_asked_first():
    slots, done, release = DeviceSlots(2), [], threading.Event()
    slots.__enter__()
    with slots:
        threads = []
        for name in range(3):
            threads.append(waits(slots, name, done, release))
            until(lambda: len(slots._waiting) == len(threads))
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


def test_waiting_for_all_places():
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
    until(lambda: slots._waiting)
    assert done == ["one"]
    release.set()
    for thread in (first, *gathering):
        thread.join(PATIENCE)
    assert done == ["one", "all", "all"]
    with slots, slots:
        pass


def test_places_come_back_after_an_error():
    slots = DeviceSlots(2)
    with pytest.raises(ValueError, match="no"), slots, slots.alone():
        raise ValueError("no")
    assert slots.taken == 0


def test_all_places_only_when_nobody_else_has_one():
    slots = DeviceSlots(3)
    with slots, slots.alone() as alone:
        assert alone
        done, release = [], threading.Event()
        thread = waits(slots, "later", done, release)
        until(lambda: slots._waiting)
        assert not done
    until(lambda: done)
    with slots:  # beside the other
        with slots.alone() as alone:
            assert not alone
        with slots:  # and the third place is still there
            pass
    release.set()
    thread.join(PATIENCE)
    with slots, slots, slots:
        pass


def test_one_place_is_a_lock():
    slots = DeviceSlots()
    with slots, slots.alone() as alone:
        assert alone
