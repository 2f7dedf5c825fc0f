"""Recording a way: the files of bertport that run, in the order in which each is entered first."""

from __future__ import annotations

import inspect
import signal
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

ROOT = Path(__file__).parents[1]


@contextmanager
def recorded() -> Iterator[dict[str, None]]:
    """Record a way, also in threads that are started meanwhile."""
    way: dict[str, None] = {}
    _record(way)
    try:
        yield way
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def _record(way: dict[str, None]) -> None:
    """Note each file of an area when a function of it is first called.

    Modules that are imported on the way do not count, nor what runs while they are: that is no step of the work.
    """
    local = threading.local()

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        imports = not code.co_flags & inspect.CO_OPTIMIZED  # the body of a module or of a class
        if event == "call":
            if not (depth := getattr(local, "depth", 0)) and not imports and (file := _file(code.co_filename)):
                way.setdefault(file)
            local.depth = depth + imports
        elif event == "return" and imports:
            local.depth -= 1

    threading.setprofile(note)
    sys.setprofile(note)


def record_process(target: str) -> None:
    """Record the way of this process: SIGUSR1 begins anew, SIGUSR2 writes the files of it to `target`, one a line."""
    path, way = Path(target), dict[str, None]()
    _record(way)

    def write(*_: object) -> None:
        partial = path.with_suffix(".partial")
        partial.write_text("\n".join(way), encoding="utf-8")
        partial.replace(path)

    signal.signal(signal.SIGUSR1, lambda *_: way.clear())
    signal.signal(signal.SIGUSR2, write)


def rooms(way: Iterable[str], area: str) -> list[str]:
    """The rooms of an area in the order of a way; one that is left and entered again is there again.

    What areas below it do is left out: they are called as numpy is. So are the area's own modules, such as
    `export/exporter.py`, which are the hall between the rooms. `export/graph/passes` is part of `export/graph`.
    """
    found: list[str] = []
    for parts in (file.split("/") for file in way):
        if parts[0] == area and len(parts) > 2 and found[-1:] != [parts[1]]:
            found.append(parts[1])
    return found


def returns(found: list[str]) -> dict[str, int]:
    """Return how often a way comes back to each room that it left."""
    return {room: count - 1 for room, count in Counter(found).items() if count > 1}


def _file(name: str) -> str | None:
    """The path of a file of an area below its root, `runtime/bundle/manifest.py`; None for any other."""
    parts = Path(name).parts
    if "bertport" not in parts or not name.startswith(str(ROOT)):
        return None
    return "/".join(parts[len(parts) - parts[::-1].index("bertport") :])
