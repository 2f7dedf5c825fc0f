"""The documentation's site: it builds from the pages as they are, and a link that leads nowhere fails it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dev
from tests.conftest import built_once

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The site as `dev.py site` builds it."""

    def build(path):
        interpreter = getattr(sys, "_base_executable", sys.executable)
        done = subprocess.run([interpreter, "dev.py", "site"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        shutil.copytree(ROOT / "out" / "site", path)

    return built_once(tmp_path_factory, "site", build)


def test_it_has_every_page_and_a_search(built):
    pages = {page.relative_to(ROOT).with_suffix(".html") for page in (ROOT / "docs").rglob("*.md")}
    assert not [page for page in pages if not (built / page).is_file()]
    index = (built / "searchindex.js").read_text(encoding="utf-8")
    assert "docs/guide/quantize" in index
    assert "README.html" in (built / "index.html").read_text(encoding="utf-8")


def test_it_has_the_docstrings_without_torch(built):
    text = (built / "docs" / "reference" / "python.html").read_text(encoding="utf-8")
    for name in ("bertport.runtime.load", "bertport.runtime.Model.fill_mask", "bertport.export.export"):
        assert f'id="{name}"' in text
    assert not list((ROOT / dev.ENVIRONMENTS["site"].directory).rglob("torch-*.dist-info"))


def test_a_link_and_an_anchor_that_lead_nowhere_fail_it(built, tmp_path):  # noqa: ARG001 — the environment is made
    others = (
        ROOT / "data" / "README.md",
        ROOT / "dev.py",  # docs/conf.py reads the areas in it
        *(ROOT / path for path in ("LICENSE", ".github/workflows/release.yml")),  # pages link to these two
    )
    for page in (*ROOT.glob("*.md"), *ROOT.glob("models/**/README.md"), *others):
        (tmp_path / page.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(page, tmp_path / page.relative_to(ROOT))
    for folder in ("docs", "models/default-training", "models/default/quantization"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    page = tmp_path / "docs" / "guide" / "ask.md"
    with page.open("a", encoding="utf-8") as lines:
        lines.write("\n[one](no-such-page.md), [another](install.md#no-such-heading)\n")
    python = dev.executable(ROOT / dev.ENVIRONMENTS["site"].directory, "python")
    build = [python, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "--conf-dir", "docs", ".", "out"]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    found = [line for line in done.stderr.splitlines() if "WARNING" in line]
    assert len(found) == 2, done.stderr
    assert "no-such-page.md" in found[0]
    assert "no-such-heading" in found[1]
