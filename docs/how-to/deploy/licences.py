"""Write the licences of the packages of this environment into a file: `python licences.py FILE`.

The image's page of what is by others. Texts of licences lie in each package's `.dist-info`, and those of the system's
packages in /usr/share/doc.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path


def licence(package: metadata.Distribution) -> str:
    """Return what a package states of its licence: an SPDX expression where it has one."""
    stated = package.metadata
    if expression := stated.get("License-Expression"):
        return expression
    classified = [
        text.rpartition(" :: ")[2] for text in stated.get_all("Classifier", ()) if text.startswith("License ::")
    ]
    if classified and classified != ["OSI Approved"]:
        return ", ".join(classified)
    return ((stated.get("License") or "").strip().splitlines() or ["not stated in its metadata"])[0]


def main() -> None:
    """Write a line for each package.

    Raises:
        SystemExit: with a sentence, where no file, or more than one, is named.
    """
    if len(sys.argv) != 2:  # noqa: PLR2004 — the program and the file
        sys.exit("licences.py: give the file that the licences are written into, and nothing else")
    packages = sorted(metadata.distributions(), key=lambda package: package.metadata["Name"].lower())
    lines = [f"{package.metadata['Name']} {package.version}: {licence(package)}" for package in packages]
    text = [
        "Python packages in this image, each with the licence that it states. Texts lie in their .dist-info folders,",
        "those of Debian's packages in /usr/share/doc/*/copyright; Python's own in its documentation.",
        "",
        *lines,
    ]
    Path(sys.argv[1]).write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
