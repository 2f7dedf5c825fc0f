"""Training: it learns, a seed decides it, a resumed run is the uninterrupted one, and it waits for measurements."""

import fcntl
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pretraining import machine, trainer
from pretraining.checkpoint import Progress, read_log
from pretraining.corpus import Corpus
from pretraining.device import DeviceSource
from pretraining.errors import RecipeError
from pretraining.machine import Hardware, choose_hardware
from pretraining.model import from_config, start_decoder_at_frequencies
from pretraining.objective import Batch, BatchSource, SpecialTokens
from pretraining.schedule import Schedule, TimedSchedule, linear_rate
from pretraining.trainer import heldout_batches, train

CPU = Hardware(device=torch.device("cpu"), dtype=torch.float32)
SCHEDULE = Schedule(tokens=12 * 512, tokens_per_batch=512, peak_rate=2e-3, length=32, long_length=64)


class Run:
    """One training run on the tiny corpus, with its own directory."""

    def __init__(self, corpus: Corpus, special: SpecialTokens, config: Path, output: Path) -> None:
        self.corpus, self.special, self.config, self.output = corpus, special, config, output
        output.mkdir(exist_ok=True)

    source = BatchSource

    def __call__(
        self, schedule: Schedule = SCHEDULE, *, seed: int = 1, steps: int | None = None, **options: object
    ) -> dict[str, torch.Tensor]:
        """Train, for `steps` steps at most, and give the weights."""
        torch.manual_seed(seed)
        model = from_config(self.config, vocab_size=self.special.vocab_size).model
        start_decoder_at_frequencies(model, self.corpus.tokens)
        source = self.source(self.corpus, self.special, tokens_per_batch=schedule.tokens_per_batch, seed=seed)
        batches = heldout_batches(source, rows=16, length=64)
        options = {"hardware": CPU, "evaluate_every": 4, **options}
        if steps is not None:
            options["stopping"] = after(steps)
        self.progress: Progress = train(model, source, schedule, batches, self.output, **options)
        return model.state_dict()


def after(steps: int) -> Callable[[], bool]:
    """Ask for a stop after so many steps: the loop asks once before each."""
    asked = iter(range(10**9))
    return lambda: next(asked) >= steps


@pytest.fixture
def run(corpus: Corpus, special: SpecialTokens, config_file: Path, tmp_path: Path) -> Run:
    return Run(corpus, special, config_file, tmp_path / "run")


@pytest.fixture
def other_run(corpus: Corpus, special: SpecialTokens, config_file: Path, tmp_path: Path) -> Run:
    return Run(corpus, special, config_file, tmp_path / "other")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_resumed_run_gives_the_weights_of_an_uninterrupted_one(run: Run, other_run: Run, dtype: torch.dtype) -> None:
    hardware = Hardware(device=torch.device("cpu"), dtype=dtype)
    whole = other_run(hardware=hardware)
    run(steps=5, hardware=hardware)
    assert run.progress.step == 5
    run(steps=6, hardware=hardware)  # across the change of length, at step 10
    assert run.progress.step == 11
    assert same(run(hardware=hardware), whole)
    assert run.progress.tokens == other_run.progress.tokens
    # Each row takes the next sentence of the epoch; the longest rows are 64 tokens.
    assert run.progress.anchors >= SCHEDULE.steps * 512 // 64
    logs = [read_log(one_run.output / "log.jsonl") for one_run in (run, other_run)]
    assert [row["step"] for row in logs[0]] == [4, 8, 12]
    assert [row["heldout_mlm_loss"] for row in logs[0]] == [row["heldout_mlm_loss"] for row in logs[1]]


@pytest.mark.parametrize(("cores", "threads"), [(3.0, 3), (0.5, 1)])
def test_threads_are_as_many_as_the_cores_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch, cores: float, threads: int
) -> None:
    monkeypatch.delattr("os.sched_getaffinity", raising=False)  # which macOS lacks
    monkeypatch.setattr(machine, "usable_cores", lambda: cores)
    before = torch.get_num_threads()
    try:
        choose_hardware(threads=None, dtype="float32")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_run_that_is_not_repeated_takes_the_fast_operations_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[bool] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *, mode: modes.append(mode))
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    for deterministic in (False, True):
        hardware = choose_hardware(threads=1, dtype="auto", deterministic=deterministic)
        assert (hardware.device.type, hardware.dtype) == ("cuda", torch.bfloat16)
    assert modes == [True]


