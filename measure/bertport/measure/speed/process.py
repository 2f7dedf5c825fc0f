"""The parent's side of a worker process: start it, ask it, and say why it failed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from bertport.measure.speed.workload import Texts, to_json
from bertport.runtime.errors import BertportError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertport.measure.speed.loaded import Answer
    from bertport.measure.speed.workload import WorkerSpec, Workload

__all__ = ["Worker", "WorkerError", "Workers"]


class WorkerError(BertportError, RuntimeError):
    """A model that could not be loaded or run; the others go on."""


class Worker:
    """A worker process that has a model loaded; a context manager.

    Args:
        spec: What to load.
        timeout: Seconds that a request may take before the process is ended.

    Raises:
        WorkerError: when the model cannot be loaded; says why.
    """

    def __init__(self, spec: WorkerSpec, *, timeout: float = 600.0) -> None:
        self.spec = spec
        self.timeout = timeout
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            [spec.python or sys.executable, "-m", "bertport.measure.speed.worker"],
            env=None if spec.python is None else _environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="backslashreplace",  # a native library may say names of files that are not UTF-8
            # Ctrl-C in a terminal reaches every process of its group: it is this one that ends the workers, and it
            # must not take their deaths for failures of what they run. Their stdin ends with this process.
            start_new_session=True,
        )
        # Its last words, kept for an error: read in the background, since a full pipe would stop the process.
        self._said: deque[str] = deque(maxlen=20)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            self.load_s = float(self.ask({"do": "open", "spec": to_json(spec)})["seconds"])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return the worker."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.close()

    def time(self, workload: Workload, *, warmup: int, runs: int) -> dict[str, Any]:
        """Have a workload run; see `bertport.measure.speed.worker` for the answer."""
        arrivals = workload.arrivals if isinstance(workload, Texts) else ()
        request = {"do": "time", "workload": to_json(workload), "warmup": warmup, "runs": runs}
        return self.ask(request, idle=runs * max(arrivals, default=0.0))

    def answers(self, workload: Workload) -> list[Answer]:
        """Return the answer to each input of a workload of texts."""
        answers: list[Answer] = self.ask({"do": "answer", "workload": to_json(workload)})["answers"]
        return answers

    def ask(self, request: Mapping[str, Any], *, idle: float = 0.0) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Args:
            request: As `bertport.measure.speed.worker` reads it.
            idle: Seconds that it takes however fast the model is, which are no part of the timeout.

        Raises:
            WorkerError: when the answer is an error, does not come in time, or the process ends.
        """
        if self._process.poll() is not None:
            raise self._gone()
        patience = self.timeout + idle
        watchdog = threading.Timer(patience, self._process.kill)
        watchdog.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")  # type: ignore[union-attr]  # a pipe, as asked for
            self._process.stdin.flush()  # type: ignore[union-attr]
            line = self._process.stdout.readline()  # type: ignore[union-attr]
        except OSError:
            line = ""
        finally:
            late = not watchdog.is_alive()
            watchdog.cancel()
        if not line.endswith("\n"):  # nothing, or a part of an answer that the end of the process cut off
            self._process.wait()
            raise self._gone(patience if late else None)
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            raise WorkerError(f"{self.spec.name}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._process.poll() is None:
            self._process.kill()  # it holds nothing that needs tidying
        self._process.wait()
        self._listener.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe:
                try:
                    pipe.close()
                except OSError:  # what was still to be written is lost with the process
                    continue

    def _listen(self) -> None:
        for line in self._process.stderr or ():
            self._said.append(line)

    def _gone(self, late: float | None = None) -> WorkerError:
        how = "ended" if late is None else f"did not answer within {late:g} s"
        self._listener.join(timeout=1)
        code = self._process.poll()
        memory = "; it may have run out of memory" if code == -9 and late is None else ""  # noqa: PLR2004 — SIGKILL
        said = f": {self._said[-1].strip()}" if self._said else ""
        message = f"{self.spec.name}: the process that runs it {how} (exit code {code}{memory}){said}"
        return WorkerError(message)


class Workers:
    """Worker processes by specification, each started when it is first asked for; a context manager that ends all."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._workers: dict[str, Worker] = {}

    def __enter__(self) -> Self:
        """Return the workers."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes."""
        self._stack.close()

    def of(self, spec: WorkerSpec) -> Worker:
        """Return the worker of a specification.

        Raises:
            WorkerError: when its model cannot be loaded.
        """
        key = json.dumps(to_json(spec))
        if key not in self._workers:
            self._workers[key] = self._stack.enter_context(Worker(spec))
        return self._workers[key]


def _environment() -> dict[str, str]:
    """Return the environment of a process of another interpreter: it is to find this bertport and the programs here.

    What PYTHONPATH has stays before them: bench.avx2 puts its copies of libraries there.
    """
    import bertport

    given = filter(None, [os.environ.get("PYTHONPATH")])
    places = [str(Path(place).parent) for place in bertport.__path__]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*given, *places, str(Path.cwd())])}
