"""Put the default bundle and the sample texts into the wheel, file by file."""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

if TYPE_CHECKING:
    from types import ModuleType

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
        source = Path(self.root) / SOURCE
        digest, content = _digest(Path(self.root)), (source / "manifest.json").read_bytes()
        whole = json.loads(content)
        if digest.digest_of(content, whole["digest"]) != whole["digest"]:
            raise ValueError(
                f"{source}/manifest.json is not as it was written: a digest of the wheel's own would vouch for it"
            )
        manifest = serving_part(whole)
        self.written = Path(tempfile.mkdtemp())
        written = self.written / "manifest.json"
        written.write_bytes(digest.sealed(manifest))
        build_data["force_include"][str(written)] = f"{TARGET}/manifest.json"
        for name in ("README.md", *manifest["files"]):
            build_data["force_include"][str(source / name)] = f"{TARGET}/{name}"
        for name, target in SAMPLES.items():
            build_data["force_include"][str(Path(self.root) / name)] = target

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 — hatch's
        """Remove what was written for the build."""
        if version != "editable":
            shutil.rmtree(self.written)


def _digest(root: Path) -> ModuleType:
    """Load the one module that writes digests: the package that holds it is what is being built."""
    spec = importlib.util.spec_from_file_location("digest", root / "runtime/bertport/runtime/bundle/digest.py")
    assert spec is not None  # noqa: S101 — for mypy: a path to a .py file has a loader
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def serving_part(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest of the bundle without the graphs that `load()` does not take; a wheel is to be small."""
    variants = manifest["variants"]
    needed = files_of(variants[manifest["default_variant"]])
    left_out = {name for variant in variants.values() for name in files_of(variant)} - needed
    files = {name: entry for name, entry in manifest["files"].items() if name not in left_out}
    kept = {name: variant for name, variant in variants.items() if files_of(variant) <= needed}
    return manifest | {"variants": kept, "files": files}


def files_of(variant: dict[str, Any]) -> set[str]:
    """Name the files that a variant loads."""
    return {variant["file"], *variant.get("external_data", ())}
