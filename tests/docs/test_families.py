"""The page of families is what is found when each of them is taken the whole way."""

import operator
import subprocess
import sys
from pathlib import Path

import pytest
from docs import generate_families

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_committed_page_is_what_is_found():
    program = [sys.executable, str(ROOT / "docs" / "generate_families.py"), "--check"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_list_with_too_few_answers_is_not_the_same():
    assert generate_families.agree(operator.eq, [1, 2, 3], [1, 2, 3])
    for given in ([], [1, 2], [1, 2, 3, 4], [1, 2, 4], {"error": "no"}):
        assert not generate_families.agree(operator.eq, [1, 2, 3], given)
