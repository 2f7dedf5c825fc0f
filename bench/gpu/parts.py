"""A kit in parts, for a machine to which little travels at a time, and the calls that bring, join and run it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FOLDER = ".gpu-kit"
"""Folder of the checkout, which git ignores: a part is a folder in it, carried by one call."""
PART = 50_000_000
"""Bytes of a part, at most."""
TRAVELS = 64 << 20
"""Bytes that a call takes along, at most: the part, and the checkout as it stands."""
AWAY = ("models", "default", "onnx")
"""Directory that is to be moved out of the checkout meanwhile: it alone is larger."""
KIT = "/tmp/kit"  # noqa: S108 — on a machine that is ours alone
"""The kit, there."""
LONGEST = 2000
"""Characters of a command, at most."""
FIRST_S, SECOND_S = 580, 240
"""Seconds of the calls that measure: ten minutes are the most for one, and what is left of fifteen is the other's."""
ROW_S = 120
"""Seconds of the tests, or of a row, there."""


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
            digest = hashlib.sha256(piece).hexdigest()
            (place / f"{count:02}.sha256").write_text(f"{digest}  {name}\n", encoding="ascii", newline="\n")
    archive.unlink()
    return count


def calls(count: int) -> list[dict[str, Any]]:
    """Return the calls, in order: one brings each part, and two join them and measure.

    They are to be made at once, one after the other: the machine goes back after 30 idle seconds. The second goes on
    where the first was cut, and tries again what failed: where nothing is left, it need not be made.
    """
    parts = [f"{FOLDER}/{number:02}" for number in range(1, count + 1)]
    bring = f"mkdir -p {KIT}/parts && cp {{}}/* {KIT}/parts/"
    made = [{"command": bring.format(part), "carry": [part], "timeout_s": 60} for part in parts]
    made += [
        {"command": measuring(count, seconds - 20), "carry": [], "timeout_s": seconds}
        for seconds in (FIRST_S, SECOND_S)
    ]
    return made


def measuring(count: int, seconds: int) -> str:
    """Return the command that joins the parts, unless that is done, and measures; it brings back what there is."""
    join = (
        f"(cd {KIT}/parts && test $(ls *.part | wc -l) = {count} && sha256sum -c --quiet *.sha256 "
        f"&& cat *.part | tar -x -C {KIT} && touch {KIT}/joined)"
    )
    return (
        f"nvidia-smi -L; test -e {KIT}/joined || {join} || exit 1; "
        f"timeout -k 5 {seconds} python3 -m bench.gpu run {KIT} --installed --most-s {ROW_S}; code=$?; "
        f"PYTHONPATH={KIT}/site python3 -m bertport.runtime doctor --json > $OUT/doctor.json; "
        f"cp {KIT}/gpu.* $OUT/; exit $code"
    )
