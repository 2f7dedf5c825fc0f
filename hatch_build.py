"""Put the default bundle and the sample texts into the wheel, file by file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("models/default")
TARGET = "bertport/runtime/default"
"""Where `load()` looks in an installed wheel; in a checkout it reads `models/default` itself."""

SAMPLES = {
    f"data/{name}": f"bertport/compare/data/{name}" for name in ("README.md", "calibration.txt", "evaluation.txt")
}
"""Where `bertport.compare.text` looks for them in an installed wheel; in a checkout it reads `data` itself."""


class PackageData(BuildHookInterface[Any]):
    """Adds each file to force-include: a whole directory would take stray files along."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files to a wheel; an editable install needs none."""
        if version == "editable":
            return
        source = Path(self.root) / SOURCE
        manifest = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
        for name in ("manifest.json", "README.md", *manifest["files"]):
            build_data["force_include"][str(source / name)] = f"{TARGET}/{name}"
        for name, target in SAMPLES.items():
            build_data["force_include"][str(Path(self.root) / name)] = target
