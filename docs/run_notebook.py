"""Run the notebooks of the pages and keep what they print: `python docs/run_notebook.py [NOTEBOOK...]`.

Without a name it runs all of docs/. Each runs in a directory of its own. Of the outputs, plain text is kept: what goes
to stderr, progress for one, is not. It needs the group `dev`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 600
"""Seconds that a cell may take."""


def executed(notebook: Path, directory: Path) -> dict[str, Any]:
    """Return a notebook as it is after its cells ran in a directory, with plain text for outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: when a cell raises.
    """
    import nbformat
    from nbclient import NotebookClient

    read = nbformat.read(notebook, as_version=4)
    # `!bertport` is the one of the Python that runs this, whose environment nobody needs to have activated.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    resources = {"metadata": {"path": str(directory)}}
    client = NotebookClient(read, timeout=LONGEST, kernel_name="python3", resources=resources)
    client.execute(env={**os.environ, "PATH": path})
    document: dict[str, Any] = json.loads(nbformat.writes(read))
    for number, cell in enumerate(code_cells(document), start=1):
        text = printed(cell)
        stream = {"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)}
        cell["outputs"] = [stream] if text else []
        cell["execution_count"] = number
        cell["metadata"].pop("execution", None)  # the times of this run
    document["metadata"]["language_info"] = {"name": "python"}
    return document


def code_cells(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the cells that run."""
    return [cell for cell in document["cells"] if cell["cell_type"] == "code"]


def printed(cell: dict[str, Any]) -> str:
    """Return what a cell printed and what its last line gave, as plain text; stderr is left out.

    A command runs in a terminal of the kernel's, and shows progress: of each line what stood there at last is kept.
    """
    parts = []
    for output in cell["outputs"]:
        if output["output_type"] == "stream" and output["name"] == "stdout":
            parts.append("".join(output["text"]))
        elif output["output_type"] == "execute_result":
            parts.append("".join(output["data"]["text/plain"]) + "\n")
    lines = "".join(parts).replace("\r\n", "\n").split("\n")
    return "\n".join(line.rpartition("\r")[2].rstrip() for line in lines)


def main() -> None:
    """Run notebooks, and write each anew."""
    for notebook in [Path(name) for name in sys.argv[1:]] or sorted((ROOT / "docs").rglob("*.ipynb")):
        with tempfile.TemporaryDirectory() as directory:
            document = executed(notebook, Path(directory))
        notebook.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
