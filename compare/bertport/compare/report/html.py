"""The report as one page that needs nothing else: styles and plots are in it, and no script."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertport.compare.report.plots import plots
from bertport.compare.report.sections import sections
from bertport.runtime.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_packages", "html"]

TEMPLATE = "report.html.j2"


def check_packages() -> None:
    """See that what writes the report is installed, before anything is measured.

    Raises:
        MissingDependencyError: when it is not.
    """
    from importlib.util import find_spec

    for package in ("jinja2", "matplotlib"):
        if find_spec(package) is None:
            what, extra = "compare", "cpu,compare"
            raise MissingDependencyError(what, package, extra)


def html(document: Mapping[str, Any]) -> str:
    """Write the page.

    Raises:
        MissingDependencyError: when Jinja or matplotlib is not installed.
    """
    check_packages()
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "resources"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = cell
    drawn: dict[str, list[Any]] = {}
    for plot in plots(document):
        drawn.setdefault(plot.section, []).append(plot)
    names = ", ".join(each["label"] for each in document["bundles"])
    page = environment.get_template(TEMPLATE).render(
        title=f"Accuracy against speed: {names}",
        sections=sections(document),
        plots=drawn,
        document=document,
        paretos=[each for each in drawn.get("summary", []) if each.title != "Size"],
        rest=[each for each in drawn.get("summary", []) if each.title == "Size"],
    )
    return page + "\n"


def cell(text: str) -> str:
    """Set the interval of a figure apart, so that it can be laid out on a line of its own."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r" (\([^()]* to [^()]*\))", r' <span class="interval">\1</span>', str(escape(text))))  # noqa: S704 — it is escaped
