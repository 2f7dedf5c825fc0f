"""A server under a bound of memory: what it is left with, what it tells, and what it refuses."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import pytest

from bertport.serve.settings import LIMITS, for_models, shares
from tests.serve.running import Running

MIB = 2**20


def serve(*arguments):
    command = [sys.executable, "-m", "bertport.runtime", "serve", "--port", "0", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("memory", [1, 100, 512 * MIB, 2**40])
def test_what_requests_may_hold_is_left_out_of_what_models_get(memory):
    held_by_limit = shares(memory)
    assert all(size <= LIMITS[name].default for name, size in held_by_limit.items())
    held = 2 * held_by_limit["max_body_bytes_held"] + held_by_limit["max_answer_bytes"]
    assert held + for_models(memory) <= memory + 1


def test_the_bound_and_what_was_chosen_are_told(tiny_bundle):
    with Running(tiny_bundle, "--memory", "1G", "--variant", "fp32") as server:
        said = server.wait_for("memory")
        assert said["bound_bytes"] == for_models(1024 * MIB)
        assert said["expected_bytes"] <= said["bound_bytes"]
        _, text = server.get("/models")
        [model] = json.loads(text)
        assert model["variants"][0]["memory"]["bound_bytes"] == said["bound_bytes"]
        status, _ = server.post("/tasks/fill-mask", {"inputs": "a [MASK]"})
        assert status == 200
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("reloaded")  # with room for both
        assert server.stop() == 0


def test_without_names_only_the_default_variant_is_served(tiny_bundle):
    with Running(tiny_bundle, BERTPORT_MEMORY="1G") as server:
        _, text = server.get("/models")
        [model] = json.loads(text)
        assert len(model["variants"]) == 1


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--memory", "60M"], r"bounded to 49 MB and variant 'fp32' needs about"),
        (["--memory", "lots"], "is a size such as 512M"),
        (["--memory", "512M", "--max-body-bytes-held", 200 * MIB], "--max-body-bytes-held is 209,715,200"),
        (["--memory", "512M", "--max-batch-tokens", 100_000], "--max-batch-tokens is 100000"),
        (["--memory", "512M", "--provider", "cuda"], "only the provider 'cpu', not 'cuda'"),
    ],
)
def test_what_does_not_fit_is_refused(tiny_bundle, arguments, what):
    done = serve(tiny_bundle, "--variant", "fp32", *arguments)
    assert done.returncode == 2
    assert re.search(what, done.stderr)
    assert "Traceback" not in done.stderr
