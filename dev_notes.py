"""Release notes: a version's section of CHANGELOG.md, as a release's page shows it. `python3 dev.py notes` calls this.

    dev.py notes [VERSION]      the section of a version, of pyproject.toml's where none is given
    dev.py notes --tag v1.2.3   the same, refused where the tag is not that of a version that is ready to be released

A release's page shows a line break as one, so lines are joined; and it lies elsewhere, so links into the repository are
made whole where BERTPORT_REPOSITORY says where that is.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def main(*arguments: str) -> None:
    """Print the notes; exit with a sentence where there are none."""
    tag = arguments[1] if len(arguments) == 2 and arguments[0] == "--tag" else ""  # noqa: PLR2004 — the option and its value
    if not tag and (len(arguments) > 1 or "".join(arguments).startswith("-")):
        sys.exit("dev.py: notes takes a version, or --tag with a tag, and nothing else")
    version = project_version()
    if tag:
        faults = unready(tag, version)
        if faults:
            sys.exit(f"dev.py: {tag} cannot be released: {'; '.join(faults)}")
    wanted = version.partition(".dev")[0] if tag or not arguments else arguments[0]
    address = os.environ.get("BERTPORT_REPOSITORY", "").rstrip("/")
    print(notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), wanted, address, tag or f"v{wanted}"), end="")


def project_version() -> str:
    """Return the version of pyproject.toml."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def unready(tag: str, version: str) -> list[str]:
    """Return what is wrong with releasing a version under a tag, a clause each."""
    faults = []
    if tag != f"v{version}":
        faults.append(f"pyproject.toml states {version}, whose tag is v{version}")
    if re.search(r"[a-z]", version):
        faults.append(f"{version} is no version for everyone")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$", changelog, re.MULTILINE):
        faults.append(f"CHANGELOG.md has no heading '## {version} (YYYY-MM-DD)'")
    if f"\nversion: {version}\n" not in (ROOT / "CITATION.cff").read_text(encoding="utf-8"):
        faults.append("CITATION.cff states another version")
    for name in ("js/package.json", "js/package-lock.json"):
        stated = json.loads((ROOT / name).read_text(encoding="utf-8"))["version"]
        if stated != version:
            faults.append(f"{name} states {stated}")
    return faults


def notes(changelog: str, version: str, address: str = "", tag: str = "HEAD") -> str:
    """Return the section of a version without its heading.

    Args:
        changelog: the text of CHANGELOG.md.
        version: as in a heading, such as 0.2.0.
        address: https address of the repository, by which links into it are made whole; "" leaves them.
        tag: the state of the repository that such links lead to.

    Raises:
        SystemExit: when there is no such section.
    """
    sections = re.split(r"^## (\S+)[^\n]*\n", changelog, flags=re.MULTILINE)[1:]
    found = dict(zip(sections[::2], sections[1::2], strict=True))
    if version not in found:
        sys.exit(f"dev.py: CHANGELOG.md has no section {version}, but {', '.join(found)}: give one of these")
    text = _joined(found[version].strip("\n"))
    if address:
        text = re.sub(r"\]\((?!https?:|#)", f"]({address}/blob/{tag}/", text)
    return text + "\n"


def _joined(text: str) -> str:
    """Join the lines of each paragraph and of each entry of a list; blocks of code stay."""
    lines: list[str] = []
    code = False
    for line in text.split("\n"):
        fence = line.lstrip().startswith("```")
        begins = not line.strip() or re.match(r"\s*(?:[-*]\s|#+\s|\||\d+\.\s)", line)
        if code or fence or begins or not lines or not lines[-1].strip() or lines[-1].startswith("#"):
            lines.append(line)
        else:
            lines[-1] += f" {line.strip()}"
        code = code is not fence
    return "\n".join(lines)
