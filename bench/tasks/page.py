"""The measured parts of docs/research/tasks.md, one for each class of CPU, made of docs/data/tasks*.json alone."""

from __future__ import annotations

from statistics import fmean
from textwrap import fill
from typing import TYPE_CHECKING, Any

from bench.tasks.published import PUBLISHED
from bench.tasks.summary import BARS, LARGE_LOSS, LOW_END, POINTS, careful_low_end
from bench.tasks.tables import CHANGES, FP32, GLUE, PYTORCH, SUBJECTS, TASKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bench.tasks.summary import Bar
    from bench.tasks.tables import Change

__all__ = ["METRICS", "WIDTH", "commits_of", "difference", "lacking", "mean_difference", "section"]

METRICS = {
    "accuracy": "accuracy",
    "f1": "F1",
    "matthews": "Matthews",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "entity_f1": "entity F1",
}
"""Metrics by name, as people call them."""
MIB = 2**20
WIDTH = 120
"""Characters of a line of text."""


def section(data: Mapping[str, Any], title: str) -> str:
    """Return the text between the page's marks of a class of CPU.

    Args:
        data: What was measured on one.
        title: What people call it.
    """
    parts = [
        f"## On a CPU with {title}",
        _changes(data),
        _bars(data),
        _scores(data),
        _runs(data),
        _agreements(data),
        _speed(data),
        _sizes(data),
        _beside(data),
        _measured(data),
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def lacking(data: Mapping[str, Any]) -> list[Change]:
    """Return the changes of recipes that came after the data, of variants that the data have."""
    have = set(_eight_bit(data))
    return [row for row in CHANGES if row.date > data["date"] and have & set(row.recipes)]


def commits_of(data: Mapping[str, Any]) -> str:
    """Return the commits that runs were measured at, in words; older data say it only once, for all."""
    commits = dict.fromkeys(run.get("measured", data)["commit"][:7] for run in data["runs"])
    return f"commit{'s'[: len(commits) > 1]} {', '.join(commits)}"


def _changes(data: Mapping[str, Any]) -> str:
    """Return what the variants lack that the data are of; nothing where they are today's."""
    by_recipe = {
        name: [f"{row.what} ({row.commit})" for row in lacking(data) if name in row.recipes]
        for name in _eight_bit(data)
    }
    changed = "; ".join(f"{name}: {', '.join(since)}" for name, since in by_recipe.items() if since)
    if not changed:
        return ""
    text = (
        f"**All figures of this section, speeds too, are of {commits_of(data)}.** Recipes have changed since, "
        f"and what they make today has not been measured here. Since then, in {changed}."
    )
    return fill(text, WIDTH, break_on_hyphens=False)


def _bars(data: Mapping[str, Any]) -> str:
    names = _eight_bit(data)
    how = (
        "For each target: the figure compared with it, and whether it was met. Differences are INT8 minus fp32, in "
        "points; a score is the mean of a task's metrics. Agreement is the share of examples with fp32's label, over "
        "all seeds together; “lowest” is that of the worst seed."
    )
    lines = _opening("What INT8 costs", how, ["target", *names])
    for bar in BARS:
        cells = [_bar_cell(bar, data["summary"][name]["bars"].get(bar.name)) for name in names]
        lines.append(_line([bar.what, *cells]))
    return "\n".join([*lines, "", *_careful(data, names), *_larger_losses(data, names), "", *_refusals(data)])


def _careful(data: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Return how far the mean's interval reaches where resamples are not trusted alone; nothing without that bar."""
    least = next(bar.least for bar in BARS if bar.name == LOW_END)
    examples = {task: facts["examples"] for task, facts in data["tasks"].items()}
    ends = {
        name: careful_low_end(data["summary"][name], examples)
        for name in names
        if LOW_END in data["summary"][name]["bars"]
    }
    if not ends:
        return []
    said = ", ".join(f"{_signed(end)} ({name})" for name, end in ends.items())
    missed = [name for name, end in ends.items() if end < least]
    verdict = f"**missed** by {', '.join(missed)}" if missed else "met by these as well"
    text = (
        "That interval resamples the examples, and is too narrow where few answers change. If each task's interval is "
        "made at least as wide as Tango's interval for unchanged answers, and the half-widths are combined as "
        f"independent, the lower end is {said}: the target is {verdict}."
    )
    return [fill(text, WIDTH, break_on_hyphens=False), ""]


def _bar_cell(bar: Bar, figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "not measured"
    text = bar.show(figure["value"])
    if "low" in figure:
        text += f" ({bar.show(figure['low'])} to {bar.show(figure['high'])})"
    if "lowest" in figure:
        text += f", lowest {bar.show(figure['lowest'])}"
    if not figure["met"]:
        return f"{text}: **missed**"
    return f"{text}: met" if figure["every_run"] else f"{text}: met by the mean, **missed** by a seed"


def _larger_losses(data: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    lines = []
    for name in names:
        losses = data["summary"][name]["losses"]
        if not losses:
            continue
        said = "; ".join(
            f"{TASKS[loss['task']].title}, seed {loss['seed']}, {METRICS[loss['metric']]}: "
            f"{_signed(loss['difference'])} ({_signed(loss['low'])} to {_signed(loss['high'])}), p = {_p(loss['p'])}"
            for loss in losses
        )
        lines.append(f"- {name}: {said}.")
    if not lines:
        return [f"No metric of a single run loses more than {LARGE_LOSS * POINTS:g} points."]
    return [f"Single losses above {LARGE_LOSS * POINTS:g} points, each with its paired test:", "", *lines]


def _refusals(data: Mapping[str, Any]) -> list[str]:
    refused = [
        f"- {TASKS[run['task']].title}, seed {run['seed']}, {name}: {subject['refused']}"
        for run in data["runs"]
        for name, subject in run["subjects"].items()
        if "refused" in subject
    ]
    return ["Variants that did not hold their budget and were not added:", "", *refused] if refused else []


def _scores(data: Mapping[str, Any]) -> str:
    names = [name for name in SUBJECTS if name in data["summary"] or name in {PYTORCH, FP32}]
    how = (
        "Means over seeds, in points. PyTorch and fp32: the score. Others: the difference from fp32 with its paired "
        "95% interval, of the single run below or, for several seeds, of their mean. “Commonest label” is the score of "
        "always giving that label: an encoder that is near it has learned little, and INT8 can take little from it."
    )
    lines = _opening("Scores on dev", how, ["task", "metric", "examples", "seeds", "commonest label", *names])
    for task in _tasks(data):
        runs = _of(data, task)
        for metric in TASKS[task].metrics:
            cells = []
            for name in names:
                have = [run["subjects"][name] for run in runs if "metrics" in run["subjects"].get(name, {})]
                if not have:
                    cells.append("")
                elif name in {PYTORCH, FP32}:
                    cells.append(f"{fmean(subject['metrics'][metric]['value'] for subject in have) * POINTS:.2f}")
                else:
                    cells.append(difference(mean_difference(data, name, task, metric)))
            seeds = ", ".join(str(run["seed"]) for run in runs)
            facts = data["tasks"][task]
            least = f"{facts['commonest'][metric] * POINTS:.2f}" if metric in facts["commonest"] else ""
            lines.append(_line([TASKS[task].title, METRICS[metric], f"{facts['examples']:,}", seeds, least, *cells]))
    return "\n".join(lines)


def _runs(data: Mapping[str, Any]) -> str:
    names = _eight_bit(data)
    how = (
        "fp32 with its 95% interval; then differences from fp32 with their paired intervals and p-values: for accuracy "
        "by Tango's score interval and McNemar's exact test, for other metrics by bootstrap over the examples and a "
        "paired permutation test."
    )
    lines = _opening("Every run", how, ["task", "seed", "metric", PYTORCH, FP32, *names])
    for run in data["runs"]:
        for metric in TASKS[run["task"]].metrics:
            cells = [_value(run["subjects"].get(PYTORCH), metric, interval=False)]
            cells.append(_value(run["subjects"].get(FP32), metric, interval=True))
            cells += [_tested(run["subjects"].get(name), metric) for name in names]
            lines.append(_line([TASKS[run["task"]].title, str(run["seed"]), METRICS[metric], *cells]))
    return "\n".join(lines)


def _value(subject: Mapping[str, Any] | None, metric: str, *, interval: bool) -> str:
    if subject is None or "metrics" not in subject:
        return ""
    figure = subject["metrics"][metric]
    text = f"{figure['value'] * POINTS:.2f}"
    return f"{text} ({figure['low'] * POINTS:.1f}-{figure['high'] * POINTS:.1f})" if interval else text


def _tested(subject: Mapping[str, Any] | None, metric: str) -> str:
    if subject is None:
        return ""
    if "refused" in subject:
        return "refused"
    paired = subject["against_fp32"][metric]
    return f"{difference(paired)}, p = {_p(paired['p'])}"


def _agreements(data: Mapping[str, Any]) -> str:
    names = [PYTORCH, *_eight_bit(data)]
    how = (
        "The share of examples with the label that fp32 gives (for WNUT17, of words with its tag; for STS-B, "
        "Spearman's correlation of the scores); then, if any, the number of layers that the search left in higher "
        "precision."
    )
    lines = _opening("Agreement with fp32", how, ["task", "seed", *names])
    for run in data["runs"]:
        cells = [_agreement(run["subjects"].get(name)) for name in names]
        lines.append(_line([TASKS[run["task"]].title, str(run["seed"]), *cells]))
    return "\n".join(lines)


def _agreement(subject: Mapping[str, Any] | None) -> str:
    if subject is None:
        return ""
    if "refused" in subject:
        return "refused"
    if subject.get("rank_correlation") is not None:
        text = f"{subject['rank_correlation']:.5f}"
    else:
        agreement = subject["agreement"]
        text = f"{agreement['value']:.2%} ({agreement['low']:.1%}-{agreement['high']:.1%})"
    higher = subject.get("higher_precision")
    return f"{text}, {higher} higher" if higher else text


def _speed(data: Mapping[str, Any]) -> str:
    speed = data.get("speed")
    if not speed:
        return ""
    names = [name for name in SUBJECTS if any(name in timed["subjects"] for timed in speed["tasks"].values())]
    how = (
        "One example after the other, from text to answer; the subjects take turns in one run. The columns have texts "
        "a second over examples that are evenly spaced over dev, in brackets how many times as fast as PyTorch that "
        "is, and milliseconds for an example of median length. Here bertport's runtime runs the stock tool's graph."
    )
    lines = _opening("Speed", how, ["task", "median tokens", *names])
    for task in TASKS:
        timed = speed["tasks"].get(task)
        if timed is None:
            continue
        cells = []
        for name in names:
            figures = timed["subjects"].get(name)
            if figures is None:
                cells.append("")
                continue
            text = f"{figures['texts_per_second']['value']:.0f}/s"
            if name != PYTORCH:
                text += f" ({figures['times_pytorch']['value']:.1f}x)"
            cells.append(f"{text}, {figures['median_ms']['value']:.2f} ms")
        lines.append(_line([TASKS[task].title, f"{timed['median_tokens']:.0f}", *cells]))
    return "\n".join([*lines, "", *_timed(speed)])


def _timed(speed: Mapping[str, Any]) -> list[str]:
    """Return where and when the tasks were timed, a line each time."""
    tasks: dict[str, list[str]] = {}
    busiest: dict[str, float] = {}
    for task in (name for name in TASKS if name in speed["tasks"]):
        stamp = {**speed, **speed["tasks"][task]}
        machine = stamp["machine"]
        where = f"{_machine(machine)}; {stamp['date'][:10]}, commit {stamp['commit'][:7]}."
        tasks.setdefault(where, []).append(TASKS[task].title)
        if (machine["busy"] or 0) > machine["usable_cores"]:
            busiest[where] = max(machine["busy"], busiest.get(where, 0))
    lines = []
    for where, titles in tasks.items():
        line = f"Timed on {where}" if len(tasks) == 1 else f"- {', '.join(titles)}: timed on {where}"
        if where in busiest:
            line += f" {busiest[where]:g} processes were running there: only the ratios mean something."
        lines.append(line)
    return lines


def _sizes(data: Mapping[str, Any]) -> str:
    names = [PYTORCH, FP32, *_eight_bit(data)]
    cells = []
    for name in names:
        measured = [run["subjects"].get(name, {}) for run in data["runs"]]
        sizes = [subject["bytes"] / MIB for subject in measured if "bytes" in subject]
        cells.append(" to ".join(dict.fromkeys(f"{size:.1f}" for size in (min(sizes), max(sizes)))))
    how = "Size of the graph with its weights (for PyTorch, of the weights): smallest and largest of all runs."
    return "\n".join([*_opening("Size", how, ["", *names]), _line(["MiB", *cells])])


def _beside(data: Mapping[str, Any]) -> str:
    own = {
        task: "/".join(
            f"{fmean(run['subjects'][PYTORCH]['metrics'][metric]['value'] for run in runs) * POINTS:.1f}"
            for metric in TASKS[task].metrics
        )
        for task in GLUE
        if (runs := _of(data, task))
    }
    encoder = data["encoder"]
    size = f"{encoder['layers']} x {encoder['hidden_size']}, {encoder['parameters'] / 1e6:.0f} M"
    rows = [
        (f"**bertport's default encoder**: {size}", "dev", own, "this page: PyTorch, the mean of the seeds"),
        *((f"{row.name}: {row.size}", row.part, row.scores, row.source) for row in PUBLISHED),
    ]
    how = (
        "Two figures are F1 and accuracy for MRPC, Pearson's and Spearman's correlation for STS-B. A single figure is "
        "F1 or Spearman's on the card; MiniLM's page does not say. Figures of dev and of test are of different "
        "examples: a dev part is small, and settings chosen on it, as others may have done, make scores look better "
        "than they are. "
        "MiniLM-L6-H384 was distilled to six layers; the default encoder descends from every second layer of "
        "MiniLM-L12-H384, by way of sentence-transformers' all-MiniLM-L6-v2."
    )
    lines = _opening(
        "Beside published figures", how, ["encoder", "part", *(TASKS[task].title for task in GLUE), "source"]
    )
    for name, part, scores, source in rows:
        lines.append(_line([name, part, *(scores.get(task, "") for task in GLUE), source]))
    return "\n".join(lines)


def _measured(data: Mapping[str, Any]) -> str:
    lines = ["### What it was measured on", ""]
    for task in _tasks(data):
        facts = data["tasks"][task]
        runs = _of(data, task)
        trained = "; ".join(
            f"seed {run['seed']}: {_training(run['training'])}{_measured_else(run, data)}" for run in runs
        )
        lines.append(
            f"- {TASKS[task].title}: {facts['examples']:,} examples, `{facts['fingerprint'][:23]}…`; {trained}"
        )
    versions = ", ".join(f"{name} {version}" for name, version in data["machine"]["versions"].items())
    lines += [
        "",
        fill(f"{_machine(data['machine'])}; {versions}; {data['date'][:10]}, commit {data['commit'][:7]}.", WIDTH),
        "",
        "What answered:",
        "",
        *(fill(f"- {name}: {SUBJECTS[name].what}", WIDTH, subsequent_indent="  ") for name in _answering(data)),
    ]
    return "\n".join(lines)


def _measured_else(run: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Return when and at which commit a run was measured; nothing where that is what the section says of all."""
    stamp = run.get("measured", data)
    if stamp["commit"] == data["commit"]:
        return ""
    return f", measured {stamp['date'][:10]} at commit {stamp['commit'][:7]}"


def _training(training: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in training.items()) or "as in its run.json"


def _machine(machine: Mapping[str, Any]) -> str:
    cores = machine["usable_cores"]
    return f"{machine['cpu']} ({machine['instruction_set']}), {cores:g} core{'' if cores == 1 else 's'}"


def _eight_bit(data: Mapping[str, Any]) -> list[str]:
    return [name for name in SUBJECTS if name not in {PYTORCH, FP32} and name in data["summary"]]


def _answering(data: Mapping[str, Any]) -> list[str]:
    """Return the subjects of some run, refused ones too."""
    return [name for name in SUBJECTS if any(name in run["subjects"] for run in data["runs"])]


def _tasks(data: Mapping[str, Any]) -> list[str]:
    return [task for task in TASKS if _of(data, task)]


def _of(data: Mapping[str, Any], task: str) -> list[Mapping[str, Any]]:
    return [run for run in data["runs"] if run["task"] == task]


def _opening(title: str, how: str, headings: Sequence[str]) -> list[str]:
    """Return the lines of a section down to its table's rows."""
    text = fill(how, WIDTH, break_on_hyphens=False)
    return [f"### {title}", "", text, "", _line(headings), "|" + "---|" * len(headings)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def mean_difference(data: Mapping[str, Any], name: str, task: str, metric: str) -> Mapping[str, Any]:
    """Return a subject's difference from fp32 with its interval: of one run its own, of several that of their mean."""
    subjects = [run["subjects"].get(name, {}) for run in _of(data, task)]
    own = [subject["against_fp32"][metric] for subject in subjects if "against_fp32" in subject]
    paired: Mapping[str, Any] = own[0] if len(own) == 1 else data["summary"][name]["differences"][task][metric]
    return paired


def difference(paired: Mapping[str, Any]) -> str:
    """Return a paired difference in points, with its interval."""
    return f"{_signed(paired['difference'])} ({_signed(paired['low'])} to {_signed(paired['high'])})"


def _signed(value: float) -> str:
    """Return a difference in points; one that rounds to nothing has no sign."""
    text = f"{value * POINTS:+.2f}"
    return "0.00" if float(text) == 0 else text


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.2g}"  # noqa: PLR2004 — the digits that are shown
