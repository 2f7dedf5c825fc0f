"""Results of bench.serving, as a section of docs/research/serving.md, a plot, and a verdict."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from operator import itemgetter
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.checkout import origin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

OFFLINE_SHARE, OVERHEAD_MS, TIMES, AFTER, GROWTH, TIMEOUT = 0.85, 1.0, 4.0, 0.9, 1.1, 30
"""The bars, and what counts as `as fast as before` and as `flat` on a noisy machine."""
ALLOWED = {"200", "429"}
BASE = "base"
"""The bundle of BERT-base size, by its name on the command line; the first bundle is the default one."""


def section(result: Mapping[str, Any]) -> str:
    """Return the section's text."""
    how = (
        "`python -m bench.serving --bundle default --bundle base --check` writes this section in twenty-five minutes. "
        f"{result['clients']} clients in a second process on the same machine ask for fill-mask on held-out "
        "sentences, each again as soon as it is answered. Offline is "
        "`predict` on the same texts in one process, with as many streams as the server. Medians of "
        f"{result['rounds']} rounds of {result['seconds']:g} s. Machine: {_machine(result['machine'])}; "
        f"{origin(result)}. "
        "Ratios and differences are medians of the rounds' own, and need not be those of the medians beside them."
    )
    head = (
        "| model, variant | offline, texts/s | served, requests/s | share | CPU a request beyond offline's, ms "
        "| event loop's CPU a request, ms | p50, ms | p99, ms |"
    )
    lines = ["## Measured", "", how, "", *_verdicts(result), head, "|---|---|---|---|---|---|---|---|"]
    for name, measured in result["throughput"].items():
        rounds = measured["rounds"]
        served = _median(rounds, lambda turn: turn["serving"]["requests_per_s"])
        lines.append(
            f"| {name}, {measured['variant']} | {_median(rounds, lambda turn: turn['offline']['texts_per_s']):.1f} "
            f"| {served:.1f} | {share(rounds):.2f} | {overhead(rounds):.2f} "
            f"| {_median(rounds, lambda turn: turn['serving']['loop_ms_per_request']):.2f} "
            f"| {_median(rounds, lambda turn: turn['serving']['p50_ms']):.0f} "
            f"| {_median(rounds, lambda turn: turn['serving']['p99_ms']):.0f} |"
        )
    lines += _streams(result["throughput"])
    if "peer" in result:
        lines += _peer(result["peer"])
    lines += ["", *_behaviour(result), ""]
    return "\n".join(lines)


def _verdicts(result: Mapping[str, Any]) -> list[str]:
    said = {True: "yes", False: "**no**", None: ""}
    rows = [f"| {bar.name} | {bar.wanted} | {bar.measured} | {said[bar.met]} |" for bar in bars(result)]
    return ["| what has to hold | target | found | met |", "|---|---|---|---|", *rows, ""]


def _streams(throughput: Mapping[str, Any]) -> list[str]:
    """Return what streams gain: with as many as suit the machine, and with `--streams 1`, from the same rounds."""
    lines = [
        "",
        "What streams gain, in the same rounds: one batch at a time is `--streams 1`, offline `load(..., streams=1)`.",
        "",
        "| model | | one batch at a time | streams | ratio |",
        "|---|---|---|---|---|",
    ]
    figures = (
        ("offline", "texts_per_s", "offline, texts/s", ".1f"),
        ("offline", "cpu_ms_per_text", "offline, CPU a text, ms", ".2f"),
        ("serving", "requests_per_s", "served, requests/s", ".1f"),
        ("serving", "cpu_ms_per_request", "served, CPU a request, ms", ".2f"),
        ("serving", "p50_ms", "served, p50, ms", ".0f"),
        ("serving", "p99_ms", "served, p99, ms", ".0f"),
    )
    for name, measured in throughput.items():
        for kind, key, said, form in figures:
            one = [turn[f"{kind}_one_stream"][key] for turn in measured["rounds"]]
            several = [turn[kind][key] for turn in measured["rounds"]]
            ratio = median(after / before for before, after in zip(one, several, strict=True))
            lines.append(f"| {name} | {said} | {median(one):{form}} | {median(several):{form}} | {ratio:.2f} |")
    return lines


