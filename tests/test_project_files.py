"""The files around the code: what programs of others read of them is what they take, and what they say is so."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from email.parser import Parser
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator
from packaging.requirements import Requirement

import dev
import hatch_sbom
from dev import AREAS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
SCHEMAS = {
    "CITATION.cff": "citation-file-format",
    ".github/ISSUE_TEMPLATE/config.yml": "github-issue-config",
    ".github/dependabot.yml": "dependabot",
    ".github/workflows/release.yml": "github-workflows",
    ".github/workflows/tests.yml": "github-workflows",
    **{f".github/ISSUE_TEMPLATE/{path.name}": "github-issue-forms" for path in FORMS if path.stem != "config"},
}
"""Each file with the schema of who reads it, as the package check-jsonschema brings it."""


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def faults(text, schema):
    """Return the faults that the reader's schema finds in a YAML text."""
    found = find_spec("check_jsonschema")  # importing it takes a second
    if not found:
        pytest.skip("check-jsonschema is not installed")
    vendored = Path(found.submodule_search_locations[0]) / "builtin_schemas" / "vendor" / f"{schema}.json"
    validator = Draft7Validator(json.loads(vendored.read_text(encoding="utf-8")))
    content = yaml.safe_load(text)
    if True in content:  # YAML 1.1, which PyYAML speaks and GitHub does not, reads the key `on` so
        content["on"] = content.pop(True)
    return [fault.message for fault in validator.iter_errors(content)]


@pytest.mark.parametrize("path", SCHEMAS)
def test_who_reads_it_takes_it(path):
    assert not faults(read(path), SCHEMAS[path])


def test_a_form_that_github_would_refuse_is_noticed():
    form = read(".github/ISSUE_TEMPLATE/idea.yml")
    assert faults(form.replace("type: textarea", "type: text"), SCHEMAS[".github/ISSUE_TEMPLATE/idea.yml"])
    assert faults(read("CITATION.cff").replace("title:", "titel:"), SCHEMAS["CITATION.cff"])


