"""The directory of the user's caches, in which bertport keeps what it can make or fetch again."""

from __future__ import annotations

import os
from pathlib import Path

from bertport.runtime.errors import PathError

__all__ = ["user_caches"]


def user_caches(what: str, advice: str) -> Path:
    """Return bertport's directory among the user's caches (XDG_CACHE_HOME is honoured).

    Args:
        what: what is to be kept there, for the sentence of the error.
        advice: what to do where there is no such directory.

    Raises:
        PathError: for a user without a home directory, as in some containers, where no other place is given.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "bertport"
    except RuntimeError as error:
        raise PathError(f"{what} cannot be kept, as this user has no home directory: {advice}") from error
