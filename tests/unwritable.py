"""Directories that nobody may write to."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest


@contextmanager
def unwritable(directory):
    """Return a directory that even root may not write to, where the file system can have one."""
    change = shutil.which("chattr")
    if os.geteuid() != 0:
        directory.chmod(0o500)
    elif change is None or subprocess.run([change, "+i", directory], check=False, capture_output=True).returncode:
        pytest.skip("root may write anywhere here")
    try:
        yield directory
    finally:
        if os.geteuid() != 0:
            directory.chmod(0o700)
        else:
            subprocess.run([change, "-i", directory], check=True)