def found_by_zizmor(folder):
    """The names of what zizmor finds in a folder of workflows."""
    program = shutil.which("zizmor", path=str(Path(sys.executable).parent)) or shutil.which("zizmor")
    if not program:
        pytest.skip("zizmor is not installed")
    command = [program, "--offline", "--no-progress", "--quiet", "--format=json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {finding["ident"] for finding in json.loads(done.stdout)}


def test_the_workflows_hold_to_what_zizmor_asks(tmp_path):
    folder = ROOT / ".github" / "workflows"
    assert {path.name for path in folder.iterdir()} == {"release.yml", "tests.yml"}
    assert found_by_zizmor(folder) == set()
    text = read(".github/workflows/release.yml")
    text = re.sub(r"@[0-9a-f]{40}", "@main", text).replace("$GITHUB_REF_NAME", "${{ github.ref_name }}")
    (tmp_path / ".github" / "workflows").mkdir(parents=True)
    (tmp_path / ".github" / "workflows" / "release.yml").write_text(text, encoding="utf-8")
    assert found_by_zizmor(tmp_path) >= {"unpinned-uses", "template-injection"}


def test_the_commands_of_the_workflows_are_there():
    for path in (ROOT / ".github" / "workflows").iterdir():
        called = re.findall(r"python3 dev\.py (\w+)", path.read_text(encoding="utf-8"))
        assert set(called) <= dev.COMMANDS.keys()
    steps = yaml.safe_load(read(".github/workflows/tests.yml"))["jobs"]["everything"]["steps"]
    assert [step.get("run") for step in steps][-2:] == ["sudo python3 dev.py system", "bash .ci/run"]
    # Without history a test that has the last release and the working tree take turns is skipped.
    assert steps[0]["with"]["fetch-depth"] == 0


def test_the_citation_is_of_this_version():
    assert yaml.safe_load(read("CITATION.cff"))["version"] == PROJECT["version"]


def tables(page):
    """The rows of each section's table, without its heading, by the section's title."""
    sections = {}
    for section in page.split("\n## ")[1:]:
        rows = re.findall(r"^\|(.*)\|$", section, re.MULTILINE)[2:]
        sections[section.partition("\n")[0]] = [[cell.strip() for cell in row.split("|")] for row in rows]
    return sections


def test_the_page_of_support_says_what_the_project_asks_for():
    page = tables(read("docs/reference/support.md"))
    classifiers = [text.rpartition(" ")[2] for text in PROJECT["classifiers"] if "Python :: 3." in text]
    assert [row[0] for row in page["Python"]] == classifiers
    assert PROJECT["requires-python"] == f">={classifiers[0]}"
    extras = PROJECT["optional-dependencies"]
    asked = {*PROJECT["dependencies"], *(each for wanted in extras.values() for each in wanted)}
    quoted = [row[1].strip("`") for row in page["Packages"]]
    assert len(quoted) >= 7
    assert set(quoted) <= asked
    # One row speaks for both packages of ONNX Runtime.
    assert Requirement(extras["gpu"][0]).specifier == Requirement(extras["cpu"][0]).specifier


def test_what_is_by_others_is_listed_with_its_licence():
    listed = [tuple(row[:3]) for row in tables(read("THIRD_PARTY.md"))["In the wheel"]]
    assert listed == [(row.name, f"`{row.place}`", row.licence) for row in hatch_sbom.CARRIED]
    # A licence among the sources is somebody's: it is listed, or the page names it.
    licences = [path for area in AREAS for path in (ROOT / area).rglob("LICENSE*")]
    assert len(licences) >= 2
    for path in licences:
        place = path.relative_to(ROOT / path.relative_to(ROOT).parts[0]).as_posix()
        assert any(place.startswith(row.place) for row in hatch_sbom.CARRIED) or place in read("THIRD_PARTY.md"), place


def test_a_part_of_the_bill_that_is_not_in_the_wheel_fails_the_build():
    with pytest.raises(ValueError, match="no file of bertport-default under bertport/runtime/default/"):
        hatch_sbom.document("bertport", "1", "Apache-2.0", {}, {})


def test_the_repository_that_builds_it_is_the_address_in_the_metadata(monkeypatch):
    from hatch_build import Address

    hook = Address(str(ROOT), {})
    monkeypatch.delenv("BERTPORT_REPOSITORY", raising=False)
    metadata = {}
    hook.update(metadata)
    assert metadata == {"readme": {"content-type": "text/markdown", "text": read("README.md")}}
    monkeypatch.setenv("BERTPORT_REPOSITORY", "https://example.org/one/fork/")
    hook.update(metadata)
    assert metadata["urls"]["Source"] == "https://example.org/one/fork"
    links = re.findall(r"\]\(([^)]*)\)", metadata["readme"]["text"])
    assert len(links) > 20
    for link in links:  # the package index resolves none of a repository's own
        assert link.startswith("https://")
        path = link.removeprefix("https://example.org/one/fork/blob/HEAD/")
        assert "://" in path or (ROOT / path).exists(), link
    for name in ("Documentation", "Changelog", "Security"):
        address = metadata["urls"][name]
        assert (ROOT / address.removeprefix("https://example.org/one/fork/blob/HEAD/")).is_file()
    monkeypatch.setenv("BERTPORT_REPOSITORY", "git@example.org:one/fork")
    with pytest.raises(ValueError, match=re.escape("BERTPORT_REPOSITORY is 'git@example.org:one/fork': give")):
        hook.update({})


def test_a_release_states_its_repository_in_what_it_builds(tmp_path, monkeypatch):
    from hatchling import build

    release = yaml.safe_load(read(".github/workflows/release.yml"))["jobs"]["build"]["steps"]
    [building] = [step for step in release if "dev.py dist" in step.get("run", "")]
    assert building["env"]["BERTPORT_REPOSITORY"] == "${{ github.server_url }}/${{ github.repository }}"
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("BERTPORT_REPOSITORY", "https://example.org/one/fork")
    written = tmp_path / build.prepare_metadata_for_build_wheel(str(tmp_path)) / "METADATA"
    stated = Parser().parsestr(written.read_text(encoding="utf-8"))
    assert stated["Description-Content-Type"] == "text/markdown"
    assert "](https://example.org/one/fork/blob/HEAD/docs/guide/install.md)" in stated.get_payload()
    urls = stated.get_all("Project-URL")
    assert "Source, https://example.org/one/fork" in urls
    assert len(urls) == 5


def test_nothing_that_a_release_writes_gets_into_the_source_distribution():
    release = yaml.safe_load(read(".github/workflows/release.yml"))["jobs"]["build"]["steps"]
    [building] = [step["run"] for step in release if "dev.py dist" in step.get("run", "")]
    before, _, _ = building.partition("python3 dev.py dist")
    written = re.findall(r" > (\S+)", before)
    # The distribution takes every file of the checkout that .gitignore does not name.
    assert written
    assert all(path.startswith('"$RUNNER_TEMP/') for path in written)
