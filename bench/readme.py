"""Type each line of the README's blocks in a fresh clone, with an environment and a home of its own.

    python -m bench.readme --checkpoint DIR --data mine.csv [--work DIR]

`--checkpoint` is a fine-tuned text classifier of a real size, which the README calls `checkpoint`, and `--data` its
labelled examples, `mine.csv` there. The two commands that set everything up are CI's, and left out. Each other line is
typed into a shell as it stands, in the order of the page, and each block of Python run by the same environment's; a
server is asked whether it is ready, and ended. Writes docs/data/readme.json, and ends with 1 where a line failed. It
takes a quarter of an hour, most of it for pip and for measuring.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import dev
from bench.checkout import ROOT, environment, provenance

DATA = ROOT / "docs" / "data" / "readme.json"
README = ROOT / "README.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SET_UP = "python3 dev.py "
"""Beginning of the commands that CI runs on a clean checkout."""
ACTIVATED = "bertport-env/bin/activate"
SERVER = "bertport serve "
LISTENING = re.compile(r'"message":"listening","url":"([^"]+)"')
FURTHER = "pip install '.[cpu,export,quantize,evaluate,compare,serve]'"
"""What the comment beside the installation says to add for the lines below it."""
PATIENCE = 120
"""Seconds in which a server is ready, and in which it ends."""


def typed(page: str) -> list[tuple[str, str]]:
    """Return what is typed, behind its language: each line of `sh` without its comment, each block of `python`."""
    found: list[tuple[str, str]] = []
    for language, text in BLOCK.findall(page):
        if language == "sh":
            lines = (line.partition("  #")[0].strip() for line in text.splitlines())
            found += [("sh", line) for line in lines if line and not line.startswith(SET_UP)]
        elif language == "python":
            found.append(("python", text.strip()))
    return found


class Newcomer:
    """A person with a clone of the checkout, a home directory, and nothing else."""

    def __init__(self, place: Path) -> None:
        self.home, self.clone = place / "home", place / "bertport"
        self.home.mkdir()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(self.clone)], check=True)  # noqa: S607 — as anyone has it

    @property
    def activated(self) -> Path:
        """The script that the environment is entered by."""
        return self.home / ACTIVATED

    def shell(self, line: str) -> list[str]:
        """Return the command that types a line, within the environment once it is made."""
        entered = f". {self.activated}; " if self.activated.exists() else ""
        return ["bash", "-euo", "pipefail", "-c", f"{entered}{line}"]

    def around(self) -> dict[str, str]:
        """Return the environment variables of a person who has set none."""
        return {**environment(), "HOME": str(self.home), "COLUMNS": "120"}

    def type(self, language: str, text: str) -> dict[str, Any]:
        """Type a line or a block; return it with its seconds, its exit code and the end of what it said."""
        line = text if language == "sh" else f"python - <<'END'\n{text}\nEND"
        began = time.monotonic()
        if line.startswith(SERVER):
            code, said = self.serve(line)
        else:
            done = subprocess.run(
                self.shell(line),
                cwd=self.clone,
                env=self.around(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            code, said = done.returncode, done.stdout
        seconds = round(time.monotonic() - began, 1)
        print(f"{code}  {seconds:7.1f} s  {text.splitlines()[0]}", file=sys.stderr, flush=True)
        failed = {"said": said[-2000:]} if code else {}
        return {"language": language, "text": text, "seconds": seconds, "exit": code, **failed}

    def serve(self, line: str) -> tuple[int, str]:
        """Start a server, ask whether it is ready, and end it as its supervisor would."""
        log = self.home / "serve.log"
        with (
            log.open("w", encoding="utf-8") as writing,
            subprocess.Popen(
                self.shell(f"exec {line}"), cwd=self.clone, env=self.around(), stdout=writing, stderr=subprocess.STDOUT
            ) as server,
        ):
            end = time.monotonic() + PATIENCE
            ready = False
            while not ready and server.poll() is None and time.monotonic() < end:
                if address := LISTENING.search(log.read_text(encoding="utf-8")):
                    with suppress(OSError), urllib.request.urlopen(f"{address[1]}/ready", timeout=5) as said:  # noqa: S310 — as it says
                        ready = said.status == 200  # noqa: PLR2004 — OK
                time.sleep(0.2)
            server.send_signal(signal.SIGTERM)
            try:
                code = server.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                server.kill()
                code = server.wait()
        return (code if ready else code or 1), log.read_text(encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Type every line, and write what became of each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="a fine-tuned text classifier's directory")
    parser.add_argument("--data", type=Path, required=True, help="labelled examples for it, as CSV")
    parser.add_argument("--work", type=Path, help="where the clone is made, which stays; else a temporary directory")
    given = parser.parse_args(arguments)
    origin = provenance()
    with tempfile.TemporaryDirectory() as scratch:
        place = given.work or Path(scratch)
        if (place / "home").exists():
            parser.error(f"{place} holds the clone of an earlier run: name another directory, or remove it")
        place.mkdir(parents=True, exist_ok=True)
        newcomer = Newcomer(place)
        shutil.copytree(given.checkpoint, newcomer.clone / "checkpoint")
        shutil.copy(given.data, newcomer.clone / "mine.csv")
        lines = []
        for language, text in typed(README.read_text(encoding="utf-8")):
            lines.append(newcomer.type(language, text))
            if text.startswith("pip install"):
                dev.install_torch(newcomer.home / "bertport-env" / "bin" / "python")
                lines.append(newcomer.type("sh", FURTHER))
    data = {**origin, "lines": lines}
    DATA.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    if failed := [line["text"] for line in lines if line["exit"]]:
        sys.exit(f"{len(failed)} of {len(lines)} lines failed: {failed[0]}")
    print(f"{len(lines)} lines typed, each with exit code 0, in {sum(line['seconds'] for line in lines):.0f} s")


if __name__ == "__main__":
    main()
