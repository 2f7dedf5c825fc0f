"""Compare a site's answers in headless Chromium with Python's on held-out texts, and write docs/how-to/site.md.

    python -m bench.site [--check]

200 held-out texts with a word masked, as of `bench.node`, are answered by a site of the default bundle, its portable
graph and int8-dynamic by WebAssembly, and the first few on WebGPU by SwiftShader, which is a GPU in software: for
parity, not for speed. Then every value of int8-dynamic's graph on onnxruntime-web is compared with the same value here.
Writes docs/data/site.json too; it takes a quarter of an hour, and needs Chromium, Node.js and npm, which fetches
packages. With `--check`, nothing is compared, and the exit code is 1 where the page is not what the data say.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from bench.checkout import ROOT, check_section, provenance, read_data, write_section
from bench.node import packages
from bench.node.__main__ import TEXTS, WORDS, masked, same_words, sentences
from bench.site.page import section
from bench.site.trace import trace
from bertport.runtime import load
from bertport.runtime.bundle.default import default_bundle
from bertport.serve.site import web_runtime, writer

PAGE = ROOT / "docs" / "how-to" / "site.md"
DATA = ROOT / "docs" / "data" / "site.json"
HERE = Path(__file__).parent
PLAYWRIGHT = "playwright-core@1.65.1"
RUNS = (("portable", "cpu", TEXTS, 50), ("int8-dynamic", "cpu", TEXTS, 50), ("portable", "gpu", 2, 0))
"""Variant, device, texts, and how many of them are timed one by one."""
HEADERS = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


class Files(SimpleHTTPRequestHandler):
    """A server of files with the headers that threads need."""

    def end_headers(self) -> None:
        """Add the headers."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""


def browser() -> str:
    """Return the path of Chromium."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return found or sys.exit("Chromium is not installed: install it, such as by apt-get install chromium")


def held_out(mask: str) -> list[str]:
    """Return the held-out texts of `bench.node`, of each of which a word is masked."""
    rng = np.random.default_rng(0)
    long = [text for text in sentences("evaluation") if len(text.split()) in WORDS]
    places = sorted(rng.choice(len(long) - 1, size=TEXTS, replace=False).tolist())
    return masked([long[place] for place in places], mask, rng)


def asked(site: Path, requests: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a site answers in Chromium (`ask.mjs` says what requests are)."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(site)))
    Thread(target=server.serve_forever, daemon=True).start()
    modules = packages.installed(PLAYWRIGHT, "playwright-core")
    command = ("ask.mjs", str(modules), browser(), f"http://127.0.0.1:{server.server_port}/")
    try:
        answers: dict[str, Any] = json.loads(packages.run(HERE, "node", *command, standard_input=json.dumps(requests)))
    finally:
        server.shutdown()
        server.server_close()
    return answers


def measure(directory: Path) -> dict[str, Any]:
    """Return all that is compared, of the default bundle."""
    bundle = default_bundle()
    place = packages.installed(f"onnxruntime-web@{web_runtime.PINNED.version}", "onnxruntime-web")
    package = place / "node_modules" / "onnxruntime-web"
    runtime = web_runtime.from_directory(package, web_runtime.names(gpu=True))
    writer.write_site(bundle, directory / "site", ["int8-dynamic", "portable"], runtime)
    texts = held_out(load(bundle).mask_token or "")
    requests: list[dict[str, Any]] = [
        {"variant": variant, "device": device, "texts": texts[:count], "timed": timed}
        for variant, device, count, timed in RUNS
    ]
    said = asked(directory / "site", requests)
    rows = []
    for request, answer in zip(requests, said["answers"], strict=True):
        ours = list(load(bundle, variant=request["variant"], provider="cpu").predict("fill-mask", request["texts"]))
        rows.append(
            {
                "variant": request["variant"],
                "device": request["device"],
                "threads": answer["threads"],
                "fill-mask": same_words(ours, answer["answers"]),
                "golden": {name: answer["proof"][name] for name in ("holds", "outputs")},
                "milliseconds": {
                    "loaded": answer["loaded"],
                    "first_answer": answer["first"],
                    "one_text": answer["single"],
                },
                "texts_per_second": len(request["texts"]) / answer["milliseconds"] * 1000,
            }
        )
    (directory / "trace").mkdir()
    return {
        **provenance(),
        "versions": {
            "chromium": said["chromium"],
            "onnxruntime-web": runtime.version,
            "onnxruntime": version("onnxruntime"),
        },
        "rows": rows,
        "trace": trace(bundle, package, directory / "trace"),
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare the page with the data, and nothing else")
    arguments = parser.parse_args()
    if arguments.check:
        check_section(PAGE, section(read_data(DATA, "bench.site")), "bench.site")
        return
    if reason := packages.missing():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as name:
        data = measure(Path(name))
    DATA.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    write_section(PAGE, section(data))
    print(section(data))


if __name__ == "__main__":
    main()
