"""Output of commands: answers, which have to arrive, and messages, whose failure stops nothing."""

from __future__ import annotations

import atexit
import errno
import io
import json
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

from bertport.runtime.commands.render import printable
from bertport.runtime.errors import BertportError, PathError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "ADVICE",
    "UnwrittenError",
    "bounded",
    "finish",
    "guard",
    "keep_apart",
    "report",
    "show",
    "show_json",
    "unwritten",
    "wait_for",
]

LONGEST = 4000
"""Characters of a message: it may quote whatever was given."""
ADVICE = "free some room, or write elsewhere"
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that could move a terminal's cursor or change its colours, whatever name they stand in."""
NOT_OPEN = "cannot write the output (it is not open): give the command a standard output"


class UnwrittenError(BertportError):
    """An answer that could not be written."""


def keep_apart(output: str | os.PathLike[str], read: Iterable[str | None], bundles: Iterable[str | None]) -> None:
    """Refuse an output that would take the place of a file that the command reads, or be in a bundle.

    Args:
        output: The file to be written.
        read: Files that the command reads; None for one that was not given.
        bundles: Directories of bundles; None for the embedded one.

    Raises:
        PathError: for such an output.
    """
    for path in filter(None, read):
        if _same(output, path):
            raise PathError(f"cannot write {output} (the command reads that file): name another output")
    for path in filter(None, bundles):
        if _inside(output, path):
            raise PathError(f"cannot write {output} (it is in the bundle {path}): name an output beside it")


def _same(output: str | os.PathLike[str], path: str) -> bool:
    """Return whether two paths lead to one file; what is no path has a sentence of its own."""
    try:
        return Path(output).samefile(path)
    except (OSError, ValueError):
        return False


def _inside(output: str | os.PathLike[str], directory: str) -> bool:
    """Return whether a path leads into a directory; what is no path has a sentence of its own."""
    try:
        return Path(output).resolve().is_relative_to(Path(directory).resolve(strict=True))
    except (OSError, RuntimeError, ValueError):  # of a loop of links Python before 3.13 raises RuntimeError
        return False


def show(text: str) -> None:
    """Print an answer on standard output, at once; control characters are written as JSON escapes them.

    Raises:
        UnwrittenError: when it cannot be written there.
    """
    if sys.stdout is None:
        raise UnwrittenError(NOT_OPEN)
    text = CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has left, and would not see a message
        sys.stdout = cast("TextIO", None)  # or Python would try again as it ends, and say so
        raise click.exceptions.Exit(1) from None
    except OSError as error:
        raise unwritten(error) from error


def show_json(
    value: Any,  # noqa: ANN401 — any JSON value
    *,
    indent: int | None = None,
    default: Callable[[Any], object] | None = None,
) -> None:
    """Print an answer as JSON, with escapes where the encoding of standard output cannot hold its characters.

    Numbers that are not finite are null, as JavaScript and the server write them: JSON has no word for them.

    Raises:
        UnwrittenError: when it cannot be written there.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, indent=indent, default=default, allow_nan=False)
    except ValueError:
        value = json.loads(json.dumps(value, default=default), parse_constant=lambda _: None)
        text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent, default=default)
    show(text)


def report(text: str) -> None:
    """Print a message on standard error, as one line."""
    click.echo(bounded(printable(re.sub(r"\s*[\r\n]\s*", " ", text.strip()))), file=sys.stderr)


def bounded(text: str, length: int = LONGEST) -> str:
    """Return a message, cut where it is too long to be read."""
    return text if len(text) <= length else f"{text[:length]}..."


class Messages(io.TextIOBase):
    """Standard error that is never the reason to stop: what cannot be written there is dropped.

    Args:
        stream: where to write; None where standard error is closed.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]  # the base allows setting it
        """The encoding written in."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def writable(self) -> bool:
        """Return True: the stream takes text."""
        return True

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """Return the number of the file."""
        if self._stream is None:
            raise io.UnsupportedOperation
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write, if the stream can be written."""
        if self._stream is not None:
            with suppress(OSError, ValueError):
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if the stream can be written."""
        if self._stream is not None:
            with suppress(OSError, ValueError):
                self._stream.flush()


def guard() -> None:
    """Prepare the process's streams, once, before a command runs.

    Standard output escapes what its encoding cannot hold, and where it is closed, writing fails instead of being
    skipped. Standard error never fails.
    """
    inheritable = True
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Or the next file opened would get this number, and ONNX Runtime's messages. Opened the wrong way round,
            # as GNU's tools do, so that using it fails. The lowest free number is taken, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY if number else os.O_WRONLY), inheritable)
    for number in (1, 2):
        # A program that shares it may have left it so that writing does not wait: a long answer would be cut off.
        wait_for(number)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115 — to the end
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if not isinstance(sys.stderr, Messages):
        sys.stderr = cast("TextIO", Messages(sys.stderr))


def wait_for(number: int) -> None:
    """Let reading and writing of a file wait, until this process ends.

    Programs that share an open file share this setting of it: one that did not wait finds it so again.

    Args:
        number: the file's, which stays open.
    """
    with suppress(OSError, AttributeError):  # Windows before Python 3.12 has no such functions
        if not os.get_blocking(number):
            waiting = True
            os.set_blocking(number, waiting)
            atexit.register(_restore, number)


def _restore(number: int) -> None:
    waiting = False
    with suppress(OSError):
        os.set_blocking(number, waiting)


def finish() -> None:
    """Check that all that was printed has arrived: some file systems report a failure only at the end.

    Raises:
        UnwrittenError: when it has not.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
        with suppress(io.UnsupportedOperation):
            os.close(os.dup(sys.stdout.fileno()))
    except OSError as error:
        raise unwritten(error) from error


def unwritten(error: OSError) -> UnwrittenError:
    """Return the error of standard output that cannot be written; nothing is written there from now on."""
    sys.stdout = cast("TextIO", None)  # or Python would try again as it ends, and say so
    if error.errno == errno.EBADF:
        return UnwrittenError(NOT_OPEN)
    return UnwrittenError(f"cannot write the output ({error.strerror or type(error).__name__}): {ADVICE}")
