"""Put the default bundle and the sample texts into the wheel, file by file; add a bill of materials and an address."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

SOURCE = Path("models/default")
TARGET = "bertport/runtime/default"
"""Directory in an installed wheel that `load()` reads; in a checkout it reads `models/default` itself."""

SAMPLES = {
    f"data/{name}": f"bertport/measure/data/{name}" for name in ("README.md", "calibration.txt", "evaluation.txt")
}
"""Samples, and their paths in a wheel, where `bertport.measure.text` reads them; in a checkout it reads `data`
itself."""
VENDORED = "bertport/serve/site/files/vendor"
"""Folder, among the packages' own files, of what others wrote."""


class Address(MetadataHookInterface):
    """Adds README.md and the repository's address to the metadata.

    The package index does not resolve links into a repository, so they are made whole. A fork that builds a wheel is
    another place to report to, so the address is that of the building repository: the release workflow sets
    BERTPORT_REPOSITORY to it. A wheel that is built without it states none, and has README.md as it is.
    """

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Add README.md and what is at the address.

        Raises:
            ValueError: when the variable holds no https address.
        """
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        address = os.environ.get("BERTPORT_REPOSITORY", "").rstrip("/")
        if not address:
            return
        if not re.fullmatch(r"https://[\w.-]+(/[\w.-]+)+", address):
            raise ValueError(f"BERTPORT_REPOSITORY is {address!r}: give an address such as https://github.com/org/name")
        files = f"{address}/blob/HEAD"
        metadata["readme"]["text"] = re.sub(r"\]\((?!https?:|#)", f"]({files}/", text)
        metadata["urls"] = {
            "Source": address,
            "Documentation": f"{files}/docs/README.md",
            "Changelog": f"{files}/CHANGELOG.md",
            "Issues": f"{address}/issues",
            "Security": f"{files}/SECURITY.md",
        }


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
        build_data["sbom_files"].append(str(self._bill(build_data["force_include"])))

    def _bill(self, added: dict[str, str]) -> Path:
        """Write the bill of materials, and return where it is.

        Args:
            added: the files that this hook adds, with their names in the wheel; the vendored ones lie in the packages.
        """
        sys.path.insert(0, self.root)
        try:
            import hatch_sbom
        finally:
            sys.path.remove(self.root)
        area = Path(self.root) / "serve"
        files = {target: Path(source) for source, target in added.items()}
        files |= {path.relative_to(area).as_posix(): path for path in (area / VENDORED).rglob("*") if path.is_file()}
        core = self.metadata.core
        bill = self.written / hatch_sbom.NAME
        bill.write_bytes(
            hatch_sbom.document(
                core.raw_name,
                self.metadata.version,
                core.license_expression or core.license,
                {"": core.dependencies, **core.optional_dependencies},
                files,
            )
        )
        return bill

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