@pytest.mark.gpu
def test_a_resumed_run_on_cuda_gives_the_weights_of_an_uninterrupted_one(run: Run, other_run: Run) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    hardware = choose_hardware(threads=1, dtype="auto")
    assert (hardware.device.type, hardware.dtype) == ("cuda", torch.bfloat16)
    try:
        whole = other_run(hardware=hardware)
        run(steps=5, hardware=hardware)
        assert same(run(hardware=hardware), whole)
    finally:
        torch.use_deterministic_algorithms(mode=False)


def test_a_killed_run_takes_the_lost_steps_again_and_logs_them_once(run: Run, other_run: Run) -> None:
    whole = other_run()
    run(steps=3)
    kept = run.output / "checkpoint.kept"
    shutil.copy(run.output / "checkpoint.pt", kept)
    run(steps=6)
    kept.replace(run.output / "checkpoint.pt")  # as if it had been killed before it could save again
    with (run.output / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write('{"step": 9, "tok')
    assert same(run(), whole)
    rows = [json.loads(line) for line in (run.output / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in rows] == [4, 8, 12]


def test_the_seed_decides(run: Run, other_run: Run) -> None:
    first, second = run(), other_run(seed=2)
    assert not same(first, second)


def test_a_finished_run_is_left_alone(run: Run) -> None:
    first = run()
    assert same(first, run())
    assert run.progress.step == SCHEDULE.steps


@pytest.mark.slow
def test_it_learns_to_predict_words_that_it_has_not_seen(run: Run) -> None:
    run(Schedule(tokens=300 * 512, tokens_per_batch=512, peak_rate=1e-2, length=32, long_length=64), evaluate_every=100)
    first, *_, last = read_log(run.output / "log.jsonl")
    assert last["heldout_mlm_loss"] < first["heldout_mlm_loss"] - 0.5
    assert last["train_mlm_loss"] < first["train_mlm_loss"] - 0.5
    assert last["heldout_mlm_top1"] > first["heldout_mlm_top1"] + 0.03


@given(seconds=st.floats(1, 1e4), first=st.floats(0, 0.9), share=st.floats(0, 2), steps=st.integers(0, 10**6))
def test_by_the_clock_a_rate_rises_and_falls_to_the_end_of_the_time(
    seconds: float, first: float, share: float, steps: int
) -> None:
    schedule = TimedSchedule(seconds=seconds, peak_rate=1e-3)
    begun = first * seconds  # the program has started before, and the rise is not lost to its reading
    now = begun + share * (seconds - begun)
    at = schedule.place(steps, first=begun, now=now)
    assert 0 <= at <= schedule.steps
    assert at == schedule.place(0, first=begun, now=now)
    assert (at == schedule.steps) == (now >= seconds)
    wanted = linear_rate(min(1.0, share) * schedule.steps, steps=schedule.steps, peak=1e-3, warmup=0.04)
    assert schedule.rate(at) == pytest.approx(wanted, abs=1e-5)
    assert schedule.length_at(at) == (512 if at >= 9000 else 128)


def test_a_run_by_the_clock_ends_in_time_and_is_kept_once_before_its_end(run: Run) -> None:
    kept: list[int] = []
    started = time.monotonic() - 100
    schedule = TimedSchedule(seconds=102, tokens_per_batch=512, peak_rate=2e-3, length=32, long_length=64)
    run.source = on_the_cpu
    run(schedule, started=started, save_every_s=1, keep=lambda progress: kept.append(progress.step))
    assert time.monotonic() - started < 104  # a step of 512 tokens takes milliseconds, and so does an evaluation
    rows = read_log(run.output / "log.jsonl")
    assert rows[-1]["step"] == run.progress.step > 4
    assert rows[-1]["rate"] == 0
    assert max(row["rate"] for row in rows) == pytest.approx(2e-3, rel=0.2)
    assert len(kept) == 2
    assert kept[-1] == run.progress.step
    assert not (run.output / "checkpoint.pt").exists()


def test_a_run_by_the_clock_is_kept_before_it_is_scored(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []

    def ended(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(trainer, "evaluate", ended)
    with pytest.raises(TimeoutError):
        run(
            TimedSchedule(seconds=0.5, tokens_per_batch=512),
            keep=lambda progress: kept.append(progress.step),
            evaluate_every=10**6,
        )
    assert len(kept) == 1


def test_a_run_by_the_clock_ends_while_it_waits_and_needs_time_for_a_step(run: Run, lock_file: Path) -> None:
    schedule = TimedSchedule(seconds=1.5, tokens_per_batch=512)
    with lock_file.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        run(schedule, started=time.monotonic(), keep=lambda _: None)
    assert run.progress.step == 0
    with pytest.raises(
        RecipeError, match=r"over 9 seconds after the start, before the first step: give more --seconds"
    ):
        run(schedule, started=time.monotonic() - 9)


def on_the_cpu(corpus: Corpus, special: SpecialTokens, **settings: int) -> DeviceSource:
    return DeviceSource(corpus, special, **settings, device=torch.device("cpu"))


def test_both_heads_learn_a_batch_by_heart(run: Run) -> None:
    class OneBatch(BatchSource):
        def batch(self, step: int, first_anchor: int, length: int) -> tuple[Batch, int]:  # noqa: ARG002 — that is the point
            return super().batch(0, 0, length)

    run.source = OneBatch
    schedule = Schedule(tokens=120 * 512, tokens_per_batch=512, peak_rate=1e-2, length=32, long_length=32)
    run(schedule, evaluate_every=30)
    first, *_, last = read_log(run.output / "log.jsonl")
    assert first["train_nsp_loss"] > 0.4
    assert last["train_nsp_loss"] < 0.1
    assert last["train_mlm_loss"] < 0.5


def test_a_checkpoint_of_another_model_or_a_damaged_one_is_named(run: Run, tmp_path: Path) -> None:
    run(steps=1)
    settings = json.loads(run.config.read_text(encoding="utf-8"))
    run.config = tmp_path / "wider.json"
    run.config.write_text(json.dumps(settings | {"hidden_size": 64}), encoding="utf-8")
    with pytest.raises(RecipeError, match=r"checkpoint\.pt is not a checkpoint of this model .*--output"):
        run()
    whole = (run.output / "checkpoint.pt").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not a checkpoint"):
        (run.output / "checkpoint.pt").write_bytes(damaged)
        with pytest.raises(RecipeError, match=r"checkpoint\.pt is not a checkpoint"):
            run()


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a+")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
"""


def test_training_waits_while_another_process_measures(run: Run, lock_file: Path) -> None:
    ended = threading.Event()
    endless = Schedule(tokens=10**7, tokens_per_batch=512)
    trainer = threading.Thread(target=lambda: run(endless, stopping=ended.is_set, evaluate_every=1))

    def steps() -> int:
        return len(read_log(run.output / "log.jsonl"))

    trainer.start()
    try:
        wait_until(lambda: steps() > 3)
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, str(lock_file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as measuring:
            assert measuring.stdin is not None
            assert measuring.stdout is not None
            # It gets the lock although the trainer takes it again and again, and keeps it to itself.
            assert measuring.stdout.readline() == "held\n"
            before = steps()
            time.sleep(1.0)
            assert steps() == before
            measuring.stdin.write("\n")
            measuring.stdin.flush()
            wait_until(lambda: steps() > before)
    finally:
        ended.set()
        trainer.join()
    assert (run.output / "checkpoint.pt").exists()


def test_a_run_that_waits_can_be_stopped(run: Run, lock_file: Path) -> None:
    with lock_file.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        run(steps=1)  # asked once before the step, and once more while it waits for the lock
    assert run.progress.step == 0


def wait_until(condition: Callable[[], bool], *, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
