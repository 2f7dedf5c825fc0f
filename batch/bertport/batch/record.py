"""A run's record in its output: what was asked, the parts that there are to be, and which of them are done.

The parts themselves are the truth: a part that is there under its name is done, and its file holds what was counted.
The list of what is done only saves the reading of their footers.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bertport.batch.job import Part
from bertport.batch.places import RECORDS
from bertport.batch.worker import part_stats, scratch
from bertport.runtime.errors import PathError, UsageError
from bertport.runtime.excerpts import excerpt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertport.batch.places import File, Place

__all__ = ["Record", "fingerprint", "open_record"]

FORMAT = 2
EVERY = 5.0
"""Seconds between two writings of what is done."""
SHOWN = 120
"""Characters of a value that a sentence shows."""
READERS = 16
"""Footers of parts that are read at once."""


def fingerprint(files: Sequence[File]) -> str:
    """Return what changes when the input does: a hash of each file's path, size and time of change or ETag."""
    listed = json.dumps([[file.path, file.size, file.stamp] for file in files])
    return hashlib.sha256(listed.encode()).hexdigest()


@dataclass(slots=True, kw_only=True)
class Record:
    """The record of one run."""

    output: Place
    """The folder of the parts."""
    id: str
    """The run's own name."""
    parts: list[Part]
    """The parts that there are to be, in order."""
    done: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Counts of each part that is done, by its number."""
    resumed: int = 0
    """Parts that were done when this run of the command began."""
    _written: float = 0.0

    @property
    def missing(self) -> list[Part]:
        """The parts that are still to be made."""
        return [part for part in self.parts if part.number not in self.done]

    def finished(self, stats: dict[str, Any]) -> None:
        """Take down that a part is done."""
        self.done[stats["part"]] = stats
        if time.monotonic() - self._written >= EVERY:
            self.save()

    def save(self) -> None:
        """Write what is done."""
        content = json.dumps({"run": self.id, "done": [self.done[number] for number in sorted(self.done)]})
        self.output.child(RECORDS).child("done.json").write(content.encode(), scratch(self.output))
        self._written = time.monotonic()

    def end(self, summary: Mapping[str, Any]) -> None:
        """Write what is done and the summary, and remove what interrupted workers have left."""
        self.save()
        text = json.dumps(summary, indent=2) + "\n"
        self.output.child(RECORDS).child("summary.json").write(text.encode(), scratch(self.output))
        with suppress(PathError):  # another run of the same command writes there, and removes it at its own end
            scratch(self.output).remove()


def open_record(output: Place, asked: Mapping[str, Any], make_parts: Any) -> Record:  # noqa: ANN401 — a function
    """Return the record of a run: a new one in an empty folder, or the one that is there, to go on with it.

    Of several runs that begin in one folder at one moment, all go on with the record of the first.

    Args:
        output: the folder.
        asked: what is asked, by name, as JSON values; the record of another request is refused.
        make_parts: returns the parts of a new run.

    Raises:
        PathError: for a folder that holds something else.
        UsageError: for one that holds the run of another request; the sentence names the first thing that differs.
    """
    folder = output.child(RECORDS)
    content = folder.child("run.json").read()
    if content is None:
        _refuse_others(output)
        rows = [part.row for part in make_parts()]
        text = json.dumps({"format": FORMAT, "id": uuid.uuid4().hex, "asked": asked, "parts": rows})
        output.make()
        folder.child("run.json").create(text.encode(), scratch(output))
        content = folder.child("run.json").read() or text.encode()  # another run may have begun at the same moment
    try:
        stored = json.loads(content)
        if (version := stored["format"]) != FORMAT:
            raise PathError(
                f"{output.url} holds a run of format {version}, and {FORMAT} is read here: give another folder"
            )
        there, rows = stored["asked"], stored["parts"]
        parts = [Part.listed(number, row) for number, row in enumerate(rows)]
    except (ValueError, KeyError, TypeError) as error:
        raise PathError(
            f"{folder.url}/run.json is no record of a run ({excerpt(str(error), 100)}): give another folder"
        ) from error
    for name in {**there, **asked}:
        if there.get(name) != asked.get(name):
            raise UsageError(
                f"{output.url} holds another run: its {name} is {_shown(there.get(name))}, and "
                f"{_shown(asked.get(name))} is asked for: give another folder, or ask for the same"
            )
    record = Record(output=output, id=stored["id"], parts=parts)
    record.done = _done(record)
    record.resumed = len(record.done)
    return record


def _shown(value: object) -> str:
    text = json.dumps(value)
    return "not given" if value is None else text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _refuse_others(output: Place) -> None:
    """Raise PathError where a folder is not empty and holds no run."""
    try:
        found = output.fs.ls(output.path, detail=False) if output.exists() else []
    except NotADirectoryError:
        found = [output.path]
    names = [str(path).rstrip("/").rpartition("/")[2] for path in found]
    others = [name for name in names if name not in {"", RECORDS}]
    if others:
        raise PathError(
            f"the output {output.url} is not empty ({excerpt(', '.join(sorted(others)), 100)}), and holds no run that "
            "could go on: give a new folder"
        )


def _done(record: Record) -> dict[int, dict[str, Any]]:
    """Return what was counted by part, of those that are there."""
    there = record.output.names()
    numbers = {part.number: part for part in record.parts if part.name in there}
    content = record.output.child(RECORDS).child("done.json").read()
    known: dict[int, dict[str, Any]] = {}
    if content is not None:
        try:
            stored = json.loads(content)
            if stored["run"] == record.id:
                known = {stats["part"]: stats for stats in stored["done"] if stats["part"] in numbers}
        except (ValueError, KeyError, TypeError):  # the parts say it themselves
            known = {}
    unknown = [part for number, part in numbers.items() if number not in known]
    with ThreadPoolExecutor(READERS) as pool:
        read = pool.map(lambda part: part_stats(record.output.child(part.name)), unknown)
        known.update((stats["part"], stats) for stats in read)
    foreign = [stats for stats in known.values() if stats["run"] != record.id]
    if foreign:
        raise PathError(
            f"{record.output.url} holds a part of another run (number {foreign[0]['part']:,}): give another folder"
        )
    return known
