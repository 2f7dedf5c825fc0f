"""The container recipe and the systemd unit: linted, because they cannot be built here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from bertport.serve.cli import serve

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


def test_they_name_options_that_there_are():
    known = {option for parameter in serve.params if isinstance(parameter, click.Option) for option in parameter.opts}
    variables = {parameter.envvar for parameter in serve.params if parameter.envvar}
    for path in (each for each in DEPLOY.rglob("*") if each.is_file()):
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"BERTPORT_\w+", text)) <= variables
        for line in text.splitlines():
            if "bertport serve" in line:
                assert set(re.findall(r"--[a-z-]+", line)) - {"--help"} <= known


def test_the_container_runs_as_another_user_than_root_and_without_a_shell():
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^USER \d{4,}:\d{4,}$", text, re.MULTILINE)
    assert 'ENTRYPOINT ["bertport", "serve"]' in text
