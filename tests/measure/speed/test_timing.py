import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bertport.measure import machine
from bertport.measure.speed.process import Worker, WorkerError
from bertport.measure.speed.timing import Run, interleave, speedup, summarize
from bertport.measure.speed.worker import peak_bytes
from bertport.measure.speed.workload import Shape, Texts, WorkerSpec, from_json, to_json
from bertport.measure.statistics import Settings
from bertport.runtime.errors import UsageError

SHAPE = Shape(rows=2, length=8, vocabulary=60)
BIG = Shape(rows=16, length=128, vocabulary=60, masked=20)
PAIR = {"short": SHAPE}


@pytest.fixture(scope="module")
def graph_file(bag_bytes, tmp_path_factory):
    path = tmp_path_factory.mktemp("graphs") / "bag.onnx"
    path.write_bytes(bag_bytes)
    return str(path)


@pytest.fixture(scope="module")
def worker(graph_file):
    with Worker(WorkerSpec(name="bag", file=graph_file, threads=1)) as opened:
        yield opened


def test_a_worker_loads_and_times(worker):
    answer = worker.time(SHAPE, warmup=2, runs=3)
    assert (len(answer["warmup"]), len(answer["seconds"])) == (2, 3)
    assert min(answer["seconds"]) > 0
    assert worker.load_s > 0
    assert 2**24 < answer["peak_bytes"] < 2**30


def test_more_work_takes_longer(worker):
    # 128 times the tokens and 160 times the decoded positions: a factor of 2 is certain on any machine.
    small, big = (worker.time(shape, warmup=3, runs=15)["seconds"] for shape in (SHAPE, BIG))
    assert sorted(big)[7] > 2 * sorted(small)[7]


def test_a_worker_says_what_is_wrong_and_lives_on(worker):
    with pytest.raises(WorkerError, match=r"bag: texts are timed with a bundle"):
        worker.time(Texts(task="fill-mask", inputs=("a",)), warmup=0, runs=1)
    with pytest.raises(WorkerError, match="unknown request"):
        worker.ask({"do": "dance"})
    with pytest.raises(WorkerError, match="not a workload"):
        worker.ask({"do": "time", "workload": {"kind": "shape"}, "warmup": 0, "runs": 1})
    assert worker.time(SHAPE, warmup=0, runs=1)["ok"]


