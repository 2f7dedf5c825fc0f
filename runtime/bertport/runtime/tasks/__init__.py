"""Tasks: one table, and the post-processing of each."""

from typing import TYPE_CHECKING

from bertport.runtime.deprecated import moved

__all__: list[str] = []

if not TYPE_CHECKING:  # type checkers are to know the new paths alone
    __getattr__ = moved(
        __name__,
        {
            **dict.fromkeys(("NO_POSITIONS", "TASKS", "Call", "Task", "Work", "bind"), "bertport.runtime.tasks.table"),
        },
    )
