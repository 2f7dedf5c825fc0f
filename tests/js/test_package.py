"""The package for JavaScript: its own tests, its linter, and what it would publish."""

import json
import os

import pytest

from bertport.runtime.bundle.default import default_bundle
from tests.js.conftest import SOURCES, run

pytestmark = [pytest.mark.slow, pytest.mark.node, pytest.mark.timeout(600)]


def test_its_own_tests_pass(package, monkeypatch):
    monkeypatch.setenv("BERTPORT_BUNDLE", os.fspath(default_bundle()))
    done = run(package, "node", "--test", "build/test/")
    assert done.returncode == 0, done.stdout
    assert int(done.stdout.split("# pass ")[1].split()[0]) > 50


def test_it_has_no_complaint_of_its_linter(package):
    done = run(package, "npm", "run", "check", "--silent")
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_published(package):
    done = run(package, "npm", "pack", "--dry-run", "--json", "--ignore-scripts")
    [packed] = json.loads(done.stdout)
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
