"""Speed over time, by class of CPU: ratios, fidelity, sizes and counts of nodes, a line a measurement.

    python -m bench.history append [--rounds 12] [--texts 48]
    python -m bench.history collect
    python -m bench.history pages | check
    python -m bench.history guard

`append` has the embedded model's int8-dynamic, its fp32 and the last release's int8-dynamic take turns at the same
texts, each in a process of its own, and adds a line to docs/data/history-CLASS.jsonl of this machine's class of CPU.
`collect` adds what docs/data/performance-*.json held at commits of the past. `pages` writes docs/research/history.md
and its plots; `check` exits with 1 where they are not what the data say. `guard` is what CI asks: it ends with 1 where
fidelity, sizes or counts of nodes are worse than in the last entry, a short run of old against new is slower, or the
best words of a few texts agree less with fp32's than the manifest says; it writes nothing, and looks at no time in
seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time

from bench.checkout import ROOT, number
from bench.history.collect import KEPT, collect, sources_commit
from bench.history.entries import SOURCES, Entry, Times, about, git, here, path_of
from bench.history.guard import agreement_complaints, bundle_complaints, speed_complaints
from bench.history.pages import check_pages, histories, write_pages
from bench.history.release import MissingReleaseError, last_release, unpacked
from bench.history.turns import Process, Row, take_turns
from bench.performance.environments import HIDDEN
from bench.performance.inputs import inputs_of
from bertport.measure.machine import describe_machine

VARIANT, REFERENCE = "int8-dynamic", "fp32"
"""Variant that is measured, and the variant of the same bundle that it is compared with."""
SINGLE = 0.5
"""Share of the texts that are answered one at a time."""
GUARD = {"texts": 16, "rounds": 5}
"""Amount of measuring that CI can wait for."""
JUDGED = 128
"""Texts whose best words are compared with fp32's there; no time is taken."""


def say(text: str) -> None:
    """Report progress."""
    print(f"bench.history: {text}", file=sys.stderr, flush=True)


def measure(*, texts: int, rounds: int, reference: bool = True) -> Entry:
    """Return an entry of the working tree.

    Args:
        texts: Number of texts.
        rounds: Turns that each row takes.
        reference: Whether the bundle's own fp32 takes turns, too.

    Raises:
        MissingReleaseError: when the repository does not hold the last release.
    """
    release, chosen = last_release(), inputs_of(texts)["fill-mask"]
    together, single = f"{texts} texts at once", "one text at a time"
    workloads = {together: (chosen, texts), single: (chosen[: max(1, int(texts * SINGLE))], 1)}
    with unpacked(release) as tree:
        rows = [
            Row(name=VARIANT, tree=ROOT, variant=VARIANT),
            Row(name=release.name, tree=tree, variant=VARIANT),
            *([Row(name=REFERENCE, tree=ROOT, variant=REFERENCE)] if reference else []),
        ]
        answered = take_turns(rows, workloads, rounds=rounds, say=say)
    machine = dataclasses.asdict(describe_machine())
    times = [
        Times.of(
            answered[VARIANT, workload].faster_than(answered[row.name, workload]),
            ours=VARIANT,
            than=row.name,
            workload=workload,
        )
        for workload in workloads
        for row in rows[1:]
    ]
    ours, theirs = (answered[name, together].words for name in (VARIANT, release.name))
    return Entry(
        date=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        commit=sources_commit(),
        source=f"python -m bench.history append --texts {texts} --rounds {rounds}",
        machine={key: machine[key] for key in KEPT} | {"hidden": HIDDEN},
        times=tuple(times),
        same_words=sum(map(str.__eq__, ours, theirs)) / len(ours),
        **about(here),
    )


def agreeing(count: int) -> int:
    """Return for how many of some texts the variant's best word is that of fp32."""
    texts, words = inputs_of(count)["fill-mask"], []
    for variant in (VARIANT, REFERENCE):
        with Process(Row(name=variant, tree=ROOT, variant=variant)) as process:
            words.append(process.answer(texts, count)["words"])
    return sum(map(str.__eq__, *words))


def append(given: argparse.Namespace) -> None:
    """Measure, and add an entry to the file of this machine's class."""
    if git("status", "--porcelain", "--", *SOURCES):
        sys.exit(f"{', '.join(SOURCES)} differ from the last commit, and an entry names one: commit first")
    histories()  # a file that cannot be read is told of before minutes are measured
    entry = measure(texts=given.texts, rounds=given.rounds)
    path = path_of(entry.machine["instruction_set"])
    with path.open("a", encoding="utf-8") as lines:
        lines.write(entry.line())
    for each in entry.times:
        print(f"{each.ours}, {each.workload}: {each.value:.2f} times {each.than} ({each.low:.2f} to {each.high:.2f})")
    write_pages()
    print(f"added to {path.relative_to(ROOT)}; docs/research/history.md is written anew")


def guard(_: argparse.Namespace) -> None:
    """Say what is worse, and end with 1 where something is."""
    entry = measure(**GUARD, reference=False)
    last = max((each for entries in histories().values() for each in entries if each.sizes), key=lambda each: each.date)
    same = agreeing(JUDGED)
    say(f"{VARIANT} has the best word of {REFERENCE} for {same} of {JUDGED} texts")
    found = [
        *bundle_complaints(entry, last),
        *speed_complaints(entry, last_release().name),
        *agreement_complaints(same, JUDGED, entry.fidelity[VARIANT]["mlm top1_agreement"]),
    ]
    if found:
        sys.exit("\n".join(found))
    print("fidelity, sizes, nodes and speed are not worse than before")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    appending = commands.add_parser("append", help="measure, and add a line")
    appending.add_argument("--rounds", type=number, default=12, help="turns that each row takes [12]")
    appending.add_argument("--texts", type=number, default=48, help="texts [48]")
    appending.set_defaults(run=append)
    for name, run, text in (
        ("collect", lambda _: print(*collect(), sep="\n"), "add what docs/data held at commits of the past"),
        ("pages", lambda _: write_pages(), "write the page and its plots"),
        ("check", lambda _: check_pages(), "compare the page with the data"),
        ("guard", guard, "compare with the last entry and the last release"),
    ):
        commands.add_parser(name, help=text).set_defaults(run=run)
    given = parser.parse_args()
    try:
        given.run(given)
    except MissingReleaseError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
