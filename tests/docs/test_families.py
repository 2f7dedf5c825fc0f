"""The page of families is what is found when each of them is taken the whole way."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_committed_page_is_what_is_found():
    program = [sys.executable, str(ROOT / "docs" / "generate_families.py"), "--check"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
