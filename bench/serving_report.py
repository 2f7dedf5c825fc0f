"""What bench/serving.py measured, as a section of docs/serving.md, a plot, and a verdict."""

from __future__ import annotations

import sys
from operator import itemgetter
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
OFFLINE_SHARE, OVERHEAD_MS, TIMES, AFTER, GROWTH, TIMEOUT = 0.85, 1.0, 4.0, 0.9, 1.1, 30
"""The bars of issue 7, and what counts as `as fast as before` and as `flat` on a noisy machine."""
ALLOWED = {"200", "429"}


def section(result: Mapping[str, Any]) -> str:
    """Give the section's text."""
    how = (
        f"By `python bench/serving.py`, which writes this section: {result['clients']} clients in a second process on "
        "the same machine, each asking again as soon as it is answered; fill-mask on held-out sentences; medians of "
        f"{result['rounds']} rounds of {result['seconds']:g} s. Machine: {_machine(result['machine'])}."
    )
    head = (
        "| model, variant | offline, texts/s | served, requests/s | share | CPU beyond the model, ms "
        "| p50, ms | p99, ms |"
    )
    lines = ["## Measured", "", how, "", head, "|---|---|---|---|---|---|---|"]
    for name, found in result["throughput"].items():
        rounds = found["rounds"]
        served = _median(rounds, lambda each: each["serving"]["requests_per_s"])
        lines.append(
            f"| {name}, {found['variant']} | {_median(rounds, lambda each: each['offline']['texts_per_s']):.1f} "
            f"| {served:.1f} | {share(rounds):.2f} | {overhead(rounds):.2f} "
            f"| {_median(rounds, lambda each: each['serving']['p50_ms']):.0f} "
            f"| {_median(rounds, lambda each: each['serving']['p99_ms']):.0f} |"
        )
    if "peer" in result:
        lines += _peer(result["peer"])
    lines += ["", *_behaviour(result), ""]
    return "\n".join(lines)


def _peer(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = []
    for kind, name in (
        ("ours", "`bertport serve`"),
        ("pipeline", "transformers' pipeline behind Starlette and uvicorn"),
    ):
        own = [each[kind] for each in rounds]
        rate, p99 = (_median(own, itemgetter(figure)) for figure in ("requests_per_s", "p99_ms"))
        rows.append(f"| {name} | {rate:.1f} | {p99:.0f} |")
    head = ["", "| server, same model and machine, in turns | requests/s | p99, ms |", "|---|---|---|"]
    return [*head, *rows, "", f"That is {times(rounds):.1f} times as many (median of the rounds' ratios)."]


def _behaviour(result: Mapping[str, Any]) -> list[str]:
    over, end, soak = result["overload"], result["end"], result["soak"]
    tried = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in sorted(soak["tried"].items()))
    overload = (
        f"Asked for {over['rate']:.0f} requests a second, five times its rate, it gave {_counts(over['outcomes'])}; "
        f"the slowest accepted one took {over['slowest_accepted_s']:.1f} s, a refusal {over['refusal_p50_ms']:.0f} ms "
        f"(median). Before, it did {over['before_requests_per_s']:.1f} requests a second, afterwards "
        f"{over['after_requests_per_s']:.1f}."
    )
    ended = (
        f"SIGTERM under load: exit code {end['exit_code']}; {_counts(end['outcomes'])}; requests without an answer: "
        f"{end['outcomes'].get('closed', 0)} (`refused` never connected)."
    )
    soaked = (
        f"Soak of {soak['memory'][-1][0]:.0f} s ({tried}): {len(soak['wrong'])} wrong answers to honest clients, "
        f"{soak['errors_logged']} logged errors, memory in its last quarter {growth(soak['memory']):.2f} times that "
        "of the second."
    )
    picture = "![Resident memory of the server during the soak](images/serving-memory.svg)"
    return [overload, "", ended, "", soaked, "", picture]


