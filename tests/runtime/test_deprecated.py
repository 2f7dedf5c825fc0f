"""Paths of 0.1.0 lead to the same objects for one release, and say what to write."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

MOVED = {
    "bertport.runtime.bundle": {
        "bertport.runtime.bundle.directory": ("MANIFEST", "Bundle", "file_sha256"),
        "bertport.runtime.bundle.writer": (
            "describe_files",
            "new_bundle",
            "no_room",
            "refuse_existing",
            "write_manifest",
        ),
    },
    "bertport.runtime.embedded": {"bertport.runtime.bundle.default": ("default_bundle",)},
    "bertport.runtime.providers": {
        "bertport.runtime.providers.table": (
            "AUTO",
            "PROVIDERS",
            "Provider",
            "candidates",
            "onnxruntime",
            "wheel",
        )
    },
    "bertport.runtime.tasks": {
        "bertport.runtime.tasks.table": ("NO_POSITIONS", "TASKS", "Call", "Task", "Work", "bind")
    },
}
CASES = [(old, new, name) for old, news in MOVED.items() for new, names in news.items() for name in names]


@pytest.mark.parametrize(("old", "new", "name"), CASES)
def test_an_old_path_leads_to_the_same_object_and_warns(old, new, name):
    module = importlib.import_module(old)
    with pytest.warns(DeprecationWarning, match=rf"write `from {new} import {name}`") as caught:
        value = getattr(module, name)
    assert value is getattr(importlib.import_module(new), name)
    assert caught[0].filename == __file__  # the line to change


def test_what_was_never_there_is_an_attribute_error():
    for old in MOVED:
        with pytest.raises(AttributeError, match=f"module '{old}' has no attribute 'laod'"):
            importlib.import_module(old).laod  # noqa: B018 — the attribute access is the test


def test_an_import_statement_warns_at_its_own_line_and_new_paths_are_silent():
    program = "from bertport.runtime.bundle import Bundle, directory\nprint(Bundle is directory.Bundle)"
    run = [sys.executable, "-W", "always", "-c", program]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert "<string>:1: DeprecationWarning: bertport.runtime.bundle.Bundle has moved" in done.stderr
    program = "from bertport.runtime.bundle.directory import Bundle\nfrom bertport.runtime.tasks import table"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
