"""`bertport predict`: JSON lines in, JSON lines out."""

from __future__ import annotations

import json
from collections import deque
from typing import IO, TYPE_CHECKING, Any

import click

from bertport.runtime.batching import FLUSH, Flush
from bertport.runtime.commands.options import STREAMS, Chosen, model_options
from bertport.runtime.commands.output import report, show_json
from bertport.runtime.commands.progress import Progress, size_of
from bertport.runtime.errors import BertportError, InputTextError, PathError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["predict"]

CHUNK = 1 << 20
"""Bytes read at once, at most; a pipe gives what it has."""


@click.command(name="predict")
@click.argument("task", metavar="TASK")
@click.argument("file", metavar="[FILE|-]", default="-")
@model_options
@click.option("--streams", type=int, metavar="N", help=STREAMS)
@click.option(
    "-p",
    "--parameter",
    "parameters",
    multiple=True,
    metavar="KEY=VALUE",
    help="A parameter of the task, its value as JSON or a plain word; may be repeated.",
)
def predict(
    *,
    task: str,
    file: str,
    chosen: Chosen,
    streams: int | None,
    parameters: tuple[str, ...],
) -> None:
    """Answer for every line of a file.

    FILE is standard input where it is - or left out. TASK is fill-mask, next-sentence or features. Each line is a
    JSON value: a text, {"text": TEXT}, or for a pair [A, B] or {"text": A, "text_pair": B}. For each line, in order, a
    line is printed: {"line": N, "result": ...}, or {"line": N, "error": ...} for one that cannot be answered, which is
    also reported on stderr; the others are answered all the same, and the exit code is then 1. Blank lines are skipped.
    """
    model = chosen.load(streams=streams)
    call = model.bind(task, **dict(map(_parameter, parameters)))
    # Numbers and ends of the lines read and not yet answered, of which there are no more than a window.
    places: deque[tuple[int, int]] = deque()
    failed = answered = 0
    with _open(file) as stream, Progress(size_of(stream)) as progress:
        for outcome in model.outcomes(call, _values(_lines(stream), places)):
            number, end = places.popleft()
            answered += 1
            progress.update(answered, end)
            if isinstance(outcome, BertportError):
                failed += 1
                progress.clear()
                report(f"bertport: line {number}: {outcome.message}")
                show_json({"line": number, "error": outcome.message})
            else:
                show_json({"line": number, "result": outcome}, default=_plain)
    if failed:
        message = f"{failed} of {answered} lines could not be answered"
        raise BertportError(message)


def _lines(stream: IO[bytes]) -> Iterator[bytes | Flush]:
    """Read lines as they come: whoever writes one and waits for its answer gets it."""
    rest = b""
    while chunk := stream.read1(CHUNK):  # type: ignore[attr-defined]  # every buffered file has it; IO does not say so
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        yield FLUSH
    yield rest


def _values(lines: Iterable[bytes | Flush], places: deque[tuple[int, int]]) -> Iterator[object]:
    """Read JSON lines, noting number and end of those that are not blank; a bad one becomes its error."""
    number = end = 0
    for line in lines:
        if isinstance(line, Flush):
            yield line
            continue
        number += 1
        end += len(line) + 1
        if line.strip():
            places.append((number, end))
            yield _value(line)


def _value(line: bytes) -> object:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = str(error) or "nested too deeply"
        return InputTextError(f"not a line of JSON ({reason})")


def _parameter(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals:
        message = f"a parameter is written KEY=VALUE, not {text!r}"
        raise UsageError(message)
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def _open(file: str) -> Any:  # noqa: ANN401 — click's file, which does not close standard input
    try:
        stream: IO[bytes] = click.open_file(file, "rb")
    except (OSError, RuntimeError) as error:  # RuntimeError: standard input is closed
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is not open"
        message = f"cannot read {file} ({reason}): name a file of JSON lines, or - for standard input"
        raise PathError(message) from error
    return stream


def _plain(value: Any) -> object:  # noqa: ANN401 — a numpy array, as features gives
    return value.tolist()
