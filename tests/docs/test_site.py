"""The documentation's site: it builds from the pages as they are, and a link that leads nowhere fails it."""

import contextlib
import json
import shutil
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

import dev
from tests import browser
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


PAGE = "# Old\n\n![a plot](images/plot.svg) ![a plot](images/history-avx2.svg)\n"
PLOT = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9" fill="white"/></svg>\n'


@pytest.fixture(scope="module")
def versions(built, tmp_path_factory):  # noqa: ARG001 — as above
    """The directory of two versions of a site of few pages, built by the checkout's program: `2.0`, and the tag v1."""
    root = tmp_path_factory.mktemp("project")
    for name in ("docs/build_site.py", "docs/conf.py", "dev.py"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "docs" / "site", root / "docs" / "site")
    pages = {"README": "# Project\n", "docs/README": "# Documentation\n\n## Guide\n\n- [Old](old.md)\n"}
    pages |= {"docs/ARCHITECTURE": "# Rooms\n", "docs/old": PAGE}
    for name, text in pages.items():
        (root / f"{name}.md").write_text(text, encoding="utf-8")
    (root / "docs" / "images").mkdir()
    for name in ("plot", "history-avx2"):
        (root / "docs" / "images" / f"{name}.svg").write_text(PLOT, encoding="utf-8")
    (root / "pyproject.toml").write_text('[project]\nversion = "2.0"\n', encoding="utf-8")
    user = ("-c", "user.name=a", "-c", "user.email=a@b.example")
    for command in (["init"], ["add", "."], [*user, "commit", "-m", "one"], ["tag", "v1"]):
        git = ["git", *command]
        subprocess.run(git, cwd=root, check=True, capture_output=True)
    with (root / "docs" / "README.md").open("a", encoding="utf-8") as lines:
        lines.write("- [New](new.md)\n")
    (root / "docs" / "new.md").write_text("# New\n", encoding="utf-8")
    python = dev.executable(ROOT / dev.ENVIRONMENTS["site"].directory, "python")
    done = subprocess.run(
        [python, "docs/build_site.py", ".", "v1"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return root / "out" / "sites"


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        with contextlib.suppress(BrokenPipeError):  # of a browser that has gone on
            super().do_GET()


@pytest.mark.node
def test_a_browser_goes_from_version_to_version_and_from_light_to_dark(versions, tmp_path):
    assert json.loads((versions / "versions.json").read_text(encoding="utf-8")) == [
        {"name": "2.0", "path": "2.0/"},
        {"name": "v1", "path": "v1/"},
    ]
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(versions))) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/"
            seen = browser.drive(Path(__file__).with_name("site.mjs"), url, tmp_path)
        finally:
            server.shutdown()
    assert seen["complaints"] == []
    assert seen["start"] == "/2.0/README.html"
    assert seen["both"] == {"options": ["2.0", "v1"], "chosen": "2.0", "to": "/v1/docs/old.html"}
    assert seen["one"]["to"].startswith("/v1/")
    assert "new" not in seen["one"]["to"]  # a page that the version lacks leads to the version's first one
    light, dark, chosen = (seen["schemes"][name] for name in ("light", "dark", "chosen"))
    assert light["ground"] == chosen["ground"] != dark["ground"]
    # Plots on a white ground are inverted in the dark; those of the history follow the scheme by themselves.
    assert light["filters"] == chosen["filters"] == ["none", "none"]
    assert dark["filters"] == ["invert(0.92) hue-rotate(180deg)", "none"]
