"""The pictures of the documentation: the server's page three times, and the top of a comparison's report.

    python -m bench.pictures

Starts `bertport serve` with the embedded model, asks its page in Chromium, and renders docs/reports/default. Writes
docs/images/page-*.png and docs/reports/default/report.png, each below 150 KB. It needs Chromium, Node.js and npm, which
fetches playwright-core.
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
from bench.site.__main__ import PLAYWRIGHT, browser

IMAGES = ROOT / "docs" / "images"


def main() -> None:
    """Run from the command line."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if reason := packages.missing():
        sys.exit(reason)
    modules = packages.installed(PLAYWRIGHT, "playwright-core")
    with tempfile.TemporaryDirectory() as directory:
        server = Process([PYTHON, "-m", "bertport.runtime", "serve", ROOT / "models" / "default", "--port", "0"])
        try:
            server.serves()
            url = f"http://127.0.0.1:{server.port}/"
            packages.run(Path(__file__).parent, "node", "page.mjs", str(modules), browser(), url, directory)
        except RuntimeError as error:
            sys.exit(f"no pictures were taken ({error}): start bertport serve by hand to see why")
        finally:
            server.stop()
        for picture in sorted(Path(directory).glob("*.png")):
            size = make_smaller(picture)
            (IMAGES / picture.name).write_bytes(picture.read_bytes())
            print(f"{(IMAGES / picture.name).relative_to(ROOT)}: {size:,} bytes")
    photograph(REPORTS / "default")


if __name__ == "__main__":
    main()
