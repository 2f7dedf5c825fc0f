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
from bertport.batch.places import RECORDS, redacted, unreachable
from bertport.batch.worker import ID, check_own, part_stats, scratch
from bertport.runtime.errors import PathError, UsageError
from bertport.runtime.excerpts import excerpt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertport.batch.places import File, Place

__all__ = ["FINGERPRINT", "Record", "fingerprint", "open_record"]

FORMAT = 2
"""Version of the records' format; a run of another version is refused."""
FINGERPRINT = "fingerprint of the input"
"""Name of the input's fingerprint among what is asked."""
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
        made: list[Part] = make_parts()
        secret = any(redacted(span.url) != span.url for part in made for span in part.spans)
        rows = [part.row for part in made]
        text = json.dumps({"format": FORMAT, "id": uuid.uuid4().hex, "asked": asked, "parts": rows})
        output.make()
        folder.child("run.json").create(text.encode(), scratch(output), private=secret)
        content = folder.child("run.json").read() or text.encode()  # another run may have begun at the same moment
    try:
        stored = json.loads(content)
        if (version := stored["format"]) != FORMAT:
            raise PathError(
                f"{output.title} holds a run of format {version}, and {FORMAT} is read here: give another folder"
            )
        there, rows = stored["asked"], stored["parts"]
        there["input"] = redacted(there["input"])
        parts = [Part.listed(number, row) for number, row in enumerate(rows)]
    except (ValueError, KeyError, TypeError) as error:
        raise PathError(
            f"{folder.title}/run.json is not the record of a run ({excerpt(str(error), 100)}): give another folder"
        ) from error
    for name in {**there, **asked}:
        if there.get(name) != asked.get(name):
            raise _other_run(output, name, there.get(name), asked.get(name))
    own = json.dumps({"id": stored["id"]}).encode()
    if folder.child(ID).read() != own:
        folder.child(ID).write(own, scratch(output))
    record = Record(output=output, id=stored["id"], parts=parts)
    record.done = _done(record)
    record.resumed = len(record.done)
    return record


def _other_run(output: Place, name: str, there: object, asked: object) -> UsageError:
    """Return the error of an output that holds the run of another request."""
    if name == FINGERPRINT:
        return UsageError(
            f"{output.title} holds a run over other files: those of the input have changed since: give another folder"
        )
    return UsageError(
        f"{output.title} holds another run: `{name}` was {_shown(there)} there, and is {_shown(asked)} now: give "
        "another folder, or ask for the same"
    )


def _shown(value: object) -> str:
    text = json.dumps(value)
    return "not given" if value is None else text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _refuse_others(output: Place) -> None:
    """Raise PathError where a folder is not empty and holds no run, and where it cannot be listed."""
    try:
        found = output.fs.ls(output.path, detail=False) if output.exists() else []
    except NotADirectoryError:
        found = [output.path]
    except Exception as error:  # every file system has errors of its own
        raise unreachable(output.title, error) from error
    # By this name consoles of object stores make a folder, which is an empty object there.
    own = f"{output.path.rstrip('/')}/"
    names = [str(path).rstrip("/").rpartition("/")[2] for path in found if str(path) != own]
    others = [name for name in names if name not in {"", RECORDS}]
    if others:
        raise PathError(
            f"the output {output.title} is not empty ({excerpt(', '.join(sorted(others)), 100)}), and holds no run "
            "that could go on: give a new folder"
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
                done = {stats["part"]: stats for stats in stored["done"] if stats["part"] in numbers}
                # A crash of the machine may have left less of a part than was written.
                known = {
                    number: stats for number, stats in done.items() if stats.get("size") == there[numbers[number].name]
                }
        except (ValueError, KeyError, TypeError):  # the parts say it themselves
            known = {}
    unknown = [part for number, part in numbers.items() if number not in known]
    with ThreadPoolExecutor(READERS) as pool:
        read = pool.map(lambda part: part_stats(record.output.child(part.name)), unknown)
        for part, stats in zip(unknown, read, strict=True):
            check_own(stats, record.id, record.output.child(part.name))
            known[part.number] = stats
    return known
