"""The checkout that benchmarks run in: its root, its commit, and sections of its pages that programs write."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["BEGIN", "END", "RESTORE", "ROOT", "commit", "write_section"]

ROOT = Path(__file__).resolve().parents[1]
"""Root directory of the checkout."""
RESTORE = ("bertport.runtime", "restore")
"""The command that writes a bundle's weights as a transformers checkpoint: `python -m … BUNDLE OUT`."""
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def commit() -> str:
    """Return the commit that is measured; `unknown` outside a checkout."""
    git = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def write_section(page: Path, text: str) -> None:
    """Put the section between its marks, at the page's end when it has none."""
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    if BEGIN not in old:
        old = f"{old.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, _, rest = old.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")
