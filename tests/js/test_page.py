"""The example of docs/reference/javascript.md runs, and prints what the page says."""

import re
from pathlib import Path

import pytest

from bench.node.packages import run
from bertport.runtime.bundle.default import default_bundle

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "javascript.md"


@pytest.mark.slow
@pytest.mark.node
@pytest.mark.timeout(600)
def test_the_example(package, tmp_path):
    [example] = re.findall(r"```js\n(.*?)```\n\nprints `(.*?)`", PAGE.read_text(), re.DOTALL)
    program, printed = example
    (tmp_path / "bundle").symlink_to(default_bundle())
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "bertport").symlink_to(package)
    (tmp_path / "example.mjs").write_text(program)
    assert run(tmp_path, "node", "example.mjs").strip() == printed


def test_the_page_is_short():
    assert len(PAGE.read_text().splitlines()) <= 120
