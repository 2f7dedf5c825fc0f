"""Headless Chromium for tests of pages: the browser of the system, driven by playwright-core from the npm registry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from bench.node import packages
from tests import npm

if TYPE_CHECKING:
    from pathlib import Path


def chromium() -> str:
    """Return the path of Chromium; on a machine of ours, such as CI, Debian's is installed when there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found and shutil.which("apt-get") and os.geteuid() == 0:
        install = ["apt-get", "install", "--yes", "--no-install-recommends", "chromium"]
        subprocess.run(["apt-get", "update"], check=False, capture_output=True, timeout=300)  # noqa: S607 — as the shell finds it
        subprocess.run(install, check=False, capture_output=True, timeout=600)
        found = shutil.which("chromium")
    if not found:
        pytest.skip("Chromium is not installed")
    return found


def drive(program: Path, url: str, screenshots: Path) -> Any:
    """Run a program of Node.js on a page; it takes playwright's place, the browser, the page and a directory."""
    playwright = npm.installed(
        packages.PLAYWRIGHT, "playwright-core"
    )  # it drives the browser that is there and brings none
    command = [str(shutil.which("node")), str(program), str(playwright), chromium(), url, str(screenshots)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
