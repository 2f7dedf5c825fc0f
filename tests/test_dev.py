"""dev.py's environments: what is installed, and with which pip."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import dev
from bertport.runtime.installation import APART
from tests.runtime.test_completion import SHELLS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OLD_PIP = "24.0"
"""The pip of Python 3.11's last releases, which knows no `--group`."""


def test_the_extras_are_those_of_the_project_and_a_cpu():
    # What cannot be beside `cpu`, what no other part needs, and plugins, each in an environment of its own test.
    apart = {"gpu", "ray", "tensorflow", "openvino", "tensorrt-rtx", "webgpu"}
    assert {*dev.EXTRAS, *dev.OPTIMUM_EXTRAS, *apart} == PROJECT["project"]["optional-dependencies"].keys()
    assert set(dev.OPTIMUM_EXTRAS) - set(dev.EXTRAS) == APART


def test_each_environment_is_made_of_groups_and_extras_that_exist():
    for wanted in dev.ENVIRONMENTS.values():
        assert set(wanted.groups) <= PROJECT["dependency-groups"].keys()
        for extras in re.findall(r"\[(.*)\]", " ".join(wanted.requirements)):
            # Never both: pip finds no versions that suit export and export-optimum.
            allowed = (dev.EXTRAS, dev.OPTIMUM_EXTRAS, dev.RAY_EXTRAS)
            assert any(set(extras.split(",")) <= set(whole) for whole in allowed)


def test_the_two_export_extras_differ_in_transformers_and_what_goes_with_it():
    extras = PROJECT["project"]["optional-dependencies"]
    today, optimum = (
        {requirement.name: str(requirement) for requirement in map(Requirement, extras[name])}
        for name in ("export", "export-optimum")
    )
    assert {name for name in today.keys() | optimum.keys() if today.get(name) != optimum.get(name)} == {
        *("huggingface_hub", "optimum", "optimum-onnx", "transformers"),
    }


def test_what_tests_are_skipped_without_is_in_the_environment_that_runs_them_all():
    names = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r'importorskip\("(\w+)', path.read_text(encoding="utf-8"))
    }
    assert len(names) >= 3
    assert not [name for name in names - {"ray"} if not find_spec(name)]  # its tests are those of `dev.py ray`


def test_shells_that_completion_is_tested_in_are_installed():
    assert set(SHELLS) - {"bash"} == dev.SYSTEM.keys()


def test_every_dependency_has_a_floor_that_can_be_installed():
    lines = dev.floors().splitlines()
    assert len(lines) > 20
    assert not [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    asked = [Requirement(each) for name in dev.EXTRAS for each in PROJECT["project"]["optional-dependencies"][name]]
    for name, version in (line.split("==") for line in lines):  # extras may state different floors of a package
        assert all(each.specifier.contains(version) for each in asked if each.name == name), name


def test_the_lowest_versions_are_left_out_where_they_have_no_wheels(monkeypatch, capsys):
    made = []
    monkeypatch.setattr(dev, "environment", made.append)
    monkeypatch.setattr(dev, "NEWEST_OF_FLOORS", (3, 10))
    for name, value in dev.AS_IMPORTED.items():
        monkeypatch.setenv(name, value)  # which `prepare` sets too, and this takes back
    dev.lowest()
    dev.prepare()
    assert made == ["dev", "optimum", "ray", "audit"]
    said = capsys.readouterr().err
    assert said.startswith("dev.py: NOT TESTED: the lowest versions have no wheels for this Python: run dev.py with")
    assert said.count("\n") == 1


def test_tests_keep_bytecode_whatever_the_machine_is_set_to(tmp_path, monkeypatch):
    (tmp_path / "test_kept.py").write_text("import sys\ndef test(): assert not sys.dont_write_bytecode\n")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    dev.pytest(Path(sys.executable), "-p", "no:hypothesispytest", "-p", "no:xdist", tmp_path)


def test_of_two_processes_that_want_an_environment_one_waits(tmp_path):
    lock = tmp_path / ".venv.lock"
    program = f"import dev, pathlib\nwith dev.alone(pathlib.Path({str(lock)!r})): print('held')"
    with dev.alone(lock):
        other = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(1)
    assert other.communicate()[0] == "held\n"


def test_where_an_environment_is_up_to_date_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    venv = tmp_path / ".venv-demo"
    python = dev.executable(venv, "python")
    python.parent.mkdir(parents=True)
    for path in (python, tmp_path / "pyproject.toml"):
        path.touch()
    (venv / dev.STAMP).write_text(dev.fingerprint(dev.ENVIRONMENTS["demo"]))
    before = sorted(tmp_path.rglob("*"))
    assert dev.environment("demo") == venv
    assert sorted(tmp_path.rglob("*")) == before


def test_a_lock_has_every_package_that_is_asked_for_with_hashes_alone():
    locked = [wanted for wanted in dev.ENVIRONMENTS.values() if wanted.lock]
    assert {wanted.lock for wanted in locked} == {f"locks/{path.name}" for path in (ROOT / "locks").iterdir()}
    for wanted in locked:
        entries = re.split(r"^(?=\S)", (ROOT / wanted.lock).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
        pinned = {}
        for entry in entries:
            requirement = Requirement(entry.partition("\\")[0])
            pinned[requirement.name] = str(requirement.specifier).removeprefix("==")
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), requirement
        for asked in map(Requirement, wanted.requirements):
            assert asked.specifier.contains(pinned[asked.name]), asked


@pytest.mark.slow
def test_a_group_is_installed_where_python_brought_an_old_pip(tmp_path, monkeypatch):
    venv = tmp_path / "venv"
    # The interpreter that dev.py would be started with, and not the environment that these tests run in.
    subprocess.run([getattr(sys, "_base_executable", sys.executable), "-m", "venv", venv], check=True)
    python = dev.executable(venv, "python")
    dev.pip(python, f"pip=={OLD_PIP}")
    group = [python, "-m", "pip", "install", "--group", "models"]
    refused = subprocess.run(group, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "no such option: --group" in refused.stderr
    for name, value in dev.AS_IMPORTED.items():
        monkeypatch.setenv(name, value)
    dev.install(venv, dev.Environment("unused", (), groups=("models",)))
    assert not list(venv.rglob("matplotlib/**/*.pyc"))
    subprocess.run([python, "-c", "import matplotlib"], check=True)
    before = subprocess.check_output([python, "-m", "pip", "--version"])
    dev.upgrade_pip(python)  # it is new enough: nothing is fetched
    assert subprocess.check_output([python, "-m", "pip", "--version"]) == before


@pytest.mark.slow
@pytest.mark.parametrize(("extra", "together"), [("export", True), ("export-optimum", False)])
def test_what_needs_transformers_5_can_be_installed_beside_one_of_the_two(extra, together):
    beside = ["-e", f"{ROOT}[cpu,{extra}]", "sentence-transformers>=6"]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-build-isolation", *beside]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode and "ResolutionImpossible" not in done.stderr:
        pytest.skip(f"no index can be asked: {done.stderr.strip().splitlines()[-1]}")
    assert (done.returncode == 0) is together, done.stderr
    if together:
        added = re.search(r"^Would install (.*)$", done.stdout, re.MULTILINE)[1].split()
        assert find_spec("sentence_transformers") or [
            name for name in added if name.startswith("sentence-transformers-")
        ]
        assert not [name for name in added if name.startswith(("transformers-", "huggingface_hub-", "tokenizers-"))]
