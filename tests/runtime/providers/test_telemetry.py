"""ONNX Runtime's telemetry is off, whatever imports it, unless the user leaves it on; and nothing goes out unasked."""

from __future__ import annotations

import json
import subprocess
import sys

import onnxruntime
import pytest

from tests.telemetry import at_home, traces

ANSWER = "from bertport.runtime import load; print(load({bundle!r}).fill_mask('a [MASK]')[0]['token_str'])"
DOCTOR = "from bertport.runtime.cli import main; main(['doctor', {bundle!r}, '--json'])"
WAYS = {
    "answering": ANSWER,
    "doctor": DOCTOR,
    "the user's own import, later": "import bertport.runtime, onnxruntime",
    "ONNX Runtime's tools": (
        "from bertport.quantize.graph import fusion\nfrom onnxruntime.transformers import optimizer"
    ),
    "a child process": (
        "import bertport.measure.speed.worker, subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', 'import onnxruntime'], check=True)"
    ),
}

OPTIMUM = "import bertport.export.exporter\nfrom optimum.onnxruntime import ORTModelForMaskedLM"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not sys.platform.startswith("linux") or tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 29),
        reason="before 1.29, ONNX Runtime has telemetry on Windows only",
    ),
]


@pytest.fixture
def run(tmp_path, tiny_bundle):
    """Run a program in an empty home; give what it printed, and what telemetry left."""

    def invoke(program, setting=None):
        home = tmp_path / "home"
        home.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", program.format(bundle=str(tiny_bundle))],
            env=at_home(home, setting) | {"PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, traces(home)

    return invoke


@pytest.mark.parametrize(
    ("way", "setting"), [*((way, None) for way in WAYS), ("answering", ""), ("doctor", "1"), ("doctor", "yes")]
)
def test_nothing_is_left_in_an_empty_home(run, way, setting):
    said, left = run(WAYS[way], setting)
    assert not left
    if way == "doctor":
        assert json.loads(said)["telemetry"] == {"state": "off"}


@pytest.mark.optimum
def test_optimums_import_leaves_nothing_where_bertports_came_first(run):
    _, left = run(OPTIMUM)
    assert not left


@pytest.mark.parametrize("setting", ["0", "false", "2"])
def test_what_the_user_set_stays_and_the_check_sees_what_it_leaves(run, setting):
    said, left = run(DOCTOR, setting)
    assert {path.rpartition("/")[2] for path in left} >= {"deviceid"}
    assert json.loads(said)["telemetry"]["state"] == "on"
    assert f"ORT_DISABLE_TELEMETRY={setting}" in json.loads(said)["telemetry"]["reason"]


def test_imported_before_us_it_is_told_to_stop_and_doctor_says_so(run):
    spied = (
        "import onnxruntime, sys\n"
        "once = onnxruntime.disable_telemetry_events\n"
        "onnxruntime.disable_telemetry_events = lambda: (print('told to stop', file=sys.stderr), once())\n"
        + DOCTOR.replace("main(", "sys.stderr = sys.stdout; main(").replace(", '--json'", "")
    )
    said, _ = run(spied)
    assert said.count("told to stop") >= 1
    [line] = [line for line in said.splitlines() if "telemetry" in line]
    assert "partly off: onnxruntime was imported before bertport.runtime" in line
    assert "set ORT_DISABLE_TELEMETRY=1" in line


def test_left_on_it_is_not_told_to_stop(run):
    said, _ = run(
        "import onnxruntime\nonnxruntime.disable_telemetry_events = lambda: print('told to stop')\n" + ANSWER,
        "0",
    )
    assert "told to stop" not in said


def test_a_version_that_has_no_such_function_is_taken(run):
    said, _ = run("import onnxruntime\ndel onnxruntime.disable_telemetry_events\n" + DOCTOR)
    assert json.loads(said)["telemetry"]["state"] == "partly off"


@pytest.mark.slow
def test_nothing_connects_or_asks_for_a_name(run, tiny_checkpoint, tmp_path):
    """README: nothing leaves the machine. Python's own sockets are watched; ONNX Runtime's are its telemetry's."""
    said, _ = run(
        "import sys\n"
        "def watch(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname', 'socket.sendto'):\n"
        "        print('WENT OUT', event, arguments)\n"
        "sys.addaudithook(watch)\n"
        "import os; os.environ.pop('HF_HUB_OFFLINE', None)\n"
        "from bertport.export import export\n"
        f"print(export({str(tiny_checkpoint)!r}, {str(tmp_path / 'out')!r}).path)\n" + ANSWER
    )
    assert "WENT OUT" not in said
    assert (tmp_path / "out" / "manifest.json").is_file()
