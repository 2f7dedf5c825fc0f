"""`bertport predict`: JSON lines in, JSON lines out."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
import time
from collections import deque
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

import click

from bertport.runtime.batching import FLUSH, Flush
from bertport.runtime.commands import completion
from bertport.runtime.commands.inputs import open_file
from bertport.runtime.commands.options import STREAMS, Chosen, model_options
from bertport.runtime.commands.output import report, show_json
from bertport.runtime.commands.progress import Progress, bar, duration
from bertport.runtime.errors import BertportError, InputTextError, PathError, UsageError
from bertport.runtime.key_values import json_or_text, key_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["predict"]

ADVICE = "name a file of JSON lines, or - for standard input"
CHUNK = 1 << 20
"""Bytes read at once, at most; a pipe gives what it has."""
LONGEST_LINE = 16 << 20
"""Bytes of a line, at most: far beyond what any text may have, and little enough to hold."""


@click.command(name="predict")
@click.argument("task", metavar="TASK", shell_complete=completion.tasks)
@click.argument("file", metavar="[FILE|-]", required=False)
@click.option(
    "-i",
    "--input",
    "inputs",
    multiple=True,
    metavar="VALUE",
    help="An input in place of a file's lines, as JSON or a plain text; may be repeated.",
)
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
def predict(  # noqa: PLR0913 — one parameter per option
    *,
    task: str,
    file: str | None,
    inputs: tuple[str, ...],
    chosen: Chosen,
    streams: int | None,
    parameters: tuple[str, ...],
) -> None:
    """Answer for every line of a file, or for inputs on the command line.

    FILE is standard input if it is - or left out. TASK is fill-mask, next-sentence, sentence-order, replaced-tokens,
    text-classification, token-classification, question-answering, zero-shot-classification, multiple-choice,
    text-ranking, embeddings, sentence-similarity or features. Each line is a JSON value: a text, {"text": TEXT}, or for
    a pair [A, B] or {"text": A, "text_pair": B}.
    For each line, in order, a line is printed: {"line": N, "result": ...}, or {"line": N, "error": ...} for one that
    cannot be answered, which is also reported on stderr; the others are answered anyway, and the exit code is
    then 1. Blank lines are skipped.
    """
    if inputs and file is not None:
        raise UsageError(f"predict takes {file} or --input, and both were given: leave one out")
    file = "-" if file is None else file
    model = chosen.load(streams=streams)
    call = model.bind(
        task, **{name: json_or_text(value) for name, value in key_values(parameters, "parameter").items()}
    )
    # Numbers and ends of the lines read and not yet answered, of which there are no more than a window.
    places: deque[tuple[int, int]] = deque()
    failed = answered = 0
    # Standard output is where the answers go: where that is the terminal, a line between them would be in the way.
    shown = None if sys.stdout.isatty() else sys.stderr
    began = time.monotonic()
    with _lines_of(inputs) if inputs else open_file(file, ADVICE) as stream, Progress(shown, erase=True) as progress:
        size = _size(stream)
        for outcome in model.outcomes(call, _values(_lines(stream, file), places)):
            number, end = places.popleft()
            answered += 1
            if progress.due():
                progress.show(described(answered, end, size, time.monotonic() - began))
            if isinstance(outcome, BertportError):
                failed += 1
                progress.clear()
                report(f"bertport: {'input' if inputs else 'line'} {number}: {outcome.message}")
                show_json({"line": number, "error": outcome.message})
            else:
                show_json({"line": number, "result": outcome}, default=_plain)
    if failed:
        raise BertportError(f"{failed} of {answered} {'inputs' if inputs else 'lines'} could not be answered")


def _lines_of(inputs: Sequence[str]) -> IO[bytes]:
    """Return inputs on the command line as JSON lines: one that is an object, a list or a string in JSON, or a text."""
    return io.BytesIO("\n".join(map(_line, inputs)).encode("ascii"))


def _line(text: str) -> str:
    if text.lstrip().startswith(("{", "[", '"')):
        with suppress(ValueError, RecursionError):  # a text may begin so too: [MASK]
            return json.dumps(json.loads(text))
    return json.dumps(text)


def _lines(stream: IO[bytes], file: str) -> Iterator[bytes | int | Flush]:
    """Yield lines as they come, so that a program that writes one and waits for its answer gets it.

    Of a line that is too long only its length is given: it is not kept.
    """
    parts: list[bytes] = []
    length = 0
    while chunk := _read(stream, file):
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            length += len(end)
            yield length if length > LONGEST_LINE else b"".join([*parts, end])
            parts, length = [], 0
        length += len(rest)
        parts.append(rest)
        if length > LONGEST_LINE:
            parts.clear()
        yield FLUSH
    yield length if length > LONGEST_LINE else b"".join(parts)


def _read(stream: IO[bytes], file: str) -> bytes:
    try:
        chunk: bytes = stream.read1(CHUNK)  # type: ignore[attr-defined]  # every buffered file has it; IO does not say so
    except OSError as error:
        raise _unreadable(file, error.strerror or "it cannot be read") from error
    return chunk


def _values(lines: Iterable[bytes | int | Flush], places: deque[tuple[int, int]]) -> Iterator[object]:
    """Yield the values of JSON lines, a bad one as its error; number and end of lines that are not blank are noted."""
    number = end = 0
    for line in lines:
        if isinstance(line, Flush):
            yield line
            continue
        number += 1
        end += (line if isinstance(line, int) else len(line)) + 1
        if isinstance(line, int):
            places.append((number, end))
            yield InputTextError(f"a line of {line:,} bytes is too long: shorten it to {LONGEST_LINE:,}")
        elif line.strip():
            places.append((number, end))
            yield _value(line)


def _value(line: bytes) -> object:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = str(error) or "nested too deeply"
        return InputTextError(f"not a line of JSON ({reason}): give a JSON value a line")


def described(lines: int, read: int, size: int | None, seconds: float) -> str:
    """Return how many lines are answered, how fast, and of a file how much is left.

    Args:
        lines: answered.
        read: bytes that they were.
        size: bytes to be read; None where that is not known.
        seconds: since the beginning.
    """
    text = f"{lines:,} lines, {lines / max(seconds, 1e-9):,.0f} a second"
    if not size:
        return text
    share = min(1.0, read / size)
    left = seconds / share * (1 - share) if share else 0.0
    return f"{bar(share)}  {text}, {duration(left)} left"


def _size(stream: IO[bytes]) -> int | None:
    """Return the bytes that are left of a file; None for a pipe or a terminal."""
    try:
        status = os.fstat(stream.fileno())
        return max(0, status.st_size - stream.tell()) if stat.S_ISREG(status.st_mode) else None
    except (OSError, ValueError):  # not a file of the operating system, as under click's test runner
        return None


def _unreadable(file: str, reason: str) -> PathError:
    return PathError(f"cannot read {file} ({reason}): {ADVICE}")


def _plain(value: Any) -> object:  # noqa: ANN401 — a numpy array, as features gives
    return value.tolist()
