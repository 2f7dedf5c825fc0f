"""Inputs of commands: texts in files."""

from __future__ import annotations

from contextlib import suppress
from typing import IO

import click

from bertport.runtime.commands.output import wait_for
from bertport.runtime.errors import PathError

__all__ = ["open_file", "read_text"]

MOST_BYTES = 64 << 20
"""Bytes of a text, at most: far beyond what any model reads of it, and little enough to hold."""


def open_file(file: str, advice: str) -> IO[bytes]:
    """Return a file, or standard input where it is `-`, opened to be read; closing leaves standard input open.

    Raises:
        PathError: where it cannot be opened; it ends in the advice.
    """
    try:
        stream: IO[bytes] = click.open_file(file, "rb")
    except (OSError, RuntimeError, ValueError) as error:  # standard input is closed; a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error) if isinstance(error, ValueError) else None
        raise PathError(f"cannot read {file} ({reason or 'it is not open'}): {advice}") from error
    # A program that shares standard input may have left it so that reading does not wait: to find nothing there yet
    # would be taken for the end.
    with suppress(OSError, ValueError):  # no file of the system
        wait_for(stream.fileno())
    return stream


def read_text(file: str) -> str:
    """Return the text of a file in UTF-8, or of standard input where it is `-`.

    Raises:
        PathError: where it cannot be read, is not UTF-8, or too long.
    """
    advice = "name a file of text in UTF-8, or - for standard input"
    with open_file(file, advice) as stream:
        try:
            content = stream.read(MOST_BYTES + 1)
        except OSError as error:
            raise PathError(f"cannot read {file} ({error.strerror or 'it cannot be read'}): {advice}") from error
    if len(content) > MOST_BYTES:
        raise PathError(f"cannot read {file} (more than {MOST_BYTES:,} bytes): {advice}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PathError(f"cannot read {file} (byte {error.start:,} is not UTF-8): {advice}") from error
