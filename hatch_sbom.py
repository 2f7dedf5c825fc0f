"""The wheel's software bill of materials: what it carries that has an origin of its own, and what it asks for.

hatch_build.py writes it into the wheel as CycloneDX 1.6, in `.dist-info/sboms` (PEP 770). The same sources give the
same bytes: nothing in it is drawn or read off a clock.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

NAME = "bertport.cdx.json"
"""The file's name, with the ending that CycloneDX recommends."""
OWN = "pkg:pypi/{name}@{version}"


class Carried(NamedTuple):
    """A part of the wheel that others made, or that was made from what others made."""

    name: str
    """Name that its makers give it."""
    version: str
    """Its version; empty where it has none, and for the bundle, whose digest is read from its manifest."""
    kind: str
    """CycloneDX's type of component."""
    place: str
    """The folder or file in the wheel, or the beginning of the names of its files."""
    licence: str
    """An SPDX identifier, or words where SPDX has none."""
    url: str
    """Its package URL; empty where it has none."""
    about: str
    """A sentence on where it is from."""
    made_from: tuple[str, ...] = ()
    """Package URLs of what it was made from, each of the same licence."""


MODEL = "bertport-default"
CARRIED = (
    Carried(
        MODEL,
        "",
        "machine-learning-model",
        "bertport/runtime/default/",
        "Apache-2.0",
        "",
        "Trained for bertport from the weights of all-MiniLM-L6-v2; models/default/README.md names its training text.",
        made_from=("pkg:huggingface/sentence-transformers/all-MiniLM-L6-v2",),
    ),
    Carried(
        "sample texts",
        "",
        "data",
        "bertport/measure/data/",
        "public domain in the United States",
        "",
        "Excerpts of three books first published between 1887 and 1907; data/README.md names them.",
    ),
    Carried(
        "@huggingface/tokenizers",
        "0.2.0",
        "library",
        "bertport/serve/site/files/vendor/",
        "Apache-2.0",
        "pkg:npm/%40huggingface/tokenizers@0.2.0",
        "The tokenizer of the page that `bertport site` writes, as its npm package holds it.",
    ),
)
"""Parts that THIRD_PARTY.md lists; tests/test_project_files.py holds it to this table."""


def document(
    name: str,
    version: str,
    licence: str,
    requirements: Mapping[str, Sequence[str]],
    files: Mapping[str, Path],
) -> bytes:
    """Return the bill as UTF-8 JSON.

    Args:
        name: the distribution's name.
        version: its version.
        licence: its SPDX expression.
        requirements: PEP 508 requirements by the extra that asks for them; those of every installation under "".
        files: the wheel's files of `CARRIED` by their names in it, with where each is read from.

    Raises:
        ValueError: when a part of `CARRIED` has no file.
    """
    own = OWN.format(name=name, version=version)
    parts = [_part(row, files) for row in CARRIED]
    asked = _asked(requirements)
    bill: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [{"type": "application", "name": "hatch_sbom.py of bertport", "version": version}]},
            "supplier": {"name": "the authors of bertport"},
            "component": {
                "type": "library",
                "bom-ref": own,
                "name": name,
                "version": version,
                "purl": own,
                "licenses": [{"expression": licence}],
            },
        },
        "components": [*parts, *asked],
        "dependencies": [
            {"ref": own, "dependsOn": sorted(part["bom-ref"] for part in (*parts, *asked))},
            *({"ref": ref} for ref in sorted(part["bom-ref"] for part in (*parts, *asked))),
        ],
    }
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        bill["metadata"]["timestamp"] = datetime.fromtimestamp(int(epoch), UTC).isoformat().replace("+00:00", "Z")
    content = hashlib.sha256(_text(bill)).hexdigest()
    bill["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}"
    return _text(bill)


def _part(row: Carried, files: Mapping[str, Path]) -> dict[str, Any]:
    """Return the component of a part, with a component for each of its files."""
    held = {path: source for path, source in sorted(files.items()) if path.startswith(row.place)}
    if not held:
        raise ValueError(f"the wheel has no file of {row.name} under {row.place}: mend CARRIED in hatch_sbom.py")
    version = row.version
    if row.name == MODEL:
        version = json.loads(held[f"{row.place}manifest.json"].read_text(encoding="utf-8"))["digest"]
    spdx = re.fullmatch(r"[\w.+-]+", row.licence)
    part: dict[str, Any] = {
        "type": row.kind,
        "bom-ref": row.url or f"part:{row.name}",
        "name": row.name,
        "description": row.about,
        "licenses": [{"license": {"id" if spdx else "name": row.licence}}],
        "components": [
            {
                "type": "file",
                "bom-ref": f"file:{path}",
                "name": path,
                "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(source.read_bytes()).hexdigest()}],
            }
            for path, source in held.items()
        ],
    }
    if version:
        part["version"] = version
    if row.url:
        part["purl"] = row.url
    if row.made_from:
        ancestors = [
            {
                "type": row.kind,
                "bom-ref": f"ancestor:{url}",
                "name": url.rpartition("/")[2],
                "purl": url,
                "licenses": part["licenses"],
            }
            for url in row.made_from
        ]
        part["pedigree"] = {"ancestors": ancestors}
    return part


def _asked(requirements: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Return a component for each package that is asked for: of no version, since the installer chooses one."""
    asked: dict[str, list[tuple[str, str]]] = {}
    for extra, listed in requirements.items():
        for requirement in listed:
            package = re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0]).lower()
            asked.setdefault(package, []).append((extra, requirement.strip()))
    return [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{package}",
            "name": package,
            "purl": f"pkg:pypi/{package}",
            "scope": "required" if any(not extra for extra, _ in wanted) else "optional",
            "properties": [
                {"name": f"bertport:requirement:{extra}" if extra else "bertport:requirement", "value": requirement}
                for extra, requirement in sorted(wanted)
            ],
        }
        for package, wanted in sorted(asked.items())
    ]


def _text(bill: dict[str, Any]) -> bytes:
    return (json.dumps(bill, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
