"""What a comparison has measured so far, on disk: an interrupted one goes on from it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bertport.runtime.errors import PathError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["JOURNAL", "Journal"]

JOURNAL = "unfinished.jsonl"
"""Name of the file, in the output directory, while a comparison is not finished."""


class Journal:
    """Steps and what each gave, a line each, the first line saying of what comparison.

    Args:
        path: The file; it is made anew unless `resume` is set.
        settings: What the measurements depend on; JSON values.
        resume: Go on with what the file holds.

    Raises:
        UsageError: when there is nothing to resume, or it was begun with other settings.
        PathError: when the file cannot be written.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        self._path = path
        self.steps: dict[str, Any] = {}
        """What each finished step gave."""
        self.resumed = 0
        """Number of steps that were there at the beginning."""
        if resume:
            self.steps = self._read(json.loads(json.dumps(settings)))
            self.resumed = len(self.steps)
        self._write(
            "w", {"settings": settings}, *({"step": step, "value": value} for step, value in self.steps.items())
        )

    def add(self, step: str, value: Any) -> None:  # noqa: ANN401 — JSON values
        """Record what a step gave."""
        self.steps[step] = value
        self._write("a", {"step": step, "value": value})

    def remove(self) -> None:
        """Remove the file: the report holds everything now."""
        self._path.unlink(missing_ok=True)

    def _write(self, mode: str, *lines: Mapping[str, Any]) -> None:
        try:
            with self._path.open(mode, encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
        except OSError as error:
            reason = error.strerror or error
            raise PathError(
                f"cannot write {self._path} ({reason}): choose another --output, or free some space"
            ) from error

    def _read(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise UsageError(
                f"{self._path.parent} holds no unfinished comparison to resume: leave --resume out"
            ) from error
        found: list[dict[str, Any]] = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:
                break  # the line that the interruption cut off, and nothing after it
        before = found[0].get("settings", {}) if found else {}
        other = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
        if other:
            raise UsageError(
                f"the unfinished comparison in {self._path.parent} was begun with another {', '.join(other)}: "
                "repeat its command, or leave --resume out to begin anew"
            )
        return {line["step"]: line["value"] for line in found[1:] if "step" in line}
