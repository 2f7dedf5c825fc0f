"""Reading `manifest.json`: strict JSON, its digest, and the values that it holds, of any format."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from bertport.runtime.bundle import format1
from bertport.runtime.bundle.checks import check
from bertport.runtime.bundle.digest import digest_of
from bertport.runtime.bundle.manifest import FORMAT_VERSION, Manifest
from bertport.runtime.bundle.parsing import parse
from bertport.runtime.errors import BundleError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.installation import upgrade_advice

__all__ = ["Stored", "from_json", "read_manifest"]

DEEPEST = 100
"""Levels of objects and lists; those of today take six."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A manifest as it was read."""

    manifest: Manifest
    """What it says, in the shape of format 2."""
    digest: str
    """What stands for all of it: see `bertport.runtime.bundle.digest`."""
    format_version: int
    """The format it is stored in."""


def read_manifest(content: bytes) -> Stored:
    """Return the manifest in the content of a `manifest.json`.

    Raises:
        BundleError: for what is no manifest, or was changed after it was written.
    """
    try:
        value = json.loads(
            content.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"manifest.json is not JSON ({excerpt(str(error), 200)}): the bundle is damaged; export again"
        ) from error
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
    _refuse_nested(value)
    _refuse_surrogates(value)
    manifest = from_json(value)
    return Stored(manifest=manifest, digest=digest, format_version=value["format_version"])


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


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object of its members; two of one name are refused."""
    value = dict(pairs)
    if len(value) < len(pairs):
        repeated = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {excerpt(repeated, 80)} is there twice")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON's")


def _finite(text: str) -> float:
    """Return a number; one too large for a float would be an infinity, which JSON cannot hold."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is larger than any float")
    return value


def _refuse_nested(value: object) -> None:
    """Refuse what is nested deeper than Python's stack lets it be written again; its open places hold anything."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise BundleError(f"manifest.json is nested more than {DEEPEST} levels deep: the bundle is damaged; export again")


def _refuse_surrogates(value: object) -> None:
    """Refuse text that has no UTF-8 (half of a pair of escapes), as it could be neither shown nor written again.

    Called when the nesting is known to be bounded.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_surrogates(key)
            _refuse_surrogates(inner)
    elif isinstance(value, list):
        for inner in value:
            _refuse_surrogates(inner)
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise BundleError(
                f"manifest.json has a text that is not Unicode text ({excerpt(value, 80)}): the bundle is damaged; "
                "export again"
            ) from error
