import fcntl
import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from bertport.measure import machine
from bertport.measure.machine import MACHINE_LOCK, awaited, describe_machine, machine_lock, matmul_peak
from bertport.runtime import threads as threads_of
from bertport.runtime.errors import PathError
from bertport.runtime.matmul import matmul_model
from bertport.runtime.providers.cpu import BF16, Cpu
from bertport.runtime.session import open_session


@pytest.fixture
def lock(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "MACHINE_LOCK", tmp_path / "machine.lock")
    return tmp_path / "machine.lock"


def can_take(path, kind):
    """Whether another process can take the lock now."""
    script = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY | os.O_CREAT), int(sys.argv[2]))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), str(kind | fcntl.LOCK_NB)], capture_output=True, check=False
    )
    return done.returncode == 0


def test_while_measuring_nobody_trains(lock):
    with machine_lock():
        assert not can_take(lock, fcntl.LOCK_SH)
        with machine_lock():  # a measurement inside a measurement does not wait for itself
            assert not can_take(lock, fcntl.LOCK_SH)
        assert not can_take(lock, fcntl.LOCK_SH)
    assert can_take(lock, fcntl.LOCK_EX)


def test_an_error_releases_the_lock(lock):
    with pytest.raises(RuntimeError), machine_lock():
        raise RuntimeError
    assert can_take(lock, fcntl.LOCK_EX)
    with machine_lock():
        assert not can_take(lock, fcntl.LOCK_EX)


def test_measuring_waits_for_a_training_step(lock):
    holder = os.open(lock, os.O_RDONLY | os.O_CREAT)
    fcntl.flock(holder, fcntl.LOCK_SH)
    told, held = threading.Event(), threading.Event()

    def measure():
        with machine_lock(told.set):
            held.set()

    thread = threading.Thread(target=measure)
    thread.start()
    assert told.wait(10)
    assert not held.is_set()
    os.close(holder)
    assert held.wait(10)
    thread.join()


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the system does not say who holds a lock")
def test_it_says_which_process_is_waited_for(lock):
    assert awaited() == f"waiting for a process, which measures or trains on this machine ({lock})"
    with machine_lock():
        assert awaited() == f"waiting for process {os.getpid()}, which measures or trains on this machine ({lock})"


@pytest.mark.usefixtures("lock")
def test_a_lock_that_nobody_else_can_read_is_said(monkeypatch):
    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    said = r"^cannot open the lock of measurements \S+ \(Permission denied\): remove that file, or make it readable$"
    with pytest.raises(PathError, match=said), machine_lock():
        pass


def test_others_can_read_the_lock_whatever_the_umask(lock):
    before = os.umask(0o077)
    try:
        with machine_lock():
            assert lock.stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


def test_threads_of_one_process_take_turns(lock):
    inside, most = [], []

    def measure():
        with machine_lock():
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=measure) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8
    assert lock.exists()


def test_it_is_the_lock_that_training_takes():
    from pretraining import machine as training

    assert training.MACHINE_LOCK == MACHINE_LOCK


def test_the_lock_is_taken_where_another_user_made_its_file(lock, monkeypatch):
    from pretraining import machine as training

    opened = os.open

    def protected(path, flags, *mode, **options):
        """Open a file as Linux does in /tmp, where fs.protected_regular is set and the file is another user's."""
        if path == lock and flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *mode, **options)

    lock.touch()
    monkeypatch.setattr(os, "open", protected)
    monkeypatch.setattr(training, "MACHINE_LOCK", lock)
    with machine_lock():
        assert awaited()
    with training.machine_lock() as held:
        assert held


def test_the_hand_made_graph_is_a_valid_matrix_product():
    import onnx

    right = np.arange(12, dtype=np.float32).reshape(3, 4)
    serialized = matmul_model(right)
    onnx.checker.check_model(onnx.load_from_string(serialized), full_check=True)
    import onnxruntime

    left = np.ones((2, 3), dtype=np.float32)
    [product] = onnxruntime.InferenceSession(serialized).run(None, {"a": left})
    np.testing.assert_array_equal(product, left @ right)


def test_the_peak_is_one_that_a_machine_can_have():
    gflops = matmul_peak(size=256, seconds=0.05, threads=1)
    assert 0.1 < gflops < 5000  # GFLOP/s of one core: from an emulator to well above any


def test_the_peak_is_that_of_the_cores_that_a_container_may_use(lock, monkeypatch):
    opened = []

    def opening(graph, options):
        opened.append(options.intra_op_num_threads)
        return open_session(graph, options)

    monkeypatch.setattr(machine, "open_session", opening)
    monkeypatch.setattr(threads_of, "_processors", lambda: 8)
    monkeypatch.setattr(threads_of, "usable_cores", lambda: 2.0)
    assert matmul_peak(size=16, seconds=0) > 0
    assert opened == [2]
    assert can_take(lock, fcntl.LOCK_EX)


def test_the_machine_is_described_in_json():
    described = describe_machine(matmul_gflops=12.5)
    value = json.loads(json.dumps(asdict(described), allow_nan=False))
    assert value["versions"]["numpy"] == np.__version__
    assert value["matmul_gflops"] == 12.5
    assert value["memory_bytes"] > 2**26
    assert value["usable_cores"] > 0
    assert value["busy"] == pytest.approx(os.getloadavg()[0], abs=1)


@pytest.mark.parametrize("flag", sorted(BF16))
def test_a_record_tells_that_a_cpu_multiplies_bf16(monkeypatch, flag):
    here = Cpu(model="a test's CPU", flags=frozenset({flag}), physical_cores=1)
    monkeypatch.setattr(machine, "cpu", lambda: here)
    assert here.bf16
    assert not BF16.isdisjoint(describe_machine().flags)
