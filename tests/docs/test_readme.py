"""The README's two commands: the first works on a copy of the checkout with nothing but Python, as shown."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import examples

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
REWRITE = os.environ.get("BERTPORT_REWRITE_DOCS") == "1"
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", ".*_cache", "__pycache__", ".tools", "dist", "build", "out", ".hypothesis"
)


def commands():
    block = re.search(r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return [line.partition("#")[0].strip() for line in block[1].splitlines()]


def test_there_are_two_and_ci_runs_them_and_make_wraps_them():
    assert commands() == ["python3 dev.py demo", "python3 dev.py test"]
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    ran = [line.removesuffix(" </dev/null") for line in lines]
    assert set(commands()) <= set(ran)
    dry = subprocess.run(["make", "-n", "demo", "test"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    assert dry.stdout.splitlines() == commands()


def test_setting_up_needs_nothing_but_the_standard_library():
    program = "import sys, dev; print(*sorted({name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, env={"PATH": ""}
    )
    assert done.stdout.split() == ["__main__", "dev"]


def test_an_unknown_command_is_told_the_known_ones():
    done = subprocess.run([sys.executable, "dev.py", "tset"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage" in done.stderr
    assert " test " in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_first_command_on_a_fresh_copy_prints_what_is_shown(tmp_path):
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    interpreter = getattr(sys, "_base_executable", sys.executable)
    for _ in range(2):  # the second run finds the environment made
        command = [interpreter, "dev.py", "demo", "--answers"]
        done = subprocess.run(command, cwd=copy, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert not done.stderr
    packages = {path.name.partition("-")[0].lower() for path in (copy / ".venv-demo").rglob("*.dist-info")}
    assert "onnxruntime" in packages
    assert not packages & {"torch", "transformers", "optimum", "onnx"}

    text = README.read_text(encoding="utf-8")
    before, shown, after = re.search(r"(.*?```text\n)(.*?)(```.*)", text, re.DOTALL).groups()
    if REWRITE:
        README.write_text(before + done.stdout.strip() + "\n" + after, encoding="utf-8")
    else:
        assert examples.same_output(shown, done.stdout)
