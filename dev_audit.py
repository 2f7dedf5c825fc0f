"""Ask advisory sources about the packages that bertport runs on and is built with: `python3 dev.py audit` calls this.

    dev_audit.py PIP_AUDIT PYTHON

PIP_AUDIT is that program; PYTHON the interpreter whose packages are looked at. A known vulnerability fails, unless it
is listed below with the reason why it is accepted. A source that cannot be reached says nothing about any package, and
pip-audit counts a package that its source does not know as one without vulnerabilities: so each package that no source
knew is counted here, and said not to be audited. That fails nothing, and is no pass.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ACCEPTED: dict[str, str] = {}
"""By the advisory's id or an alias of it: why it does not matter here, and why the package is not raised."""

SOURCES: tuple[tuple[str, ...], ...] = (("-s", "pypi"), ("-s", "osv"))
"""pip-audit's options for each source; the next is asked about what the one before did not know."""
SECONDS = 15
"""For a source to answer."""


def main() -> None:
    """Audit, say what was found, and fail for a vulnerability."""
    tool, python = sys.argv[1:]
    packages = installed(python)
    vulnerabilities, audited = audit(tool, packages)
    for line in vulnerabilities:
        print(f"dev.py: vulnerable: {line}", file=sys.stderr)
    for number, reason in ACCEPTED.items():
        print(f"dev.py: accepted: {number}: {reason}", file=sys.stderr)
    print(f"dev.py: {verdict(vulnerabilities, audited, packages)}", file=sys.stderr)
    sys.exit(1 if vulnerabilities else 0)


def installed(python: str) -> list[str]:
    """List the packages of an environment as `name==version`; of `2.13.0+cpu` advisories know `2.13.0`."""
    command = [python, "-m", "pip", "list", "--format", "json", "--exclude-editable", "--disable-pip-version-check"]
    command += ["--exclude", "pip"]  # it installs packages, and nothing runs on it
    listing = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return sorted(f"{package['name'].lower()}=={package['version'].partition('+')[0]}" for package in listing)


def audit(tool: str, packages: list[str], sources: tuple[tuple[str, ...], ...] = SOURCES) -> tuple[list[str], set[str]]:
    """Ask each source about what none before it knew.

    Returns:
        A line for each vulnerability, and the names of the packages that some source knew.
    """
    vulnerabilities: list[str] = []
    audited: set[str] = set()
    for options in sources:
        left = [package for package in packages if package.partition("==")[0] not in audited]
        if not left:
            break
        report = ask(tool, left, options)
        lines, known = read(report)
        vulnerabilities += lines
        audited |= known
    return vulnerabilities, audited


def ask(tool: str, packages: list[str], options: tuple[str, ...]) -> str:
    """Run pip-audit on packages as they are pinned, and give the JSON that it prints; nothing where it gave up."""
    with tempfile.TemporaryDirectory() as scratch:
        listed = Path(scratch) / "requirements.txt"
        listed.write_text("\n".join(packages) + "\n", encoding="utf-8")
        command = [tool, "-r", str(listed), "--no-deps", "--disable-pip", "--format", "json"]
        command += ["--progress-spinner", "off", "--timeout", str(SECONDS), *options]
        for number in ACCEPTED:
            command += ["--ignore-vuln", number]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        reason = last.partition("(")[0].strip()
        print(f"dev.py: the advisories of pip-audit {' '.join(options)} cannot be had: {reason:.100}", file=sys.stderr)
    return done.stdout


def read(report: str) -> tuple[list[str], set[str]]:
    """Return the vulnerabilities of pip-audit's JSON, a line each, and the packages that its source knew."""
    if not report.strip():
        return [], set()
    lines, known = [], set()
    for package in json.loads(report)["dependencies"]:
        if "skip_reason" in package:
            continue
        known.add(package["name"].lower())
        for one in package["vulns"]:
            mended = ", ".join(one["fix_versions"]) or "no release"
            lines.append(f"{package['name']} {package['version']}: {one['id']}, mended in {mended}")
    return lines, known


def verdict(vulnerabilities: list[str], audited: set[str], packages: list[str]) -> str:
    """Say what the audit came to."""
    if not audited:
        return f"NOT AUDITED: no advisory source that can be reached knows any of {len(packages)} packages"
    unknown = [package for package in packages if package.partition("==")[0] not in audited]
    beside = f"; NOT AUDITED, unknown to every source: {', '.join(unknown)}" if unknown else ""
    return f"{len(vulnerabilities)} known vulnerabilities in {len(audited)} packages{beside}"


if __name__ == "__main__":
    main()
