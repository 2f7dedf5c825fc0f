"""The wheel, built and installed as a user would, outside the checkout and without PyTorch."""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import hatch_sbom
from bertport.runtime.bundle.reading import read_manifest
from dev import AREAS
from tests.telemetry import at_home, traces

ROOT = Path(__file__).parents[1]
LIMIT_MB = {True: 60, False: 30}
"""Compressed size of the wheel at most, by whether fp32 is what `load()` takes."""
DEFAULT = "bertport/runtime/default/"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(*command, cwd):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [str(each) for each in command], cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )


def succeed(*command, cwd):
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    succeed(sys.executable, "-m", "build", "--wheel", "--outdir", out, ROOT, cwd=out)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The programs of a fresh environment that holds bertport[cpu] and what it asks for."""
    venv = tmp_path_factory.mktemp("fresh") / "venv"
    succeed(sys.executable, "-m", "venv", venv, cwd=venv.parent)
    programs = venv / ("Scripts" if os.name == "nt" else "bin")
    succeed(programs / "python", "-m", "pip", "install", "-qq", f"{wheel}[cpu]", cwd=venv.parent)
    return programs


def test_the_wheel_holds_the_namespace_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    version = wheel.name.split("-")[1]
    assert {name.split("/")[0] for name in names} == {"bertport", f"bertport-{version}.dist-info"}
    assert "bertport/__init__.py" not in names
    assert {name.split("/")[1] for name in names if name.startswith("bertport/")} >= {"runtime", "export"}
    assert f"bertport-{version}.dist-info/licenses/LICENSE" in names


PROGRAM = """
from collections.abc import Iterator
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

from bertport.measure.budget import parse_budget
from bertport.runtime import Model, load
from bertport.runtime.tasks.answers import Answer, Choice, Entity, FilledMask, NextSentence, RankedText, ScoredLabel
from bertport.runtime.tasks.answers import SentenceOrder, TokenLabel, ZeroShot
from bertport.runtime.errors import BertportError

model = assert_type(load("bundle", threads=1), Model)
best: list[FilledMask] = model.fill_mask("a [MASK]", top_k=3)
assert_type(best[0]["token_str"], str)
assert_type(model.next_sentence("a", "b"), NextSentence)
assert_type(model.next_sentence("a", "b")["follows"], bool)
assert_type(model.next_sentence(["a"], ["b"]), list[NextSentence])
assert_type(model.sentence_order("a", "b")["in_order"], bool)
assert_type(model.sentence_order(["a"], ["b"]), list[SentenceOrder])
assert_type(model.replaced_tokens("a"), list[TokenLabel])
assert_type(model.replaced_tokens(["a"], ignore_labels=["original"]), list[list[TokenLabel]])
assert_type(model.classify("a"), ScoredLabel)
assert_type(model.classify(["a"], ["b"]), list[ScoredLabel])
assert_type(model.classify("a", "b", top_k=None), list[ScoredLabel])
assert_type(model.classify(["a"], top_k=2), list[list[ScoredLabel]])
assert_type(model.tag("a"), list[TokenLabel])
assert_type(model.tag(["a"], aggregation_strategy="first"), list[list[Entity]])
assert_type(model.zero_shot("a", "b, c"), ZeroShot)
assert_type(model.zero_shot(["a"], ["b"])[0]["scores"], list[float])
assert_type(model.answer("a", "b c"), Answer)
assert_type(model.answer(["a"], "b c"), list[Answer])
assert_type(model.embed(["a"]), NDArray[np.float32])
assert_type(model.choose("a", ["b", "c"]), Choice)
assert_type(model.rank("a", ["b", "c"], top_k=1), list[RankedText])
assert_type(model.predict("multiple-choice", [{}]), Iterator[Choice])
assert_type(model.mask_token, str | None)
assert_type(model.features("a"), NDArray[np.float32])
assert_type(model.features(["a"]), list[NDArray[np.float32]])
assert_type(model.features(["a"], pooling="cls", normalize=True), NDArray[np.float32])
assert_type(model.predict("features", ["a"]), Iterator[NDArray[np.float32]])
assert_type(model.predict("next-sentence", [("a", "b")]), Iterator[NextSentence])
assert_type(model.describe(), dict[str, Any])
assert_type(parse_budget("top1=0.98"), dict[str, float])
try:
    model.features(3)
