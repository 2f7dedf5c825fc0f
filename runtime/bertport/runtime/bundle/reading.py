"""Reading `manifest.json`: strict JSON, its digest, and the values that it holds, of any format."""

from __future__ import annotations

from dataclasses import dataclass

from bertport.runtime.bundle import format1
from bertport.runtime.bundle.checks import check
from bertport.runtime.bundle.digest import digest_of
from bertport.runtime.bundle.manifest import FORMAT_VERSION, Manifest
from bertport.runtime.bundle.parsing import parse
from bertport.runtime.bundle.strict_json import refuse_unwritable, strict_json
from bertport.runtime.errors import BundleError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.installation import upgrade_advice

__all__ = ["Stored", "from_json", "read_manifest"]

NAME = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A manifest as it was read."""

    manifest: Manifest
    """Its content, in the shape of format 2."""
    digest: str
    """Digest of the whole manifest: see `bertport.runtime.bundle.digest`."""
    format_version: int
    """The format it is stored in."""


def read_manifest(content: bytes) -> Stored:
    """Return the manifest in the content of a `manifest.json`.

    Raises:
        BundleError: for what is no manifest, or was changed after it was written.
    """
    value = strict_json(content, NAME)
    stated = None
    if isinstance(value, dict) and value.get("format_version") == FORMAT_VERSION:
        stated = value.get("digest")
        if stated is None:
            raise BundleError(
                "manifest.json lacks its digest, which format 2 needs: the bundle is damaged; copy it again"
            )
    digest = digest_of(content, stated)
    if digest is None or (stated is not None and digest != stated):
        raise BundleError(
            f"manifest.json is not as it was written (it states the digest {excerpt(stated, 80)} and has "
            f"{digest or 'another'}): copy the bundle again, or export again"
        )
    refuse_unwritable(value, NAME)
    manifest = from_json(value)
    return Stored(manifest=manifest, digest=digest, format_version=1 if stated is None else FORMAT_VERSION)


def from_json(value: object) -> Manifest:
    """Return a manifest of any format from JSON values; a digest among them is ignored.

    Format 1 ignores fields that it does not know; format 2 refuses them outside its open places.

    Raises:
        BundleError: for a newer format, a missing, unknown or ill-typed field, or a path that leaves the bundle.
    """
    if not isinstance(value, dict) or type(version := value.get("format_version")) is not int:
        raise BundleError(
            "manifest.json has no format_version: this is not a bertport bundle; make one with `bertport export`"
        )
    if version > FORMAT_VERSION:
        raise BundleError(
            f"the bundle has format {version} and this version of bertport reads up to {FORMAT_VERSION}: "
            + upgrade_advice()
        )
    if version < 1:
        raise BundleError(
            f"manifest.json states format {version}, and the first was 1: the bundle is damaged; export again"
        )
    if version == 1:
        manifest = format1.read(value)
    else:
        fields = {key: field for key, field in value.items() if key not in {"format_version", "digest"}}
        manifest = parse(Manifest, fields, "manifest.json")
    check(manifest)
    return manifest
