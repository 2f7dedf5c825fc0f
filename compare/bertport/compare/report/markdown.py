"""The report in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertport.compare.report.sections import sections

if TYPE_CHECKING:
    from bertport.compare.report.document import Report
    from bertport.compare.report.tables import Table

__all__ = ["markdown"]


def markdown(report: Report) -> str:
    """Return the report in Markdown: the text and tables of the page, without its plots."""
    parts = ["# Accuracy against speed"]
    for section in sections(report):
        parts.append(f"## {escape(section.title)}")
        parts += [escape(text) for text in section.paragraphs]
        if section.choices:
            lines = [
                f"- **{escape(choice.goal)}: {escape(choice.row)}.** {escape(choice.reason)}"
                for choice in section.choices
            ]
            parts.append("\n".join(lines))
        if section.points:
            parts.append("\n".join(f"- {escape(point)}" for point in section.points))
        for table in section.tables:
            parts += [f"### {escape(table.title)}", escape(table.caption), _table(table)]
        if section.code:
            parts.append(f"```sh\n{section.code}\n```")
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    lines = [
        "| " + " | ".join(escape(cell) for cell in table.head) + " |",
        "|---|" + "---:|" * (len(table.head) - 1),
        *("| " + " | ".join(escape(cell) for cell in row) + " |" for row in table.rows),
    ]
    return "\n".join(lines)


def escape(text: str) -> str:
    """Return a text in which no character has a meaning in Markdown."""
    return "".join(
        f"\\{character}" if character in "\\`*_[]<>|#&~" else " " if character in "\r\n" else character
        for character in text
    )
