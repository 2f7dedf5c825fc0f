"""The page at `/` in headless Chromium, on the default bundle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bertport.runtime.embedded import default_bundle
from tests.local_clients import ONLINE
from tests.serve.running import Running

ROOT = Path(__file__).parents[2]
PACKAGE = "playwright-core@1.65.1"
SCREENSHOTS = os.environ.get("BERTPORT_SCREENSHOTS")
"""Where to keep the screenshots: docs/images, to renew those of the page."""


def test_the_page_may_load_nothing_from_elsewhere(server):
    import urllib.request

    for path in ("/", "/docs"):
        with urllib.request.urlopen(server.url + path, timeout=60) as answer:  # noqa: S310 — our own
            policy = answer.headers["content-security-policy"]
            text = answer.read().decode()
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "*" not in policy
        assert "http" not in text.replace("http://127.0.0.1:8080", "")
        assert "<script>" not in text
        assert "style=" not in text


@pytest.fixture(scope="module")
def chromium():
    """Debian's Chromium; on a machine of ours, such as CI, it is installed when it is not there."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found and shutil.which("apt-get") and os.geteuid() == 0:
        install = ["apt-get", "install", "--yes", "--no-install-recommends", "chromium"]
        subprocess.run(["apt-get", "update"], check=False, capture_output=True, timeout=300)  # noqa: S607 — as the shell finds it
        subprocess.run(install, check=False, capture_output=True, timeout=600)
        found = shutil.which("chromium")
    if not found:
        pytest.skip("Chromium is not installed")
    return found


@pytest.fixture(scope="module")
def modules():
    """playwright-core from the npm registry: it drives the browser that is there and brings none."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("Node.js and npm are not installed")
    place = ROOT / ".tools" / "playwright-core"
    stamp = place / "installed"
    if not (stamp.is_file() and stamp.read_text() == PACKAGE):
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_text('{"private": true}\n')
        npm = [shutil.which("npm"), "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", PACKAGE]
        done = subprocess.run(npm, cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        stamp.write_text(PACKAGE)
    return place


@pytest.mark.slow
@pytest.mark.node
@pytest.mark.timeout(900)
def test_the_page(chromium, modules, tmp_path):
    screenshots = Path(SCREENSHOTS).resolve() if SCREENSHOTS else tmp_path
    screenshots.mkdir(parents=True, exist_ok=True)
    with Running(default_bundle(), "--variant", "all", "--no-warm-up") as server:
        program = Path(__file__).with_name("page.mjs")
        done = subprocess.run(
            [shutil.which("node"), program, modules, chromium, f"{server.url}/", screenshots],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        seen = json.loads(done.stdout)
        variants = json.loads(server.get("/models")[1])[0]["variants"]
        status, wanted = server.post("/", {"inputs": "He poured her a cup of [MASK].", "parameters": {"top_k": 7}})
        assert status == 200
        # What the page offers to repeat it, repeats it.
        repeated = subprocess.run(["bash", "-c", seen["curl"]], capture_output=True, text=True, check=True, timeout=60)  # noqa: S607 — as a user types it
        assert json.loads(repeated.stdout.split("]")[0] + "]")[0]["token"] == wanted[0]["token"]
        for program_text, said in ((seen["python"], wanted[0]["token_str"]), (seen["pythonPair"], seen["labels"][0])):
            command = [sys.executable, "-c", program_text]
            ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=ONLINE)
            assert said in ran.stdout
        assert server.stop() == 0
    assert seen["complaints"] == []
    assert seen["hosts"] == [server.url]
    assert seen["variants"] == [each["variant"] for each in variants]
    assert seen["words"] == [row["token_str"] for row in wanted]
    assert seen["widths"] == sorted(seen["widths"], reverse=True)
    assert all("ms in the model" in each for each in seen["timings"])
    default = next(each["variant"] for each in variants if each["default"])
    assert [row["token"] for row in seen["json"][default]] == [row["token"] for row in wanted]
    assert "No mask_token" in seen["wrong"]
    assert seen["follows"] == "The second text follows."
    assert sorted(seen["labels"]) == ["is_next", "not_next"]
    assert seen["similar"][0] == "Someone plays an instrument."
    assert seen["grounds"][0] != seen["grounds"][1]
    assert any("/v2/models/{name}/infer" in each for each in seen["operations"])
