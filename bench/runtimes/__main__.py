"""Prove a bundle in every runtime that is to be had here, and write docs/reference/runtimes.md.

    python -m bench.runtimes run [RUNTIME ...]     each in an environment of its own; docs/data/runtimes.json
    python -m bench.runtimes page [--check]        the page, from that file and the data of other programs
    python -m bench.runtimes prove BUNDLE RUNTIME  one bundle in one runtime; the exit code is 1 where it does not hold

The default model and tiny ones of every family and head are tried (`bundles.py`), each variant by its golden vectors
(`probe.py`, `prove.mjs`), a process for each bundle. ONNX Runtime's oldest release that pyproject.toml allows, and
OpenVINO, are fetched into `.tools/runtimes`, and what runs in Node.js by npm. The page also has what `bench.arm64`,
`bench.site`, `bench.node` and `bench.plugins` have found, each from its own data file. What `run` knew of other
runtimes and bundles is kept, unless the runtime has another version now; with --bundle, which may be repeated, it tries
some.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checkout import check_section, provenance, read_data, write_section
from bench.runtimes.bundles import bundles
from bench.runtimes.page import DATA, PAGE, section
from bench.runtimes.proving import RUNTIMES, holds, job_of, proven, tensorrt_rules
from bertport.compare.evaluate.output import write_output
from bertport.runtime.errors import BertportError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Collection

PROGRAM = "bench.runtimes"
LAST = "runtimes"
"""The key of the data that has a line for each variant."""


def main(given: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="prove the bundles, and write the data and the page")
    running.add_argument("runtimes", nargs="*", help=f"of {', '.join(map(repr, RUNTIMES))}; all when none is named")
    running.add_argument("--bundle", action="append", help="one of the bundles; may be repeated")
    page = commands.add_parser("page", help="write the page from the data")
    page.add_argument("--check", action="store_true", help="compare it with the data, and write nothing")
    proving = commands.add_parser("prove", help="prove one bundle in one runtime")
    proving.add_argument("bundle", type=Path)
    proving.add_argument("runtime", help=f"one of {', '.join(map(repr, RUNTIMES))}")
    proving.add_argument("--variant", action="append", default=[], help="one of the bundle's; may be repeated")
    arguments = parser.parse_args(given)
    try:
        if arguments.command == "run":
            run(arguments.runtimes or list(RUNTIMES), arguments.bundle)
        elif arguments.command == "prove":
            found = proven(arguments.runtime, job_of(arguments.bundle, arguments.variant))
            print(json.dumps(found, indent=1))
            sys.exit(not holds(found))
        elif arguments.check:
            check_section(PAGE, section(), f"{PROGRAM} page")
        else:
            write_section(PAGE, section())
    except BertportError as error:
        sys.exit(error.message)


def run(names: list[str], only: Collection[str] | None) -> None:
    """Prove bundles in some runtimes, and keep what is known of other bundles and runtimes.

    The file is written after each bundle, so that what was found is kept where the program is stopped.

    Raises:
        UnknownNameError: for a runtime or a bundle that there is not.
    """
    for name in names:
        if name not in RUNTIMES:
            raise UnknownNameError("runtime", name, RUNTIMES)
    made = bundles(only)
    known = read_data(DATA, PROGRAM) if DATA.is_file() else {"runtimes": {}, "tensorrt_rules": {}}
    known["tensorrt_rules"] |= tensorrt_rules(made)
    for name in names:
        for title, place in made.items():
            print(f"{name}, {title} …", file=sys.stderr, flush=True)
            found = proven(name, job_of(place))
            kept = known["runtimes"].get(name, {})
            others = kept["bundles"] if kept.get("version") == found["version"] else {}
            known["runtimes"][name] = {"version": found["version"], "bundles": {**others, title: found["variants"]}}
            known["runtimes"] = {name: known["runtimes"][name] for name in RUNTIMES if name in known["runtimes"]}
            write_output(DATA, _written({**known, **provenance()}))
    write_section(PAGE, section())


def _written(data: dict[str, Any]) -> str:
    """Return the data as JSON, with a line for each variant of a bundle, so that a change is seen as one."""
    parts = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in data.items() if key != LAST]
    runtimes = []
    for name, found in data[LAST].items():
        rows = [
            f"{json.dumps(title)}: {{\n"
            + ",\n".join(f"  {json.dumps(each)}: {json.dumps(row, allow_nan=False)}" for each, row in variants.items())
            + "}"
            for title, variants in found["bundles"].items()
        ]
        version = json.dumps(found["version"])
        runtimes.append(f'{json.dumps(name)}: {{"version": {version}, "bundles": {{\n' + ",\n".join(rows) + "}}")
    return "{" + ",\n".join([*parts, f'"{LAST}": {{\n' + ",\n".join(runtimes) + "}"]) + "}\n"


if __name__ == "__main__":
    main()
