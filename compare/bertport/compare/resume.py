"""The journal of a comparison: what its finished steps gave, on disk, from which an interrupted one goes on."""

from __future__ import annotations

import json
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from bertport.compare.codec import DecodeError, decode, encode
from bertport.runtime.bundle.locks import try_lock
from bertport.runtime.errors import PathError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bertport.compare.codec import JSON

__all__ = ["JOURNAL", "Journal", "exclusive_output"]

T = TypeVar("T")
JOURNAL = "unfinished.jsonl"
"""Name of the file, in the output directory, while a comparison is not finished."""

LOCK = ".comparison.lock"
"""Name of the file, in the output directory, that is locked while a comparison writes there."""


@contextmanager
def exclusive_output(directory: Path) -> Iterator[None]:
    """Make an output directory and keep other comparisons out of it; where nothing was written, it goes again.

    Raises:
        PathError: when another comparison writes there, or nobody can.
    """
    made = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = try_lock(directory / LOCK)
    except OSError as error:
        raise PathError(
            f"cannot write the report into {directory} ({error.strerror or error}): choose another --output"
        ) from error
    if lock is None:
        raise PathError(f"another comparison writes into {directory}: wait for it to end, or choose another --output")
    try:
        yield
    finally:
        lock.release()
        if made:
            with suppress(OSError):  # something was written
                directory.rmdir()


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

    def __init__(self, path: Path, settings: Mapping[str, object], *, resume: bool) -> None:
        self._path = path
        self._steps: dict[str, JSON] = {}
        self.resumed = 0
        """Number of steps that were there at the beginning."""
        written = encode(settings)
        if resume:
            self._steps = self._read(written)
            self.resumed = len(self._steps)
        steps: list[JSON] = [{"step": step, "value": value} for step, value in self._steps.items()]
        self._write("w", {"settings": written}, *steps)

    def __contains__(self, step: str) -> bool:
        """Return whether a step is finished."""
        return step in self._steps

    def add(self, step: str, value: object) -> None:
        """Record what a step gave: a dataclass."""
        self._steps[step] = encode(value)
        self._write("a", {"step": step, "value": self._steps[step]})

    def steps(self) -> list[str]:
        """Return the names of the finished steps, in their order."""
        return list(self._steps)

    def get(self, kind: type[T], step: str) -> T | None:
        """Return what a step gave; None where it is not finished.

        Raises:
            UsageError: when it is not of the kind asked for.
        """
        if step not in self._steps:
            return None
        try:
            return decode(kind, self._steps[step], step)
        except DecodeError as error:
            raise UsageError(
                f"the unfinished comparison in {self._path.parent} cannot be read ({error}): leave --resume out to "
                "begin anew"
            ) from error

    def remove(self) -> None:
        """Remove the file: the report holds everything now."""
        self._path.unlink(missing_ok=True)

    def _write(self, mode: str, *lines: JSON) -> None:
        try:
            with self._path.open(mode, encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
        except OSError as error:
            reason = error.strerror or error
            raise PathError(
                f"cannot write {self._path} ({reason}): choose another --output, or free some space"
            ) from error

    def _read(self, settings: JSON) -> dict[str, JSON]:
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError as error:
            raise UsageError(
                f"{self._path.parent} holds no unfinished comparison to resume: leave --resume out"
            ) from error
        records: list[dict[str, JSON]] = []
        for line in lines:
            try:
                record = json.loads(line.decode())
            except (ValueError, RecursionError):
                break  # the line that the interruption cut off, and nothing after it
            if isinstance(record, dict):
                records.append(record)
        before, now = (value if isinstance(value, dict) else {} for value in (_settings(records), settings))
        other = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        if other:
            raise UsageError(
                f"the unfinished comparison in {self._path.parent} was begun with another {', '.join(other)}: "
                "repeat its command, or leave --resume out to begin anew"
            )
        return {
            str(record["step"]): record["value"] for record in records[1:] if "step" in record and "value" in record
        }


def _settings(records: list[dict[str, JSON]]) -> JSON:
    return records[0].get("settings") if records else None