except BertportError as error:
    print(error.message)
"""


def test_a_program_that_uses_the_wheel_is_type_checked(wheel, installed, tmp_path):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[1] for name in names if name.endswith("/py.typed")} == set(AREAS)
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\n", encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--python-executable", installed / "python", "program.py"]
    said = run(*command, cwd=tmp_path).stdout.splitlines()
    wrong = 1 + PROGRAM.splitlines().index("    model.features(3)")
    errors = [line for line in said if ": error:" in line]
    assert [line.split(": error:")[0] for line in errors] == [f"program.py:{wrong}"], said
    assert 'No overload variant of "features" of "PretrainingMethods" matches argument type "int"' in errors[0]


def test_the_wheel_holds_the_sample_texts(wheel):
    for name in ("README.md", "calibration.txt", "evaluation.txt"):
        assert zipfile.ZipFile(wheel).read(f"bertport/measure/data/{name}") == (ROOT / "data" / name).read_bytes()


def test_the_wheel_holds_what_load_takes_of_the_default_bundle_and_no_other_graph(wheel):
    whole = json.loads((ROOT / "models" / "default" / "manifest.json").read_text(encoding="utf-8"))
    archive = zipfile.ZipFile(wheel)
    content = archive.read(f"{DEFAULT}manifest.json")
    manifest = json.loads(content)
    found = {name.removeprefix(DEFAULT) for name in archive.namelist() if name.startswith(DEFAULT)}
    assert found == {"manifest.json", "README.md", *manifest["files"]}
    serving = manifest["variants"][manifest["default_variant"]]
    graphs = {name for name in found if name.startswith("onnx/")}
    assert graphs == {serving["file"], *serving["external_data"]}
    assert whole["default_variant"] == manifest["default_variant"]
    assert whole | {each: manifest[each] for each in ("digest", "variants", "files")} == manifest
    assert read_manifest(content).digest == manifest["digest"] != whole["digest"]  # another bundle: fewer files
    assert serving == whole["variants"][whole["default_variant"]]


def test_the_wheel_is_small_enough(wheel):
    manifest = json.loads(zipfile.ZipFile(wheel).read(f"{DEFAULT}manifest.json"))
    assert wheel.stat().st_size <= LIMIT_MB[manifest["default_variant"] == "fp32"] * 1e6


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory):
    """The wheel once more: of a copy elsewhere whose files have other times and modes, in another time zone."""
    copy, out = tmp_path_factory.mktemp("the copy"), tmp_path_factory.mktemp("again")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *AREAS, *BUILT_OF]
    tracked = subprocess.check_output(command, cwd=ROOT, text=True)
    for name in filter(None, tracked.split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
        (copy / name).chmod(0o600)
        os.utime(copy / name, (1_000_000_000, 1_000_000_000))
    environment = {**os.environ, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, copy]
    subprocess.run(build, env=environment, capture_output=True, check=True)
    return next(out.glob("*.whl"))


BUILT_OF = ("*.py", "*.toml", "README.md", "LICENSE", "THIRD_PARTY.md", ".gitignore", "models/default", "data")
"""Patterns of the files that the wheel is built of, beside the areas."""


def test_it_is_the_same_to_the_byte_when_it_is_built_again(wheel, rebuilt):
    assert rebuilt.name == wheel.name
    one, two = zipfile.ZipFile(wheel), zipfile.ZipFile(rebuilt)
    place = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    if one.read(f"{place}/WHEEL") == two.read(f"{place}/WHEEL"):
        assert sha256(rebuilt.read_bytes()) == sha256(wheel.read_bytes())
    # `wheel` is built by the newest backend and `rebuilt` by the one that is here, and these two files name it.
    names = [entry.filename for entry in one.infolist() if entry.filename not in (f"{place}/WHEEL", f"{place}/RECORD")]
    entries = [
        [
            (archive.getinfo(name).date_time, archive.getinfo(name).external_attr, sha256(archive.read(name)))
            for name in names
        ]
        for archive in (one, two)
    ]
    assert entries[0] == entries[1]
    assert one.namelist() == two.namelist()


def test_its_bill_of_materials_is_valid_and_lists_what_it_carries(wheel):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    archive = zipfile.ZipFile(wheel)
    place = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    text = archive.read(f"{place}/sboms/{hatch_sbom.NAME}").decode()
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"SHA-256"', '"SHA-257"')) is not None
    bill = json.loads(text)
    files = {
        each["name"]: each["hashes"][0]["content"] for part in bill["components"] for each in part.get("components", ())
    }
    carried = [name for name in archive.namelist() if name.startswith(tuple(row.place for row in hatch_sbom.CARRIED))]
    assert files == {name: sha256(archive.read(name)) for name in carried}
    model = next(part for part in bill["components"] if part["name"] == hatch_sbom.MODEL)
    assert model["version"] == json.loads(archive.read(f"{DEFAULT}manifest.json"))["digest"]
    metadata = Parser().parsestr(archive.read(f"{place}/METADATA").decode())
    wanted = {canonicalize_name(Requirement(each).name) for each in metadata.get_all("Requires-Dist")}
    asked = {part["name"]: part["scope"] for part in bill["components"] if "scope" in part}
    assert asked.keys() == wanted
    assert {name for name, scope in asked.items() if scope == "required"} == {"numpy", "tokenizers", "click"}
    for name in ("LICENSE", "THIRD_PARTY.md"):
        assert archive.read(f"{place}/licenses/{name}") == (ROOT / name).read_bytes()


def test_the_installed_bundle_is_whole(installed, tmp_path):
    where = succeed(
        installed / "python",
        "-c",
        "from bertport.runtime.bundle.default import *; print(default_bundle())",
        cwd=tmp_path,
    ).stdout.strip()
    succeed(installed / "bertport", "verify", where, cwd=tmp_path)


def test_the_default_answers_far_from_the_checkout(installed, tmp_path):
    answer = succeed(installed / "bertport", "fill-mask", "Paris is the [MASK] of France.", "--json", cwd=tmp_path)
    here = succeed(
        Path(sys.executable).with_name("bertport"),
        "fill-mask",
        "Paris is the [MASK] of France.",
        "--json",
        cwd=tmp_path,
    )
    assert json.loads(answer.stdout) == json.loads(here.stdout)
    where = succeed(
        installed / "python",
        "-c",
        "import bertport.runtime as r; print(r.__file__, r.load().bundle.path)",
        cwd=tmp_path,
    )
    assert str(ROOT) not in where.stdout


@pytest.mark.parametrize("setting", [None, "0"])
def test_nothing_is_left_at_home_unless_the_user_lets_it(installed, tmp_path, setting):
    """ONNX Runtime's telemetry writes a device id and a queue of events when it runs; it may only where it is asked."""
    home = tmp_path / "home"
    home.mkdir()
    environment = at_home(home, setting)
    lines = tmp_path / "lines.jsonl"
    lines.write_text('"a [MASK]"\n', encoding="utf-8")
    for command in (
        ("fill-mask", "a [MASK]"),
        ("next-sentence", "a", "b"),
        ("features", "a"),
        ("predict", "fill-mask", lines),
        ("inspect",),
        ("verify",),
        ("doctor",),
    ):
        done = subprocess.run(
            [installed / "bertport", *command],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout
        assert not setting or command != ("doctor",) or "left on by ORT_DISABLE_TELEMETRY=0" in done.stdout
    assert bool(traces(home)) is bool(setting)
    assert setting or not list(home.iterdir())


def test_the_server_leaves_nothing_at_home(wheel, installed, tmp_path):
    succeed(installed / "python", "-m", "pip", "install", "-qq", f"{wheel}[cpu,serve]", cwd=tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    command = [installed / "bertport", "serve", "--port", "0"]
    with subprocess.Popen(command, env=at_home(home), cwd=tmp_path, stderr=subprocess.PIPE, text=True) as server:
        try:
            ready = next((line for line in server.stderr if '"listening"' in line), None)
        finally:
            server.terminate()
            server.communicate(timeout=60)
    assert ready
    assert server.returncode == 0
    assert not list(home.iterdir())


def test_neither_torch_nor_the_export_tools_are_there(installed, tmp_path):
    listed = succeed(installed / "python", "-m", "pip", "list", "--format=json", cwd=tmp_path)
    names = {each["name"].lower() for each in json.loads(listed.stdout)}
    assert not names & {"torch", "transformers", "optimum", "optimum-onnx", "onnx"}
    assert "onnxruntime" in names


@pytest.fixture(scope="module")
def another(tmp_path_factory):
    """The interpreter of a fresh environment that holds nothing but pip."""
    venv = tmp_path_factory.mktemp("another") / "it's a venv"
    succeed(sys.executable, "-m", "venv", venv, cwd=venv.parent)
    return venv / ("Scripts" if os.name == "nt" else "bin") / "python"


@pytest.fixture(scope="module")
def index(wheel, tmp_path_factory):
    """The URL of a package index that has bertport."""
    root = tmp_path_factory.mktemp("index")
    (root / "bertport").mkdir()
    shutil.copy(wheel, root / "bertport")
    handler = partial(QuietHandler, directory=str(root))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


SAYS = "import sys; from bertport.runtime.installation import install_command; print(install_command(sys.argv[1]))"


def says_and_does(python, wanted, *options, cwd, extra="serve", package="starlette"):
    """Check the line that adds an extra, and that pip can do what it says."""
    line = succeed(python, "-c", SAYS, extra, cwd=cwd).stdout.strip()
    assert line == f"{shlex.quote(str(python))} -m pip install {wanted}"
    done = succeed("bash", "-c", shlex.join(["eval", f"{line} --dry-run", *options]), cwd=cwd)
    assert re.search(rf"^Would install .*\b{package}-", done.stdout, re.MULTILINE | re.IGNORECASE)


def test_the_line_that_adds_an_extra_to_a_wheel_file(wheel, installed, tmp_path):
    # Another test adds the server to this environment, and none adds what draws reports.
    says_and_does(installed / "python", f"'{wheel}[compare]'", cwd=tmp_path, extra="compare", package="jinja2")


@pytest.mark.parametrize("origin", ["editable", "file that is gone", "index"])
def test_the_line_that_adds_an_extra_elsewhere(origin, wheel, another, index, tmp_path):
    held = tmp_path / wheel.name
    shutil.copy(wheel, held)
    version = wheel.name.split("-")[1]
    given, options, wanted = {
        "editable": (("--editable", ROOT), (), f"-e '{ROOT}[serve]'"),
        "file that is gone": ((held,), (), f"'bertport[serve]=={version}'"),
        "index": (("bertport", "--pre", "--index-url", index), ("--extra-index-url", index), "'bertport[serve]'"),
    }[origin]
    succeed(another, "-m", "pip", "install", "-qq", "--no-deps", "--force-reinstall", *given, cwd=tmp_path)
    held.unlink()
    says_and_does(another, wanted, *options, cwd=tmp_path)


def test_a_missing_extra_is_one_sentence_that_says_what_to_install(installed, tmp_path):
    (tmp_path / "checkpoint").mkdir()
    done = run(installed / "bertport", "export", "checkpoint", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert re.search(r"pip install '/.*\.whl\[(cpu,)?export\]'\n$", done.stderr)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
