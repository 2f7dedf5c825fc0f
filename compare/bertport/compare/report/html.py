"""The report as one page that needs nothing else: styles and plots are in it, and no script."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from bertport.compare.report.plots import plots
from bertport.compare.report.sections import sections
from bertport.runtime.errors import MissingDependencyError
from bertport.runtime.installation import first_missing

if TYPE_CHECKING:
    from bertport.compare.report.document import Report
    from bertport.compare.report.plots import Plot

__all__ = ["check_packages", "html"]

TEMPLATE = "report.html.j2"


def check_packages() -> None:
    """See that what writes the report is installed, before anything is measured.

    Raises:
        MissingDependencyError: when it is not.
    """
    if missing := first_missing(("jinja2", "matplotlib")):
        what, extra = "compare", "cpu,compare"
        raise MissingDependencyError(what, missing, extra)


def html(report: Report) -> str:
    """Return the page.

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
    drawn: dict[str, list[Plot]] = {}
    for plot in plots(report):
        drawn.setdefault(plot.section, []).append(plot)
    names = ", ".join(bundle.label for bundle in report.bundles)
    page = environment.get_template(TEMPLATE).render(
        title=f"Accuracy against speed: {names}",
        sections=sections(report),
        plots=drawn,
        created=report.created,
    )
    return page + "\n"


def cell(text: str) -> str:
    """Return a cell's markup, with the interval of a figure in an element of its own, for a line of its own."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r" (\([^()]* to [^()]*\))", r' <span class="interval">\1</span>', str(escape(text))))  # noqa: S704 — it is escaped
