"""The page at `/` in headless Chromium, on the default bundle and on bundles of fine-tuned heads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from bertport.runtime.bundle.default import default_bundle
from tests import browser
from tests.local_clients import ONLINE
from tests.serve.running import Running

SCREENSHOTS = os.environ.get("BERTPORT_SCREENSHOTS")
"""Directory for the screenshots: docs/images, to renew those of the page."""


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


def test_no_name_ends_the_quotes_of_a_command_that_the_page_offers():
    """encodeURIComponent leaves the apostrophe, which ends a word of a shell, as it is."""
    page = (files("bertport.serve.api") / "page" / "page.js").read_text(encoding="utf-8")
    [encoded] = [line for line in page.splitlines() if "encodeURIComponent" in line and not line.startswith("//")]
    assert encoded == """const encoded = (text) => encodeURIComponent(text).replaceAll("'", "%27");"""
    assert page.count("encoded(variant)") == 4
    assert "map(encoded)" in page


@pytest.mark.slow
@pytest.mark.node
@pytest.mark.timeout(900)
def test_the_page(tmp_path):
    screenshots = Path(SCREENSHOTS).resolve() if SCREENSHOTS else tmp_path
    screenshots.mkdir(parents=True, exist_ok=True)
    with Running(default_bundle()) as server:  # fp32 and INT8 side by side, warm
        seen = browser.drive(Path(__file__).with_name("page.mjs"), f"{server.url}/", screenshots)
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
    assert seen["variants"] == [variant["variant"] for variant in variants]
    assert seen["words"] == [word["token_str"] for word in wanted]
    assert seen["widths"] == sorted(seen["widths"], reverse=True)
    assert all("ms in the model" in timing for timing in seen["timings"])
    default = next(variant["variant"] for variant in variants if variant["default"])
    assert [word["token"] for word in seen["json"][default]] == [word["token"] for word in wanted]
    assert "No mask_token" in seen["wrong"]
    assert seen["follows"] == "The second text follows."
    assert sorted(seen["labels"]) == ["is_next", "not_next"]
    assert seen["similar"][0] == "Someone plays an instrument."
    assert seen["grounds"][0] != seen["grounds"][1]
    assert any("/v2/models/{name}/infer" in operation for operation in seen["operations"])


@pytest.mark.slow
@pytest.mark.node
@pytest.mark.timeout(900)
def test_the_page_of_fine_tuned_heads(head_bundles, tmp_path):
    named = [f"{name}={path}" for name, path in head_bundles.items()]
    with Running(*named, "--variant", "fp32", "--no-warm-up") as server:
        seen = browser.drive(Path(__file__).with_name("page-heads.mjs"), f"{server.url}/", tmp_path)
        for name in ("classifier text-classification", "ranker text-ranking"):  # with the Hub's client, and without
            command = [sys.executable, "-c", seen["shown"][f"desk {name}"]["python"]]
            ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=ONLINE)
            assert "score" in ran.stdout
        assert server.stop() == 0
    assert seen["complaints"] == []
    assert seen["hosts"] == [server.url]
    shown = seen["shown"]
    assert {name.removeprefix("desk ") for name in shown if name.startswith("desk ")} == {
        *(f"{name} sentence-similarity" for name in head_bundles),
        "classifier text-classification",
        "classifier zero-shot-classification",
        "ranker text-classification",
        "ranker text-ranking",
        "tagger token-classification",
        "answerer question-answering",
        "chooser multiple-choice",
        "embedder fill-mask",
        "embedder next-sentence",
    }
    for name, answer in shown.items():
        assert (answer["wrong"], answer["fits"]) == ([], True), name
        assert len(answer["words"]) == len(answer["scores"])
    for screen in ("desk", "dark", "phone"):
        labels = shown[f"{screen} classifier text-classification"]
        assert labels["words"] == [row["label"] for row in labels["json"][0]]
        assert labels["title"] == labels["words"][:1]
        entities = shown[f"{screen} tagger token-classification"]
        assert entities["marks"]
        assert entities["words"] == [f"{row['word']}: {row['entity_group']}" for row in entities["json"]]
        answers = shown[f"{screen} answerer question-answering"]
        best = answers["json"][0]
        assert (answers["title"], answers["marks"]) == ([best["answer"]], [best["answer"]])
        assert best["answer"] in answers["text"][0]
        ranked = shown[f"{screen} ranker text-ranking"]
        assert ranked["ranks"] == ["1.", "2.", "3."]
        assert ranked["scores"] == sorted(ranked["scores"], reverse=True)
        choices = shown[f"{screen} chooser multiple-choice"]
        assert choices["title"] == [choices["json"]["choice"]]
        assert choices["title"][0] in choices["words"]
        alike = shown[f"{screen} embedder sentence-similarity"]
        assert (alike["title"], len(alike["words"])) == (["similarity"], 3)
    astral = seen["astral"]
    assert astral["marks"] == [astral["text"][row["start"] : row["end"]] for row in astral["json"]]