def test_a_model_that_cannot_be_loaded_is_an_error(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(WorkerError, match=r"broken: ONNX Runtime .* cannot load"):
        Worker(WorkerSpec(name="broken", file=str(tmp_path / "model.onnx")))
    with pytest.raises(WorkerError, match="names neither a file nor a bundle"):
        Worker(WorkerSpec(name="nothing"))


def test_a_process_that_dies_is_an_error_and_not_a_wait(graph_file):
    with Worker(WorkerSpec(name="bag", file=graph_file)) as worker:
        worker._process.kill()
        with pytest.raises(WorkerError, match=r"bag: the process that runs it ended \(exit code -9"):
            worker.time(SHAPE, warmup=0, runs=1)


def test_a_request_that_takes_too_long_is_ended(graph_file):
    with Worker(WorkerSpec(name="bag", file=graph_file)) as worker:
        worker.timeout = 0.3
        began = time.monotonic()
        with pytest.raises(WorkerError, match=r"did not answer within 0\.3 s"):
            worker.time(SHAPE, warmup=0, runs=10**8)
        assert time.monotonic() - began < 30


def test_requests_that_are_still_to_come_are_no_part_of_the_time_allowed(tiny_bundle):
    """Hundreds of them, at half the rate of a large model, come for longer than any answer takes."""
    arriving = Texts(task="fill-mask", inputs=("The [MASK] ran.",), scenario="Server", arrivals=(0.0, 2.0))
    with Worker(WorkerSpec(name="tiny", bundle=str(tiny_bundle), threads=1)) as worker:
        worker.timeout = 1.5
        assert len(worker.time(arriving, warmup=1, runs=1)["seconds"]) == 2


def test_a_worker_stops_when_asked():
    done = subprocess.run(
        [sys.executable, "-m", "bertport.measure.speed.worker"],
        input='{"do": "stop"}\n{"do": "stop"}\n',
        capture_output=True,
        text=True,
        check=True,
    )
    [line] = done.stdout.splitlines()  # after the first stop it has ended
    assert json.loads(line)["ok"]


def test_what_a_native_library_prints_goes_to_stderr():
    noisy = (
        "import os\nfrom bertport.measure.speed import worker\n"
        "worker.open_model = lambda _: os.write(1, b'noise')\nworker.main()"
    )
    opening = json.dumps({"do": "open", "spec": to_json(WorkerSpec(name="one"))})
    done = subprocess.run(
        [sys.executable, "-c", noisy], input=opening + '\n{"do": "stop"}\n', capture_output=True, text=True, check=True
    )
    assert [json.loads(line)["ok"] for line in done.stdout.splitlines()] == [True, True]
    assert done.stderr == "noise"


def test_last_words_that_are_not_utf_8_are_told(tmp_path, monkeypatch):
    program = "import os\n\ndef die(_):\n    os.write(2, b'cannot open no\\xff.onnx\\n')\n    os._exit(3)\n"
    (tmp_path / "dying.py").write_text(program, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(WorkerError, match=r"ended \(exit code 3\): cannot open no\\xff\.onnx"):
        Worker(WorkerSpec(name="one", opener="dying:die"))


def test_an_answer_that_is_cut_off_is_an_end_of_the_process(tmp_path, monkeypatch):
    program = (
        "import __main__\nimport os\n\ndef die(_):\n"
        "    def cut(text, *, file, flush):\n"
        "        file.write(text[:8])\n        file.flush()\n        os._exit(3)\n"
        "    __main__.print = cut\n"
    )
    (tmp_path / "dying.py").write_text(program, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(WorkerError, match=r"^one: the process that runs it ended \(exit code 3\)"):
        Worker(WorkerSpec(name="one", opener="dying:die"))


def test_values_travel_as_json():
    for value in (SHAPE, Texts(task="fill-mask", inputs=("a", "b")), WorkerSpec(name="a", file="b", config={"c": "d"})):
        assert from_json(json.loads(json.dumps(to_json(value)))) == value
    with pytest.raises(UsageError, match="not a workload"):
        from_json({"kind": "dance"})


def test_subjects_take_turns(graph_file):
    one, two = (WorkerSpec(name=name, file=graph_file, threads=1) for name in ("one", "two"))
    told = []
    timed = interleave([one, two], PAIR, rounds=4, runs=3, warmup=2, progress=lambda *done: told.append(done))
    assert [(run.subject, run.workload) for run in timed] == [("one", "short"), ("two", "short")]
    for run in timed:
        assert [len(times) for times in run.rounds] == [3] * 4
        assert len(run.warmup) == 2
        assert len(run.load_s) == 1
        assert run.start_s == ()
        assert run.peak_bytes > 0
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("fresh", [False, True])
def test_the_order_is_reversed_from_round_to_round(graph_file, monkeypatch, fresh):
    order = []
    asked = Worker.time

    def spy(self, workload, *, warmup, runs):
        if runs > 1:  # not the first answer of a fresh process
            order.append(self.spec.name)
        return asked(self, workload, warmup=warmup, runs=runs)

    monkeypatch.setattr(Worker, "time", spy)
    one, two = (WorkerSpec(name=name, file=graph_file, threads=1) for name in ("one", "two"))
    interleave([one, two], PAIR, rounds=3, runs=2, warmup=1, fresh=fresh)
    assert order == ["one", "two", "two", "one", "one", "two"]


def test_the_memory_of_the_parent_is_not_counted(graph_file):
    held = np.ones(50_000_000)  # 400 MB: getrusage would give the worker at least as much
    with Worker(WorkerSpec(name="bag", file=graph_file, threads=1)) as worker:
        assert worker.time(SHAPE, warmup=0, runs=1)["peak_bytes"] < held.nbytes


def test_memory_is_what_is_resident_and_not_what_is_promised():
    before = peak_bytes()
    promised = np.empty(2**30, dtype=np.uint8)  # not touched: the pages are not there yet
    assert peak_bytes() - before < 2**28
    assert promised.nbytes == 2**30


def test_memory_that_the_system_does_not_tell_stops_no_timing(monkeypatch):
    monkeypatch.setattr(Path, "read_bytes", lambda _: b"Name:\tpython\nVmRSS:\t100 kB\n")  # as in gVisor
    assert peak_bytes() > 2**24  # by getrusage
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert peak_bytes() == 0


def test_fresh_processes_measure_the_start_each_time(graph_file):
    [run] = interleave([WorkerSpec(name="one", file=graph_file)], PAIR, rounds=2, runs=2, warmup=3, fresh=True)
    assert [len(times) for times in run.rounds] == [2, 2]
    assert len(run.start_s) == len(run.load_s) == 2
    assert len(run.warmup) == 2 * 3
    # Starting Python and importing ONNX Runtime is part of a cold start, and loading is part of it too.
    assert all(start > load + 0.02 for start, load in zip(run.start_s, run.load_s, strict=True))


def test_a_subject_that_fails_is_left_out_when_somebody_is_told(graph_file):
    good, bad = WorkerSpec(name="good", file=graph_file), WorkerSpec(name="bad", file="none.onnx")
    failures = []
    timed = interleave(
        [bad, good], PAIR, rounds=2, runs=1, failed=lambda subject, error: failures.append((subject.name, str(error)))
    )
    assert [run.subject for run in timed] == ["good"]
    [(name, why)] = failures
    assert name == "bad"
    assert "none.onnx" in why
    with pytest.raises(WorkerError, match=r"none\.onnx"):
        interleave([bad, good], PAIR, rounds=1, runs=1)


def test_the_lock_is_held_meanwhile_and_then_released(graph_file):
    depths = []
    interleave(
        [WorkerSpec(name="one", file=graph_file)],
        PAIR,
        rounds=1,
        runs=1,
        progress=lambda *_: depths.append(machine._depth),
    )
    assert depths == [1]
    assert machine._depth == 0


@pytest.mark.parametrize("options", [{"rounds": 0}, {"runs": 0}, {"warmup": -1}])
def test_bad_numbers_are_refused(graph_file, options):
    with pytest.raises(UsageError, match="from 1 up"):
        interleave([WorkerSpec(name="one", file=graph_file)], PAIR, **options)


def test_names_must_differ(graph_file):
    subject = WorkerSpec(name="one", file=graph_file)
    with pytest.raises(UsageError, match="different names"):
        interleave([subject, subject], PAIR)


def made_up(rounds):
    return Run(
        subject="a", workload="b", rounds=rounds, warmup=(9.0, 8.0), load_s=(1.0,), start_s=(), peak_bytes=1, stages={}
    )


def test_summaries_by_hand():
    run = made_up(tuple(tuple(float(10 * row + column) for column in range(1, 11)) for row in range(10)))  # 1 to 100
    summary = summarize(run, Settings(resamples=200))
    assert (summary.median.value, summary.median.count, summary.median.clusters) == (50.5, 100, 10)
    assert summary.p90.value == pytest.approx(90.1)
    assert summary.p99.value == pytest.approx(99.01)
    assert (summary.fastest, summary.runs, summary.warmup_runs, summary.warmup_s) == (1, 100, 2, 17)
    json.dumps(dataclasses.asdict(summary), allow_nan=False)


def test_a_speedup_is_of_the_candidate():
    slow, fast = made_up(((4.0, 4.0), (8.0, 8.0))), made_up(((2.0, 2.0), (4.0, 4.0)))
    estimate = speedup(slow, fast, Settings(resamples=100))
    assert (estimate.value, estimate.low, estimate.high) == (2, 2, 2)


def test_texts_are_timed_through_the_runtime(tiny_bundle):
    texts = Texts(task="fill-mask", inputs=("The [MASK] ran.", "A [MASK] of milk and bread."), parameters={"top_k": 2})
    with Worker(WorkerSpec(name="tiny", bundle=str(tiny_bundle), threads=1)) as worker:
        stream = worker.time(texts, warmup=1, runs=3)
        assert (len(stream["warmup"]), len(stream["seconds"])) == (2, 6)
        assert set(stream["stages"]) == {"tokenize", "run", "finish"}
        assert all(seconds > 0 for seconds in stream["stages"].values())
        assert sum(stream["stages"].values()) == pytest.approx(sum(stream["seconds"]))
        offline = worker.time(dataclasses.replace(texts, scenario="Offline"), warmup=1, runs=3)
        assert (len(offline["warmup"]), len(offline["seconds"])) == (1, 3)
        assert offline["tokens"] > stream["tokens"] > 0  # so short that they share a batch, and the shorter is padded
        arriving = dataclasses.replace(texts, scenario="Server", arrivals=(0.0, 0.001, 0.002))
        served = worker.time(arriving, warmup=1, runs=2)
        assert (len(served["warmup"]), len(served["seconds"])) == (2, 6)  # each input once, then the requests
        pairs = Texts(task="next-sentence", inputs=(("He went.", "She came."),))
        assert len(worker.time(pairs, warmup=0, runs=2)["seconds"]) == 2
        with pytest.raises(WorkerError, match="No mask_token"):
            worker.time(dataclasses.replace(texts, inputs=("no mask",)), warmup=0, runs=1)
        with pytest.raises(WorkerError, match="unknown scenario 'Marathon'"):
            worker.time(dataclasses.replace(texts, scenario="Marathon"), warmup=0, runs=1)
