"""`dev.py demo` after its first answers, on the tiny model: each step, and that nothing of it is left."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

import dev_demo

ROOT = Path(__file__).parents[1]
PROGRAMS = Path(sys.executable).parent
"""This environment has what the demo's own one has."""
MAIN = """
import sys
from pathlib import Path
import dev_demo
programs, bundle, parent = map(Path, sys.argv[1:])
dev_demo.SHORTENED = ("--positions", "40", "--pairs", "8", "--accuracy-budget", "none", "--force")
dev_demo.main_job(programs, bundle=bundle, parent=parent)
"""
SERVE = """
import shutil, sys
from pathlib import Path
import dev_demo
programs, bundle, parent = map(Path, sys.argv[1:])
with dev_demo.scratch_folder(parent) as scratch:
    shutil.copytree(bundle, scratch / "bundle")
    dev_demo.Demo(programs, scratch).serve()
"""


@contextmanager
def started(program, bundle, parent):
    """A part of the demo in a process of its own."""
    command = [sys.executable, "-u", "-c", program, PROGRAMS, bundle, parent]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def is_up(url):
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=10) as answer:  # noqa: S310 — on this machine
            return answer.status == 200
    except urllib.error.URLError:
        return False


@pytest.mark.slow
def test_a_checkpoint_becomes_a_served_model(tiny_bundle, tmp_path):
    with started(MAIN, tiny_bundle, tmp_path / "out") as process:
        said, errors = process.communicate(timeout=280)
    assert process.returncode == 0, said + errors
    commands = [line[2:] for line in said.splitlines() if line.startswith("$ ")]
    assert [command.split()[1] for command in commands] == [
        *("restore", "export", "verify", "quantize", "fill-mask", "fill-mask", "serve"),
    ]
    assert "speed-up over fp32" in said  # the table of what 8 bits cost
    assert len(re.findall(r"^\(\d+\.\d s\)$", said, re.MULTILINE)) == 7  # every command, and the client
    assert len(re.findall(r"^  \S+ +\d+\.\d%$", said, re.MULTILINE)) == 3  # what the client was told
    assert re.search(r"From a checkpoint to a served model in \d+ s", said)
    assert not is_up(re.search(r"ready at (\S+)", said)[1])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_serves_leaves_nothing(tiny_bundle, tmp_path, number):
    with started(SERVE, tiny_bundle, tmp_path / "out") as process:
        url = next(line.split()[2] for line in process.stdout if line.startswith("ready at"))
        process.send_signal(number)  # to this process alone: it has to end its server itself
        _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert not is_up(url)
    assert not (tmp_path / "out").exists()


def test_a_program_that_does_not_listen_is_ended():
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {deaf!r}])"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True)
    with process:
        assert process.stdout.readline()
        dev_demo.end(process, grace=0.5)
        assert process.returncode
        assert process.stdout.read() == b""  # the grandchild, which held the pipe open, is gone too