def _peer(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = []
    for kind, name in (
        ("ours", "`bertport serve`"),
        ("pipeline", "transformers' pipeline behind Starlette and uvicorn"),
    ):
        own = [turn[kind] for turn in rounds]
        rate, p99 = (_median(own, itemgetter(figure)) for figure in ("requests_per_s", "p99_ms"))
        rows.append(f"| {name} | {rate:.1f} | {p99:.0f} |")
    head = ["", "| server, same model and machine, in turns | requests/s | p99, ms |", "|---|---|---|"]
    return [*head, *rows, "", f"That is {times(rounds):.1f} times as many (median of the rounds' ratios)."]


def _behaviour(result: Mapping[str, Any]) -> list[str]:
    over, end, soak = result["overload"], result["end"], result["soak"]
    tried = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in sorted(soak["tried"].items()))
    overload = (
        f"At {over['rate']:.0f} requests a second, five times its rate, it gave {_counts(over['outcomes'])}; "
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
    picture = "![Resident memory of the server during the soak](../images/serving-memory.svg)"
    return [overload, "", ended, "", soaked, "", picture]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One line of what has to hold."""

    name: str
    """Name of the figure."""
    wanted: str
    """The bar."""
    measured: str
    """Value that was measured."""
    met: bool | None
    """Whether it holds; None where this run did not measure it."""


def check(result: Mapping[str, Any]) -> None:
    """Fail where a bar is missed, naming each."""
    if missed := [f"{bar.name}: {bar.measured}, and not {bar.wanted}" for bar in bars(result) if bar.met is False]:
        sys.exit("targets missed:\n" + "\n".join(missed))


def bars(result: Mapping[str, Any]) -> list[Bar]:
    """Compare what was measured with every bar."""
    throughput = result["throughput"]
    base, first = throughput.get(BASE), throughput[next(iter(throughput))]
    part = share(base["rounds"]) if base else None
    beyond = overhead(first["rounds"])
    over, end, soak = result["overload"], result["end"], result["soak"]
    counted: Counter[str] = Counter()
    for model in throughput.values():
        for turn in model["rounds"]:
            counted.update(turn["serving"]["outcomes"])
            counted.update(turn["serving_one_stream"]["outcomes"])
    codes = {code for model in throughput.values() for turn in model["rounds"] for code in turn["exit_codes"]}
    grew = growth(soak["memory"])
    after = over["after_requests_per_s"] / over["before_requests_per_s"]
    lost = {name: count for name, count in end["outcomes"].items() if name not in {"200", "refused"}}
    ratio = times(result["peer"]) if "peer" in result else None
    return [
        Bar(
            name=f"served over offline texts a second, BERT-base, {result['clients']} clients",
            wanted=f">= {OFFLINE_SHARE}",
            measured="not measured" if part is None else f"{part:.2f}",
            met=None if part is None else part >= OFFLINE_SHARE,
        ),
        Bar(
            name="the server's CPU for a request beyond offline's, default model",
            wanted=f"<= {OVERHEAD_MS:g} ms",
            measured=f"{beyond:.2f} ms",
            met=beyond <= OVERHEAD_MS,
        ),
        Bar(
            name="answers under load, exit code",
            wanted="200 or 429, 0",
            measured=f"{_counts(counted)}; {', '.join(map(str, sorted(codes)))}",
            met=counted.keys() <= ALLOWED and codes == {0},
        ),
        Bar(
            name="answers at five times its rate",
            wanted="200 or 429",
            measured=_counts(over["outcomes"]),
            met=over["outcomes"].keys() <= ALLOWED and "200" in over["outcomes"],
        ),
        Bar(
            name="slowest accepted request meanwhile",
            wanted=f"<= {TIMEOUT} s",
            measured=f"{over['slowest_accepted_s']:.1f} s",
            met=over["slowest_accepted_s"] <= TIMEOUT,
        ),
        Bar(
            name="requests a second afterwards over before",
            wanted=f">= {AFTER}",
            measured=f"{after:.2f}",
            met=after >= AFTER,
        ),
        Bar(
            name="SIGTERM under load: accepted requests without a result, exit code",
            wanted="0, 0",
            measured=f"{sum(lost.values())}{f' ({_counts(lost)})' if lost else ''}, {end['exit_code']}",
            met=not lost and end["exit_code"] == 0 and end["outcomes"].get("200", 0) > 0,
        ),
        Bar(
            name="soak: answers to honest clients that are neither 200 nor 429, errors logged, exit code",
            wanted="0, 0, 0",
            measured=f"{len(soak['wrong'])}, {soak['errors_logged']}, {soak['exit_code']}",
            met=not soak["wrong"] and not soak["errors_logged"] and not soak["exit_code"],
        ),
        Bar(
            name="soak: memory in its last quarter over its second",
            wanted=f"<= {GROWTH}",
            measured=f"{grew:.2f}",
            met=grew <= GROWTH,
        ),
        Bar(
            name="requests a second over those of transformers' pipeline behind the same framework",
            wanted=f">= {TIMES:g}",
            measured="not measured" if ratio is None else f"{ratio:.1f}",
            met=None if ratio is None else ratio >= TIMES,
        ),
    ]


def share(rounds: Sequence[Mapping[str, Any]]) -> float:
    """Return served over offline texts a second: the median of the rounds' ratios."""
    return _median(rounds, lambda turn: turn["serving"]["requests_per_s"] / turn["offline"]["texts_per_s"])


def overhead(rounds: Sequence[Mapping[str, Any]]) -> float:
    """Return the server's CPU a request beyond what the same text costs offline, ms."""
    return _median(rounds, lambda turn: turn["serving"]["cpu_ms_per_request"] - turn["offline"]["cpu_ms_per_text"])


def times(rounds: Sequence[Mapping[str, Any]]) -> float:
    """Return our requests a second over the peer's: the median of the rounds' ratios."""
    return _median(rounds, lambda turn: turn["ours"]["requests_per_s"] / turn["pipeline"]["requests_per_s"])


def growth(memory: Sequence[tuple[float, int]]) -> float:
    """Return memory in the last quarter over that in the second, where everything has been seen once."""
    sizes = [size for _, size in memory]
    quarter = max(1, len(sizes) // 4)
    return median(sizes[-quarter:]) / median(sizes[quarter : 2 * quarter] or sizes)


def _counts(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{outcome}: {count:,}" for outcome, count in sorted(outcomes.items()))


def _machine(machine: Mapping[str, Any]) -> str:
    cores = f"{machine['usable_cores']:g} cores"
    return ", ".join((machine["cpu"], machine["instruction_set"], cores, machine["system"]))


def _median(rounds: Sequence[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], float]) -> float:
    return median(map(value, rounds))
