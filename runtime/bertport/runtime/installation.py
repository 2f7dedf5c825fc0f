"""The lines that install more of bertport, made from how this one was installed: nothing says which index has it."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["APART", "first_missing", "install_command", "pip", "portable_install_command", "upgrade_advice"]

APART = frozenset({"export-optimum"})
"""Extras that need an environment of their own: they hold another version of what other extras install."""

HERE = Path(__file__).resolve()
CHECKOUT = HERE.parents[3]
"""The checkout's root where this file is `runtime/bertport/runtime/installation.py` in one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Source that pip installed bertport from."""

    kind: Literal["checkout", "directory", "file", "url", "index", "unknown"]
    """A checkout that the code runs from, a directory that was copied, a wheel file, another URL, an index, or what is
    there no more."""
    place: str
    """The path or URL; for an index and for what is there no more, the version that is installed."""


def install_command(extras: str, *packages: str) -> str:
    """Return the command line that adds extras to this installation, quoted for a POSIX shell.

    For extras that need an environment of their own it is the line for that one, whose `pip` is the first on its PATH.

    Args:
        extras: names of extras, separated by commas.
        packages: requirements to install in the same run.
    """
    source = _source()
    match source.kind:
        case "checkout":
            wanted = ["-e", f"{source.place}[{extras}]"]
        case "directory" | "file":
            wanted = [f"{source.place}[{extras}]"]
        case "url":
            wanted = [f"bertport[{extras}] @ {source.place}"]
        case "index":
            wanted = [f"bertport[{extras}]"]
        case "unknown":  # what is installed satisfies this, so that pip adds the extras and fetches no bertport
            wanted = [f"bertport[{extras}]=={source.place}"]
    program = "pip" if APART.intersection(extras.split(",")) else pip()
    return " ".join([program, "install", *map(shlex.quote, (*wanted, *packages))])


def first_missing(modules: Iterable[str]) -> str | None:
    """Return the first module that is not installed; None where all are. Imports none, but packages above one."""
    from importlib.util import find_spec  # not above: see `pip`

    for module in modules:
        try:
            spec = find_spec(module)
        except (ImportError, ValueError):
            spec = None
        if spec is None:
            return module
    return None


def portable_install_command(extras: str) -> str:
    """Return what installs bertport, in Markdown, for pages read on other machines: without this one's paths."""
    source = _source()
    wanted = {
        "file": f"{Path(source.place).name}[{extras}]",
        "url": f"bertport[{extras}] @ {source.place}",
        "index": f"bertport[{extras}]",
    }
    if source.kind in wanted:
        return f"`pip install {shlex.quote(wanted[source.kind])}`"
    return f"`pip install '.[{extras}]'` in a checkout of bertport"


def upgrade_advice() -> str:
    """Return what brings a later version of bertport here, as the end of a sentence."""
    source = _source()
    match source.kind:
        case "checkout":
            return f"update the checkout {source.place}"
        case "index":
            return f"{pip()} install --upgrade bertport"
        case _:
            return f"install a version of bertport later than {source.place}"


def pip() -> str:
    """Return the command that starts the pip of this environment: `pip` alone where that is the first on the PATH."""
    import shutil  # not above: with the compressors that it imports it takes a command's help milliseconds to start

    program = shutil.which("pip")
    if program is not None and sys.executable and Path(program).parent == Path(sys.executable).parent:
        return "pip"
    return f"{shlex.quote(sys.executable or 'python')} -m pip"


@cache
def _source() -> Source:
    """Return how bertport was installed, by where its code is and by the record that pip leaves (PEP 610)."""
    if (CHECKOUT / "pyproject.toml").is_file() and HERE.parent == CHECKOUT / "runtime" / "bertport" / "runtime":
        return Source(kind="checkout", place=str(CHECKOUT))
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        installed = distribution("bertport")
    except PackageNotFoundError:
        return Source(kind="unknown", place="0")
    record = installed.read_text("direct_url.json")
    if record is None:
        return Source(kind="index", place=installed.version)
    try:
        source = _recorded(json.loads(record))
    except (ValueError, KeyError, TypeError, OSError):  # what is asked for is a line in another error's sentence
        source = None
    return source or Source(kind="unknown", place=installed.version)


def _recorded(origin: dict[str, Any]) -> Source | None:
    """Return the origin that a record names; None for a file or directory that is there no more."""
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    url = str(origin["url"])
    if not url.startswith("file:"):
        vcs = origin.get("vcs_info")
        return Source(kind="url", place=f"{vcs['vcs']}+{url}@{vcs['commit_id']}" if vcs else url)
    path = Path(url2pathname(urlsplit(url).path))
    if not path.exists():
        return None
    return Source(kind="directory" if path.is_dir() else "file", place=str(path))
