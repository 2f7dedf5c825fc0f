"""Sites in headless Chromium: answers beside Python's, visits without a network, and what goes wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
import shutil
import time
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from bertport.runtime import load
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.writer import write_manifest
from bertport.serve.site import web_runtime
from bertport.serve.site.cli import site
from tests import browser, npm

pytestmark = [pytest.mark.slow, pytest.mark.node, pytest.mark.timeout(1500)]

PACKAGE = f"onnxruntime-web@{web_runtime.PINNED.version}"
ATOL = 1e-4
"""On probabilities of fp32: another build of ONNX Runtime, and softmax in float64."""
WITHIN = 0.02
"""On probabilities of INT8: sums of float32 in another order move activations across the border of two steps."""


WILD = {"<sha256>": "[0-9a-f]{64}", "<number>": r"\d+", "<reason>": r"[^\n]{1,120}"}
NO_SCRIPT = "A script of this page cannot be loaded: load the page again, or copy the whole site there again."
SENTENCES = {
    "changed": "onnx/model.onnx was changed after it was written (its SHA-256 is <sha256> and manifest.json says "
    "<sha256>): copy the bundle again, or export again",
    "missing": "onnx/model.onnx cannot be read (the server says 404 of it): copy the bundle whole, or export again",
    "operators": 'variant "portable" has operators that ONNX Runtime\'s CPU does not know (of com.nvidia): use another '
    "bundle",
    "nowasm": "runtime/ort-wasm-simd-threaded.wasm cannot be read (the server says 404 of it): copy the site whole, or "
    "make it again",
    "changedwasm": "runtime/ort-wasm-simd-threaded.wasm was changed after it was written (its SHA-256 is not that of "
    "site.json): copy the site again, or make it again with bertport site",
    "cut": "bundle/onnx/model.onnx broke off on its way (<reason>): load the page again",
    **dict.fromkeys(("noscript", "halfscript"), NO_SCRIPT),
    "listing": "site.json is damaged: copy the site there again, or make it again with bertport site.",
    "file": "This page was opened as a file, from which browsers load no modules: serve its directory, for instance "
    "with python -m http.server, and open http://localhost:8000.",
    "insecure": "This page came over http, and browsers do not let a page compute hashes there: serve it over HTTPS, "
    "or open it on localhost.",
    "no WebAssembly": "This browser runs no WebAssembly, or it is switched off, and the model needs it: switch it on, "
    "or use another browser.",
    "memory": 'this browser does not have enough memory for variant "int8-dynamic", whose files have <number> MB and '
    "which needs several times that: close other tabs, or use a device with more (<reason>)",
}
"""What the page says where something is wrong: the whole of it, but for what `WILD` stands for."""


def write(bundle, output, *options):
    """Write a site as the command does."""
    package = npm.installed(PACKAGE, "onnxruntime-web") / "node_modules" / "onnxruntime-web"
    arguments = [str(bundle), "--output", str(output), "--runtime", str(package), *options]
    site.main(arguments, prog_name="bertport site", standalone_mode=False)


def headers_of(directory):
    """The headers that a site's own _headers asks of its server."""
    lines = (directory / "_headers").read_text().splitlines()
    return [tuple(line.strip().split(": ", 1)) for line in lines if line.startswith(" ") and ": " in line]


