"""The pictures of the documentation: the server's page three times, and the top of a comparison's report.

    python -m bench.pictures

Starts `bertport serve` with the embedded model, asks its page in Chromium, and renders docs/reports/default. Writes
docs/images/page-*.png and docs/reports/default/report.png, each below 150 KB. It needs Chromium, Node.js and npm, which
fetches playwright-core.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bench.checkout import ROOT
from bench.node import packages
from bench.pictures.smaller import make_smaller
from bench.reports import REPORTS, photograph
from bench.site.__main__ import PLAYWRIGHT, browser

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGES = ROOT / "docs" / "images"
PATIENCE = 120.0
"""Seconds that the server may take to be ready."""


@contextmanager
def server() -> Iterator[str]:
    """Serve the embedded model for as long as the context lasts; return its address.

    Raises:
        SystemExit: with a sentence, where it is not ready in time.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    command = [sys.executable, "-m", "bertport.runtime", "serve", str(ROOT / "models" / "default"), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + PATIENCE
        while not _ready(url):
            if process.poll() is not None or time.monotonic() > until:
                sys.exit(f"bertport serve was not ready within {PATIENCE:g} s: start it by hand to see why")
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}ready", timeout=5) as answer:  # noqa: S310 — an address of our own
            return bool(answer.status == 200)  # noqa: PLR2004 — OK
    except (urllib.error.URLError, OSError):
        return False


def main() -> None:
    """Run from the command line."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if reason := packages.missing():
        sys.exit(reason)
    modules = packages.installed(PLAYWRIGHT, "playwright-core")
    with tempfile.TemporaryDirectory() as directory:
        with server() as url:
            packages.run(Path(__file__).parent, "node", "page.mjs", str(modules), browser(), url, directory)
        for picture in sorted(Path(directory).glob("*.png")):
            size = make_smaller(picture)
            (IMAGES / picture.name).write_bytes(picture.read_bytes())
            print(f"{(IMAGES / picture.name).relative_to(ROOT)}: {size:,} bytes")
    photograph(REPORTS / "default")


if __name__ == "__main__":
    main()