def write_section(page: Path, text: str) -> None:
    """Put the section between its marks, at the page's end when it has none."""
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    if BEGIN not in old:
        old = f"{old.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, _, rest = old.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")


def plot_memory(memory: Sequence[tuple[float, int]], path: Path) -> None:
    """Draw the resident memory over time."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 2.6), layout="constrained")
    axes.plot([at for at, _ in memory], [size / 2**20 for _, size in memory])
    axes.set(xlabel="seconds", ylabel="resident, MiB", ylim=(0, None))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def check(result: Mapping[str, Any]) -> None:
    """Fail where a bar is missed, naming each."""
    if missed := [text for good, text in _bars(result) if not good]:
        sys.exit("bars missed:\n" + "\n".join(missed))


def _bars(result: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    """Give each bar: whether it is met, and what was found."""
    for name, found in result["throughput"].items():
        part = share(found["rounds"])
        yield part >= OFFLINE_SHARE, f"{name}: {part:.2f} of offline, and not {OFFLINE_SHARE}"
        for each in found["rounds"]:
            outcomes, code = each["serving"]["outcomes"], each["exit_code"]
            yield outcomes.keys() <= ALLOWED and not code, f"{name}: {outcomes}, exit code {code}"
    beyond = overhead(next(iter(result["throughput"].values()))["rounds"])
    yield beyond <= OVERHEAD_MS, f"{beyond:.2f} ms of CPU beyond the model, and not {OVERHEAD_MS}"
    if "peer" in result:
        yield times(result["peer"]) >= TIMES, f"{times(result['peer']):.1f} times the pipeline, and not {TIMES}"
    over, end, soak = result["overload"], result["end"], result["soak"]
    slowest = over["slowest_accepted_s"]
    yield over["outcomes"].keys() <= ALLOWED, f"overload: {over['outcomes']}"
    yield slowest <= TIMEOUT, f"overload: the slowest took {slowest:.1f} s"
    as_fast = over["after_requests_per_s"] >= AFTER * over["before_requests_per_s"]
    yield as_fast, "slower after the overload than before"
    yield not end["exit_code"] and end["outcomes"].keys() <= {"200", "refused"}, f"SIGTERM: {end}"
    yield not soak["wrong"] and not soak["exit_code"], f"soak: {soak['wrong'][:5]}, exit code {soak['exit_code']}"
    grew = growth(soak["memory"])
    yield grew <= GROWTH, f"soak: memory grew {grew:.2f} times"


def share(rounds: Sequence[Mapping[str, Any]]) -> float:
    """Give served over offline texts a second: the median of the rounds' ratios."""
    return _median(rounds, lambda each: each["serving"]["requests_per_s"] / each["offline"]["texts_per_s"])


def overhead(rounds: Sequence[Mapping[str, Any]]) -> float:
    """Give the server's CPU a request beyond what the same text costs offline, ms."""
    return _median(rounds, lambda each: each["serving"]["cpu_ms_per_request"] - each["offline"]["cpu_ms_per_text"])


def times(rounds: Sequence[Mapping[str, Any]]) -> float:
    """Give our requests a second over the peer's: the median of the rounds' ratios."""
    return _median(rounds, lambda each: each["ours"]["requests_per_s"] / each["pipeline"]["requests_per_s"])


def growth(memory: Sequence[tuple[float, int]]) -> float:
    """Give memory in the last quarter over that in the second, where everything has been seen once."""
    sizes = [size for _, size in memory]
    quarter = max(1, len(sizes) // 4)
    return median(sizes[-quarter:]) / median(sizes[quarter : 2 * quarter] or sizes)


def _counts(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{outcome}: {count:,}" for outcome, count in sorted(outcomes.items()))


def _machine(machine: object) -> str:
    if isinstance(machine, dict):
        return ", ".join(
            str(machine[key]) for key in ("cpu", "instruction_set", "usable_cores", "system") if key in machine
        )
    return str(machine)


def _median(rounds: Sequence[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], float]) -> float:
    return median(map(value, rounds))
