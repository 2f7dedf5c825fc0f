"""Build the documentation's site, of the checkout or of several versions: `python3 dev.py site [REF...]` runs it.

Without a REF the checkout becomes out/site. With some, each tag, branch or commit becomes out/sites/REF, with `~` for
what no directory should have in its name, by its own docs/conf.py, `.` being the checkout itself; beside them,
versions.json lists them in the order in which they were named for the switch on their pages, and the first one is where
index.html leads. To publish, copy the directory to any server of files.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "out"
HERE = "."
"""The REF of the checkout as it is."""
UNREAD = ":(exclude)models/default/onnx"
"""Pathspec that leaves out large files that no page is made of."""


class Version(NamedTuple):
    """One version of the documentation."""

    name: str
    """Name in the switch of versions."""
    path: str
    """Its directory, relative to versions.json, with a slash at its end."""


def main() -> None:
    """Build what the command line names."""
    refs = list(dict.fromkeys(sys.argv[1:]))
    if not refs:
        build(ROOT, OUT / "site")
        say(OUT / "site")
        return
    versions = [version_of(ref) for ref in refs]
    refuse_same(refs, versions)
    out = OUT / "sites"
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sites-", dir=OUT) as beside:  # a version that fails leaves what was there
        made = Path(beside) / out.name
        for ref, version in zip(refs, versions, strict=True):
            build_version(ref, version, made)
        listed = [version._asdict() for version in versions]
        (made / "versions.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
        page = f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={versions[0].path}">\n'
        (made / "index.html").write_text(page, encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        made.rename(out)
    say(out)


def version_of(ref: str) -> Version:
    """Return the name and the directory of a version."""
    name = ref
    if ref == HERE:
        name = str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])
    return Version(name, re.sub(r"[^\w.-]", "~", name) + "/")  # no ref of git has ~, so that a/b is not a-b


def refuse_same(refs: list[str], versions: list[Version]) -> None:
    """End where two versions would overwrite one another.

    Raises:
        SystemExit: with a sentence that names them.
    """
    taken: dict[str, str] = {}
    for ref, version in zip(refs, versions, strict=True):
        place = version.path.casefold()  # as some file systems compare names
        if place in taken:
            sys.exit(f"{taken[place]} and {ref} would both be out/sites/{version.path}: name one of them by its commit")
        taken[place] = ref


def build_version(ref: str, version: Version, out: Path) -> None:
    """Build a version into its directory.

    Raises:
        SystemExit: with a sentence, where there is no such version, or it has no settings of a site.
    """
    if ref == HERE:
        build(ROOT, out / version.path, version.name)
        return
    with tempfile.TemporaryDirectory(prefix="bertport-site-") as directory:
        unpack(ref, Path(directory))
        build(Path(directory), out / version.path, version.name)


def unpack(ref: str, directory: Path) -> None:
    """Write the files of a tag, branch or commit into a directory.

    Raises:
        SystemExit: with a sentence, where there is no such version, or it has no settings of a site.
    """
    command = ["git", "archive", "--format=tar", "--end-of-options", ref, ".", UNREAD]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{ref} is no tag, branch or commit of this repository: name one, or . for the checkout")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(directory, filter="data")
    if not (directory / "docs" / "conf.py").is_file():
        sys.exit(f"{ref} has no docs/conf.py, so no site can be built of it: leave it out")


def build(root: Path, out: Path, version: str | None = None) -> None:
    """Build the site of a tree.

    Raises:
        SystemExit: with Sphinx's exit code, where a link or an anchor leads nowhere; Sphinx names it.
    """
    shutil.rmtree(out, ignore_errors=True)
    options = ["--quiet", "--fail-on-warning", "--keep-going", "--fresh-env", "--conf-dir", "docs"]
    if version is not None:
        options += ["--html-define", f"site_version={version}"]
    done = subprocess.run([sys.executable, "-m", "sphinx", *options, ".", str(out)], cwd=root, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def say(out: Path) -> None:
    """Say where the site is."""
    sys.stderr.write(f"dev.py: built {out.relative_to(ROOT) / 'index.html'}\n")


if __name__ == "__main__":
    main()
