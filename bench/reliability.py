"""Write the measured part of docs/research/reliability.md from what the programs that attack and fuzz the server wrote.

    python -m bench.reliability [--check]

With `--check`, nothing is written, and the exit code is 1 where the page is not what the data say.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from bench.checkout import ROOT, check_section, origin, write_section
from bench.serving.attacks import BATCH_RATIO, HEALTH_P99_MS, verdicts

PAGE = ROOT / "docs" / "research" / "reliability.md"
DATA = ROOT / "docs" / "data"
MIB = 1 << 20


def section() -> str:
    """Return the measured part."""
    return "\n".join(
        [*_attacks(_read("serving-attacks")), *_fuzz(_read("serving-fuzz")), *_soak(_read("serving-memory"))]
    )


def _read(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    return value


def _attacks(data: dict[str, Any]) -> list[str]:
    rows = []
    for attack in data["attacks"].values():
        answers = ", ".join(f"{status}: {count:,}" for status, count in sorted(attack["answers"].items()))
        memory, probes = attack["memory"], attack["health_ms"]["p99"]
        cells = [attack["case"], attack["summary"], attack["clients"], f"{probes:.0f}", f"{attack['batch_ratio']:.1f}"]
        cells += [_mib(memory["idle"]), _mib(memory["peak"]), answers, "no" if verdicts(attack) else "yes"]
        rows.append(_row(cells))
    text = f"""
## Attacked

`python -m bench.serving.attacks`: for {data["seconds"]:g} seconds each, the clients of an attack send the same request
again and again to a server of the default model in INT8. Meanwhile `/health` is asked a hundred times a second (limit:
{HEALTH_P99_MS:.0f} ms at p99), and an honest batch of 40 sentences again and again (limit: {BATCH_RATIO:g} times as
long as alone, medians). Memory may be twice the idle server's plus the 256 MiB that answers may hold.
{_when(data)}
"""
    names = ["case", "what is sent", "clients", "`/health` p99, ms", "batch, times as long", "idle, MiB", "peak, MiB"]
    end = """
`closed` and `unanswered` are requests that were under way when the attack ended, or, for S6, connections that the
server closed while the client was sending."""
    return [text, _row([*names, "answers", "held"]), "|---|---|---:|---:|---:|---:|---:|---|---|", *rows, end]


def _fuzz(data: dict[str, Any]) -> list[str]:
    statuses = ", ".join(f"{status}: {count:,}" for status, count in data["statuses"].items())
    memory = data["resident_bytes"]
    wrong = "nothing" if not data["wrong"] else f"{len(data['wrong'])} things"
    text = f"""
## Fuzzed

`python -m bench.serving.fuzz`: {data["requests"]:,} malformed requests from seed {data["seed"]} over every route, raw
HTTP included, and {data["honest"]:,} honest ones among them, over {data["connections"]} connections in
{data["seconds"]:.0f} seconds. Found: {wrong} that breaks a promise (a 5xx that is not documented, a complete request
without an answer, a line outside the log, a stack trace, a wrong answer to an honest request). Answers: {statuses}.
Resident memory {_mib(memory["start"])} MiB before and {_mib(memory["end"])} MiB after; exit code {data["exit_code"]}.
{_when({**data, "date": data["created"]})}"""
    return [text]


def _soak(data: dict[str, Any]) -> list[str]:
    text = f"""
## An hour within 512 MB

`python -m bench.serving.memory`: the default model in INT8 under a `--memory` of {_mib(data["memory"])} MiB in a
control group of {_mib(data["group"])} MiB, with {data["clients"]} clients at once, honest and hostile, for
{data["seconds"] / 60:.0f} minutes: {sum(data["tried"].values()):,} in all. Resident memory, medians:
{_mib(data["second_quarter"])} MiB in the second quarter, {_mib(data["last_quarter"])} MiB in the last (limit: 5% more),
{_mib(data["peak"])} MiB at most; {data["oom_kills"]} kills by the kernel, {len(data["wrong"])} wrong answers,
{len(data["errors_logged"])} logged errors, exit code {data["exit_code"]}.
{_when(data)}
"""
    return [text]


def _row(cells: list[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _mib(size: float) -> str:
    return f"{size / MIB:.0f}"


def _when(data: dict[str, Any]) -> str:
    machine = data["machine"]
    described = f"{machine['cpu']}, {machine['instruction_set']}, {machine['physical_cores']} cores"
    return f"Machine: {described}; {origin(data)}."


def main() -> None:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        check_section(PAGE, section(), "bench.reliability")
    else:
        write_section(PAGE, section())


if __name__ == "__main__":
    main()
