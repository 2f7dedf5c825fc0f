"""The machine under the training: its lock, its number format, and requests to stop."""

import fcntl
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Self

import torch

from bertport.measure.machine import open_lock
from bertport.runtime.providers.cpu import usable_cores

MACHINE_LOCK = Path(tempfile.gettempdir()) / "bertport-machine.lock"
"""Whoever measures holds this file's exclusive lock; training holds a shared one during each step."""
_POLL_S = 0.2


@contextmanager
def machine_lock(stopping: Callable[[], bool] = lambda: False) -> Iterator[bool]:
    """Hold the machine's lock as a trainer does: shared, and only while nobody measures.

    Waits for as long as somebody else holds the exclusive lock, or until `stopping` says so.

    Yields:
        Whether the lock is held; false only when `stopping` ended the wait.
    """
    descriptor = open_lock(MACHINE_LOCK)
    try:
        # flock is not fair: a trainer that takes the lock again at once can keep a waiting benchmark out for good.
        # Between two steps it lets go for a moment, which is a thousandth of a step.
        time.sleep(0.001)
        held = _try_shared(descriptor)
        while not held and not stopping():
            time.sleep(_POLL_S)
            held = _try_shared(descriptor)
        yield held
    finally:
        os.close(descriptor)


def _try_shared(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class StopRequest:
    """Whether SIGTERM or SIGINT has asked for an end; the step under way is finished first.

    The first signal restores the former handlers, so that a second one ends the process at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self._former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def __enter__(self) -> Self:
        """Install the handlers."""
        for number in self._former:
            signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the former handlers."""
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """Return whether an end was asked for."""
        return self.requested

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        self.__exit__()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """Device and number format that the model computes in; weights and optimizer are float32 on every device."""

    device: torch.device
    """The CPU or one CUDA device."""
    dtype: torch.dtype
    """Format of the matrix products, through autocast: float32 or bfloat16."""

    def __str__(self) -> str:
        """Name the hardware in a few words, for the record of a run."""
        if self.device.type == "cuda":
            return str(torch.cuda.get_device_name(self.device))
        return f"{torch.get_num_threads()} threads of {_cpu_field('model name') or 'an unnamed CPU'}"


def choose_hardware(*, threads: int | None, dtype: str, deterministic: bool = True) -> Hardware:
    """Take CUDA where there is one, and set up what deterministic results need there, unless they are not wanted.

    A dtype of `auto` is bfloat16 on CUDA and on CPUs that multiply it in hardware (on 2 cores of Zen 4 it was
    1.8 times as fast: 2,816 tokens a second against 1,548), else float32.
    """
    torch.set_num_threads(threads or max(1, int(usable_cores())))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda" and deterministic:
        # cuBLAS is deterministic only with a fixed workspace; it reads this when it starts.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(mode=True)
    if dtype == "auto":
        dtype = "bfloat16" if device.type == "cuda" or {"avx512_bf16", "amx_bf16"} & _cpu_flags() else "float32"
    return Hardware(device=device, dtype={"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype])


def _cpu_flags() -> set[str]:
    return set(_cpu_field("flags").split())


def _cpu_field(field: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")
