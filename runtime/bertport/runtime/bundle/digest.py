"""The digest of a bundle: one SHA-256 that stands for its manifest, and so for every file that the manifest lists.

Nothing but the standard library is imported here: the wheel's build packs a bundle before
anything is installed.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

__all__ = ["ALGORITHM", "digest_of", "normalized", "sealed"]

ALGORITHM = "sha256:"
"""Prefix of a digest; 64 hexadecimal digits follow."""
DIGITS = re.compile(r"[0-9a-f]{64}")
ZEROS = "0" * 64
KEY = "digest"


def sealed(value: dict[str, Any]) -> bytes:
    """Return a manifest of format 2 as the bytes of its file, with its digest.

    Args:
        value: JSON values; a digest among them is replaced.

    Raises:
        ValueError: for what JSON cannot hold: NaN, infinity, or a lone surrogate.
    """
    first = {"format_version": value["format_version"], KEY: ALGORITHM + ZEROS}
    text = json.dumps(first | {key: field for key, field in value.items() if key not in first}, **LAYOUT) + "\n"
    content = text.encode()
    digits = hashlib.sha256(content).hexdigest()
    return content.replace(ZEROS.encode(), digits.encode(), 1)  # nothing but the version stands before it


LAYOUT: dict[str, Any] = {"indent": 2, "ensure_ascii": False, "allow_nan": False}


def digest_of(content: bytes, stated: object = None) -> str | None:
    """Return the digest of a manifest: SHA-256 of its bytes, the digits of the digest that it states taken as zeros.

    Args:
        content: of manifest.json.
        stated: the digest in it; None for format 1, which has none.

    Returns:
        The digest, which is the one stated where nothing was changed; None where `stated` is no digest, or its digits
        do not stand in the content once.
    """
    if stated is None:
        return ALGORITHM + hashlib.sha256(content).hexdigest()
    if not isinstance(stated, str) or normalized(stated) != stated:
        return None
    digits = stated.removeprefix(ALGORITHM).encode()
    if content.count(digits) != 1:
        return None
    return ALGORITHM + hashlib.sha256(content.replace(digits, ZEROS.encode())).hexdigest()


def normalized(text: str) -> str | None:
    """Return a digest as it is written in manifests, from one in either case, with or without `sha256:`.

    None for what is no digest.
    """
    digits = text.strip().lower().removeprefix(ALGORITHM)
    return ALGORITHM + digits if DIGITS.fullmatch(digits) else None
