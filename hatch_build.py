"""Put the default bundle and the sample texts into the wheel, file by file."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("models/default")
TARGET = "bertport/runtime/default"
"""Where `load()` looks in an installed wheel; in a checkout it reads `models/default` itself."""

SAMPLES = {
    f"data/{name}": f"bertport/measure/data/{name}" for name in ("README.md", "calibration.txt", "evaluation.txt")
}
"""Where `bertport.measure.text` looks for them in an installed wheel; in a checkout it reads `data` itself."""


class PackageData(BuildHookInterface[Any]):
    """Adds each file to force-include: a whole directory would take stray files along."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files to a wheel; an editable install needs none."""
        if version == "editable":
            return
        self.written = Path(tempfile.mkdtemp())
        bundle = self.written / "default"
        _pack(Path(self.root), bundle)
        for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
            build_data["force_include"][str(path)] = f"{TARGET}/{path.relative_to(bundle).as_posix()}"
        for name, target in SAMPLES.items():
            build_data["force_include"][str(Path(self.root) / name)] = target

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 — hatch's
        """Remove what was written for the build."""
        if version != "editable":
            shutil.rmtree(self.written)


def _pack(root: Path, target: Path) -> None:
    """Write the default bundle without the graphs that `load()` does not take; a wheel is to be small.

    What packs it is part of what is being built, and needs the standard library alone.
    """
    sys.path.insert(0, str(root / "runtime"))
    try:
        from bertport.runtime.bundle.packing import pack

        pack(root / SOURCE, target)
    finally:
        sys.path.remove(str(root / "runtime"))
