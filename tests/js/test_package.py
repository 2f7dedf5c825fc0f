"""The package for JavaScript: its own tests, its linter, and what it would publish."""

import json
import os

import pytest

from bench.checkout import ROOT
from bench.node import packages
from bench.node.packages import SOURCES, run
from bertport.runtime.bundle.default import default_bundle

slow = [pytest.mark.slow, pytest.mark.node, pytest.mark.timeout(600)]


class TestBuilt:
    pytestmark = slow

    def test_its_own_tests_pass(self, package, monkeypatch):
        monkeypatch.setenv("BERTPORT_BUNDLE", os.fspath(default_bundle()))
        said = run(package, "node", "--test", "build/test/")
        assert int(said.split("# pass ")[1].split()[0]) > 50

    def test_it_has_no_complaint_of_its_linter(self, package):
        run(package, "npm", "run", "check", "--silent")

    def test_what_is_published(self, package):
        [packed] = json.loads(run(package, "npm", "pack", "--dry-run", "--json", "--ignore-scripts"))
        names = {file["path"] for file in packed["files"]}
        assert {"package.json", "README.md", "LICENSE", "build/src/index.js", "build/src/node.d.ts"} <= names
        assert not [name for name in names if name.startswith(("test/", "build/test/", "node_modules/"))]
        assert packed["unpackedSize"] < 250_000


def test_the_core_imports_nothing_of_node():
    """A browser loads all but node.ts."""
    for path in (SOURCES / "src").rglob("*.ts"):
        text = path.read_text()
        if path.name != "node.ts":
            assert '"node:' not in text, path
            assert "process." not in text, path
            assert 'from "onnxruntime' not in text, path


@pytest.mark.slow
@pytest.mark.node
@pytest.mark.timeout(600)
def test_the_page_in_the_wheel_is_what_the_sources_give(tmp_path):
    """`bertport site` gives it out to users who have no Node.js; `python -m bench.node.packages` renews it."""
    packages.site(tmp_path / "page")
    shipped = ROOT / "serve" / "bertport" / "serve" / "site" / "files"

    def held(directory):
        return {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*.*")}

    made = held(tmp_path / "page")
    assert held(shipped).keys() == made.keys()
    assert [name for name, content in held(shipped).items() if content != made[name]] == []
