"""Errors: each states what was asked, what was found and what to do.

Every error that a user can cause derives from `BertportError`, which the command line turns into one
sentence on stderr and an exit code, without a traceback::

    BertportError
    ├── UsageError (ValueError)            exit 2: what was asked for cannot be
    │   ├── InputTextError                 a text without a mask, or too long
    │   ├── UnknownNameError               an unknown task, variant, provider, recipe or option
    │   └── MissingHeadError               a head that the checkpoint or bundle does not hold
    ├── PathError (OSError)                exit 2: no such path, exists already, no room left
    ├── CheckpointError (ValueError)       exit 1: not a checkpoint that can be read
    ├── BundleError (ValueError)           exit 1: not a bundle, damaged, or too new
    ├── ValidationError (ArithmeticError)  exit 1: a graph differs from its reference
    ├── OutputError (ArithmeticError)      exit 1: a graph gives an input no finite numbers
    ├── SlowerError (ArithmeticError)      exit 3: a variant that is slower than what it is made of
    ├── ProviderError (RuntimeError)       exit 1: an execution provider that does not work here
    └── MissingDependencyError (ImportError)  exit 1: a package or extra that is not installed
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from bertport.runtime.excerpts import excerpt
from bertport.runtime.installation import APART, install_command

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "NO_ROOM",
    "BertportError",
    "BundleError",
    "CheckpointError",
    "InputTextError",
    "MissingDependencyError",
    "MissingHeadError",
    "OutputError",
    "PathError",
    "ProviderError",
    "SlowerError",
    "UnknownNameError",
    "UsageError",
    "ValidationError",
    "panicked",
]


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers of the operating system for a full disk, an exceeded quota, and a file beyond the largest size
allowed."""


class BertportError(Exception):
    """Base of every error that a user can cause or mend."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        """Return the sentence shown to the user."""
        return self.message


class UsageError(BertportError, ValueError):
    """A request that cannot be fulfilled with what was given."""

    exit_code = 2


class InputTextError(UsageError):
    """A text that the task cannot take: without a mask, too long, empty, or of the wrong shape."""


class UnknownNameError(UsageError):
    """A name that is none of those accepted.

    Args:
        kind: what is named, for example "task".
        found: the name that was asked for.
        known: the names accepted.
        advice: what to do, when choosing an accepted name is not the whole answer.
    """

    def __init__(self, kind: str, found: object, known: Iterable[str], advice: str = "") -> None:
        names = ", ".join(known) or "none"
        super().__init__(f"unknown {kind} {excerpt(found, 100)} (available: {names}){': ' + advice if advice else ''}")


class MissingHeadError(UsageError):
    """A task or output that needs a head which the checkpoint or bundle does not hold."""


class PathError(BertportError, OSError):
    """A path that is not there, is there already, or cannot be written."""

    exit_code = 2


class CheckpointError(BertportError, ValueError):
    """Not a checkpoint that can be read."""


class BundleError(BertportError, ValueError):
    """Not a bundle, a damaged one, or one of a newer format."""


class ValidationError(BertportError, ArithmeticError):
    """A graph whose outputs differ from its reference by more than the tolerance."""


class OutputError(BertportError, ArithmeticError):
    """An output with NaN or infinity: the input has no answer."""


class SlowerError(BertportError, ArithmeticError):
    """A variant that was measured and is slower than fp32, which it is made of."""

    exit_code = 3


class ProviderError(BertportError, RuntimeError):
    """An execution provider that was asked for and does not work here."""


class MissingDependencyError(BertportError, ImportError):
    """A package that the call needs and that is not installed.

    Args:
        what: what needs it, for example "export".
        package: the package that was not found.
        extra: the extra of bertport, or extras separated by commas, that install it.
        command: what installs it where no extra does.
    """

    def __init__(self, what: str, package: str, extra: str, *, command: str | None = None) -> None:
        apart = " and needs an environment of its own; there" if APART.intersection(extra.split(",")) else ""
        install = command or install_command(extra)
        super().__init__(f"{what} needs the package {package}, which is not installed{apart}: {install}")


def panicked(error: BaseException) -> bool:
    """Return whether an error is a panic of a Rust package, which is no `Exception`."""
    return type(error).__name__ == "PanicException"
