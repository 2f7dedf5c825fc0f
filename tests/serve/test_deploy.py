"""The container recipe and the systemd unit: linted; `python -m bench.image` builds and runs the image."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from bertport.serve.cli import serve
from dev import AREAS

DEPLOY = Path(__file__).parents[2] / "docs" / "how-to" / "deploy"
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")


@pytest.mark.skipif(not HADOLINT, reason="hadolint is not installed")
def test_hadolint_finds_nothing_in_the_dockerfile():
    done = subprocess.run([HADOLINT, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_in_the_unit(tmp_path):
    unit = tmp_path / "bertport.service"
    text = (DEPLOY / "bertport.service").read_text(encoding="utf-8")
    unit.write_text(text.replace("/opt/bertport/bin/bertport", "/bin/true"), encoding="utf-8")
    command = [shutil.which("systemd-analyze"), "verify", "--man=no", unit]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_a_reload_that_comes_before_the_server_takes_the_signal_does_not_end_the_unit():
    text = (DEPLOY / "bertport.service").read_text(encoding="utf-8")
    assert "ExecReload=/bin/kill -HUP $MAINPID\n" in text
    assert "Restart=on-failure\n" in text  # for which an end by SIGHUP is no failure
    assert "RestartForceExitStatus=SIGHUP\n" in text


def test_they_name_options_that_there_are():
    known = {option for parameter in serve.params if isinstance(parameter, click.Option) for option in parameter.opts}
    variables = {parameter.envvar for parameter in serve.params if parameter.envvar}
    for path in (each for each in DEPLOY.rglob("*") if each.is_file()):
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"BERTPORT_\w+", text)) <= variables
        for line in text.splitlines():
            if "bertport serve" in line:
                assert set(re.findall(r"--[a-z-]+", line)) - {"--help"} <= known


def test_the_page_states_the_size_that_was_measured():
    data = json.loads((DEPLOY.parents[1] / "data" / "image.json").read_text(encoding="utf-8"))
    over = data["compressed_bytes"]["over_the_base"]
    assert f"{over / 1e6:.1f} MB compressed" in (DEPLOY.parent / "deploy.md").read_text(encoding="utf-8")
    assert over <= data["bar_bytes"]


def test_what_the_wheel_is_built_of_is_in_the_context_of_the_image():
    root = DEPLOY.parents[2]
    kept = {line[1:] for line in (root / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    needed = {*AREAS, "models/default", "data", "pyproject.toml", *root.glob("hatch_*.py")}
    needed |= {"README.md", *project["project"]["license-files"]}
    assert {str(Path(each).relative_to(root) if Path(each).is_absolute() else each) for each in needed} <= kept
    assert all((root / name).exists() for name in kept)


def test_the_licences_of_an_environment_are_listed(tmp_path):
    subprocess.run([sys.executable, DEPLOY / "licences.py", tmp_path / "list"], check=True)
    lines = (tmp_path / "list").read_text(encoding="utf-8").splitlines()
    assert next(line for line in lines if line.startswith("onnxruntime ")).endswith(": MIT License")
    assert next(line for line in lines if line.startswith("click ")).endswith(": BSD-3-Clause")


def test_the_container_runs_as_another_user_than_root_and_without_a_shell():
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^USER \d{4,}:\d{4,}$", text, re.MULTILINE)
    assert 'ENTRYPOINT ["bertport", "serve"]' in text


def test_the_container_asks_itself_at_its_own_port_and_through_no_proxy(server):
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    [check] = re.findall(r'^HEALTHCHECK .*\\\n +CMD \["python", "-c", "(.*)"\]$', text, re.MULTILINE)
    proxy = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "no_proxy": "127.0.0.0/8"}
    for port, code in ((server.port, 0), (9, 1)):
        environment = os.environ | proxy | {"BERTPORT_PORT": str(port)}
        done = subprocess.run([sys.executable, "-c", check], env=environment, capture_output=True, check=False)
        assert done.returncode == code
