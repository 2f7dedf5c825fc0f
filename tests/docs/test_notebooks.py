"""Every notebook of the pages runs, and prints what it shows."""

import copy
import json
from pathlib import Path

import pytest
from docs import run_notebook

from tests.docs import examples

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    """The path of a notebook."""
    return request.param


def test_a_notebook_is_kept_with_short_plain_outputs(notebook):
    document = json.loads(notebook.read_text(encoding="utf-8"))
    assert notebook.stat().st_size < 20_000
    for number, cell in enumerate(run_notebook.code_cells(document), start=1):
        assert cell["execution_count"] == number
        assert {output["output_type"] for output in cell["outputs"]} <= {"stream"}
        assert len(run_notebook.printed(cell).splitlines()) <= 40
        assert str(ROOT) not in json.dumps(cell)


def test_outputs_become_plain_text():
    cell = {
        "outputs": [
            {"output_type": "stream", "name": "stderr", "text": ["progress\n"]},
            {"output_type": "stream", "name": "stdout", "text": ["\r1 of 2\r2 of 2 \r\n", "two\n"]},
            {"output_type": "execute_result", "data": {"text/plain": ["'three'"], "text/html": ["<b>"]}},
        ]
    }
    assert run_notebook.printed(copy.deepcopy(cell)) == "2 of 2\ntwo\n'three'\n"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")  # of the Jupyter packages, which are not ours to mend
def test_a_notebook_runs(notebook, tmp_path):
    pytest.importorskip("nbclient")
    kept = run_notebook.code_cells(json.loads(notebook.read_text(encoding="utf-8")))
    ran = run_notebook.code_cells(run_notebook.executed(notebook, tmp_path))
    for before, now in zip(kept, ran, strict=True):
        shown, said = run_notebook.printed(before), run_notebook.printed(now)
        if "varies" in before["metadata"].get("tags", ()):  # speed, and the figures that go with it
            assert bool(said) == bool(shown)
        else:
            assert examples.same_output(shown, said), f"shown:\n{shown}\nprinted:\n{said}"
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["complete"]
    assert {"fp32", "int8-dynamic"} <= {row["variant"] for row in report["rows"]}
