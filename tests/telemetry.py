"""What ONNX Runtime's telemetry leaves in a home directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def at_home(home: Path, setting: str | None = None) -> dict[str, str]:
    """Give an environment whose home is another, in which nobody has said anything of telemetry but `setting`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "XDG_", "ORT_"))}
    kept |= {"HOME": str(home), "USERPROFILE": str(home)}
    return kept if setting is None else kept | {"ORT_DISABLE_TELEMETRY": setting}


def traces(home: Path) -> list[str]:
    """Name the files that a device id and a queue of events are."""
    return [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file() and "Microsoft" in path.parts]
