"""The file of an evaluation: written beside its place and renamed, so that a stop leaves what was there before."""

from __future__ import annotations

import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from bertport.runtime.errors import PathError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["check_output", "write_output"]

ADVICE = "name a file in a directory that can be written"


def check_output(path: Path) -> None:
    """See that a file can be written, before anything is measured.

    Raises:
        PathError: where its directory is not there or cannot be written, or what has its name is no regular file.
    """
    with _errors(path):
        if path.exists() and not path.is_file():
            raise PathError(f"cannot write {path} (it exists and is not a file): {ADVICE}")
        with _beside(path, ""):
            pass


def write_output(path: Path, text: str) -> None:
    """Write a text into a file, which has all of it or what it had before.

    Raises:
        PathError: where it cannot be written.
    """
    with _errors(path), _beside(path, text) as unfinished:
        unfinished.replace(path)


@contextmanager
def _beside(path: Path, text: str) -> Iterator[Path]:
    """Write a text into a new file in the same directory; it is removed where the block does not rename it.

    Its name is a chance one: a process of a container has the number of the last one, which may have been killed.
    """
    unfinished = path.with_name(f".evaluation-{secrets.token_hex(8)}.tmp")
    try:
        with unfinished.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
        yield unfinished
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except PathError:
        raise
    except OSError as error:
        raise PathError(f"cannot write {path} ({error.strerror or error}): {ADVICE}") from error
    except ValueError as error:  # a NUL in the name, or none
        raise PathError(f"cannot write {str(path)!r} ({error}): {ADVICE}") from error