@contextmanager
def serving(directory, renew):  # noqa: C901 — one rule for each of its directories
    """A plain server of files; a POST calls `renew` with its path.

    headers/ is sent with the site's headers, aged/ with leave to keep it for a day, of slow/ the WebAssembly for a GPU
    after two seconds, and of graphs of cut/ the beginning.
    """

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(directory))

        def end_headers(self):
            if self.path.startswith("/headers/"):
                for name, value in headers_of(directory / "headers"):
                    self.send_header(name, value)
            if self.path.startswith("/aged/"):
                self.send_header("Cache-Control", "max-age=86400")
            super().end_headers()

        def do_GET(self):
            if self.path.startswith("/slow/") and self.path.endswith(".asyncify.wasm"):
                time.sleep(2)
            super().do_GET()

        def copyfile(self, source, outputfile):
            if self.path.startswith("/cut/") and self.path.endswith(".onnx"):
                outputfile.write(source.read(1000))
            else:
                super().copyfile(source, outputfile)

        def do_POST(self):
            renew(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def needing_other_operators(site):
    """Change a site's bundle, all hashes mended, so that its variants need operators of another runtime."""
    bundle = Bundle.open(site / "bundle")
    variants = {
        name: dataclasses.replace(
            variant, requires=dataclasses.replace(variant.requires, operator_domains={"ai.onnx": 17, "com.nvidia": 1})
        )
        for name, variant in bundle.manifest.variants.items()
    }
    write_manifest(bundle.path, dataclasses.replace(bundle.manifest, variants=variants))
    listing = json.loads((site / "site.json").read_text())
    content = (bundle.path / "manifest.json").read_bytes()
    listing["digest"] = Bundle.open(bundle.path).digest
    listing["files"]["bundle/manifest.json"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (site / "site.json").write_text(json.dumps(listing))


def flip(path):
    """Change a byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def in_characters(value):
    return json.loads(json.dumps(value, default=lambda array: array.tolist()))


def assert_alike(theirs, ours, within):
    """Compare answers: names exactly, numbers within a tolerance."""
    if isinstance(ours, dict):
        assert theirs.keys() == ours.keys()
        for key in ours:
            assert_alike(theirs[key], ours[key], within)
    elif isinstance(ours, list):
        assert len(theirs) == len(ours)
        for a, b in zip(theirs, ours, strict=True):
            assert_alike(a, b, within)
    elif isinstance(ours, float):
        assert theirs == pytest.approx(ours, abs=within)
    else:
        assert theirs == ours


def test_sites(head_bundles, tmp_path):
    served = tmp_path / "served"
    served.mkdir()
    default = default_bundle()
    write(default, served / "good", "--variant", "int8-dynamic", "--variant", "portable")
    for name, bundle in head_bundles.items():
        write(bundle, served / f"head-{name}", "--variant", "portable")
    small = served / "head-classifier"
    wrong = ("changed", "missing", "cut", "operators", "nowasm", "changedwasm", "noscript", "halfscript", "listing")
    for name in (*wrong, "headers", "renewed", "aged"):
        shutil.copytree(small, served / name)
    write(head_bundles["classifier"], served / "slow", "--variant", "portable", "--variant", "fp32")
    flip(served / "changed/bundle/onnx/model.onnx")
    flip(served / "changedwasm/runtime/ort-wasm-simd-threaded.wasm")
    (served / "missing/bundle/onnx/model.onnx").unlink()
    needing_other_operators(served / "operators")
    (served / "nowasm/runtime/ort-wasm-simd-threaded.wasm").unlink()
    (served / "noscript/client.js").unlink()
    script = served / "halfscript/client.js"
    script.write_bytes(script.read_bytes()[: script.stat().st_size // 2])
    listed = served / "listing/site.json"  # JSON still, with another key
    listed.write_bytes(listed.read_bytes().replace(b'"variants"', b'"wariants"'))
    (served / "headers/bundle/README.md").unlink()

    titles = (f"version {number}" for number in itertools.count(1))

    def renew(path):
        bundle, title = ("tagger", "another bundle") if path == "/aged" else ("classifier", next(titles))
        options = ("--variant", "portable", "--title", title, "--overwrite")
        write(head_bundles[bundle], served / path.strip("/"), *options)

    with serving(served, renew) as url:
        seen = browser.drive(Path(__file__).with_name("site.mjs"), url, tmp_path)
    check_page(seen, url)
    assert seen["offlineCard"] == (served / "good/bundle/README.md").read_text(encoding="utf-8")
    check_answers(seen, default, head_bundles)
    assert seen["errors"].keys() == SENTENCES.keys()
    for name, sentence in SENTENCES.items():
        pattern = re.escape(sentence)
        for mark, wild in WILD.items():
            pattern = pattern.replace(mark, wild)
        assert re.fullmatch(pattern, seen["errors"][name]), seen["errors"][name]


def check_page(seen, url):
    """See that the page did what it should while it was used."""
    assert seen["complaints"] == []
    assert seen["hosts"] == [url.rstrip("/")]
    assert "hold: ids of 6 texts" in seen["proof"]
    assert "No mask_token" in seen["wrong"]
    assert seen["checked"].startswith("Every file of it was compared")
    assert seen["meanwhile"] == ["Loading …", "", ""]
    ready = "Ready: it answers in this browser."
    assert seen["chosen"] == [ready, "on the CPU, 1 thread", True]
    assert seen["stays"] == [ready, True]
    assert seen["early"] == [ready, 1]
    assert seen["noRoom"] == [ready, "Not all of it is kept here: the next visit needs the network."]
    assert seen["queried"] == ready
    stopped = "the part of this page that runs the model has stopped (out of memory): load the page again"
    assert seen["stopped"] == [stopped, stopped]
    assert seen["frames"]["longest"] < max(100, seen["frames"]["milliseconds"] / 4)
    # Without headers there is one thread, until the service worker gives them; with the server's there are more.
    assert seen["first"] == "on the CPU, 1 thread"
    assert (seen["isolated"], seen["offline"][:5]) == (True, "Ready")
    threads = min(4, seen["cores"])
    assert seen["second"] == seen["headers"] == f"on the CPU, {threads} thread{'s' if threads > 1 else ''}"
    assert len(seen["offlineWords"]) == 5
    assert len(seen["caches"]) == 1
    assert seen["aged"] == ready
    assert [len(kept) for kept in seen["renewed"]] == [1] * 6, seen["renewed"]
    assert seen["grounds"][0] != seen["grounds"][1]
    assert seen["phoneFits"]
    assert seen["nameless"] == []


def check_answers(seen, default, head_bundles):
    """Compare what the pages said with the runtime's own answers."""
    text = "The [MASK] barked at the [MASK]."
    int8 = load(default, variant="int8-dynamic", provider="cpu")
    assert [[row["token"] for row in rows[:1]] for rows in seen["masks"]] == [
        [row["token"] for row in rows[:1]] for rows in int8.fill_mask(text)
    ]
    pair = int8.next_sentence(
        "He opened the door of the old house and went in.", "It was dark inside, and nobody answered when he called."
    )
    assert_alike(seen["pair"]["probabilities"], in_characters(pair)["probabilities"], WITHIN)
    assert_alike(seen["portable"], load(default, variant="portable", provider="cpu").fill_mask(text), ATOL)
    assert seen["similar"][0] == max(seen["similar"])
    shown = seen["heads"]
    assert {name.split()[0] for name in shown} == set(head_bundles)
    assert all(answer["fits"] for answer in shown.values())
    asked = {
        "classifier text-classification": ("text-classification", {"top_k": None}, lambda fields: fields[0]),
        "tagger token-classification": ("token-classification", {"aggregation_strategy": "simple"}, lambda f: f[0]),
        "answerer question-answering": (
            "question-answering",
            {"top_k": 3},
            lambda fields: {"question": fields[0], "context": fields[1]},
        ),
        "ranker text-ranking": (
            "text-ranking",
            {},
            lambda fields: {"query": fields[0], "documents": fields[1].split("\n")},
        ),
        "chooser multiple-choice": (
            "multiple-choice",
            {},
            lambda fields: {"prompt": fields[0], "choices": fields[1].split("\n")},
        ),
        "embedder sentence-similarity": (
            "sentence-similarity",
            {},
            lambda fields: {"source_sentence": fields[0], "sentences": fields[1].split("\n")},
        ),
    }
    for name, (task, parameters, given) in asked.items():
        model = load(head_bundles[name.split()[0]], variant="portable", provider="cpu")
        [ours] = list(model.predict(task, [given(shown[name]["fields"])], **parameters))
        theirs = shown[name]["json"]
        assert_alike(theirs[0] if task == "text-classification" else theirs, in_characters(ours), ATOL)
