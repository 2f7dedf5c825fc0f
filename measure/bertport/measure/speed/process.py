"""The parent's side of a worker process: start it, ask it, and say why it failed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from bertport.measure.speed.workload import to_json
from bertport.runtime.errors import BertportError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertport.measure.speed.workload import Subject, Workload

__all__ = ["SubjectError", "Worker"]


class SubjectError(BertportError, RuntimeError):
    """A model that could not be loaded or run; the others go on."""


class Worker:
    """A worker process that has a subject loaded; a context manager.

    Args:
        subject: What to load.
        timeout: Seconds that a request may take before the process is ended.

    Raises:
        SubjectError: when the subject cannot be loaded; says why.
    """

    def __init__(self, subject: Subject, *, timeout: float = 600.0) -> None:
        self.subject = subject
        self.timeout = timeout
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bertport.measure.speed.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            # Ctrl-C in a terminal reaches every process of its group: it is this one that ends the workers, and it
            # must not take their deaths for failures of what they run. Their stdin ends with this process.
            start_new_session=True,
        )
        # Its last words, kept for an error: read in the background, since a full pipe would stop the process.
        self._said: deque[str] = deque(maxlen=20)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            self.load_s = float(self.ask({"do": "open", "subject": to_json(subject)})["seconds"])
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
        return self.ask({"do": "time", "workload": to_json(workload), "warmup": warmup, "runs": runs})

    def answers(self, workload: Workload) -> list[int]:
        """Return the best token of each input of a fill-mask workload."""
        return [int(token) for token in self.ask({"do": "answer", "workload": to_json(workload)})["tokens"]]

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises:
            SubjectError: when the answer is an error, does not come in time, or the process ends.
        """
        if self._process.poll() is not None:
            raise self._gone()
        watchdog = threading.Timer(self.timeout, self._process.kill)
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
        if not line:
            self._process.wait()
            raise self._gone(late=late)
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            raise SubjectError(f"{self.subject.name}: {answer['error']}")
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
                except OSError:  # what was still to be written goes to nobody
                    continue

    def _listen(self) -> None:
        for line in self._process.stderr or ():
            self._said.append(line)

    def _gone(self, *, late: bool = False) -> SubjectError:
        how = f"did not answer within {self.timeout:g} s" if late else "ended"
        self._listener.join(timeout=1)
        code = self._process.poll()
        memory = "; it may have run out of memory" if code == -9 and not late else ""  # noqa: PLR2004 — SIGKILL
        said = f": {self._said[-1].strip()}" if self._said else ""
        message = f"{self.subject.name}: the process that runs it {how} (exit code {code}{memory}){said}"
        return SubjectError(message)
