"""The site's settings, for Sphinx: `python3 dev.py site` builds it from the pages as they are in the repository.

The source directory is the checkout's root, so that a link that works in the repository works in the site. What only
the site has is added to the pages as they are read: the tree of contents to README.md, made of the lists in
docs/README.md, and the docstrings to docs/reference/python.md. For these, modules are imported without torch.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]
from dev import AREAS  # noqa: E402 — the root is no package's

sys.path[:0] = [str(ROOT / area) for area in AREAS]

project = "bertport"
author = "the authors of bertport"
html_title = "bertport"
html_theme = "furo"
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["site/static"]
html_favicon = "site/static/favicon.svg"
html_css_files = ["site.css"]
html_js_files = [("versions.js", {"defer": "defer"})]
templates_path = ["site"]
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "versions.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
root_doc = "README"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown", ".ipynb": "markdown"}  # a notebook is read as the page that `page_of` makes of it
include_patterns = [
    "*.md",
    "data/README.md",
    "docs/**.md",
    "docs/**.ipynb",
    "models/README.md",
    "models/default/README.md",
]
myst_heading_anchors = 4  # links to headings are checked as deep as this
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
default_role = "literal"  # docstrings quote code with single backticks
python_use_unqualified_type_names = True

PROJECT = (
    "CONTRIBUTING",
    "CODE_OF_CONDUCT",
    "SECURITY",
    "THIRD_PARTY",
    "CHANGELOG",
    "models/README",
    "models/default/README",
    "data/README",
)
"""Pages outside docs/."""
API = {"bertport.runtime": ":inherited-members:", "bertport.runtime.errors": "", "bertport.export": ""}
"""Modules whose `__all__` is public, each with what autodoc is told beside `:members:`."""


def contents() -> str:
    """Return the tree of contents as MyST: a part for each section of docs/README.md that lists pages, in its order."""
    parts = {"Documentation": ["docs/README", "docs/ARCHITECTURE"]}
    title = ""
    for line in (ROOT / "docs" / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            title = line[3:]
        elif entry := re.match(r"(?:-|\d+\.) \[(.*?)\]\(([\w/-]+)\.(?:md|ipynb)\)", line):
            parts.setdefault(title, []).append(f"{entry[1]} <docs/{entry[2]}>")
    parts["Project"] = [page for page in PROJECT if (ROOT / f"{page}.md").is_file()]
    begin = "\n\n```{toctree}\n:hidden:\n:caption: "
    return "".join("\n".join([begin + title, "", *pages, "```", ""]) for title, pages in parts.items())


def interface() -> str:
    """Return the docstrings' section as MyST."""
    modules = "".join(f"\n.. automodule:: {name}\n   :members:\n   {option}\n" for name, option in API.items())
    return f"\n\n## Every public name\n\n```{{eval-rst}}{modules}```\n"


def page_of(notebook: str) -> str:
    """Return a notebook as MyST: its text, and a block for each cell of code and for what it printed."""
    blocks = []
    for cell in json.loads(notebook)["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            blocks.append(text)
            continue
        language = "console" if text.startswith("!") else "python"
        blocks.append(f"```{language}\n{re.sub('^!', '$ ', text, flags=re.MULTILINE)}\n```")
        said = "".join("".join(output["text"]) for output in cell["outputs"])
        if said:
            blocks.append(f"```text\n{said}```")
    return "\n\n".join(blocks) + "\n"


def add(app: Sphinx, name: str, source: list[str]) -> None:
    """Add to a page what only the site has, and make a page of a notebook."""
    if app.env.doc2path(name).suffix == ".ipynb":
        source[0] = page_of(source[0])
    elif name == root_doc:
        source[0] += contents()
    elif name == "docs/reference/python":
        source[0] += interface()


def redirect(app: Sphinx, error: Exception | None) -> None:
    """Let the site's root lead to its first page."""
    if error is None:
        page = f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={root_doc}.html">\n'
        (Path(app.outdir) / "index.html").write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Register what is added."""
    app.connect("source-read", add)
    app.connect("build-finished", redirect)
