"""A kit in parts, for a machine to and from which little travels at a time."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

from bench.checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FOLDER = ".gpu-kit"
"""Folder of the checkout, which git ignores: a part is a folder in one of its own, carried by one call."""
PART = 50_000_000
"""Bytes of a part, at most."""
TRAVELS = 64 << 20
"""Bytes that a call takes along, at most: the part, and the checkout as it stands."""
AWAY = ("models", "default", "onnx")
"""Directory that is to be moved out of the checkout meanwhile: it alone is larger."""


def check_size(travels: int = TRAVELS) -> None:
    """Refuse a checkout beside which no part can travel.

    Raises:
        SystemExit: with its size.
    """
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, capture_output=True, check=True).stdout
    files = [ROOT / os.fsdecode(name) for name in set(listed.split(b"\0")) if name]
    away = ROOT.joinpath(*AWAY)
    size = sum(file.lstat().st_size for file in files if away not in file.parents and os.path.lexists(file))
    if size + PART > travels:
        sys.exit(
            f"the checkout without {'/'.join(AWAY)} has {size:,} bytes, and {travels - PART:,} can travel beside a "
            "part: remove files that git neither tracks nor ignores"
        )


def split(sources: Sequence[Path], folder: Path, size: int = PART) -> int:
    """Write files and directories as one archive in parts, each in a folder with its SHA-256; return their number."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    archive = folder / "kit.tar"
    with tarfile.open(archive, "w") as tar:
        for source in sources:
            tar.add(source, source.name)
    count = 0
    with archive.open("rb") as file:
        while piece := file.read(size):
            count += 1
            place = folder / f"{count:02}"
            place.mkdir()
            name = f"{count:02}.part"
            (place / name).write_bytes(piece)
            (place / f"{count:02}.sha256").write_text(_told(piece, name), encoding="ascii", newline="\n")
    archive.unlink()
    return count


def join(folder: Path, target: Path) -> None:
    """Check the parts of an archive, and unpack it.

    Raises:
        SystemExit: naming the part that is missing or damaged.
    """
    archive = io.BytesIO()
    for number in range(1, max(1, sum(place.is_dir() for place in folder.iterdir())) + 1):
        place = folder / f"{number:02}"
        part, told = place / f"{place.name}.part", place / f"{place.name}.sha256"
        if not (part.is_file() and told.is_file()):
            sys.exit(f"{place} lacks {part.name} or {told.name}: fetch it again")
        piece = part.read_bytes()
        if told.read_text(encoding="ascii") != _told(piece, part.name):
            sys.exit(f"{part} is not what {told.name} says: fetch it again")
        archive.write(piece)
    if archive.tell() % tarfile.RECORDSIZE:  # an archive is filled up to that, and no part is a multiple of it
        sys.exit(f"{folder} lacks the last parts of the archive: fetch them too")
    archive.seek(0)
    with tarfile.open(fileobj=archive) as tar:
        tar.extractall(target, filter="data")


def _told(piece: bytes, name: str) -> str:
    """Return the line in which sha256sum tells the SHA-256 of a file."""
    return f"{hashlib.sha256(piece).hexdigest()}  {name}\n"
