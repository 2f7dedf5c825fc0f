"""Compare a site's answers in headless Chromium with Python's on held-out texts, and write docs/how-to/site.md.

    python -m bench.site [--check]

`bertport site` writes a site of the default bundle's int8-dynamic, and one of its portable graph. 200 held-out texts
with a word masked, as of `bench.node`, are answered by WebAssembly, and the first few on WebGPU by SwiftShader, which
is a GPU in software: for parity, not for speed. The logits at the masks are compared too. Visits of the page itself,
from a server that knows no more than files, are timed until it has answered. Then every value of int8-dynamic's graph
on onnxruntime-web is compared with the same value here. Writes docs/data/site.json too; it takes a quarter of an hour,
and needs Chromium, Node.js and npm, which fetches packages. With `--check`, nothing is compared, and the exit code is 1
where the page is not what the data say.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import sys
import tempfile
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from statistics import median
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.checkout import ROOT, check_section, provenance, read_data, write_section
from bench.node import packages
from bench.node.__main__ import TEXTS, WORDS, masked, python, same_words, sentences
from bench.site.page import section
from bench.site.trace import feeds, trace
from bertport.runtime import load
from bertport.runtime.bundle.default import default_bundle
from bertport.serve.site import web_runtime

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from bertport.runtime import Model

PAGE = ROOT / "docs" / "how-to" / "site.md"
DATA = ROOT / "docs" / "data" / "site.json"
HERE = Path(__file__).parent
RUNS = (("portable", "cpu", TEXTS, 50), ("int8-dynamic", "cpu", TEXTS, 50), ("portable", "gpu", 2, 0))
"""Variant, device, texts, and how many of them are timed one by one."""
VISITS = 5
"""Visits of the page that are timed, of each variant."""
HEADERS = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


class Files(SimpleHTTPRequestHandler):
    """A plain server of files."""

    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""


class IsolatedFiles(Files):
    """A server of files with the headers that threads need."""

    def end_headers(self) -> None:
        """Add the headers."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()


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


def web_package() -> Path:
    """Return the directory of onnxruntime-web, as npm unpacks it."""
    place = packages.installed(f"onnxruntime-web@{web_runtime.PINNED.version}", "onnxruntime-web")
    return place / "node_modules" / "onnxruntime-web"


def write_site(bundle: Path, output: Path, package: Path, *variants: str) -> None:
    """Write the site of some variants by the command that users have."""
    command = ["site", str(bundle), "--output", str(output), "--runtime", str(package)]
    command += [argument for variant in variants for argument in ("--variant", variant)]
    python("-m", "bertport.runtime", *command)


@contextmanager
def serving(site: Path, handler: type[Files]) -> Iterator[str]:
    """Serve the files of a site; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(site)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def in_chromium(program: str, url: str, *arguments: str, standard_input: str | None = None) -> Any:  # noqa: ANN401 — what it prints
    """Return what a program of this directory prints of a site in Chromium, as JSON."""
    modules = packages.installed(packages.PLAYWRIGHT, "playwright-core")
    given = (program, str(modules), browser(), url, *arguments)
    return json.loads(packages.run(HERE, "node", *given, standard_input=standard_input))


def asked(site: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Return what a site answers to a request (`ask.mjs` says what these are), and the version of Chromium."""
    with serving(site, IsolatedFiles) as url:
        said = in_chromium("ask.mjs", url, standard_input=json.dumps([request]))
    return {**said["answers"][0], "chromium": said["chromium"]}


def visited(site: Path) -> dict[str, Any]:
    """Return medians of visits of a site's page, the first of each and the second, from a plain server of files."""
    with serving(site, Files) as url:
        visits = in_chromium("visit.mjs", url, str(VISITS))
    return {"visits": VISITS, **{kind: _median([visit[kind] for visit in visits]) for kind in ("first", "second")}}


def _median(visits: Sequence[dict[str, Any]]) -> dict[str, Any]:
    times = {name: median(visit[name] for visit in visits) for name in ("ready", "answered")}
    return {
        **times,
        "slowest": max(visit["answered"] for visit in visits),
        "where": visits[0]["where"],
        "proven": sum(visit["proof"].startswith("The golden vectors hold") for visit in visits),
    }


def logits_of(model: Model, texts: Sequence[str]) -> list[NDArray[np.float32]]:
    """Return the logits at each text's mask, one text a run."""
    found = []
    for text in texts:
        given = feeds(model.tokens, text)
        values = model.graph.run(given, ["logits"])["logits"]
        if "masked_positions" not in model.graph.inputs:  # a portable graph gives them for every token
            values = values[0, given["masked_positions"]]
        found.append(values)
    return found


def within(ours: Sequence[NDArray[np.float32]], theirs: Sequence[str], tolerance: float) -> dict[str, Any]:
    """Return for how many texts all logits are within the golden tolerance, and how far one is at most.

    Args:
        ours: the logits of each text.
        theirs: those of the browser, as `ask.mjs` writes them.
        tolerance: of the variant's logits, as its golden vectors state it.
    """
    decoded = [np.frombuffer(base64.b64decode(text), np.float32) for text in theirs]
    far = [float(np.abs(mine.ravel() - other).max()) for mine, other in zip(ours, decoded, strict=True)]
    held = sum(each <= tolerance for each in far)
    return {"texts": len(far), "within": held, "largest_difference": max(far), "tolerance": tolerance}


def measure(directory: Path) -> dict[str, Any]:
    """Return all that is compared, of the default bundle."""
    before = provenance()  # now, not at the end: the work of this program is none beside it
    bundle = default_bundle()
    package = web_package()
    sites = {variant: directory / variant for variant in dict.fromkeys(variant for variant, *_ in RUNS)}
    for variant, site in sites.items():
        write_site(bundle, site, package, variant)
    texts = held_out(load(bundle).mask_token or "")
    rows, chromium = [], ""
    for variant, device, count, timed in RUNS:
        on_cpu = device == "cpu"
        request = {"variant": variant, "device": device, "texts": texts[:count], "timed": timed, "logits": on_cpu}
        answer = asked(sites[variant], request)
        chromium = answer["chromium"]
        model = load(bundle, variant=variant, provider="cpu")
        row = {
            "variant": variant,
            "device": device,
            "threads": answer["threads"],
            "fill-mask": same_words(list(model.predict("fill-mask", texts[:count])), answer["answers"]),
            "golden": {name: answer["proof"][name] for name in ("holds", "outputs")},
        }
        if on_cpu:
            tolerance = answer["proof"]["outputs"]["logits"]["tolerance"]
            row |= {
                "logits": within(logits_of(model, texts[:count]), answer["logits"], tolerance),
                "page": visited(sites[variant]),
                "one_text_milliseconds": answer["single"],
                "texts_per_second": count / answer["milliseconds"] * 1000,
            }
        rows.append(row)
    (directory / "trace").mkdir()
    return {
        **before,
        "versions": {
            "chromium": chromium,
            "onnxruntime-web": web_runtime.PINNED.version,
            "onnxruntime": version("onnxruntime"),
        },
        "rows": rows,
        "trace": trace(bundle, package, directory / "trace"),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare the page with the data, and nothing else")
    options = parser.parse_args(arguments)
    if options.check:
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
