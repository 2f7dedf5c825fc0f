"""The pictures of the documentation: the server's page, the page of a site, and the top of a comparison's report.

    python -m bench.pictures [page | site | report ...]

Starts `bertport serve` with the default model, and asks its page in Chromium; writes a site by `bertport site`, and
asks that; renders docs/reports/default. Writes docs/images/page-*.png, docs/images/site*.png and
docs/reports/default/report.png, each below 150 KB. It needs Chromium, Node.js and npm, which fetches playwright-core
and onnxruntime-web.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bench.checkout import ROOT
from bench.node import packages
from bench.pictures.smaller import make_smaller
from bench.reports import REPORTS, photograph
from bench.serving.server import PYTHON, Process
from bench.site.__main__ import Files, browser, serving, web_package, write_site

IMAGES = ROOT / "docs" / "images"
MODEL = ROOT / "models" / "default"
KINDS = ("page", "site", "report")


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all when none is named")
    kinds = parser.parse_args(arguments).kinds or KINDS
    if unknown := sorted(set(kinds) - set(KINDS)):
        parser.error(f"there is no picture of {unknown[0]!r}: choose {', '.join(KINDS)}")
    if reason := packages.missing():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        if "page" in kinds:
            of_server(directory)
        if "site" in kinds:
            of_site(directory)
        for picture in sorted(directory.glob("*.png")):
            size = make_smaller(picture)
            (IMAGES / picture.name).write_bytes(picture.read_bytes())
            print(f"{(IMAGES / picture.name).relative_to(ROOT)}: {size:,} bytes")
    if "report" in kinds:
        photograph(REPORTS / "default")


def of_server(directory: Path) -> None:
    """Photograph the server's page."""
    server = Process([PYTHON, "-m", "bertport.runtime", "serve", MODEL, "--port", "0"])
    try:
        server.serves()
        drive("page.mjs", f"http://127.0.0.1:{server.port}/", directory)
    finally:
        server.stop()


def of_site(directory: Path) -> None:
    """Photograph the page of a site, from a plain server of files."""
    site = directory / "site"
    write_site(MODEL, site, web_package(), "int8-dynamic", "portable")
    with serving(site, Files) as url:
        drive("site.mjs", url, directory)


def drive(program: str, url: str, directory: Path) -> None:
    """Run a program of this directory on a page.

    Raises:
        SystemExit: with a sentence, where it fails.
    """
    modules = packages.installed(packages.PLAYWRIGHT, "playwright-core")
    try:
        packages.run(Path(__file__).parent, "node", program, str(modules), browser(), url, str(directory))
    except RuntimeError as error:
        sys.exit(f"no pictures were taken ({error}): open {url} by hand to see why")


if __name__ == "__main__":
    main()
